"""Carrying out plans: order, failures, batches, and what is recorded when it all breaks off."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skynet import apply as room
from skynet.apply import Applied, apply, problem_of
from skynet.claims import Claims
from skynet.errors import (
    LinkLost,
    OwnedError,
    Problem,
    RemoteStopped,
    RequestError,
    SkynetError,
    SourceError,
    TornRead,
)
from skynet.intents import Intents
from skynet.monitor import Event, Progress
from skynet.ops import (
    Delete,
    Mkdir,
    Op,
    Plan,
    Record,
    Rename,
    Rmdir,
    Upload,
    effect,
    replay,
    step,
    tally,
)
from skynet.plan import Policy, make_plan
from skynet.remote import Outcome
from skynet.tree import DIR, Entry, Tree, edit
from tests.support.memory import MemoryRemote, MemoryRoot
from tests.support.worlds import CONTENT_OF, World, content_entry, findings, pairs, seen

FULL = Policy(complete_sync=True, empty_dirs=True)
DIRECTORY = Entry(DIR, mode=0o755)
FILES = [content_entry(content) for content in sorted(CONTENT_OF.values())]

seeds = st.integers(0, 2**32 - 1)


class Bench:
    """One plan, a remote and a root in memory, and a record of what was committed."""

    def __init__(self, local: Tree, remote: MemoryRemote, plan: Plan | None = None) -> None:
        self.local = local
        self.remote = remote
        self.root = MemoryRoot(local)
        self.plan = plan or Plan([], [])
        self.batches: list[list[Outcome]] = []
        self.events: list[Event] = []
        self.beats = 0
        self.now = 0.0
        self.refuse_commit: BaseException | None = None

    def run(self) -> Applied:
        return apply(
            self.plan,
            self.remote,
            self.root,
            claims=Claims(None, self.events.append),
            intents=Intents(Path("no such directory"), self.events.append),
            get_ready=lambda: None,
            commit=self.commit,
            beat=self.beat,
            clock=lambda: self.now,
            monitor=self.events.append,
        )

    def commit(self, batch: list[Outcome]) -> None:
        if self.refuse_commit is not None:
            error, self.refuse_commit = self.refuse_commit, None
            raise error
        self.batches.append(list(batch))

    def beat(self) -> None:
        self.beats += 1

    @property
    def committed(self) -> list[Op]:
        return [outcome.op for batch in self.batches for outcome in batch]


def bench(pair: tuple[Tree, Tree], seed: int = 0, policy: Policy = FULL, at_once: int = 1) -> Bench:
    """A plan between two trees, for a server that does what is under way in a random order."""
    remote, local = pair
    chance = random.Random(seed)
    memory = MemoryRemote(remote, choose=chance.randrange, at_once=at_once)
    plan = make_plan(findings(World(dict(local), dict(remote), dict(remote))), policy)
    return Bench(local, memory, plan)


def listed(tree: Tree) -> Tree:
    return {path: seen(entry) for path, entry in tree.items()}


# Laws, whatever the order in which the server does things.


@given(pairs(), seeds)
def test_plan_is_carried_out_whole(pair: tuple[Tree, Tree], seed: int) -> None:
    run = bench(pair, seed)
    applied = run.run()
    assert not applied.problems
    assert run.remote.mirrored == listed(run.local)
    assert applied.done == run.plan.counts()
    assert replay(pair[0], run.committed) == run.local


@given(pairs(), seeds, st.integers(0, 40))
def test_refused_operation_takes_along_only_what_needs_it(
    pair: tuple[Tree, Tree], seed: int, number: int
) -> None:
    run = bench(pair, seed)
    run.remote.refusals = {number: RequestError("The test refuses.", "permission-denied")}
    applied = run.run()
    done = set(map(step, run.committed))
    for index, op in enumerate(run.plan.ops):
        if step(op) not in done:
            needs = [run.plan.ops[needed] for needed in run.plan.needs[index]]
            was_refused = len(run.remote.calls) > number and run.remote.calls[number][1] == op.path
            assert was_refused or any(step(n) not in done for n in needs)
    assert len(applied.problems) == len(run.plan.ops) - len(done)
    assert applied.done == tally(run.committed)
    assert run.remote.mirrored == listed(replay(pair[0], run.committed))


@given(pairs(), seeds, st.integers(0, 40), st.integers(1, 5))
def test_cut_link_loses_nothing_that_was_acknowledged(
    pair: tuple[Tree, Tree], seed: int, number: int, at_once: int
) -> None:
    run = bench(pair, seed, at_once=at_once)
    run.remote.cut_at = number
    if len(run.plan.ops) > number:
        with pytest.raises(LinkLost):
            run.run()
    else:
        run.run()
    assert run.remote.mirrored == listed(replay(pair[0], run.committed))
    assert len(run.committed) == min(number, len(run.plan.ops))


@given(pairs(), seeds, st.integers(1, 4))
def test_nothing_is_committed_before_it_is_done(
    pair: tuple[Tree, Tree], seed: int, size: int
) -> None:
    run = bench(pair, seed)
    recorded = dict(pair[0])

    def commit(batch: list[Outcome]) -> None:
        edit(recorded, [effect(outcome.op) for outcome in batch])
        assert run.remote.mirrored == listed(recorded)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "COMMIT_OPS", size)
        patch.setattr(run, "commit", commit)
        run.run()
    assert recorded == run.local


# Failures.


def chain(depth: int) -> tuple[Tree, Plan]:
    """Directories in one another, with a file at the bottom, and the plan to make them."""
    paths = [b"/".join([b"d"] * level) for level in range(1, depth + 1)]
    bottom = paths[-1] + b"/file"
    local = {**dict.fromkeys(paths, DIRECTORY), bottom: FILES[0]}
    ops: list[Op] = [*(Mkdir(path, DIRECTORY) for path in paths), Upload(bottom, FILES[0])]
    return local, Plan(ops, [(), *((index,) for index in range(depth))])


def test_failure_at_the_top_of_a_deep_tree_is_a_problem_of_every_path() -> None:
    local, plan = chain(2000)
    run = Bench(local, MemoryRemote({}), plan)
    run.remote.refusals = {0: RequestError("No.", "permission-denied")}
    applied = run.run()
    assert {problem.path for problem in applied.problems} == local.keys()
    assert {problem.code for problem in applied.problems} == {"permission-denied"}
    assert applied.problems[-1].message == (
        "It needs something else that failed: The server refused: No."
    )
    assert run.remote.calls == [("mkdir", b"d")]


def test_problems_of_the_plan_are_problems_of_the_run() -> None:
    problem = Problem(b"path", "code", "Message.")
    assert Bench({}, MemoryRemote({}), Plan([], [], [problem])).run().problems == [problem]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RequestError("No.", "permission-denied"), "permission-denied"),
        (TornRead("It changed."), "changed-while-read"),
        (FileNotFoundError(2, "No such file"), "vanished"),
        (PermissionError(13, "Permission denied"), "unreadable"),
    ],
)
def test_error_of_one_path_is_its_problem(error: Exception, code: str) -> None:
    problem = problem_of(Outcome(Upload(b"a", FILES[0]), b"", error))
    assert problem is not None
    assert (problem.path, problem.code) == (b"a", code)


@pytest.mark.parametrize("error", [LinkLost("Gone."), RemoteStopped("Full.", "disk-full")])
def test_error_of_the_whole_remote_ends_the_run_after_recording_what_is_done(
    error: SkynetError,
) -> None:
    run = bench(({}, {b"a": FILES[1], b"b": FILES[2], b"c": FILES[3]}), at_once=0)
    run.remote.refusals = {1: error}
    with pytest.raises(type(error)):
        run.run()
    assert len(run.committed) == 2
    assert run.remote.mirrored == listed(replay({}, run.committed))


@pytest.mark.parametrize("error", [RemoteStopped("Full.", "disk-full"), KeyboardInterrupt()])
def test_after_an_error_of_recording_nothing_more_is_recorded(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Whether the manifest got the batch is not known; only reading it tells where it ends."""
    monkeypatch.setattr(room, "COMMIT_OPS", 1)
    local, plan = chain(1)
    run = Bench(local, MemoryRemote({}), plan)
    run.refuse_commit = error
    with pytest.raises(type(error)):
        run.run()
    assert run.refuse_commit is None
    assert not run.committed


