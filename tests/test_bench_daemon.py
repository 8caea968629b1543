"""What scripts/bench does while a daemon watches, and what it makes of what it sees."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from _bench_daemon import (
    Eyes,
    Scene,
    memory,
    percentile,
    processor_seconds,
    until_at_rest,
    watched,
)
from _bench_data import ensure_data, require_same, tally
from _bench_items import ITEMS
from _bench_link import Link, Network
from _bench_options import parse_options
from _bench_report import Result, Sample, bar_text, item_text
from _bench_tools import (
    Access,
    Command,
    Job,
    Meter,
    has_ended,
    lsyncd,
    sftp,
    skynet_daemon,
)
from _bench_work import KIB, MIB, Bar, Batch, BenchError, Item, Watch

from tests.support.sshd import find_program

FEW = (Batch("few", 10, 10, 10, per_directory=2),)
NEW = (Batch("new", 30, 5, 9, per_directory=4),)
FILM = (Batch("video", 1, 20 * MIB, 20 * MIB), Batch("picture", 5, KIB, KIB))


def scene_of(base: Path, made: tuple[Batch, ...], requests: Iterator[int] | None = None) -> Scene:
    """A daemon of our own: whenever somebody asks whether it lives, it copies all that is new."""
    source, target = base / "source", base / "target"
    for folder in (source, target):
        shutil.copytree(ensure_data(base / "data", FEW), folder)

    def work() -> bool:
        for path in source.rglob("*"):
            there = target / path.relative_to(source)
            if path.is_dir():
                there.mkdir(exist_ok=True)
            elif not there.exists():
                shutil.copyfile(path, base / "temporary")
                (base / "temporary").rename(there)
        return True

    made_ones = ensure_data(base / "data", made)
    count = (lambda: 0) if requests is None else (lambda: next(requests))
    return Scene(source, target, made_ones, os.getpid(), work, count)


def require_all_new(scene: Scene, count: int) -> None:
    require_same(scene.source, scene.target, tally(scene.source), every_byte=True)
    assert tally(scene.source).files == 10 + count


# --- eyes


@pytest.fixture
def eyes(tmp_path: Path) -> Eyes:
    return Eyes(scene_of(tmp_path, NEW)._replace(is_alive=lambda: True))


def test_a_file_is_visible_when_it_is_there_and_was_written(eyes: Eyes, tmp_path: Path) -> None:
    eyes.expect("one", 3)
    eyes.written("one")
    eyes.look()
    assert eyes.delays == {}
    (tmp_path / "target" / "one").write_bytes(b"abc")
    eyes.look()
    assert list(eyes.delays) == ["one"]
    assert eyes.delays["one"] >= 0


def test_a_file_that_is_there_in_part_is_an_error(eyes: Eyes, tmp_path: Path) -> None:
    eyes.expect("one", 3)
    (tmp_path / "target" / "one").write_bytes(b"ab")
    with pytest.raises(BenchError, match="visible with 2 of 3 bytes"):
        eyes.look()


def test_a_file_that_is_there_before_it_is_finished_is_an_error(eyes: Eyes, tmp_path: Path) -> None:
    eyes.expect("one", 3)
    (tmp_path / "target" / "one").write_bytes(b"abc")
    with pytest.raises(BenchError, match="before it was finished"):
        eyes.look()


def test_a_file_that_does_not_come_holds_up_no_other(eyes: Eyes, tmp_path: Path) -> None:
    names = [f"file {number}" for number in range(100)]
    for name in ("never", *names):
        eyes.expect(name, 1)
        eyes.written(name)
    for name in names:
        (tmp_path / "target" / name).write_bytes(b"x")
    eyes.look()
    assert set(eyes.delays) == set(names)


def test_nobody_waits_for_a_daemon_that_has_ended(tmp_path: Path) -> None:
    eyes = Eyes(scene_of(tmp_path, NEW)._replace(is_alive=lambda: False))
    eyes.expect("one", 1)
    with pytest.raises(BenchError, match="has ended"):
        eyes.wait()


# --- watches


@pytest.mark.parametrize("watch", ["burst", "overflow"])
def test_all_that_is_made_at_once_is_waited_for(watch: Watch, tmp_path: Path) -> None:
    scene = scene_of(tmp_path, NEW)
    places = set(scene.source.iterdir())
    found = watched(watch, scene, 0)
    require_all_new(scene, 30)
    assert found.seconds > 0
    assert (set(scene.source.iterdir()) == places) == (watch == "overflow")


def test_requests_are_counted_for_each_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    scene = scene_of(tmp_path, (Batch("new", 3, 5, 5),), iter([100, 108, 120, 127]))
    found = watched("one", scene, 0)
    require_all_new(scene, 3)
    assert found.requests == 8
    assert "7 to 12 requests a file" in found.remark


def test_a_film_grows_beside_pictures(tmp_path: Path) -> None:
    scene = scene_of(tmp_path, FILM)
    found = watched("video", scene, 0.05)
    require_all_new(scene, 6)
    assert found.late_seconds is not None
    assert "the large file" in found.remark


def test_a_film_that_is_visible_while_it_grows_is_an_error(tmp_path: Path) -> None:
    scene = scene_of(tmp_path, FILM)
    with pytest.raises(BenchError, match="visible with"):
        watched("video", scene._replace(target=scene.source), 0.05)


def test_at_rest_is_who_has_sent_a_first_file(tmp_path: Path) -> None:
    scene = scene_of(tmp_path, NEW)
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        until_at_rest(scene._replace(pid=sleeper.pid))
    finally:
        sleeper.kill()
        sleeper.wait()
    require_all_new(scene, 1)


# --- figures


@pytest.mark.parametrize(
    ("count", "percent", "expected"), [(1, 95, 1), (20, 95, 19), (40, 95, 38), (21, 95, 20)]
)
def test_percentile_is_a_figure_that_was_measured(count: int, percent: int, expected: int) -> None:
    assert percentile(range(count, 0, -1), percent) == expected


def test_the_processor_seconds_of_children_count() -> None:
    subprocess.run(["sh", "-c", "i=0; while [ $i -lt 500000 ]; do i=$((i+1)); done"], check=True)
    own, ended = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    of_children = processor_seconds(os.getpid()) - own.ru_utime - own.ru_stime
    assert of_children > (ended.ru_utime + ended.ru_stime) / 2


def test_memory_is_what_is_held_now_and_was_at_most() -> None:
    resident, peak = memory(os.getpid())
    assert MIB < resident <= peak


SAMPLE = Sample(
    *("skynet", 1, "ok", 600.0, 1.5, MIB),
    late_seconds=1.25,
    resident=2 * MIB,
    wire_bytes=9000,
    remark="much was seen",
)


@pytest.mark.parametrize(
    ("bar", "said"),
    [
        (Bar("late", 1.2), "at most 1.2 s for 19 files of 20: MISSED, 1.250"),
        (Bar("load", 0.002), "at most 0.002 of a processor: MISSED, 0.00250"),
        (Bar("resident", 2 * MIB), "of memory in the end: met, 2.1 MB"),
        (Bar("wire", 8999), "at most 9.0 kB on the wire: MISSED, 9.0 kB"),
    ],
)
def test_bars_of_watchers_say_whether_they_are_met(bar: Bar, said: str) -> None:
    assert said in bar_text(Result(Item("work", "work", "watch"), (SAMPLE,)), bar)


@pytest.mark.parametrize("measure", ["late", "resident", "wire"])
def test_what_a_turn_did_not_measure_meets_no_bar(measure: str) -> None:
    bare = Sample("skynet", 1, "ok", 1.0, 1.0, MIB)
    bar = Bar(measure, 10)  # type: ignore[arg-type]  # one of its words
    assert "not measured" in bar_text(Result(Item("work", "work", "watch"), (bare,)), bar)


def test_remarks_are_shown() -> None:
    text = item_text(Result(Item("work", "work", "watch"), (SAMPLE,)), is_full_size=False)
    assert "  skynet, round 1: much was seen" in text.splitlines()


# --- items, options, commands


def test_every_watch_has_an_item() -> None:
    watching = [item for item in ITEMS if item.watch]
    assert sorted(item.watch or "" for item in watching) == sorted(get_args(Watch))
    assert all(item.made or item.watch == "idle" for item in watching)
    assert all(item.span or item.watch not in ("idle", "video") for item in watching)


def test_what_is_made_and_how_long_it_takes_shrink_too() -> None:
    (item,) = parse_options(["watch-video", "--scale", "0.1"]).items
    video, pictures = item.made
    assert (round(item.span), pictures.count, video.count) == (6, 10, 1)
    assert item.size == video.largest + 10 * MIB


def test_the_idle_time_is_as_asked() -> None:
    (item,) = parse_options(["watch-idle", "--idle-minutes", "0.5"]).items
    assert item.span == 30
    (video,) = parse_options(["watch-video", "--idle-minutes", "0.5"]).items
    assert video.span == 60


@pytest.mark.parametrize("minutes", ["0", "-1", "soon", "1441"])
def test_wrong_idle_times_are_refused(minutes: str) -> None:
    with pytest.raises(SystemExit):
        parse_options(["watch-idle", "--idle-minutes", minutes])


ACCESS = Access("someone", 2222, Path("/keys/my key"), Path("/keys/known hosts"))
JOB = Job(Path("/data/a b"), Path('/target/"x"'))


def test_the_daemon_is_told_of_one_mirror() -> None:
    words = skynet_daemon(Path("/python"), Path("/state"), ACCESS, JOB).words
    assert "daemon" in words
    assert not {"--json", "--audit", "--no-audit"} & set(words)


def test_lsyncd_is_told_in_lua() -> None:
    config = lsyncd(ACCESS, JOB).stdin.decode()
    assert 'target = "someone@127.0.0.1:/target/\\"x\\"/"' in config
    assert "delay = 1," in config


def test_a_daemon_ends_with_its_block(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    meter = Meter(tmp_path, tmp_path, tmp_path / "home")
    says = 'trap "echo asked; exit" TERM; cat; echo ready; while :; do sleep 0.01; done'
    with meter.running(Command(["sh", "-c", says], b"hello ")) as process:
        while b"ready" not in meter.output.read_bytes():
            assert not has_ended(process.pid)
    assert meter.output.read_text().split() == ["hello", "ready", "asked"]
    assert process.returncode == 0


# --- the link that counts


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    for program in ("sshd", "sftp"):
        find_program(program)
    (tmp_path / "server").mkdir()
    with Network(tmp_path / "server") as network:
        yield network


def test_requests_are_counted_on_their_own_link_alone(network: Network, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "one").write_bytes(b"x")

    def asked(link: Link, target: Path) -> int:
        before = network.requests()
        access = Access(network.user, link.port, network.client_key, network.known_hosts)
        command = sftp(access, Job(tmp_path / "files", target))
        subprocess.run(command.words, input=command.stdin, check=True, timeout=60)
        network.settle()
        return network.requests() - before

    assert asked(network.link(0), tmp_path / "a") == 0
    first = asked(network.link(0, is_counted=True), tmp_path / "b")
    assert first == asked(network.link(0, is_counted=True), tmp_path / "c")
    assert 5 <= first <= 30
