"""Held plans in a session: what no hazard is about goes on, and drops over an hour are held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skynet.config import MaxDelete
from skynet.errors import SkynetError
from skynet.guard import Circumstances, hazards, unquestioned
from skynet.ops import Delete, Op, Plan, Rmdir, SetMeta, Upload, effect, replay
from skynet.plan import Policy, make_plan
from skynet.reconcile import MINUTES_COUNTED, NANOSECONDS_A_MINUTE
from skynet.rules import is_parked
from skynet.tree import Tree, edit, is_valid
from tests.support.faults import Act, no_fault, nth
from tests.support.sessions import Arriving, sitting
from tests.support.world import World
from tests.support.worlds import World as Trees
from tests.support.worlds import findings, worlds
from tests.test_moves import lives, planned
from tests.test_plan import do_strictly, done, in_any_order, policies, seeds

# Laws of the part that goes on.

anxieties = st.builds(
    Circumstances,
    entries=st.just(100),
    found=st.just(90),
    root_changed=st.booleans(),
    ask_foreign=st.booleans(),
    max_fraction=st.just(1.0),
    max_entries=st.sampled_from([0, 2, 1000]),
)
DELETES_ARE_HELD = Circumstances(entries=9, found=9, max_entries=0)


def going_on(plan: Plan, around: Circumstances) -> tuple[Plan, set[bytes]]:
    """What goes on, and the paths that hazards are about."""
    dangers = hazards(plan, around)
    return unquestioned(plan, dangers), {path for d in dangers for path in d.paths}


def check_part(plan: Plan, trees: Trees, around: Circumstances, seed: int) -> None:
    part, about = going_on(plan, around)
    for op in part.ops:
        assert not (isinstance(op, Delete | Rmdir | Upload) and op.path in about)
    remote, manifest = dict(trees.remote), dict(trees.synced)
    for index in in_any_order(part, seed):
        do_strictly(remote, part.ops[index])
    for op in part.ops:
        edit(manifest, [effect(op)])
        assert is_valid(manifest)
    assert remote == replay(trees.remote, part.ops)
    assert not any(is_parked(path) for path in remote.keys() - trees.remote.keys())
    wanted = replay(trees.remote, plan.ops)
    assert_nothing_is_left_open(part.ops, remote, trees.remote, wanted)
    assert_the_rest_can_be_done(plan, part, remote)


def assert_nothing_is_left_open(
    ops: Sequence[Op], remote: Tree, before: Tree, wanted: Tree
) -> None:
    for op in ops:
        if isinstance(op, SetMeta) and op.opens:
            is_meant = op.entry in (before[op.path], wanted.get(op.path))
            assert is_meant or remote.get(op.path) != op.entry


def assert_the_rest_can_be_done(plan: Plan, part: Plan, remote: Tree) -> None:
    """Once it is approved; it leads to where the whole plan would have led."""
    rest = [op for op in plan.ops if op not in part.ops]
    tree = dict(remote)
    for op in rest:
        do_strictly(tree, op)
    assert tree.keys() == replay(remote, rest).keys()
    assert len(rest) + len(part.ops) == len(plan.ops)


@given(worlds(), policies, anxieties, seeds)
@settings(max_examples=300)
def test_what_goes_on_is_a_plan_of_its_own(
    trees: Trees, policy: Policy, around: Circumstances, seed: int
) -> None:
    plan = make_plan(findings(trees), policy)
    check_part(replace(plan, ops=done(plan.ops, trees.local)), trees, around, seed)


@given(st.integers(0, 2**32), st.integers(0, 14), st.integers(1, 12), st.booleans(), seeds)
@settings(max_examples=600)
def test_what_goes_on_leaves_no_move_half_done(
    life: int, size: int, steps: int, can_copy: bool, seed: int
) -> None:
    remote, after, found = lives(life, size, steps)
    policy = Policy(complete_sync=True, can_copy=can_copy, empty_dirs=True)
    local = {path: entry for path, (entry, _) in after.tree.items()}
    check_part(planned(found, policy), Trees(local, remote, remote), DELETES_ARE_HELD, seed)


@given(worlds(), policies)
def test_where_nothing_is_in_question_all_goes_on(trees: Trees, policy: Policy) -> None:
    plan = make_plan(findings(trees), policy)
    assert unquestioned(plan, []).ops == plan.ops


@given(worlds(), policies)
def test_nothing_goes_on_to_the_target_of_another_mirror(trees: Trees, policy: Policy) -> None:
    plan = make_plan(findings(trees), policy)
    part, _ = going_on(plan, Circumstances(entries=9, found=9, owner="host:/other"))
    assert not part.ops


@given(worlds(), policies, anxieties)
def test_an_approval_outlives_what_goes_on(
    trees: Trees, policy: Policy, around: Circumstances
) -> None:
    plan = make_plan(findings(trees), policy)
    plan = replace(plan, ops=done(plan.ops, trees.local))
    dangers = hazards(plan, around)
    ops = unquestioned(plan, dangers).ops
    later = Trees(trees.local, replay(trees.synced, ops), replay(trees.remote, ops))
    again = hazards(make_plan(findings(later), policy), around)
    assert [(d.code, sorted(d.paths)) for d in again] == [
        (d.code, sorted(d.paths)) for d in dangers
    ]


# In cycles.


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path, complete_sync=True)
    made.put({"a": b"1", "b": b"22", "d": {"c": b"333", "e": b"4444"}})
    made.put({"many": {f"{number:03}": b"%d" % number for number in range(100)}})
    made.sync()
    return made


FEW = MaxDelete(1.0, 4)  # what is allowed here within an hour
HOUR = MINUTES_COUNTED * NANOSECONDS_A_MINUTE


def gone(*names: int) -> dict[str, object]:
    return {"many": {f"{name:03}": None for name in names}}


def test_uploads_go_on_while_deletes_are_held(world: World) -> None:
    with sitting(world, max_delete=FEW) as held:
        world.put({"d": None, **gone(*range(9)), "new": b"new", "a": b"changed"})
        report = held.cycle()
        assert report.outcome == "held"
        assert report.done["delete"] == report.done["rmdir"] == 0
        assert world.files()["new"] == b"new"
        assert world.files()["a"] == b"changed"
        assert world.files()["d/c"] == b"333"
        again = held.cycle()
        assert again.outcome == "held"
        assert not again.done
        shown = report.hazards[0].approve
        assert again.hazards[0].approve == shown, "what was shown first can be approved"
        world.put({"newer": b"newer"})
        assert held.cycle(approve=shown).outcome == "changed"
        held.quiet()
    world.check()
    world.quiet()


def test_a_held_cycle_pins_no_new_root_and_counts_no_deletes(world: World) -> None:
    with sitting(world, max_delete=FEW) as held:
        index = held.session.memory.index
        index.root = (1, 2)
        world.put({"a": None, "new": b"new"})
        assert [hazard.code for hazard in held.cycle().hazards] == ["swapped-root"]
        assert index.root == (1, 2)
        assert index.deletes == []
    assert world.files()["new"] == b"new"


def test_a_cycle_that_looks_at_a_part_pins_no_new_root(world: World) -> None:
    with sitting(world) as held:
        index = held.session.memory.index
        index.root = (1, 2)
        world.put({"new": b"new"})
        assert held.cycle(marks={b"new": False}).outcome == "changed"
        held.quiet(marks={b"a": False})
        assert index.root == (1, 2)
        held.quiet()
        assert index.root != (1, 2)


def test_deletes_count_also_where_the_link_breaks(world: World) -> None:
    world.put(gone(*range(3)))
    world.fault = nth("WRITE", 1, Act.CUT_BEFORE)  # the record; the first is the lease
    with pytest.raises(SkynetError):
        world.sync(max_delete=FEW)
    world.fault = no_fault
    assert "many/002" not in world.files()
    world.put(gone(10, 11))
    report = world.sync(max_delete=FEW)
    assert [hazard.code for hazard in report.hazards] == ["mass-delete"]


def test_deletes_of_a_clock_that_ran_ahead_do_not_count_for_ever(world: World) -> None:
    with sitting(world, max_delete=FEW) as drops:
        world.ahead_ns += 1000 * HOUR
        world.put(gone(*range(4)))
        assert drops.cycle().outcome == "changed"
        world.ahead_ns -= 1000 * HOUR
        for number in range(4, 8):
            world.put(gone(number))
            assert drops.cycle().outcome == "changed"
        world.put(gone(8))
        assert drops.cycle().outcome == "held"


def test_a_wipe_that_comes_in_drops_is_held(world: World) -> None:
    with sitting(world, max_delete=FEW) as drops:
        for number in range(4):
            world.put(gone(number))
            assert drops.cycle(marks={b"many/%03d" % number: False}).outcome == "changed"
        world.put({**gone(4), "new": b"new"})
        report = drops.cycle(marks={b"many/004": False, b"new": False})
        assert [hazard.code for hazard in report.hazards] == ["mass-delete"]
        assert "after 4 within the last hour" in report.hazards[0].message
        assert "many/004" in world.files()
        assert "new" in world.files()


def test_an_hour_later_they_do_not_count(world: World) -> None:
    with sitting(world, max_delete=FEW) as drops:
        for number in range(12):
            world.ahead_ns += HOUR // 4
            world.put(gone(number))
            assert drops.cycle(marks={b"many": True}).outcome == "changed"
        assert len(drops.session.memory.index.deletes) == MINUTES_COUNTED // 15
        world.put(gone(20, 21))
        assert drops.cycle(marks={b"many": True}).outcome == "held"
        world.ahead_ns += HOUR
        assert drops.cycle(marks={b"many": True}).outcome == "changed"


def test_drops_count_over_a_restart_too(world: World) -> None:
    for number in range(4):
        world.put(gone(number))
        world.sync(max_delete=FEW)
    world.put(gone(4))
    assert world.sync(max_delete=FEW).outcome == "held"


def test_what_was_approved_does_not_count(world: World) -> None:
    with sitting(world, max_delete=FEW) as drops:
        world.put(gone(*range(9)))
        drops.cycle(approve=drops.cycle().hazards[0].approve)
        world.put(gone(*range(10, 14)))
        assert drops.cycle().outcome == "changed"
        world.put(gone(15))
        assert drops.cycle().outcome == "held"


def test_an_approval_of_nothing_lets_no_deletes_go_uncounted(world: World) -> None:
    with sitting(world, max_delete=FEW) as drops:
        world.put(gone(*range(4)))
        assert drops.cycle(approve="0" * 12).outcome == "changed"
        world.put(gone(5))
        assert drops.cycle().outcome == "held"


def test_what_is_held_already_counts_with_what_comes(world: World) -> None:
    with sitting(world, max_delete=FEW) as drops:
        world.put(gone(7))
        mark = {b"many/007": False}
        assert drops.cycle(marks=mark, held_deletes=9).outcome == "held"
        assert drops.cycle(marks=mark, held_deletes=3).outcome == "changed"


@pytest.mark.parametrize("held", [False, True])
def test_what_joins_counts_with_the_plan_that_runs(world: World, held: bool) -> None:
    """Whether its deletes are carried out or held: a wipe may come in drops beside an upload."""
    arriving = Arriving()

    def more_is_gone() -> None:
        world.put(gone(50, 51))
        arriving.mark({b"many/050": False, b"many/051": False})

    with sitting(world, max_delete=FEW) as drops:
        first = range(9) if held else range(3)
        world.put({**gone(*first), "new": b"new"})
        world.at_open(b"tmp", more_is_gone)
        drops.cycle(arrivals=arriving)
        assert ("many/000" in world.files()) == held
        assert "many/050" in world.files()
        assert set(arriving.pending) == {b"many/050", b"many/051"}
        marks = arriving.take_all()
        assert drops.cycle(marks=marks, held_deletes=9 if held else 0).outcome == "held"


def test_the_target_of_another_mirror_is_approved_once(world: World) -> None:
    world.lose_state()
    world.host = "elsewhere"
    with sitting(world) as taking:
        world.put({"new": b"new"})
        report = taking.cycle(audit=True)
        assert [hazard.code for hazard in report.hazards] == ["other-mirror"]
        assert not report.done
        taking.cycle(audit=True, approve=report.hazards[0].approve)
        world.put({"newer": b"newer"})
        report = taking.cycle(marks={b"newer": False})
        assert report.outcome == "changed"
        assert report.plan.counts()["upload"] == 1
        assert len(world.asked) < 20, "it is not prepared and looked at again"
    world.check()


def test_doubts_about_the_manifest_forbid_deletes_in_one_cycle_only(world: World) -> None:
    (world.remote / ".skynet/manifest").write_bytes(b"damaged")
    world.lose_state()
    with sitting(world, foreign="trash") as doubting:
        world.put({"a": None})
        doubting.cycle(audit=True)
        assert "a" in world.files()
        doubting.cycle(audit=True)
        assert "a" not in world.files()
