"""The command line of scripts/bench: what is asked for, checked, as one value."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from _bench_items import COMMIT_REQUESTS, ITEMS
from _bench_work import PEERS, Item

DESCRIPTION = """\
Time skynet beside rsync, rclone, sftp and lftp, each doing the same work in the same run.

A private sshd and, for the items with a delay, a proxy that adds the round trip are started on
loopback, and everything is removed at the end. In each round every tool has its turn, another
one beginning each time, so what counts is the ratio within a round. First syncs start from an
empty target, and what arrived is counted afterwards.
"""

EPILOG = """\
work items (all of them when none is named; q: part of --quick):
{items}

what the columns say:
  seconds        wall time, median (lowest - highest) of the rounds; "> 120" was stopped
  skynet/peer    median (lowest - highest) of the ratios of each round; below 1 skynet is faster
  memory         largest peak of any one process of the tool on this side; a figure with "<" is
                 no larger than the bench's own and cannot be told apart from it
  on the wire    bytes both ways: counted in the proxy; without delay by the loopback interface,
                 with packet headers and with whatever else uses loopback meanwhile
  content        bytes of files that skynet sent
  operations     what it did to files and directories, or planned to do
  requests       SFTP requests that skynet sent; recording them in the manifest, under the lease,
                 takes {commit} of them

Of the watch items, seconds are those until the new files are visible on the server's disk (the
median of them all where they come one by one, the last where they come at once); memory is that of
the watching process alone, and what is on the wire begins when it has come to rest. "once" is
`skynet sync --once` of the same files. lsyncd gets a delay of 1 s.

With a limit, rsync gets the same one, and the rate is read four times a second in the proxy: all
that goes both ways, over every minute between the first and the last hundredth of the data.

rsync gets -a, and -W for one large file, or --no-W --delete where a change is synced; rclone
--sftp-disable-hashcheck and 16 transfers; sftp put -rp; lftp mirror -R. Before a change both sides
are brought to the old state in each turn, which is not timed, and afterwards every byte is
compared. A peer that was stopped or failed has no further turn in that item.

It needs Linux, sshd and ssh-keygen, and a C compiler (cc) for the items with a delay. Temporary
data, up to 20 GiB for the largest items, go below TMPDIR. The bench needs the machine
to itself.

