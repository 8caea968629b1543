"""The safety guard: what is held, what is not, and that an approval covers what was shown."""

from __future__ import annotations

from dataclasses import replace

import pytest

from skynet.guard import Circumstances, hazards
from skynet.ops import Delete, Mkdir, Op, Plan, Record, Rmdir, Upload
from skynet.tree import DIR, Entry
from tests.support.worlds import content_entry

OLD, NEW = content_entry(b"old", 5), content_entry(b"new", 6)
CALM = Circumstances(entries=100, found=90)


def plan(*ops: Op) -> Plan:
    return Plan(ops, [()] * len(ops))


def deletes(count: int, *, foreign: bool = False) -> list[Op]:
    return [Delete(b"%d" % number, OLD, foreign) for number in range(count)]


def codes(ops: list[Op], around: Circumstances = CALM) -> list[str]:
    return [hazard.code for hazard in hazards(plan(*ops), around)]


def test_usual_plan_passes() -> None:
    ops: list[Op] = [Mkdir(b"d", Entry(DIR)), Upload(b"a", NEW, OLD), Record(b"b", None)]
    assert codes([*ops, *deletes(50)]) == []


@pytest.mark.parametrize(
    ("entries", "count", "held"),
    [(100, 50, False), (100, 51, True), (10_000, 1000, False), (10_000, 1001, True), (1, 1, True)],
)
def test_mass_delete_is_held_above_either_limit(entries: int, count: int, held: bool) -> None:
    around = replace(CALM, entries=entries)
    assert codes(deletes(count), around) == (["mass-delete"] if held else [])


def test_directories_count_as_deleted_entries() -> None:
    around = replace(CALM, entries=3)
    assert codes([Delete(b"d/a", OLD), Rmdir(b"d")], around) == ["mass-delete"]


def test_limits_are_the_mirrors() -> None:
    around = replace(CALM, max_fraction=1.0, max_entries=99)
    assert codes(deletes(99), around) == []
    assert codes(deletes(100), around) == ["mass-delete"]


def test_emptied_root_is_held_however_few_the_deletes() -> None:
    around = replace(CALM, found=0, root_changed=True)
    assert codes(deletes(1), around) == ["emptied-root"]
    assert codes([], around) == []


def test_swapped_root_is_held_only_if_something_is_deleted() -> None:
    around = replace(CALM, root_changed=True)
    assert codes([Rmdir(b"d")], around) == ["swapped-root"]
    assert codes([Upload(b"a", NEW, OLD)], around) == []


def test_manifest_of_another_mirror_is_held_for_any_plan() -> None:
    around = replace(CALM, owner="host:/other")
    assert codes([Upload(b"a", NEW)], around) == ["other-mirror"]
    assert codes([], around) == []
    (hazard,) = hazards(plan(Upload(b"a", NEW)), around)
    assert "host:/other" in hazard.message


def test_foreign_files_are_asked_about_and_not_counted_as_ours() -> None:
    assert codes(deletes(99, foreign=True)) == ["foreign-files"]
    assert codes([Rmdir(b"d", foreign=True)]) == ["foreign-files"]
    assert codes(deletes(99, foreign=True), replace(CALM, ask_foreign=False)) == []


def test_foreign_file_is_shown_with_its_control_characters_escaped() -> None:
    (hazard,) = hazards(plan(Delete(b"a\x1b\n\xff", OLD, foreign=True)), CALM)
    assert "a\\x1b\\n\\xff" in hazard.message


@pytest.mark.parametrize(
    ("new", "held"),
    [
        (content_entry(b"", 5), True),
        (content_entry(b"", 6), False),
        (content_entry(b"x", 5), False),
    ],
    ids=["same time", "new time", "not empty"],
)
def test_file_emptied_without_a_new_time_is_held(new: Entry, held: bool) -> None:
    assert codes([Upload(b"a", new, OLD)]) == (["zeroed-files"] if held else [])


def test_file_that_was_empty_before_is_no_hazard() -> None:
    assert codes([Upload(b"a", content_entry(b"", 5), content_entry(b"", 5))]) == []


def test_every_hazard_is_told_worst_first_with_one_approval() -> None:
    around = Circumstances(entries=3, found=0, owner="host:/other")
    todo = plan(*deletes(2), *deletes(1, foreign=True), Upload(b"z", content_entry(b"", 5), OLD))
    found = hazards(todo, around)
    assert [hazard.code for hazard in found] == [
        "other-mirror",
        "emptied-root",
        "mass-delete",
        "foreign-files",
        "zeroed-files",
    ]
    assert len({hazard.approve for hazard in found}) == 1


def approval(*ops: Op, around: Circumstances = CALM) -> str:
    approvals = {hazard.approve for hazard in hazards(plan(*ops), around)}
    (approve,) = approvals
    assert len(approve) == 12
    return approve


ZEROED = Upload(b"z", content_entry(b"", 5), OLD)
OWNED = replace(CALM, owner="host:/other")


def test_an_approval_survives_what_no_hazard_is_about() -> None:
    added: list[Op] = [Upload(b"new", NEW), Upload(b"old", NEW, OLD), Record(b"b", None)]
    assert approval(*deletes(60), *added) == approval(*reversed(deletes(60)))


@pytest.mark.parametrize(
    "more",
    [Delete(b"x", OLD), Delete(b"x", OLD, foreign=True), ZEROED],
    ids=["delete", "foreign", "zeroed"],
)
def test_an_approval_covers_no_hazard_that_comes_later(more: Op) -> None:
    assert approval(*deletes(60), more) != approval(*deletes(60))


def test_an_approval_of_zeroed_files_names_them() -> None:
    other = Upload(b"y", content_entry(b"", 5), OLD)
    assert approval(ZEROED) != approval(other)
    assert approval(ZEROED) != approval(ZEROED, other)


def test_an_approval_of_another_mirror_is_for_that_owner_alone() -> None:
    upload = Upload(b"a", NEW)
    approved = approval(upload, around=OWNED)
    assert approved == approval(upload, Upload(b"b", NEW), around=OWNED)
    assert approved != approval(upload, around=replace(CALM, owner="host:/third"))
    assert approved != approval(upload, ZEROED, around=OWNED)


def test_an_approval_cannot_be_shifted_between_paths() -> None:
    around = replace(CALM, max_entries=0)
    one, two = Delete(b"a1:b", OLD), [Delete(b"a", OLD), Delete(b"b", OLD)]
    assert approval(one, around=around) != approval(*two, around=around)