def test_second_failure_while_recording_does_not_hide_the_first() -> None:
    run = bench(({}, {b"a": FILES[1], b"b": FILES[2]}), at_once=0)
    run.remote.refusals = {1: RemoteStopped("Full.", "disk-full")}
    run.refuse_commit = LinkLost("Gone.")
    with pytest.raises(RemoteStopped):
        run.run()
    assert not run.committed


@pytest.mark.parametrize("error", [OwnedError("Taken over."), KeyboardInterrupt()])
def test_what_was_done_is_recorded_when_the_beat_ends_the_run(error: BaseException) -> None:
    run = bench(({}, {b"a": FILES[1], b"b": FILES[2]}))

    def beat() -> None:
        raise error

    run.beat = beat  # type: ignore[method-assign]  # what a lost lease or Ctrl-C does
    with pytest.raises(type(error)):
        run.run()
    assert run.remote.mirrored == listed(replay({}, run.committed))
    assert run.committed


# The root, before deletes.


def test_root_is_verified_before_deletes_only() -> None:
    run = bench(({}, {b"a": FILES[1]}))
    run.run()
    assert run.root.verified == 0
    run = bench(({b"a": FILES[1], b"b": FILES[2]}, {}), at_once=0)
    run.run()
    assert run.root.verified == 1


