"""The work items of scripts/bench, and the bars that skynet is held to."""

from __future__ import annotations

from _bench_work import GIB, KIB, MIB, ONCE, SYNCERS, Bar, Batch, Change, Item, Watch

# Requests under the lease that a cycle with anything to record has: take the lease, 3; look at the
# manifest again, 6; append to it, 3; end the lease, 1. tests/test_request_counts.py has the list.
COMMIT_REQUESTS = 14


def _ratio(limit: float, *peers: str) -> Bar:
    return Bar("ratio", limit, peers)


def _changed(change: Change, title: str, batches: tuple[Batch, ...], *bars: Bar) -> Item:
    """The item named after a change of what was in sync, over 50 ms, skynet with --no-audit."""
    return Item(
        f"{change}-50",
        f"{title}, 50 ms",
        "changed",
        batches,
        50,
        peers=("rsync",),
        bars=bars,
        audit=False,
        change=change,
        patience=3,
    )


def _watch(
    name: str,
    watch: Watch,
    title: str,
    batches: tuple[Batch, ...],
    made: tuple[Batch, ...],
    *bars: Bar,
    peers: tuple[str, ...] = (),
    span: float = 0.0,
) -> Item:
    """Something that is done to files that a daemon watches, over 50 ms."""
    title = f"{title}, 50 ms"
    return Item(
        *(name, title, "watch", batches, 50, peers, bars), watch=watch, made=made, span=span
    )


