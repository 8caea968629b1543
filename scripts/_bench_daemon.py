"""What is done to files while a daemon watches them, for scripts/bench, and when they arrive.

A file is visible when the server's disk, which is local here, has it under its final name. One that
is visible without all of its bytes is an error.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import RawIOBase
from itertools import islice, pairwise
from pathlib import Path
from random import Random
from typing import BinaryIO, NamedTuple

from _bench_data import walk_files
from _bench_link import descendants
from _bench_work import MIB, BenchError, Watch

# All in seconds.
PATIENCE = 600.0  # for anything to become visible, or for a daemon to come to rest
LOOK_SECONDS = 0.002  # between two looks at what is not visible yet
REST_SECONDS = 1.0  # is so long that a daemon at rest can be told by it
SHORTEST_PAUSE, LONGEST_PAUSE = 1.0, 3.0

REST_LOAD = 0.05  # processor seconds a second
GLANCE = 16  # missing files that are looked for at a time, since looking takes the machine's time
TICKS = os.sysconf("SC_CLK_TCK")


class Scene(NamedTuple):
    """A daemon, the process `pid`, keeps `target` equal to `source`.

    made: a folder with the files that come while it does. requests: how many it has sent so far.
    """

    source: Path
    target: Path
    made: Path
    pid: int
    is_alive: Callable[[], bool]
    requests: Callable[[], int]


class Found(NamedTuple):
    """What a watch came to: see `Sample`. wire_bytes and processor seconds are counted outside."""

    seconds: float
    late_seconds: float | None = None
    requests: int | None = None
    remark: str = ""


class Eyes:
    """They look for files at the target, and note how long after being written each was there."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._waiting: dict[str, int] = {}  # name -> size
        self._written: dict[str, float] = {}
        self._came: dict[str, float] = {}

    def expect(self, name: str, size: int) -> None:
        """It will come, and never with another size."""
        self._waiting[name] = size

    def written(self, name: str) -> None:
        """It was written and closed just now."""
        self._written[name] = time.monotonic()

    def look(self) -> None:
        """See what has come. Raises BenchError if a file is there in part."""
        while seen := [name for name in islice(self._waiting, GLANCE) if self._is_there(name)]:
            now = time.monotonic()
            for name in seen:
                if name not in self._written:
                    raise BenchError(f"{name} was visible before it was finished.")
                del self._waiting[name]
                self._came[name] = now

    def wait(self) -> None:
        """Look until all is there. Raises BenchError when that takes too long."""
        end = time.monotonic() + PATIENCE
        while True:
            self.look()
            if not self._waiting:
                return
            if not self._scene.is_alive():
                raise BenchError("the daemon has ended.")
            if time.monotonic() > end:
                raise BenchError(f"{len(self._waiting)} files did not come, or came too late.")
            time.sleep(LOOK_SECONDS)

    @property
    def delays(self) -> Mapping[str, float]:
        """Seconds from the end of writing to being visible."""
        return {name: came - self._written[name] for name, came in self._came.items()}

    @property
    def last(self) -> float:
        """When the last one came, in monotonic seconds."""
        return max(self._came.values())

    def _is_there(self, name: str) -> bool:
        try:
            size = (self._scene.target / name).stat().st_size
        except FileNotFoundError:
            return False
        if size != self._waiting[name]:
            raise BenchError(f"{name} was visible with {size} of {self._waiting[name]} bytes.")
        return True


def watched(watch: Watch, scene: Scene, span: float) -> Found:
    """Do to the files what the watch is about. span: seconds, where it has a length of its own."""
    match watch:
        case "one":
            return _one(scene)
        case "burst":
            return _burst(scene)
        case "idle":
            time.sleep(span)
            return Found(span)
        case "overflow":
            return _overflow(scene)
        case "video":
            return _video(scene, span)


def until_at_rest(scene: Scene) -> None:
    """Wait until the daemon has sent a first file and has nothing more to do. BenchError."""
    eyes = Eyes(scene)
    _put(scene, eyes, "probe", b"is anybody there?")
    eyes.wait()
    end = time.monotonic() + PATIENCE
    before = processor_seconds(scene.pid)
    while True:
        time.sleep(REST_SECONDS)
        now = processor_seconds(scene.pid)
        if now - before < REST_LOAD * REST_SECONDS:
            return
        if time.monotonic() > end:
            raise BenchError("the daemon did not come to rest.")
        before = now


def _one(scene: Scene) -> Found:
    """Files one after the other, in directories at random, with pauses."""
    source = Random("one")
    eyes = Eyes(scene)
    counts = [scene.requests()]
    for name, content in _scattered(scene, source):
        _put(scene, eyes, name, content)
        eyes.wait()
        time.sleep(source.uniform(SHORTEST_PAUSE, LONGEST_PAUSE))  # what is recorded counts too
        counts.append(scene.requests())
    delays = list(eyes.delays.values())
    asked = [after - before for before, after in pairwise(counts)]
    remark = spelled(delays)
    if any(asked):
        remark += f"; {min(asked)} to {max(asked)} requests a file"
    return Found(
        statistics.median(delays),
        percentile(delays, 95),
        statistics.median_high(asked),
        remark,
    )


