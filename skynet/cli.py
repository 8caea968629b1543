"""The command line: names and options of the commands. What they do is in `commands`.

That room is imported when a command runs, so `--version` and `--help` do not wait for the rest.
"""

from __future__ import annotations

import gc
import sys
import warnings
from pathlib import Path
from typing import Annotated, Literal

import typer

from skynet import __version__
from skynet.cli_daemon import daemon_app
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
    Verbose,
    given_path,
    path_option,
)
from skynet.cli_service import service
from skynet.errors import ExitCode
from skynet.interrupts import whole
from skynet.outlet import loss, outlet

# New objects that may form cycles, before such are looked for: at Python's 700, a sync of many
# small files spends a tenth of its time on that and finds none.
COLLECT_AFTER = 50_000

app = typer.Typer(
    name="skynet",
    help="Keep a directory on an SFTP server equal to a local one.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # the brackets of [user@]host[:port] are no markup
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(daemon_app)  # without a name: its commands are commands of skynet
app.add_typer(service, name="service")

Audit = Annotated[
    bool | None,
    typer.Option(
        "--audit/--no-audit", help="List the remote, or trust the manifest.  [default: audit]"
    ),
]
Adopt = Annotated[
    Literal["stat", "content"] | None,
    typer.Option(
        help="What proves that a file found on the remote is ours: size and time, or "
        "reading it back.  [default: stat]"
    ),
]


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"skynet {__version__}")
        raise typer.Exit


@app.command()
def sync(
    names: Names = None,
    *,
    once: Annotated[bool, typer.Option("--once", help="Run one cycle, then end.")] = False,
    approve: Annotated[str, typer.Option(help="Carry out a held plan with this hash.")] = "",
    plan: Annotated[
        Path | None,
        path_option(text="Carry out exactly the plan saved in this file, or nothing."),
    ] = None,
    audit: Audit = None,
    adopt: Adopt = None,
    config: ConfigFile = None,
    source: Source = None,
    target: TargetUrl = None,
    identity: Identity = None,
    known_hosts: KnownHosts = None,
    complete_sync: CompleteSync = None,
    state_dir: StateDir = None,
    bwlimit: BandwidthLimit = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make the remote directory equal to the local one.

    Without --once, keep it so until Ctrl-C, with a live display.
    """
    from skynet import commands

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
    face = commands.Face(quiet=quiet, verbose=verbose, as_json=as_json)
    if plan is not None and not (audit is None and adopt is None):
        raise typer.Exit(commands.refuse_beside_plan(face))
    if not once:
        given = {"approve": approve, "plan": plan, "audit": audit, "adopt": adopt, "json": as_json}
        wrong = [f"--{name}" for name, value in given.items() if value not in (None, "", False)]
        if wrong:
            raise typer.Exit(commands.refuse_without_once(face, wrong))
        from skynet import commands_keep

        raise typer.Exit(commands_keep.keep(options, face))
    request = commands.Request(audit=audit is not False, adopt=adopt or "stat", approve=approve)
    raise typer.Exit(commands.sync(options, request, face, saved=plan))


@app.command()
def plan(
    names: Names = None,
    *,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Required, but with --out: a plan is shown, never run."),
    ] = False,
    out: Annotated[
        Path | None,
        path_option(text="Save the plan in this file, for `sync --once --plan FILE`."),
    ] = None,
    audit: Audit = None,
    adopt: Adopt = None,
    config: ConfigFile = None,
    source: Source = None,
    target: TargetUrl = None,
    identity: Identity = None,
    known_hosts: KnownHosts = None,
    complete_sync: CompleteSync = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show what `sync --once` would do.

    Nothing is written, neither here nor on the remote, but for the file of --out.
    """
    from skynet import commands

    options = commands.Options(
        tuple(names or ()), config, source, target, identity, known_hosts, complete_sync, state_dir
    )
    request = commands.Request(
        audit=audit is not False, adopt=adopt or "stat", dry_run=dry_run or out is not None
    )
    face = commands.Face(quiet=quiet, verbose=verbose, as_json=as_json)
    raise typer.Exit(commands.plan(options, request, face, out))


@app.command()
def trust(
    target: Annotated[str, typer.Argument(help="sftp://[user@]host[:port][/path]")],
    *,
    fingerprint: Annotated[
        str, typer.Option(help="Accept the key only if it has this fingerprint; do not ask.")
    ] = "",
    known_hosts: KnownHosts = None,
) -> None:
    """Show a server's host key, and trust it if you agree."""
    from skynet import commands

    raise typer.Exit(commands.trust(target, fingerprint, known_hosts, commands.Face()))


@app.command()
def serve(
    directory: Annotated[
        Path,
        typer.Argument(parser=given_path, metavar="{directory}", help="The directory to serve."),
    ],
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes any free port.")] = 0,
    user: Annotated[str, typer.Option(help="The only login name.")] = "skynet",
    authorized_keys: Annotated[Path | None, path_option(text="Keys that may log in.")] = None,
    password_file: Annotated[
        Path | None, path_option(text="File with the password; else one is made up.")
    ] = None,
    state_dir: StateDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Announce as one JSON object.")] = False,
) -> None:
    """Serve a directory over SFTP, until Ctrl-C.

    To try skynet, or for a small network.
    """
    from skynet import commands
    from skynet.serve import ServeOptions

    options = ServeOptions(directory, Path(), host, port, user, authorized_keys)
    face = commands.Face(as_json=as_json)
    raise typer.Exit(commands.serve(options, password_file, state_dir, face))


@app.command()
def guide(
    name: Annotated[str, typer.Argument(help="Which guide; a list if none is named.")] = "",
) -> None:
    """Show a guide, step by step.

    first-mirror, daemon, passwords, ssh-keys, linux-server, windows-server, bandwidth,
    review-a-plan, settings.
    """
    from skynet import commands

    raise typer.Exit(commands.guide(name, commands.Face()))


def main() -> None:
    """Run a command and exit with its code, or KeyboardInterrupt."""
    _open_outlets()
    gc.set_threshold(COLLECT_AFTER)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # of libraries, to those who program with them
    try:
        app()
    except SystemExit as end:
        lost = loss(sys.stdout)
        if not lost:
            raise
        sys.stderr.write(f"skynet: the output cannot be written: {lost}. It is not whole.\n")
        sys.exit(max(end.code, ExitCode.UNUSABLE) if isinstance(end.code, int) else end.code)
    finally:
        gc.freeze()  # or Python looks for cycles in all that it is about to leave, for 50 ms


@whole
def _open_outlets() -> None:
    sys.stdout, sys.stderr = outlet(sys.stdout), outlet(sys.stderr)
