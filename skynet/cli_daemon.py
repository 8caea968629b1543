"""The command line of the daemon: names and options of what runs it, looks at it and steers it.

What they do is in `commands_keep` and `commands_daemon`, which are imported when a command runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skynet.cli_options import (
    AsJson,
    BandwidthLimit,
    CompleteSync,
    ConfigFile,
    Identity,
    KnownHosts,
    Names,
    Quiet,
    Source,
    StateDir,
    TargetUrl,
    path_option,
)

if TYPE_CHECKING:
    from skynet.control import Verb

daemon_app = typer.Typer(rich_markup_mode=None)


@daemon_app.command()
def daemon(
    names: Names = None,
    *,
    log_file: Annotated[
        Path | None, path_option(text="Log to this file too; it stays small.")
    ] = None,
    config: ConfigFile = None,
    source: Source = None,
    target: TargetUrl = None,
    identity: Identity = None,
    known_hosts: KnownHosts = None,
    complete_sync: CompleteSync = None,
    state_dir: StateDir = None,
    bwlimit: BandwidthLimit = None,
    quiet: Quiet = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Log each step, also where nothing changes.")
    ] = False,
) -> None:
    """Keep the remote directories equal to the local ones.

    Until Ctrl-C or SIGTERM. `skynet service install` starts it at each login.
    """
    from skynet import commands_keep as commands

    options = commands.Options(
        tuple(names or ()),
        config,
        source,
        target,
        identity,
        known_hosts,
        complete_sync,
        state_dir,
        bwlimit,
    )
    face = commands.Face(quiet=quiet, verbose=verbose)
    raise typer.Exit(commands.daemon(options, log_file, face))


@daemon_app.command()
def unlock(
    names: Names = None,
    *,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not watch first if its holder works.")
    ] = False,
    config: ConfigFile = None,
    source: Source = None,
    target: TargetUrl = None,
    identity: Identity = None,
    known_hosts: KnownHosts = None,
    state_dir: StateDir = None,
) -> None:
    """Free a remote that a skynet which is gone had in use."""
    from skynet import commands_keep as commands

    options = commands.Options(
        tuple(names or ()),
        config,
        source,
        target,
        identity,
        known_hosts,
        state_dir=state_dir,
    )
    raise typer.Exit(commands.unlock(options, commands.Face(), yes=yes))


@daemon_app.command()
def status(
    names: Names = None,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Show each change, until Ctrl-C.")] = False,
    config: ConfigFile = None,
    source: Source = None,
    target: TargetUrl = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """What the daemon is doing, and what is left to do.

    Exit code 0 if all is in sync, 1 if not or if no daemon runs, 4 if a plan is held.
    """
    from skynet import commands_daemon as commands

    options = commands.options_of(names, config, source, target, state_dir)
    raise typer.Exit(commands.status(options, commands.Face(as_json=as_json), watch=watch))


@daemon_app.command()
def pause(
    names: Names = None,
    *,
    config: ConfigFile = None,
    source: Source = None,
    target: TargetUrl = None,
    state_dir: StateDir = None,
) -> None:
    """Let the daemon send nothing, until it is told to resume.

    It goes on noticing changes, and stays paused over a restart.
    """
    _steer("pause", names, config, source, target, state_dir)


@daemon_app.command()
def resume(
    names: Names = None,
    *,
    config: ConfigFile = None,
    source: Source = None,
    target: TargetUrl = None,
    state_dir: StateDir = None,
) -> None:
    """Let the daemon go on after a pause."""
    _steer("resume", names, config, source, target, state_dir)


@daemon_app.command()
def sync_now(
    names: Names = None,
    *,
    config: ConfigFile = None,
    source: Source = None,
    target: TargetUrl = None,
    state_dir: StateDir = None,
) -> None:
    """Let the daemon look at everything now.

    If the server was away, it reconnects at once.
    """
    _steer("sync-now", names, config, source, target, state_dir)


@daemon_app.command()
def approve(
    approval: Annotated[str, typer.Argument(metavar="HASH", help="As `skynet status` shows it.")],
    names: Names = None,
    *,
    config: ConfigFile = None,
    source: Source = None,
    target: TargetUrl = None,
    state_dir: StateDir = None,
) -> None:
    """Let the daemon carry out the held plan with this hash."""
    from skynet import commands_daemon as commands

    options = commands.options_of(names, config, source, target, state_dir)
    raise typer.Exit(commands.approve(options, approval, commands.Face()))


@daemon_app.command()
def log(
    names: Names = None,
    *,
    count: Annotated[
        int, typer.Option("-n", "--count", min=1, max=10_000, help="How many cycles, the newest.")
    ] = 20,
    config: ConfigFile = None,
    source: Source = None,
    target: TargetUrl = None,
    state_dir: StateDir = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each cycle.")
    ] = False,
) -> None:
    """What the daemon has done, and when."""
    from skynet import commands_daemon as commands

    options = commands.options_of(names, config, source, target, state_dir)
    raise typer.Exit(commands.log(options, count, commands.Face(as_json=as_json)))


def _steer(
    verb: Verb,
    names: list[str] | None,
    config: Path | None,
    source: Path | None,
    target: str | None,
    state_dir: Path | None,
) -> None:
    from skynet import commands_daemon as commands

    options = commands.options_of(names, config, source, target, state_dir)
    raise typer.Exit(commands.steer(options, verb, commands.Face()))
