"""The laws of the plan over many lives of a tree, and over all small trees.

How many is set by SKYNET_LIVES and SKYNET_SMALL_TREES (entries of the largest); `nox -s laws` runs
a million lives and all pairs of trees of up to seven entries.
"""

from __future__ import annotations

import itertools
import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import msgspec
import pytest

from skynet.findings import Finding
from skynet.ops import Plan, Rename, effect, replay
from skynet.plan import Policy
from skynet.tree import DIR, FILE, Entry, edit, is_valid, order, parent
from tests.support.worlds import content_entry
from tests.test_moves import (
    DIRECTORY,
    Life,
    carried_out_in_any_order,
    identity,
    lives,
    local_of,
    planned,
    sent,
)
from tests.test_plan import without_empty_dirs

LIVES = int(os.environ.get("SKYNET_LIVES", "20000"))
SMALL_TREES = int(os.environ.get("SKYNET_SMALL_TREES", "3"))
Tree = dict[bytes, Entry]

FULL = Policy(complete_sync=True, empty_dirs=True)
X, Y = content_entry(b"x", 5), content_entry(b"yy", 5)


def least(remote: Tree, local: Tree, *, copies: bool) -> int:
    """The content bytes that no plan can do without.

    Content that is nowhere must be sent, once if the server copies. Where it does not there are
    only as many of it as there were, since a rename makes none.
    """
    before = Counter(entry.digest for entry in remote.values() if entry.kind == FILE)
    after = Counter(entry.digest for entry in local.values() if entry.kind == FILE)
    sizes = {entry.digest: entry.size for entry in local.values() if entry.kind == FILE}
    if copies:
        return sum(sizes[content] for content in after if not before[content])
    return sum(sizes[content] * max(0, n - before[content]) for content, n in after.items())


def check(remote: Tree, local: Tree, plan: Plan, seed: int) -> None:
    """The tree is right in the end, valid after every step, and in any order that is allowed."""
    assert not plan.problems
    assert replay(remote, plan.ops) == local
    tree = dict(remote)
    for op in plan.ops:
        edit(tree, [effect(op)])
        assert is_valid(tree)
    carried_out_in_any_order(plan, remote, seed)


def check_keeping(
    remote: Tree, life: Life, findings: list[Finding], policy: Policy, seed: int
) -> None:
    """Without complete-sync the next plan has nothing to do; nor after more has come to be kept.

    Where the server copies, nothing is sent that is there, and be it only kept.
    """
    plan = planned(findings, policy)
    carried_out_in_any_order(plan, remote, seed)
    sends_least(remote, life, plan, policy)
    for _ in range(2 if seed % 16 < 2 else 0):
        remote = replay(remote, plan.ops)
        refused = {problem.path for problem in plan.problems}
        for path, entry in without_empty_dirs(local_of(life)).items():
            assert path in refused or msgspec.structs.replace(remote[path], retained=False) == entry
        known = {path: identity(*now) for path, now in life.tree.items() if path in remote}
        assert not planned(seen(remote, known, life), policy).ops
        life.live(1 + seed % 13)
        plan = planned(seen(remote, known, life), policy)
        carried_out_in_any_order(plan, remote, seed)
        sends_least(remote, life, plan, policy)


def sends_least(remote: Tree, life: Life, plan: Plan, policy: Policy) -> None:
    if policy.can_copy and not plan.problems:
        local = local_of(life)
        sizes = {entry.digest: entry.size for entry in local.values()}
        total = sum(sizes[content] for content in sent(plan.ops))
        assert total == least(remote, local, copies=True)


def seen(remote: Tree, known: dict[bytes, bytes], life: Life) -> list[Finding]:
    """Findings for all paths. known: the identities that the remote's entries were made from."""
    local = local_of(life)
    here = {path: identity(*entry) for path, entry in life.tree.items()}
    return [
        Finding(p, remote.get(p), local.get(p), here=here.get(p, b""), known=known.get(p, b""))
        for p in sorted(remote.keys() | local.keys(), key=order)
    ]


@pytest.mark.timeout(7200)
def test_the_laws_hold_in_many_lives() -> None:
    for seed in range(LIVES):
        chance = random.Random(seed)
        remote, life, findings = lives(seed, chance.randrange(16), chance.randrange(1, 14))
        local = local_of(life)
        copies, moves = seed % 2 == 0, seed % 8 < 6
        plan = planned(findings, replace(FULL, can_copy=copies, moves_directories=moves))
        assert moves or not any(isinstance(op, Rename) and op.entry.kind == DIR for op in plan.ops)
        check(remote, local, plan, seed)
        sizes = {entry.digest: entry.size for entry in local.values()}
        assert sum(sizes[content] for content in sent(plan.ops)) == least(
            remote, local, copies=copies
        )
        policy = Policy(can_copy=copies, moves_directories=moves)
        check_keeping(remote, life, findings, policy, seed)


def small_trees(most: int) -> Iterator[Tree]:
    """All trees of up to `most` entries, of few names and contents."""
    inside = [None, X, Y, DIRECTORY]
    paths = [b"a", b"b", b"a/a", b"a/b", b"b/a", b"b/b", b"c"]
    for entries in itertools.product(inside, repeat=len(paths)):
        tree = {p: e for p, e in zip(paths, entries, strict=True) if e is not None}
        is_tree = all(not parent(p) or tree.get(parent(p)) == DIRECTORY for p in tree)
        if len(tree) <= most and is_tree and tree.get(b"c") != DIRECTORY:
            yield tree


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("copies", [False, True])
def test_no_plan_sends_less_between_any_two_small_trees(copies: bool) -> None:
    trees = list(small_trees(SMALL_TREES))
    for number, (remote, local) in enumerate(itertools.product(trees, repeat=2)):
        findings = [
            Finding(path, remote.get(path), local.get(path))
            for path in sorted(remote.keys() | local.keys(), key=order)
        ]
        plan = planned(findings, replace(FULL, can_copy=copies))
        check(remote, local, plan, number)
        sizes = {X.digest: X.size, Y.digest: Y.size}
        assert sum(sizes[content] for content in sent(plan.ops)) == least(
            remote, local, copies=copies
        )


def test_the_trees_that_are_tried_are_of_all_kinds() -> None:
    trees = list(small_trees(3))
    assert len(trees) > 60
    assert {len(tree) for tree in trees} == {0, 1, 2, 3}
    assert any(tree.get(b"a/a") == DIRECTORY for tree in trees)
    assert {entry.kind for tree in trees for entry in tree.values()} == {FILE, DIR}