def test_swapped_root_stops_before_the_delete_that_is_next() -> None:
    remote = {b"a": FILES[1], b"d": DIRECTORY, b"d/b": FILES[2]}
    run = bench((remote, {b"c": FILES[3]}), at_once=0)
    run.root = MemoryRoot(run.local, replaced_after=1)
    with pytest.raises(SourceError):
        run.run()
    assert {kind for kind, _ in run.remote.calls} == {"upload", "delete"}
    assert run.remote.mirrored == listed({b"c": FILES[3], b"d": DIRECTORY})
    assert len(run.committed) == 3


def test_what_came_back_is_not_deleted_nor_what_needs_that() -> None:
    remote = {b"d": DIRECTORY, b"d/a": FILES[1], b"e": DIRECTORY, b"b": FILES[2], b"c": FILES[3]}
    run = bench((remote, {b"kept": FILES[0]}))
    run.root = MemoryRoot({**run.local, b"d/a": FILES[1], b"e": DIRECTORY, b"c": DIRECTORY})
    applied = run.run()
    codes = {problem.path: problem.code for problem in applied.problems}
    assert codes == dict.fromkeys([b"d/a", b"d", b"e"], "came-back")
    kept = {path: remote[path] for path in (b"d", b"d/a", b"e")}
    assert run.remote.mirrored == listed({**kept, b"kept": FILES[0]})


def test_what_is_not_ours_is_deleted_without_a_second_look() -> None:
    plan = Plan([Delete(b"a", FILES[1], foreign=True), Rmdir(b"d", foreign=True)], [(), ()])
    run = Bench({}, MemoryRemote({b"a": FILES[1], b"d": DIRECTORY}), plan)
    run.root = MemoryRoot({b"a": FILES[1], b"d": DIRECTORY})
    assert not run.run().problems
    assert run.remote.mirrored == {}


def test_what_cannot_be_looked_at_again_is_not_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    run = bench(({b"a": FILES[1]}, {}))

    def refuse(path: bytes, *, directory: bool) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(run.root, "exists", refuse)
    assert [(p.path, p.code) for p in run.run().problems] == [(b"a", "unreadable")]
    assert run.remote.mirrored == listed({b"a": FILES[1]})


# Batches, and what is told.


def many(count: int) -> Bench:
    local = {b"%d" % number: FILES[1] for number in range(count)}
    plan = Plan([Upload(path, entry) for path, entry in local.items()], [()] * count)
    return Bench(local, MemoryRemote({}, at_once=10), plan)


def test_batches_are_committed_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "COMMIT_OPS", 30)
    run = many(75)
    run.run()
    assert [len(batch) for batch in run.batches] == [30, 30, 15]


def test_batches_are_committed_by_time() -> None:
    run = many(30)

    def beat() -> None:
        run.now += room.COMMIT_SECONDS / 2

    run.beat = beat  # type: ignore[method-assign]  # time passes
    run.run()
    assert [len(batch) for batch in run.batches] == [20, 10]


def test_no_more_is_under_way_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "UNDER_WAY", 12)
    run = many(50)
    most = 0
    wait = run.remote.wait

    def counting(seconds: float) -> list[Outcome]:
        nonlocal most
        most = max(most, run.remote.under_way)
        return wait(seconds)

    monkeypatch.setattr(run.remote, "wait", counting)
    run.run()
    assert most == 12


def test_progress_ends_at_the_total() -> None:
    run = many(25)
    run.run()
    sent = 25 * FILES[1].size
    assert run.events[-1] == Progress(25, 25, sent, sent)
    assert run.beats == 3


def test_digest_of_what_was_sent_is_what_is_recorded() -> None:
    unread = msgspec.structs.replace(FILES[1], digest=b"")
    run = Bench({b"a": FILES[1]}, MemoryRemote({}), Plan([Upload(b"a", unread)], [()]))
    run.run()
    ((outcome,),) = run.batches
    assert outcome.op == Upload(b"a", FILES[1])
    assert outcome.identity == b"identity of a"


def test_steps_of_one_path_are_told_apart() -> None:
    old, new = FILES[1], msgspec.structs.replace(FILES[1], mode=0o600)
    ops: list[Op] = [Rename(b"b", b"a", old), Record(b"b", new), Delete(b"c", old)]
    run = Bench({}, MemoryRemote({b"a": old, b"c": old}), Plan(ops, [(), (0,), ()]))
    assert run.run().done == tally(ops)
    assert replay({b"a": old, b"c": old}, run.committed) == {b"b": new}