Exit code: 0 when skynet did all its work and what arrived is right, whoever was faster; 1 when
not; 2 for a wrong command line; 130 when interrupted (the finished items are still shown).
"""

ROUNDS = 3
QUICK_ROUNDS = 2
IDLE_MINUTES = 10.0
PEER_SECONDS = 120.0
QUICK_PEER_SECONDS = 3.0


@dataclass(frozen=True)
class Options:
    """What to run and how. items are already scaled; is_full_size: nothing is smaller than named.

    peers: None for all that are installed. peer_timeout in seconds. data: where to keep the
    generated files, python: what runs skynet, svg: the chart to write; None where not given.
    """

    items: tuple[Item, ...]
    is_full_size: bool
    peers: tuple[str, ...] | None
    rounds: int
    peer_timeout: float
    data: Path | None
    python: Path | None
    verify: Literal["count", "full"]
    as_json: bool
    svg: Path | None
    keep: bool


def parse_options(words: Sequence[str]) -> Options:
    """The options that `words` ask for; a wrong one ends the program with code 2 and a reason."""
    parser = _parser()
    found = parser.parse_args(words)
    known = {item.name: item for item in ITEMS}
    if unknown := [name for name in found.items if name not in known]:
        parser.error(f"there is no item {unknown[0]}. The items are: {', '.join(known)}.")
    if found.svg and not found.svg.parent.is_dir():
        parser.error(f"--svg: there is no directory {found.svg.parent}. Make it first.")
    chosen = [known[name] for name in dict.fromkeys(found.items)] or list(ITEMS)
    if found.quick and not found.items:
        chosen = [item for item in chosen if item.quick_scale is not None]
    patience = QUICK_PEER_SECONDS if found.quick else PEER_SECONDS
    chosen = [_lasting(item, found.idle_minutes) for item in chosen]
    return Options(
        items=tuple(_sized(parser, item, found.scale, found.quick) for item in chosen),
        is_full_size=found.scale == 1 and not found.quick,
        peers=found.peers,
        rounds=found.rounds or (QUICK_ROUNDS if found.quick else ROUNDS),
        peer_timeout=found.peer_timeout or patience,
        data=found.data,
        python=found.python,
        verify=found.verify,
        as_json=found.as_json,
        svg=found.svg,
        keep=found.keep,
    )


def _parser() -> argparse.ArgumentParser:
    lines = [f"  {_mark(item)} {item.name:18} {item.title}" for item in ITEMS]
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=DESCRIPTION,
        epilog=EPILOG.format(items="\n".join(lines), commit=COMMIT_REQUESTS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("items", nargs="*", metavar="ITEM", help="work items to run; see below")
    add("--quick", action="store_true", help="less data, impatient with peers: under two minutes")
    add("--scale", type=_scale, default=1.0, metavar="F", help="F times the data, 0 < F <= 1")
    rounds = f"default {ROUNDS}, with --quick {QUICK_ROUNDS}"
    add("--rounds", type=_rounds, metavar="N", help=rounds)
    add("--peers", type=_peers, metavar="A,B", help=f"of {', '.join(PEERS)}; default: installed")
    add(
        "--peer-timeout",
        type=_seconds,
        metavar="S",
        help=f"stop a peer after S seconds; default {PEER_SECONDS:g}, with --quick "
        f"{QUICK_PEER_SECONDS:g}, and more in the largest items",
    )
    add(
        "--idle-minutes",
        type=_minutes,
        default=IDLE_MINUTES,
        metavar="N",
        help=f"watch for so long where nothing happens; default {IDLE_MINUTES:g}",
    )
    add("--data", type=_path, metavar="DIR", help="keep the generated files in DIR, and reuse them")
    add("--python", type=_path, metavar="FILE", help="the Python that runs skynet; default: this "
        "one if it can, else that of .venv, which is made if need be")  # fmt: skip
    add(
        "--verify",
        choices=("count", "full"),
        default="count",
        help="what arrived: number and bytes of files (default), or also every byte",
    )
    add("--json", action="store_true", dest="as_json", help="everything as one object on standard "
        "output; the tables go to standard error")  # fmt: skip
    add("--svg", type=_path, metavar="FILE", help="write a bar chart")
    add("--keep", action="store_true", help="leave the temporary data and logs where they are")
    return parser


def _mark(item: Item) -> str:
    return " " if item.quick_scale is None else "q"


def _sized(parser: argparse.ArgumentParser, item: Item, scale: float, quick: bool) -> Item:
    if quick and item.quick_scale is None:
        parser.error(f"{item.name} has no quick size. Leave out --quick, or use --scale.")
    return item.scaled(scale * (item.quick_scale or 1 if quick else 1))


def _lasting(item: Item, idle_minutes: float) -> Item:
    return replace(item, span=60.0 * idle_minutes) if item.watch == "idle" else item


def _path(text: str) -> Path:
    # The tools run in a directory of their own. Links stay: those of a venv's python matter.
    return Path(text).absolute()


def _scale(text: str) -> float:
    value = _number(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def _seconds(text: str) -> float:
    value = _number(text)
    if not 0 < value <= 86400:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 86400 seconds")
    return value


def _minutes(text: str) -> float:
    value = _number(text)
    if not 0 < value <= 1440:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1440 minutes")
    return value


def _rounds(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 1 to 1000")
    return int(text)


def _peers(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    if unknown := [name for name in names if name not in PEERS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(PEERS)}")
    return names


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a number") from None
