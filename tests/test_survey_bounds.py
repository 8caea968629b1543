"""What the survey holds in memory: differences, and nothing for each file that has not changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from skynet import reconcile, survey
from skynet.config import MaxDelete
from skynet.index import Index
from skynet.scope import Survey
from tests.support.world import Link, World

FILES = {f"d{d}": {f"f{f}": b"%d %d" % (d, f) for f in range(10)} for d in range(3)}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, max_delete=MaxDelete(1.0, 1000))


@pytest.fixture
def surveys(monkeypatch: pytest.MonkeyPatch) -> list[Survey]:
    """What the survey of every cycle found, as it was handed over."""
    made: list[Survey] = []
    plain = survey.survey

    def keeping(*arguments: object) -> Survey:
        found = plain(*arguments)  # type: ignore[arg-type]  # passed on as they came
        made.append(
            Survey(
                list(found.findings),
                list(found.problems),
                dict(found.identities),
                dict(found.settled),
                found.entries,
            )
        )
        return found

    monkeypatch.setattr(reconcile, "survey", keeping)
    return made


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The entries of the index that were made into objects."""
    made: list[bytes] = []
    plain = Index.unpack

    def noting(index: Index, packed: bytes) -> object:
        made.append(packed)
        return plain(index, packed)

    monkeypatch.setattr(Index, "unpack", noting)
    return made


@pytest.mark.parametrize("audit", [True, False])
def test_an_unchanged_tree_leaves_nothing_behind(
    world: World, surveys: list[Survey], unpacked: list[bytes], audit: bool
) -> None:
    world.put(FILES)
    world.sync()
    surveys.clear()
    unpacked.clear()
    world.quiet(audit=audit)
    (found,) = surveys
    assert found == Survey(entries=33)
    assert len(unpacked) == 3  # the directories, which are looked at by name


def test_new_files_leave_a_finding_and_no_identity(world: World, surveys: list[Survey]) -> None:
    world.put({**FILES, "l": Link("d0")})
    world.sync()
    (found,) = surveys
    assert len(found.findings) == 34
    # Whose making reads nothing that tells it.
    assert found.identities.keys() == {b"l", b"d0", b"d1", b"d2"}
    world.quiet(audit=False)
    assert surveys[1].identities == {}


def test_identities_of_a_lost_state_are_not_all_held(
    world: World, surveys: list[Survey], monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put(FILES)
    world.sync()
    world.lose_state()
    monkeypatch.setattr(survey, "SETTLED_HELD", 4)
    world.quiet(audit=False)
    found = surveys[-1]
    assert found.identities == {}
    assert len(found.settled) == 33 % 4
    world.quiet(audit=False)
    assert surveys[-1] == Survey(entries=33)  # all 30 are known again


@pytest.mark.parametrize("audit", [True, False])
def test_a_file_whose_place_a_directory_keeps_is_told_every_time(world: World, audit: bool) -> None:
    """Also when the manifest had to learn meanwhile what that directory is like."""
    world.put({"p": {"x": b"1"}})
    world.sync()
    world.put({"p": b"a file now"})
    (world.remote / "p").chmod(0o700)
    for again in (True, audit):
        report = world.sync(audit=again)
        assert [(p.path, p.code) for p in report.problems] == [(b"p", "directory-in-the-way")]
