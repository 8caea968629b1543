"""Options that several commands have. What they mean is in `config` and `commands`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def _named(path: str) -> Path:
    """The path; an empty one, as of a variable that is not set, would be where we are."""
    if not path:
        raise typer.BadParameter("it is empty; write . for the working directory.")
    return Path(path)


# readable=False: typer would complain of a path in its own words; the rooms below have better ones.
Names = Annotated[
    list[str] | None,
    typer.Argument(
        help="Mirrors of skynet.toml; all of them if none is named.", show_default=False
    ),
]
ConfigFile = Annotated[
    Path | None, typer.Option("-c", "--config", readable=False, help="Read mirrors from this file.")
]
Source = Annotated[
    Path | None,
    typer.Option(parser=_named, metavar="<path>", help="Local directory, without skynet.toml."),
]
TargetUrl = Annotated[
    str | None, typer.Option("--target", help="sftp://[user@]host[:port]/path, with --source.")
]
Identity = Annotated[
    Path | None, typer.Option(readable=False, help="Log in with this private key only.")
]
KnownHosts = Annotated[Path | None, typer.Option(readable=False, help="File of trusted host keys.")]
CompleteSync = Annotated[
    bool | None,
    typer.Option(
        "--complete-sync/--no-complete-sync", help="Delete on the remote what is gone here."
    ),
]
StateDir = Annotated[
    Path | None, typer.Option(readable=False, help="Where skynet keeps what it can rebuild.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for each mirror.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing but what is wrong.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show every operation.")]
BandwidthLimit = Annotated[
    str | None,
    typer.Option(
        "--bwlimit",
        help='Send no faster, in bytes a second: 10M is 10 MiB/s; or "08:00 2M, 18:00 off".',
    ),
]
