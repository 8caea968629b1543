"""How scripts/bench measures one work item: what is prepared, the rounds, what is checked."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from _bench_changes import make_change
from _bench_daemon import Scene, memory, processor_seconds, until_at_rest, watched
from _bench_data import Tally, ensure_data, require_same, warm
from _bench_link import Network
from _bench_options import Options
from _bench_pace import Readings, strayed
from _bench_report import Outcome, Result, Sample, progress
from _bench_tools import (
    COMMANDS,
    Access,
    Command,
    Job,
    Meter,
    Usage,
    has_ended,
    skynet,
    skynet_daemon,
    skynet_plan,
)
from _bench_work import CUT_AT, ONCE, SKYNET, BenchError, Item

ROOT = Path(__file__).resolve().parent.parent
SKYNET_SECONDS = 3600.0  # for one run; a hung one must still end

Turn = Callable[[str, int], Sample]  # of a tool, in the round with this number


def say(text: str) -> None:
    # Standard output is for the results alone.
    print(text, file=sys.stderr, flush=True)


class Bench:
    """Measures items, one after another, with one server and one directory for all."""

    def __init__(
        self,
        options: Options,
        python: Path,
        peers: Sequence[str],
        network: Network,
        work: Path,
    ) -> None:
        self._options = options
        self._python = python
        self._peers = peers
        self._network = network
        self._meter = Meter(work, ROOT, work / "home")
        self._data = options.data or work / "data"
        self._source = work / "source"  # what changes
        self._target = work / "target"  # where first syncs go, and changes
        self._copy = work / "copy"  # what peers find unchanged
        self._mirror = work / "mirror"  # what skynet finds unchanged
        self._state = work / "state"

    def run(self, item: Item) -> Result:
        """All rounds of one item. What it leaves on the disk is the data alone."""
        say(f"\n{item.name}: {item.title}")
        try:
            match item.kind:
                case "first":
                    return self._first(item)
                case "limited":
                    return self._limited(item)
                case "unchanged":
                    return self._unchanged(item)
                case "changed":
                    return self._changed(item)
                case "plan":
                    return self._plan(item)
                case "resume":
                    return self._resume(item)
                case "startup":
                    return self._startup(item)
                case "watch":
                    return self._watch(item)
        finally:
            if not self._options.keep:
                self._clear()

    def _first(self, item: Item) -> Result:
        source = ensure_data(self._data, item.batches)
        expected = warm(source)
        job = Job(source, self._target, item.is_single_file)

        def turn(tool: str, number: int) -> Sample:
            self._clear()
            return self._verified(self._sync(item, tool, number, job), job, expected)

        return self._rounds(item, turn)

    def _limited(self, item: Item) -> Result:
        """A first sync during which it is read again and again how much has moved."""
        source = ensure_data(self._data, item.batches)
        expected = warm(source)
        job = Job(source, self._target, rate=item.rate)

        def turn(tool: str, number: int) -> Sample:
            self._clear()
            readings = Readings(self._counter(item))
            sample = self._sync(item, tool, number, job, readings.look)
            off = strayed(readings.taken, item.rate, item.size)
            remark = "" if off is None else f"at most {off:.1%} from the limit over any minute"
            sample = dataclasses.replace(sample, strayed=off, remark=remark)
            return self._verified(sample, job, expected)

        return self._rounds(item, turn)

    def _unchanged(self, item: Item) -> Result:
        """The peers find a faithful copy, which none of them changes; skynet its own mirror."""
        source = ensure_data(self._data, item.batches)
        self._clear()
        say("Preparing what nothing will be changed in ...")
        shutil.copytree(source, self._copy)
        self._prepare_mirror(item, Job(source, self._mirror))

        def turn(tool: str, number: int) -> Sample:
            target = self._mirror if tool == SKYNET else self._copy
            return self._sync(item, tool, number, Job(source, target, audit=item.audit))

        return self._rounds(item, turn)

    def _prepare_mirror(self, item: Item, job: Job, is_counted: bool = False) -> None:
        """Mirror without delay; then once over the item's link, whose port is part of the URL."""
        for rtt_ms, counted in sorted({(0, False), (item.rtt_ms, is_counted)}):
            self._prepare(rtt_ms, job, counted)

    def _prepare(self, rtt_ms: int, job: Job, is_counted: bool = False) -> None:
        """One sync by skynet that is not measured."""
        command = skynet(self._python, self._state, self._access(rtt_ms, is_counted), job)
        if self._meter.run(command, SKYNET_SECONDS).exit_code != 0:
            raise BenchError(f"skynet could not prepare: {self._meter.complaint()}")

    def _changed(self, item: Item) -> Result:
        """Each turn begins with the old state on both sides; what is measured is the change."""
        job = Job(self._source, self._target, audit=item.audit, is_update=True)

        def turn(tool: str, number: int) -> Sample:
            self._change(item, tool, job)
            expected = warm(job.source)
            return self._verified(self._sync(item, tool, number, job), job, expected)

        return self._rounds(item, turn)

    def _plan(self, item: Item) -> Result:
        """A dry run changes nothing, so that one old state and one change serve all rounds."""
        job = Job(self._source, self._target, audit=item.audit, is_update=True)
        say("Preparing what will be changed ...")
        self._change(item, SKYNET, job)
        os.sync()
        command = skynet_plan(self._python, self._state, self._access(item.rtt_ms), job)

        def turn(tool: str, number: int) -> Sample:
            usage = self._meter.run(command, SKYNET_SECONDS)
            self._network.settle()
            return self._with_report(self._sample(tool, number, usage), item)

        return self._rounds(item, turn)

    def _change(self, item: Item, tool: str, job: Job) -> None:
        """The old state on both sides, and then the change on this one."""
        assert item.change is not None, "the items of these kinds have a change"
        self._clear()
        old = ensure_data(self._data, item.batches)
        shutil.copytree(old, job.source)
        if tool == SKYNET:
            self._prepare(item.rtt_ms, job)
            self._prepare(item.rtt_ms, job)  # knows files that were too young for it the first time
            self._network.settle()
        else:
            shutil.copytree(old, job.target)
        make_change(item.change, job.source)

    def _resume(self, item: Item) -> Result:
        """The turn is the second run; what is counted on the wire are both."""
        source = ensure_data(self._data, item.batches)
        expected = warm(source)
        job = Job(source, self._target, item.is_single_file)
        moved = self._counter(item)

        def turn(tool: str, number: int) -> Sample:
            self._clear()
            begun = moved()
            command = skynet(self._python, self._state, self._access(item.rtt_ms), job)
            cut = self._meter.run(
                command, SKYNET_SECONDS, lambda: moved() - begun >= CUT_AT * item.size
            )
            if cut.exit_code is not None:
                raise BenchError(f"skynet ended before it was cut: {self._meter.complaint()}")
            self._network.settle()
            sample = self._verified(self._sync(item, tool, number, job), job, expected)
            return dataclasses.replace(sample, wire_bytes=moved() - begun)

        return self._rounds(item, turn)

    def _counter(self, item: Item) -> Callable[[], int]:
        """What counts the bytes on the way to the server of an item that has a delay."""
        link = self._network.link(item.rtt_ms)

        def moved() -> int:
            count = link.moved()
            assert count is not None, "this item has a delay, and so a proxy"
            return count

        return moved

    def _startup(self, item: Item) -> Result:
        command = Command([str(self._python), "-m", "skynet", "--version"])

        def turn(tool: str, number: int) -> Sample:
            return self._sample(tool, number, self._meter.run(command, SKYNET_SECONDS))

        return self._rounds(item, turn)

    def _watch(self, item: Item) -> Result:
        """Each turn begins with both sides in sync; all bytes are compared at its end."""
        job = Job(self._source, self._target)
        made = ensure_data(self._data, item.made) if item.made else self._data

        def turn(tool: str, number: int) -> Sample:
            self._clear()
            shutil.copytree(ensure_data(self._data, item.batches), job.source)
            if tool not in (SKYNET, ONCE):
                shutil.copytree(job.source, job.target)
            else:
                self._prepare_mirror(item, job, is_counted=tool == SKYNET)
            self._network.settle()
            if tool == ONCE:
                shutil.copytree(made, job.source, dirs_exist_ok=True)
                return dataclasses.replace(self._sync(item, SKYNET, number, job), tool=ONCE)
            try:
                sample = self._watched(item, tool, number, job, made)
                require_same(job.source, job.target, warm(job.source), every_byte=True)
            except BenchError as error:
                found = f"{error} ({self._meter.complaint()})"
                return Sample(tool, number, "failed", 0.0, 0.0, 0, message=found)
            return sample

        return self._rounds(item, turn)

    def _watched(self, item: Item, tool: str, number: int, job: Job, made: Path) -> Sample:
        """One daemon's turn, from where it has come to rest."""
        assert item.watch is not None, "the items of this kind have a watch"
        is_ours = tool == SKYNET
        access = self._access(item.rtt_ms, is_counted=is_ours)
        link = self._network.link(item.rtt_ms, is_counted=is_ours)
        command = (
            skynet_daemon(self._python, self._state, access, job)
            if is_ours
            else COMMANDS[tool](access, job)
        )
        os.sync()
        with self._meter.running(command) as process:
            pid = process.pid
            scene = Scene(
                *(job.source, job.target, made, pid),
                is_alive=lambda: not has_ended(pid),
                requests=self._network.requests,
            )
            until_at_rest(scene)
            cpu, before = processor_seconds(pid), link.moved()
            found = watched(item.watch, scene, item.span)
            cpu, after = processor_seconds(pid) - cpu, link.moved()
            resident, peak = memory(pid)
        self._network.settle()
        return Sample(
            *(tool, number, "ok", found.seconds, cpu, peak),
            wire_bytes=None if before is None or after is None else after - before,
            requests=found.requests if is_ours else None,
            late_seconds=found.late_seconds,
            resident=resident,
            remark=found.remark,
        )

    def _rounds(self, item: Item, turn: Turn) -> Result:
        """In each round every tool has a turn, another one first; who did not finish is out."""
        tools = [SKYNET, *(peer for peer in item.peers if peer in (*self._peers, ONCE))]
        samples: list[Sample] = []
        for number in range(self._options.rounds):
            for tool in rotated(tools, number):
                sample = turn(tool, number + 1)
                samples.append(sample)
                say(progress(sample, self._options.rounds))
            lost = {sample.tool for sample in samples if sample.outcome != "ok"}
            tools = [tool for tool in tools if tool not in lost]
        return Result(item, tuple(samples))

    def _sync(
        self,
        item: Item,
        tool: str,
        number: int,
        job: Job,
        is_enough: Callable[[], bool] | None = None,
    ) -> Sample:
        """One measured sync over the item's link. is_enough: asked every moment meanwhile."""
        access, link = self._access(item.rtt_ms), self._network.link(item.rtt_ms)
        if tool == SKYNET:
            command, seconds = skynet(self._python, self._state, access, job), SKYNET_SECONDS
        else:
            command = COMMANDS[tool](access, job)
            seconds = self._options.peer_timeout * item.patience
        os.sync()  # what the last turn left to write is not for this one to wait for
        before = link.moved()
        usage = self._meter.run(command, seconds, is_enough)
        after = link.moved()
        self._network.settle()
        sample = self._sample(tool, number, usage)
        if before is not None and after is not None:
            sample = dataclasses.replace(sample, wire_bytes=after - before)
        return self._with_report(sample, item) if tool == SKYNET else sample

    def _access(self, rtt_ms: int, is_counted: bool = False) -> Access:
        network = self._network
        port = network.link(rtt_ms, is_counted).port
        return Access(network.user, port, network.client_key, network.known_hosts)

    def _sample(self, tool: str, number: int, usage: Usage) -> Sample:
        # The kernel counts the memory of the process that forks as that of its child until the
        # child runs its own program, so no figure is below ours.
        own_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return Sample(
            tool,
            number,
            outcome_of(usage),
            usage.seconds,
            usage.cpu_seconds,
            usage.memory,
            memory_is_bound=usage.memory <= own_peak,
            message="" if usage.exit_code == 0 else self._meter.complaint(),
        )

    def _with_report(self, sample: Sample, item: Item) -> Sample:
        """The sample with what skynet says of its cycle; failed if it was idle, or not, wrongly."""
        if sample.outcome != "ok":
            return sample
        report: dict[str, Any] = json.loads(self._meter.output.read_bytes())
        done = report["plan" if item.kind == "plan" else "done"]
        operations = sum(done.values()) - done["bytes"]
        sample = dataclasses.replace(
            sample,
            requests=report["requests"],
            sent_bytes=report["sent_bytes"],
            renames=done["rename"],
            operations=operations,
        )
        if item.kind == "plan" and not operations:
            found = "much had changed, yet there is nothing in the plan."
            return dataclasses.replace(sample, outcome="failed", message=found)
        if item.kind == "unchanged" and report["mutations"]:
            found = f"nothing had changed, yet it made {report['mutations']} changes."
            return dataclasses.replace(sample, outcome="failed", message=found)
        return sample

    def _verified(self, sample: Sample, job: Job, expected: Tally) -> Sample:
        """The sample, failed if what arrived is not what was sent."""
        if sample.outcome != "ok":
            return sample
        try:
            # Files that were exchanged count the same before and after.
            every_byte = job.is_update or self._options.verify == "full"
            require_same(job.source, job.target, expected, every_byte)
        except BenchError as error:
            return dataclasses.replace(sample, outcome="failed", message=str(error))
        return sample

    def _clear(self) -> None:
        for folder in (self._source, self._target, self._copy, self._mirror, self._state):
            if folder.exists():
                shutil.rmtree(folder)


def outcome_of(usage: Usage) -> Outcome:
    if usage.exit_code is None:
        return "timeout"
    return "failed" if usage.exit_code else "ok"


def rotated(tools: Sequence[str], number: int) -> list[str]:
    start = number % len(tools) if tools else 0
    return [*tools[start:], *tools[:start]]