SMALL = (Batch("small", 10_000, 4 * KIB, 4 * KIB),)
LARGE = (Batch("large", 1, GIB, GIB, scales_in="size"),)
HUGE = (Batch("huge", 1, 10 * GIB, 10 * GIB, scales_in="size"),)
MIXED = (
    Batch("picture", 2_000, 50 * KIB, 3 * MIB),
    Batch("video", 5, 200 * MIB, 200 * MIB, scales_in="size"),
)
MANY = (Batch("many", 100_000, KIB, KIB),)
FEW = (Batch("few", 1_000, 4 * KIB, 4 * KIB, per_directory=10),)
MILLION = (Batch("tiny", 1_000_000, 64, 64),)
DIRECTORY = (Batch("entry", 10_000, GIB // 10_000, GIB // 10_000, per_directory=10_000),)
TWO_LARGE = (Batch("large", 2, GIB, GIB, scales_in="size"),)
FIVE_DIRECTORIES = (Batch("cycled", 5, 20 * MIB, 20 * MIB, per_directory=1, scales_in="size"),)
REEL = (
    Batch("video", 1, 650 * MIB, 650 * MIB, scales_in="size"),
    Batch("picture", 100, 3 * MIB // 2, 3 * MIB // 2),
)
FILM = (
    Batch("video", 1, 2 * GIB, 2 * GIB, scales_in="size"),
    Batch("picture", 100, MIB, MIB),
)

LISTERS = ("rsync", "rclone", "lftp")  # sftp sends everything anew each time
BEST = ("rsync", "rclone", "sftp")

ITEMS = (
    Item(
        "small-0",
        "10,000 files of 4 KiB, first sync, no delay",
        "first",
        SMALL,
        bars=(_ratio(0.9, "rsync"),),
        quick_scale=0.1,
    ),
    Item(
        "small-50",
        "10,000 files of 4 KiB, first sync, 50 ms",
        "first",
        SMALL,
        50,
        bars=(_ratio(1.0, "rsync"), _ratio(0.02, "rclone")),
        quick_scale=0.1,
    ),
    Item(
        "large-0",
        "one file of 1 GiB, first sync, no delay",
        "first",
        LARGE,
        bars=(_ratio(1.05, "rsync"),),
        quick_scale=1 / 32,
    ),
    Item(
        "large-50",
        "one file of 1 GiB, first sync, 50 ms",
        "first",
        LARGE,
        50,
        bars=(_ratio(0.3, *BEST),),
        quick_scale=1 / 32,
    ),
    Item(
        "large-150",
        "one file of 1 GiB, first sync, 150 ms",
        "first",
        LARGE,
        150,
        bars=(_ratio(0.2, *BEST),),
        patience=2,
    ),
    Item(
        "mixed-30",
        "2,000 pictures and 5 videos, first sync, 30 ms",
        "first",
        MIXED,
        30,
        bars=(_ratio(0.5, *SYNCERS),),
        patience=2,
    ),
    Item(
        "limit-50",
        "one video and 100 pictures, 800 MiB, first sync at 10 MiB a second, 50 ms",
        "limited",
        REEL,
        50,
        peers=("rsync",),
        bars=(Bar("strayed", 0.1),),
        rate=10 * MIB,
        patience=3,
    ),
    Item(
        "unchanged-0",
        "100,000 files, nothing changed, no delay",
        "unchanged",
        MANY,
        peers=LISTERS,
        bars=(_ratio(1.5, "rsync"),),
        quick_scale=0.1,
    ),
    Item(
        "unchanged-50",
        "100,000 files, nothing changed, 50 ms",
        "unchanged",
        MANY,
        50,
        peers=LISTERS,
        bars=(_ratio(0.4, "rsync"),),
        quick_scale=0.1,
    ),
    Item(
        "unchanged-million",
        "1,000,000 files, nothing changed, no delay, skynet with --no-audit",
        "unchanged",
        MILLION,
        peers=("rsync",),
        bars=(_ratio(1.2, "rsync"), Bar("memory", 200 * MIB)),
        audit=False,
        patience=10,
    ),
    Item(
        "first-million",
        "1,000,000 tiny files, first sync, no delay",
        "first",
        MILLION,
        peers=("rsync",),
        bars=(_ratio(1.3, "rsync"), Bar("memory", 500 * MIB)),
        patience=10,
    ),
    _changed(
        "move-dir",
        "a directory of 10,000 files, 1 GiB, renamed",
        DIRECTORY,
        Bar("content", 0),
        Bar("renames", 1),
        Bar("operations", 1),
        Bar("requests", 12 + COMMIT_REQUESTS),
    ),
    _changed(
        "move-edit",
        "a directory of 10,000 files renamed, and in it 10 edited, 5 added, 5 removed",
        DIRECTORY,
        Bar("renames", 1),
        Bar("operations", 21),
    ),
    _changed("swap", "two files of 1 GiB exchanged", TWO_LARGE, Bar("content", 0)),
    _changed("cycle", "five directories exchanged", FIVE_DIRECTORIES, Bar("content", 0)),
    _changed("copy", "one file of 1 GiB copied to a second name", LARGE, Bar("content", 0)),
    _changed(
        "front",
        "one file of 1 GiB, 1 MiB inserted in front",
        LARGE,
        Bar("content", 1.25 * MIB),
        _ratio(0.5, "rsync"),
    ),
    _changed("edits", "one file of 1 GiB, 100 edits of 4 KiB", LARGE, Bar("content", 8 * MIB)),
    _changed(
        "inserts",
        "one file of 1 GiB, 10 insertions of 1,000 bytes",
        LARGE,
        Bar("content", 4 * MIB),
    ),
    _changed("append", "one file of 1 GiB, 64 MiB appended", LARGE, Bar("content", 65 * MIB)),
    Item(
        "plan-million",
        "1,000,000 tiny files, 100,000 changes, plan --dry-run, no delay, skynet with --no-audit",
        "plan",
        MILLION,
        peers=(),
        bars=(Bar("seconds", 20), Bar("memory", 600 * MIB)),
        audit=False,
        change="scatter",
    ),
    Item(
        "resume",
        "one file of 10 GiB, first sync, 10 ms, killed at 60 % and run again",
        "resume",
        HUGE,
        10,
        peers=(),
        bars=(Bar("sent", 1.02),),
        quick_scale=1 / 64,
    ),
    Item(
        "startup",
        "skynet --version, processor seconds",
        "startup",
        peers=(),
        bars=(Bar("cpu", 0.25),),
        quick_scale=1,
    ),
    _watch(
        "watch-one-50",
        "one",
        "100,000 files watched, a new one of 4 KiB now and then",
        MANY,
        (Batch("new", 40, 4 * KIB, 4 * KIB),),
        Bar("seconds", 0.6),
        Bar("late", 1.2),
        Bar("requests", 8),
        peers=("lsyncd",),
    ),
    _watch(
        "watch-burst-50",
        "burst",
        "10,000 files of 4 KiB made while watched",
        FEW,
        SMALL,
        _ratio(1.5, ONCE),
        peers=(ONCE,),
    ),
    _watch(
        "watch-idle",
        "idle",
        "100,000 files watched, nothing happens",
        MANY,
        (),
        Bar("load", 0.002),
        Bar("resident", 120 * MIB),
        Bar("wire", 30 * KIB),
        span=600.0,  # --idle-minutes has another
    ),
    _watch(
        "watch-overflow",
        "overflow",
        "30,000 files made in about a second while watched",
        FEW,
        (Batch("flood", 30_000, 64, 64),),
    ),
    _watch(
        "watch-video",
        "video",
        "one file of 2 GiB written over 60 s beside 100 pictures of 1 MiB",
        FEW,
        FILM,
        Bar("late", 5.0),
        Bar("sent", 1.05),
        span=60.0,
    ),
)
