"""The laws of the planner, on random trees and perturbed copies of them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from skynet.findings import Finding
from skynet.ops import (
    Copy,
    Delete,
    Mkdir,
    Op,
    Patch,
    Plan,
    Record,
    Rename,
    Rmdir,
    SetMeta,
    Upload,
    effect,
    replay,
    step,
)
from skynet.plan import Policy, make_plan
from skynet.tree import DIR, Entry, Tree, edit, is_below, is_valid, parent
from tests.support.worlds import (
    World,
    agree,
    differences,
    findings,
    pairs,
    seen,
    worlds,
)

FULL = Policy(complete_sync=True, empty_dirs=True)
KEEPING = Policy()
policies = st.builds(
    Policy,
    complete_sync=st.booleans(),
    empty_dirs=st.booleans(),
    remove_foreign=st.booleans(),
    may_delete=st.booleans(),
    keeps_times=st.booleans(),
    keeps_modes=st.booleans(),
)
seeds = st.integers(0, 2**32 - 1)


def in_step(local: Tree, remote: Tree) -> World:
    """A world where nothing has drifted."""
    return World(dict(local), dict(remote), dict(remote))


def done(ops: Iterable[Op], local: Tree) -> list[Op]:
    """The operations with the digests of what they have sent."""
    return [
        msgspec.structs.replace(op, entry=local[op.path]) if isinstance(op, Upload) else op
        for op in ops
    ]


def in_any_order(plan: Plan, seed: int) -> Iterator[int]:
    """The indexes of the operations in a random order that `needs` allows."""
    chance = random.Random(seed)
    missing = {index: set(needs) for index, needs in enumerate(plan.needs)}
    while missing:
        index = chance.choice([index for index, needs in missing.items() if not needs])
        del missing[index]
        for needs in missing.values():
            needs.discard(index)
        yield index


def do_strictly(tree: dict[bytes, Entry], op: Op) -> None:
    """Carry out one operation on the remote tree; what it relies on must be so."""
    there = tree.get(op.path)
    match op:
        case Mkdir():
            assert there is None
        case Upload(replaces=replaces):
            assert agree(there, replaces)
        case Rename(source=source, entry=entry, replaces=replaces):
            assert agree(there, replaces)
            assert tree[source] == entry
        case Patch(replaces=replaces):
            assert agree(there, replaces)
        case Copy(source=source, entry=entry, original=original, replaces=replaces):
            assert agree(there, replaces)
            assert tree[source] == original
            assert original.digest == entry.digest
        case SetMeta():
            assert there is not None
        case Delete(entry=entry):
            assert there == entry
            assert entry.kind != DIR
        case Rmdir():
            assert there is not None
            assert there.kind == DIR
            assert not any(is_below(path, op.path) for path in tree)
        case Record(entry=entry):
            assert (there is None) == (entry is None)
    edit(tree, [effect(op)])
    assert is_valid(tree)


def without_empty_dirs(tree: Tree) -> dict[bytes, Entry]:
    files = [path for path, entry in tree.items() if entry.kind != DIR]
    return {p: e for p, e in tree.items() if e.kind != DIR or any(is_below(f, p) for f in files)}


# Laws.


@given(pairs())
def test_plan_turns_the_remote_into_the_local_tree(pair: tuple[Tree, Tree]) -> None:
    remote, local = pair
    plan = make_plan(findings(in_step(local, remote)), FULL)
    assert not plan.problems
    assert replay(remote, done(plan.ops, local)) == local


@given(worlds())
def test_plan_repairs_drift(world: World) -> None:
    plan = make_plan(findings(world), FULL)
    assert not plan.problems
    assert not differences(replay(world.remote, done(plan.ops, world.local)), world.local)


@given(worlds())
def test_without_empty_dirs_every_file_is_mirrored_all_the_same(world: World) -> None:
    plan = make_plan(findings(world), Policy(complete_sync=True))
    after = replay(world.remote, done(plan.ops, world.local))
    assert not differences(without_empty_dirs(after), without_empty_dirs(world.local))
    assert after.keys() <= world.local.keys()


@given(pairs(), policies)
def test_equal_trees_need_nothing(pair: tuple[Tree, Tree], policy: Policy) -> None:
    tree = pair[1]
    everything = [Finding(path, entry, entry) for path, entry in tree.items()]
    assert make_plan(everything, policy) == Plan([], [], [])


@given(worlds(), policies)
def test_next_plan_is_empty(world: World, policy: Policy) -> None:
    ops = done(make_plan(findings(world), policy).ops, world.local)
    remote, synced = replay(world.remote, ops), replay(world.synced, ops)
    audited = {path: _as_audited(synced.get(path), entry) for path, entry in remote.items()}
    assert not make_plan(findings(World(world.local, synced, audited)), policy).ops


def _as_audited(synced: Entry | None, there: Entry) -> Entry:
    """An audit goes by the manifest where the listing does not contradict it."""
    return synced if synced is not None and seen(synced) == seen(there) else there


@given(worlds(), policies)
def test_every_prefix_leaves_valid_trees(world: World, policy: Policy) -> None:
    remote, manifest = dict(world.remote), dict(world.synced)
    for op in done(make_plan(findings(world), policy).ops, world.local):
        do_strictly(remote, op)
        edit(manifest, [effect(op)])
        assert is_valid(manifest)


@given(worlds(), policies, seeds)
def test_any_order_that_needs_allows_gives_the_same_trees(
    world: World, policy: Policy, seed: int
) -> None:
    plan = make_plan(findings(world), policy)
    ops = done(plan.ops, world.local)
    shuffled = [ops[index] for index in in_any_order(plan, seed)]
    remote = dict(world.remote)
    for op in shuffled:
        do_strictly(remote, op)
    assert remote == replay(world.remote, ops)
    assert replay(world.synced, shuffled) == replay(world.synced, ops)


@given(worlds(), policies, seeds)
def test_attributes_of_a_directory_are_set_when_all_is_done_in_it(
    world: World, policy: Policy, seed: int
) -> None:
    plan = make_plan(findings(world), policy)
    set_before: set[bytes] = set()
    for op in (plan.ops[index] for index in in_any_order(plan, seed)):
        if isinstance(op, SetMeta):
            if not op.opens:
                set_before.add(op.path)
        elif not isinstance(op, Record):
            assert parent(op.path) not in set_before
        if isinstance(op, Rename):
            assert parent(op.source) not in set_before


@given(worlds(), policies)
def test_manifest_never_claims_more_than_the_remote_holds(world: World, policy: Policy) -> None:
    ops = done(make_plan(findings(world), policy).ops, world.local)
    remote, manifest = replay(world.remote, ops), replay(world.synced, ops)
    for path, entry in manifest.items():
        unretained = msgspec.structs.replace(entry, retained=False)
        assert path in remote
        assert agree(unretained, msgspec.structs.replace(remote[path], retained=False))


@given(worlds(), policies)
def test_plan_is_deterministic_and_names_each_step_once(world: World, policy: Policy) -> None:
    plan = make_plan(findings(world), policy)
    assert plan == make_plan(findings(world), policy)
    steps = Counter(map(step, plan.ops))
    assert all(times == 1 for times in steps.values())
    assert all(needed < index for index, needs in enumerate(plan.needs) for needed in needs)


@given(worlds(), policies)
def test_only_what_is_gone_or_replaced_is_deleted(world: World, policy: Policy) -> None:
    may_delete = policy.complete_sync and policy.may_delete
    for op in make_plan(findings(world), policy).ops:
        if not isinstance(op, Delete | Rmdir):
            continue
        assert op.foreign == (op.path not in world.synced)
        local = world.local.get(op.path)
        is_replaced = local is not None and local.kind != world.remote[op.path].kind
        if not may_delete or (op.foreign and not policy.remove_foreign):
            assert is_replaced
        else:
            assert local is None or is_replaced


@given(worlds(), st.booleans(), st.booleans())
def test_without_permission_to_delete_nothing_is_lost_and_every_local_path_is_right(
    world: World, complete_sync: bool, remove_foreign: bool
) -> None:
    policy = Policy(complete_sync, remove_foreign=remove_foreign, may_delete=False)
    plan = make_plan(findings(world), policy)
    ops = done(plan.ops, world.local)
    after = replay(world.remote, ops)
    for path in world.remote.keys() - world.local.keys():
        assert _same_content(after[_gone_to(path, ops)], world.remote[path])
    refused = {problem.path for problem in plan.problems}
    wanted = without_empty_dirs(world.local)
    assert refused == {path for path in wanted if not agree(after.get(path), wanted[path])}


def _gone_to(path: bytes, ops: Iterable[Op]) -> bytes:
    for op in ops:
        if isinstance(op, Rename) and op.source == path:
            path = op.path
    return path


def _same_content(one: Entry, other: Entry) -> bool:
    return (one.kind, one.size, one.digest, one.link) == (
        other.kind,
        other.size,
        other.digest,
        other.link,
    )


@given(worlds(), policies)
def test_rename_never_costs_content(world: World, policy: Policy) -> None:
    ops = done(make_plan(findings(world), policy).ops, world.local)
    uploaded = {op.path for op in ops if isinstance(op, Upload)}
    moved = [op for op in ops if isinstance(op, Rename)]
    assert len(moved) == len({op.source for op in moved})
    final = {op.path for op in moved} - {op.source for op in moved}
    assert uploaded.isdisjoint(final)
    after = replay(world.remote, ops)
    for path in final:
        assert after[path].digest == world.local[path].digest


@given(worlds())
def test_nothing_is_sent_that_is_being_thrown_away(world: World) -> None:
    plan = make_plan(findings(world), FULL)
    cleared = [op.path for op in plan.ops if isinstance(op, Rmdir) and op.path in world.local]
    thrown_away = {
        op.entry.digest
        for op in plan.ops
        if isinstance(op, Delete) and not op.foreign and op.path not in world.local
        if not any(is_below(op.path, directory) for directory in cleared)
    } - {b""}
    for op in plan.ops:
        if isinstance(op, Upload) and op.entry.size and op.path not in world.remote:
            assert world.local[op.path].digest not in thrown_away