def _burst(scene: Scene) -> Found:
    """All at once, in new directories; counted from the moment before the first."""
    return _flood(scene, _as_they_are(scene))


def _overflow(scene: Scene) -> Found:
    """All at once, in directories at random; counted from the moment before the first."""
    return _flood(scene, _scattered(scene, Random("overflow")))


def _flood(scene: Scene, files: Iterator[tuple[str, bytes]]) -> Found:
    ready = list(files)
    eyes = Eyes(scene)
    began = time.monotonic()
    for name, content in ready:
        _put(scene, eyes, name, content)
    made = time.monotonic()
    eyes.wait()
    return Found(eyes.last - began, remark=f"made in {made - began:.2f} s, which is counted")


def _video(scene: Scene, span: float) -> Found:
    """One file grows evenly; meanwhile the others are made one by one."""
    *pictures, (video, size) = sorted(_sizes(scene.made), key=lambda each: each[1])
    eyes = Eyes(scene)
    began = time.monotonic()
    _make_place(scene, video)
    eyes.expect(video, size)
    with (scene.made / video).open("rb") as whole, (scene.source / video).open("wb", 0) as growing:
        share, made = 0.0, 0
        while share < 1:
            share = min(1.0, (time.monotonic() - began) / span)
            _grow(growing, whole, int(size * share))
            for name, _ in pictures[made : int(len(pictures) * share)]:
                _put(scene, eyes, name, (scene.made / name).read_bytes())
                made += 1
            eyes.look()
            time.sleep(LOOK_SECONDS)
    eyes.written(video)
    eyes.wait()
    delays = dict(eyes.delays)
    after = delays.pop(video)
    return Found(
        statistics.median(delays.values()),
        percentile(list(delays.values()), 95),
        remark=f"{spelled(list(delays.values()))}; the large file {after:.2f} s after its end",
    )


def _grow(growing: RawIOBase, whole: BinaryIO, size: int) -> None:
    """Let it have so many bytes of the whole."""
    while (missing := size - growing.tell()) > 0:
        growing.write(whole.read(min(MIB, missing)))


def _put(scene: Scene, eyes: Eyes, name: str, content: bytes) -> None:
    path = scene.source / name
    eyes.expect(name, len(content))
    try:
        file = path.open("wb", 0)
    except FileNotFoundError:
        _make_place(scene, name)
        file = path.open("wb", 0)
    with file:
        file.write(content)
    eyes.written(name)


def _make_place(scene: Scene, name: str) -> None:
    (scene.source / name).parent.mkdir(parents=True, exist_ok=True)


def _scattered(scene: Scene, source: Random) -> Iterator[tuple[str, bytes]]:
    """The files that are to come, each in a directory that is there, at random."""
    places = sorted(entry.name for entry in scene.source.iterdir() if entry.is_dir())
    for name, content in _as_they_are(scene):
        yield f"{source.choice(places)}/{os.path.basename(name)}", content


def _as_they_are(scene: Scene) -> Iterator[tuple[str, bytes]]:
    for name, _ in sorted(_sizes(scene.made)):
        yield name, (scene.made / name).read_bytes()


def _sizes(folder: Path) -> Iterator[tuple[str, int]]:
    for entry in walk_files(folder):
        yield os.path.relpath(entry.path, folder), entry.stat().st_size


# --- figures


def percentile(figures: Sequence[float], percent: int) -> float:
    """The smallest figure that so many of a hundred do not exceed."""
    return sorted(figures)[-(-len(figures) * percent // 100) - 1]


def spelled(delays: Sequence[float]) -> str:
    median, late = statistics.median(delays), percentile(delays, 95)
    return f"visible after {median:.2f} s, 19 of 20 within {late:.2f} s, the last {max(delays):.2f}"


def processor_seconds(pid: int) -> float:
    """What the process and all below it have taken, those that have ended included."""
    return sum(map(_processor_seconds, [pid, *descendants(pid)]))


def _processor_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0  # it ended just now, and its parent counts it
    return sum(map(int, fields[11:15])) / TICKS


def memory(pid: int) -> tuple[int, int]:
    """Bytes that the process holds, and held at most; nothing when it has ended."""
    status = Path(f"/proc/{pid}/status")
    words = dict(line.split(":", 1) for line in status.read_text().splitlines())
    resident, peak = (int(words.get(key, "0 kB").split()[0]) for key in ("VmRSS", "VmHWM"))
    return resident * 1024, peak * 1024
