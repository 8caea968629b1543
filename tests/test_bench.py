"""The parts of scripts/bench that only calculate: statistics, tables, chart, options, data."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import get_args

import pytest
from _bench_chart import BARS_WIDTH, chart
from _bench_data import ensure_data, require_same, tally, warm
from _bench_items import COMMIT_REQUESTS, ITEMS
from _bench_options import parse_options
from _bench_pace import Reading, strayed
from _bench_report import Outcome, Result, Sample, bar_text, item_text, ratio, result_json, table
from _bench_tools import COMMANDS, Access, Job, skynet, skynet_plan, tool_environment
from _bench_work import MIB, ONCE, PEERS, Bar, Batch, BenchError, Change, Item

from tests import test_request_counts

ACCESS = Access("someone", 2222, Path("/keys/my key"), Path("/keys/known hosts"))
JOB = Job(Path("/data/a b"), Path('/target/"x"'))


def turn(tool: str, number: int, seconds: float, outcome: Outcome = "ok") -> Sample:
    return Sample(tool, number, outcome, seconds, seconds / 2, 50 * MIB)


def result(*samples: Sample, title: str = "some work", bars: tuple[Bar, ...] = ()) -> Result:
    return Result(Item("work", title, "first", bars=bars), samples)


THREE_ROUNDS = (
    *(turn("skynet", 1, 1.0), turn("skynet", 2, 2.0), turn("skynet", 3, 3.0)),
    *(turn("rsync", 1, 2.0), turn("rsync", 2, 2.0), turn("rsync", 3, 2.0)),
    *(turn("rclone", 1, 4.0), turn("rclone", 2, 1.0), turn("rclone", 3, 6.0)),
)
COUNTED = Sample(
    *("skynet", 1, "ok", 1.0, 1.0, MIB),
    requests=30,
    sent_bytes=2_000_000,
    renames=1,
    operations=21,
)
STOPPED = (turn("skynet", 1, 1.0), turn("skynet", 2, 3.0), turn("lftp", 1, 100.0, "timeout"))


# --- ratios


def test_ratio_is_taken_within_each_round() -> None:
    found = ratio(result(*THREE_ROUNDS), ["rsync"])
    assert found is not None
    assert not found.is_bound
    assert found.spread == (1.0, 0.5, 1.5)


def test_ratio_to_several_peers_is_to_the_best_of_each_round() -> None:
    found = ratio(result(*THREE_ROUNDS), ["rsync", "rclone"])
    assert found is not None
    assert found.spread == (1.5, 0.5, 2.0)


def test_rounds_that_one_of_both_did_not_finish_do_not_count() -> None:
    samples = (turn("skynet", 1, 1.0), turn("skynet", 2, 8.0), turn("rsync", 1, 2.0))
    found = ratio(result(*samples, turn("rsync", 2, 9.0, "failed")), ["rsync"])
    assert found is not None
    assert found.spread == (0.5, 0.5, 0.5)


def test_ratio_to_a_peer_that_was_stopped_is_a_bound() -> None:
    found = ratio(result(*STOPPED), ["lftp"])
    assert found is not None
    assert found.is_bound
    assert found.spread == (0.02, 0.01, 0.03)


def test_a_stopped_peer_does_not_spoil_the_ratio_to_one_that_finished() -> None:
    found = ratio(result(*STOPPED, turn("rsync", 1, 2.0)), ["lftp", "rsync"])
    assert found is not None
    assert not found.is_bound
    assert found.spread.median == 0.5


@pytest.mark.parametrize(
    "samples",
    [
        (),
        (turn("skynet", 1, 1.0),),
        (turn("rsync", 1, 1.0),),
        (turn("skynet", 1, 1.0), turn("rsync", 1, 1.0, "failed")),
        (turn("skynet", 1, 1.0, "failed"), turn("rsync", 1, 1.0)),
    ],
)
def test_there_is_no_ratio_where_they_never_met(samples: tuple[Sample, ...]) -> None:
    assert ratio(result(*samples), ["rsync"]) is None


# --- bars


@pytest.mark.parametrize(
    ("bar", "said"),
    [
        (Bar("ratio", 1.0, ("rsync",)), "at most 1 of rsync: met, 1.000"),
        (Bar("ratio", 0.9, ("rsync",)), "at most 0.9 of rsync: MISSED, 1.000"),
        (Bar("ratio", 1.4, ("rsync", "rclone")), "the best of rsync, rclone: MISSED, 1.500"),
        (Bar("ratio", 1.0, ("sftp",)), "sftp: not measured"),
        (Bar("memory", 50 * MIB), "at most 52.4 MB of memory: met, 52.4 MB"),
        (Bar("memory", 49 * MIB), "MISSED, 52.4 MB"),
        (Bar("cpu", 1.0), "at most 1 s of processor time: met, 1.000"),
        (Bar("cpu", 0.9), "MISSED, 1.000"),
    ],
)
def test_bar_says_whether_it_is_met(bar: Bar, said: str) -> None:
    assert said in bar_text(result(*THREE_ROUNDS), bar)


@pytest.mark.parametrize(
    ("bar", "said"),
    [
        (Bar("seconds", 1.0), "at most 1 s: met, 1.000"),
        (Bar("seconds", 0.9), "at most 0.9 s: MISSED, 1.000"),
        (Bar("content", 2_000_000), "at most 2.0 MB of content: met, 2.0 MB"),
        (Bar("content", 0), "at most 0 B of content: MISSED, 2.0 MB"),
        (Bar("renames", 1), "at most 1 renames: met, 1"),
        (Bar("operations", 20), "at most 20 operations: MISSED, 21"),
        (Bar("requests", 25), "at most 25 requests: MISSED, 30"),
    ],
)
def test_bar_on_what_skynet_counts_says_whether_it_is_met(bar: Bar, said: str) -> None:
    assert said in bar_text(result(COUNTED), bar)


def test_what_no_run_has_counted_is_not_measured() -> None:
    assert "not measured" in bar_text(result(*THREE_ROUNDS), Bar("content", 0))
    assert "not measured" in bar_text(result(), Bar("seconds", 1))


def test_the_requests_of_a_commit_are_those_that_a_cycle_makes() -> None:
    counts = test_request_counts
    append = [*counts.OPEN_LOG, *counts.APPEND]
    commit = [*counts.TAKE_LEASE, *counts.CHECK_AGAIN, *append, *counts.END_LEASE]
    assert len(commit) == COMMIT_REQUESTS


def test_a_bound_can_meet_a_bar_but_not_miss_it() -> None:
    assert "met, 0.020" in bar_text(result(*STOPPED), Bar("ratio", 0.02, ("lftp",)))
    assert "not measured" in bar_text(result(*STOPPED), Bar("ratio", 0.01, ("lftp",)))


# --- the rate of a sync that is limited


def at_rate(seconds: int, rate: Callable[[int], int]) -> list[Reading]:
    """A reading each second; rate(n): the bytes that move in the n-th second."""
    moved = accumulate(map(rate, range(seconds)), initial=0)
    return [Reading(float(second), count) for second, count in enumerate(moved)]


def test_the_rate_of_the_worst_minute_counts() -> None:
    assert strayed(at_rate(100, lambda _: 50), 50, 5000) == 0
    slow_for_a_moment = at_rate(100, lambda n: 20 if 40 <= n < 50 else 50)
    assert strayed(slow_for_a_moment, 50, 4700) == pytest.approx(0.1)
    fast_for_a_moment = at_rate(100, lambda n: 80 if 40 <= n < 50 else 50)
    assert strayed(fast_for_a_moment, 50, 5300) == pytest.approx(0.1)


def test_what_is_not_sending_does_not_count() -> None:
    connecting_sending_recording = at_rate(140, lambda n: 50 if 20 <= n < 120 else 0)
    assert strayed(connecting_sending_recording, 50, 5000) == 0


def test_less_than_a_minute_tells_nothing_of_a_minute() -> None:
    assert strayed(at_rate(59, lambda _: 50), 50, 2950) is None
    assert strayed([], 50, 2950) is None


def test_a_bar_on_the_rate_says_how_far_it_was_off() -> None:
    off = Sample("skynet", 1, "ok", 80.0, 1.0, MIB, strayed=0.042)
    assert bar_text(result(off), Bar("strayed", 0.1)) == (
        "at most 10% from the limit over any minute: met, 4.2%"
    )


# --- text and JSON


def test_table_aligns_its_columns() -> None:
    assert table([("", "seconds"), ("skynet", "1"), ("me", "1234567890")]) == [
        "             seconds",
        "  skynet           1",
        "  me      1234567890",
    ]


def test_text_of_an_item_shows_every_tool_and_what_failed() -> None:
    broken = Sample("sftp", 1, "failed", 1.0, 0.1, MIB, message="no such luck")
    stopped = turn("lftp", 1, 100.0, "timeout")
    lines = item_text(result(*THREE_ROUNDS, stopped, broken), is_full_size=False).splitlines()
    rows = {line.split()[0]: line for line in lines if line.startswith("  ")}
    assert "2.00 (2.00 - 2.00)  1.00 (0.50 - 1.50)" in rows["rsync"]
    assert "> 100" in rows["lftp"]
    assert "< 0.020" in rows["lftp"]
    assert "  sftp failed: no such luck" in lines


def test_a_peak_of_memory_that_may_be_our_own_is_marked() -> None:
    samples = (turn("skynet", 1, 1.0), Sample("rsync", 1, "ok", 1.0, 1.0, MIB, True))
    assert "< 1.0 MB" in item_text(result(*samples), is_full_size=False)


def test_bars_are_shown_at_full_size_only() -> None:
    measured = result(*THREE_ROUNDS, bars=(Bar("ratio", 1.0, ("rsync",)),))
    assert "bar: at most 1 of rsync: met" in item_text(measured, is_full_size=True)
    assert "bar:" not in item_text(measured, is_full_size=False)
    assert result_json(measured, is_full_size=False)["bars"] == []
    assert result_json(measured, is_full_size=True)["bars"][0]["measured"] == 1.0


def test_json_has_every_turn_and_the_ratios() -> None:
    found = result_json(result(*THREE_ROUNDS), is_full_size=True)
    assert len(found["samples"]) == 9
    assert found["ratios"]["rsync"] == {"median": 1.0, "low": 0.5, "high": 1.5, "is_bound": False}
    assert found["seconds"]["skynet"] == {"median": 2.0, "low": 1.0, "high": 3.0}


# --- the chart


def widths(svg: str) -> list[int]:
    return [int(each.attrib["width"]) for each in ET.fromstring(svg).iter() if "rect" in each.tag]


def test_chart_is_xml_whose_bars_are_to_scale() -> None:
    svg = chart([result(*THREE_ROUNDS, title="<work> & more")])
    assert widths(svg) == [BARS_WIDTH // 2, BARS_WIDTH // 2, BARS_WIDTH]
    texts = [each.text for each in ET.fromstring(svg).iter() if each.tag.endswith("text")]
    assert texts == ["<work> & more", "skynet", "2.00 s", "rsync", "2.00 s", "rclone", "4.00 s"]


def test_chart_cuts_a_bar_that_would_hide_the_others() -> None:
    svg = chart([result(*STOPPED)])
    assert widths(svg) == [BARS_WIDTH // 5, BARS_WIDTH]
    assert svg.count('class="cut"') == 1
    assert "&gt; 100 s" in svg


def test_chart_leaves_out_an_item_without_figures() -> None:
    assert widths(chart([result(turn("skynet", 1, 1.0, "failed")), result(*STOPPED)])) == widths(
        chart([result(*STOPPED)])
    )


# --- options


def test_without_arguments_every_item_runs_at_full_size() -> None:
    options = parse_options([])
    assert options.items == ITEMS
    assert options.is_full_size
    assert (options.peers, options.rounds, options.peer_timeout) == (None, 3, 120)


def test_quick_runs_less_of_some_items() -> None:
    options = parse_options(["--quick"])
    names = [item.name for item in options.items]
    assert "startup" in names
    assert "first-million" not in names
    assert options.items[0].batches[0].count == 1000
    assert not options.is_full_size
    assert options.peer_timeout < 120


def test_scale_shrinks_counts_of_small_files_and_sizes_of_large_ones() -> None:
    options = parse_options(["mixed-30", "--scale", "0.01"])
    pictures, videos = options.items[0].batches
    assert (pictures.count, pictures.largest) == (20, 3 * MIB)
    assert (videos.count, videos.largest) == (5, 2 * MIB)
    assert options.items[0].title.endswith("(0.01 of the data)")


def test_options_are_taken_as_given() -> None:
    words = "large-0 small-0 --peers lftp,rsync --rounds 5 --peer-timeout 7.5 --verify full --json"
    options = parse_options(words.split())
    assert [item.name for item in options.items] == ["large-0", "small-0"]
    assert options.peers == ("lftp", "rsync")
    assert (options.rounds, options.peer_timeout) == (5, 7.5)
    assert (options.verify, options.as_json) == ("full", True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["small-1"], "there is no item small-1"),
        (["--peers", "rsync,scp"], "'scp' is none of rsync"),
        (["--rounds", "0"], "0 is no whole number from 1"),
        (["--rounds", "many"], "many is no whole number"),
        (["--scale", "2"], "2 is not above 0 and at most 1"),
        (["--scale", "nan"], "nan is not above 0"),
        (["--peer-timeout", "soon"], "soon is not a number"),
        (["--quick", "first-million"], "first-million has no quick size"),
        (["--svg", "no/such/place.svg"], "there is no directory"),
    ],
)
def test_wrong_options_are_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_options(words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_help_names_every_item(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_options(["--help"])
    shown = capsys.readouterr().out
    assert [item.name for item in ITEMS if item.name not in shown] == []


def test_items_name_peers_that_exist_and_bars_that_can_be_judged() -> None:
    assert set(COMMANDS) == set(PEERS)
    for item in ITEMS:
        assert set(item.peers) <= {*PEERS, ONCE}
        assert all(set(bar.peers) <= set(item.peers) for bar in item.bars)
        assert (item.change is not None) == (item.kind in ("changed", "plan"))
        assert (item.watch is not None) == (item.kind == "watch")
        assert bool(item.rate) == (item.kind == "limited")
    assert {item.change for item in ITEMS} - {None} == set(get_args(Change))


# --- commands


@pytest.mark.parametrize("peer", PEERS)
def test_peers_log_in_as_told_and_read_no_settings_of_the_user(peer: str) -> None:
    command = COMMANDS[peer](ACCESS, JOB)
    said = " ".join(command.words) + command.stdin.decode()
    assert all(part in said for part in ("someone", "2222", "my key", "known hosts", "a b"))
    assert any(part in said for part in ("-F /dev/null", "--config "))


def test_names_are_quoted_in_the_batch_of_sftp() -> None:
    assert COMMANDS["sftp"](ACCESS, JOB).stdin == b'put -rp "/data/a b" "/target/\\"x\\""\n'


def test_rsync_sends_a_single_file_whole() -> None:
    assert "-W" in COMMANDS["rsync"](ACCESS, JOB._replace(is_single_file=True)).words
    assert "-W" not in COMMANDS["rsync"](ACCESS, JOB).words


def test_skynet_gets_a_quoted_url_and_audits_unless_told() -> None:
    words = skynet(Path("/python"), Path("/state"), ACCESS, JOB).words
    assert "sftp://someone@127.0.0.1:2222/target/%22x%22" in words
    assert "--audit" in words
    trusting = skynet(Path("/python"), Path("/state"), ACCESS, JOB._replace(audit=False)).words
    assert "--no-audit" in trusting


def test_a_limit_is_the_same_for_both() -> None:
    job = JOB._replace(rate=10 * MIB)
    assert "--bwlimit=10240k" in COMMANDS["rsync"](ACCESS, job).words
    assert "--bwlimit=10240k" in skynet(Path("/python"), Path("/state"), ACCESS, job).words
    assert not [word for word in COMMANDS["rsync"](ACCESS, JOB).words if "bwlimit" in word]


def test_an_update_is_compared_and_removes_what_is_gone() -> None:
    job = JOB._replace(is_update=True)
    assert {"--no-W", "--delete"} <= set(COMMANDS["rsync"](ACCESS, job).words)
    assert "--complete-sync" in skynet(Path("/python"), Path("/state"), ACCESS, job).words
    words = skynet_plan(Path("/python"), Path("/state"), ACCESS, job).words
    assert {"plan", "--dry-run", "--complete-sync"} <= set(words)
    assert "--complete-sync" not in skynet(Path("/python"), Path("/state"), ACCESS, JOB).words


def test_tools_see_nothing_of_the_users_settings() -> None:
    user = {"PATH": "/bin", "SSH_AUTH_SOCK": "/agent", "RSYNC_RSH": "x", "SKYNET_CONFIG": "y"}
    env = tool_environment(user, Path("/home"))
    assert env["PATH"] == "/bin"
    assert env["HOME"] == "/home"
    assert not {"SSH_AUTH_SOCK", "RSYNC_RSH", "SKYNET_CONFIG"} & env.keys()


# --- data

BATCHES = (Batch("some", 5, 10, 20, per_directory=2), Batch("big", 1, 3 * MIB, 3 * MIB))


def test_data_are_the_same_each_time_and_made_only_once(tmp_path: Path) -> None:
    one, other = (ensure_data(tmp_path / name, BATCHES) for name in ("one", "other"))
    expected = warm(one)
    assert expected == tally(other)
    assert expected.files == 6
    require_same(one, other, expected, every_byte=True)
    marker = one / "marker"
    marker.touch()
    assert ensure_data(tmp_path / "one", BATCHES) == one
    assert marker.exists()


def test_data_left_unfinished_are_made_again(tmp_path: Path) -> None:
    made = ensure_data(tmp_path, BATCHES)
    expected = tally(made)
    unfinished = made.with_name(made.name + ".part")
    made.rename(unfinished)
    (unfinished / "stray").touch()
    assert tally(ensure_data(tmp_path, BATCHES)) == expected


def test_verification_tells_what_is_wrong(tmp_path: Path) -> None:
    source, target = (ensure_data(tmp_path / name, BATCHES) for name in ("source", "target"))
    expected = tally(source)
    (target / ".skynet").mkdir()
    (target / ".skynet" / "manifest").write_text("not counted")
    require_same(source, target, expected, every_byte=True)
    victim = target / "big 00000" / "big-0000000.bin"
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1
    victim.write_bytes(content)
    require_same(source, target, expected, every_byte=False)
    with pytest.raises(BenchError, match=r"big-0000000\.bin arrived with other content"):
        require_same(source, target, expected, every_byte=True)
    victim.unlink()
    with pytest.raises(BenchError, match=r"5 files with .* arrived, not 6"):
        require_same(source, target, expected, every_byte=False)
