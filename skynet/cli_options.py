"""Options that several commands have. What they mean is in `config` and `commands`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def given_path(text: str) -> Path:
    """The path; an empty one, as of a variable that is not set, would be where we are."""
    if not text:
        raise typer.BadParameter("it is empty. Give a path, as . for the working directory.")
    return Path(text)


def path_option(*names: str, text: str) -> Any:
    """An option that takes a path. What is wrong with what is there is told by the rooms below."""
    return typer.Option(*names, parser=given_path, metavar="<path>", help=text)


Names = Annotated[
    list[str] | None,
    typer.Argument(
        help="Mirrors of skynet.toml; all of them if none is named.", show_default=False
    ),
]
ConfigFile = Annotated[
    Path | None, path_option("-c", "--config", text="Read mirrors from this file.")
]
Source = Annotated[Path | None, path_option(text="Local directory, without skynet.toml.")]
TargetUrl = Annotated[
    str | None, typer.Option("--target", help="sftp://[user@]host[:port]/path, with --source.")
]
Identity = Annotated[Path | None, path_option(text="Log in with this private key only.")]
KnownHosts = Annotated[Path | None, path_option(text="File of trusted host keys.")]
CompleteSync = Annotated[
    bool | None,
    typer.Option(
        "--complete-sync/--no-complete-sync", help="Delete on the remote what is gone here."
    ),
]
StateDir = Annotated[Path | None, path_option(text="Where skynet keeps what it can rebuild.")]
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
