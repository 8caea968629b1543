"""The command line: wiring only. Each command reads its options, calls a room, shows the result."""

from __future__ import annotations

import os
import sys
import time
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from skynet import __version__
from skynet.config import Login, Mirror, Options, load_mirrors, state_base
from skynet.console import Face
from skynet.errors import HostKeyError, SkynetError, UsageError
from skynet.reconcile import Report, Request, run_cycle
from skynet.render import failure_json, plan_lines, report_json, report_lines
from skynet.serve import ServeOptions
from skynet.serve import serve as run_server
from skynet.target import parse_server
from skynet.wiring import connector, endpoint, serve_options, surroundings

INTERRUPTED = 130

app = typer.Typer(
    name="skynet",
    help="Keep a directory on an SFTP server equal to a local one.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

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
    Path | None, typer.Option(readable=False, help="Local directory, without skynet.toml.")
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
Audit = Annotated[
    bool, typer.Option("--audit/--no-audit", help="List the remote, or trust the manifest.")
]
Adopt = Annotated[
    Literal["stat", "content"],
    typer.Option(
        help="What proves that a file found on the remote is ours: size and time, or "
        "reading it back."
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
    audit: Audit = True,
    adopt: Adopt = "stat",
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
    """Make the remote directory equal to the local one."""
    options = Options(
        tuple(names or ()), config, source, target, identity, known_hosts, complete_sync, state_dir
    )
    face = Face(quiet=quiet, verbose=verbose, as_json=as_json)
    if not once:
        _refuse(
            face, UsageError("Say `skynet sync --once`: this version runs one cycle at a time.")
        )
    request = Request(audit=audit, adopt=adopt, approve=approve)
    raise typer.Exit(_run_mirrors(options, request, face))


@app.command()
def plan(
    names: Names = None,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Required: a plan is made and shown, never run.")
    ] = False,
    audit: Audit = True,
    adopt: Adopt = "stat",
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
    """Show what `sync --once` would do. Writes nothing, neither here nor on the remote."""
    options = Options(
        tuple(names or ()), config, source, target, identity, known_hosts, complete_sync, state_dir
    )
    face = Face(quiet=quiet, verbose=verbose, as_json=as_json)
    if not dry_run:
        _refuse(face, UsageError("Say `skynet plan --dry-run`; to carry a plan out, skynet sync."))
    request = Request(audit=audit, adopt=adopt, dry_run=True)
    raise typer.Exit(_run_mirrors(options, request, face))


@app.command()
def trust(
    target: Annotated[str, typer.Argument(help="sftp://[user@]host[:port][/path]")],
    *,
    fingerprint: Annotated[
        str, typer.Option(help="Accept the key only if it has this fingerprint; do not ask.")
    ] = "",
    known_hosts: KnownHosts = None,
) -> None:
    """Show a server's host key and, if you agree, trust it from now on."""
    from skynet.sftp import connect

    face = Face()
    try:
        server = endpoint(parse_server(target), Login(known_hosts=known_hosts))
        key = connect.scan_host_key(server, prompter=face, environ=os.environ)
        face.say([f"{key.name} has the {key.key_type} key {key.fingerprint}"])
        if connect.is_trusted(server, key):
            face.say(["It is trusted already."])
            return
        if fingerprint and fingerprint != key.fingerprint:
            raise HostKeyError(
                f"The server's key is {key.fingerprint}, not {fingerprint}. It is not trusted. "
                "Ask the server's administrator which one is right.",
                "other-fingerprint",
            )
        if not fingerprint and not _agreed():
            raise HostKeyError("The key was not accepted; nothing was changed.", "not-accepted")
        face.say([f"Trusted from now on, in {connect.trust(server, key)}."])
    except SkynetError as error:
        _fail(face, error)


@app.command()
def serve(
    directory: Annotated[Path, typer.Argument(readable=False, help="The directory to serve.")],
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes any free port.")] = 0,
    user: Annotated[str, typer.Option(help="The only login name.")] = "skynet",
    authorized_keys: Annotated[
        Path | None, typer.Option(readable=False, help="Keys that may log in.")
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(readable=False, help="File with the password; else one is made up."),
    ] = None,
    state_dir: StateDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Announce as one JSON object.")] = False,
) -> None:
    """Serve a directory over SFTP, to try skynet or for a small network. Ends with Ctrl-C."""
    face = Face(as_json=as_json)
    try:
        state = state_base(Options(state_dir=state_dir), os.environ, Path.cwd()) / "serve"
        options = ServeOptions(directory, state, host, port, user, authorized_keys)
        run_server(serve_options(options, password_file), face.announce)
    except SkynetError as error:
        _fail(face, error)


@app.command()
def guide(
    name: Annotated[str, typer.Argument(help="Which guide; a list if none is named.")] = "",
) -> None:
    """Show a guide: first-mirror, passwords, ssh-keys, linux-server, windows-server."""
    shelf = resources.files("skynet") / "guides"
    guides = sorted(file.name.removesuffix(".md") for file in shelf.iterdir())
    if not name:
        typer.echo("\n".join(guides))
    elif name in guides:
        typer.echo((shelf / f"{name}.md").read_text(encoding="utf-8"))
    else:
        _fail(Face(), UsageError(f"There is no guide {name!r}. There are: {', '.join(guides)}."))


def _run_mirrors(options: Options, request: Request, face: Face) -> int:
    """One cycle for each mirror; the highest of their exit codes."""
    try:
        mirrors = load_mirrors(options, os.environ, Path.cwd())
    except SkynetError as error:
        _refuse(face, error)
    try:
        return max(_run_mirror(mirror, request, face) for mirror in mirrors)
    except KeyboardInterrupt:
        face.error("interrupted; what was finished is recorded. Run skynet again for the rest.")
        return INTERRUPTED


def _run_mirror(mirror: Mirror, request: Request, face: Face) -> int:
    begun = time.monotonic()
    try:
        with face.watch(mirror.name) as watching:
            connect = connector(mirror, face, os.environ)
            report = run_cycle(mirror, connect, request, surroundings(watching))
    except SkynetError as error:
        if face.as_json:
            face.print_json(failure_json(mirror.name, error, time.monotonic() - begun))
        face.error(f"{mirror.name}: {error}")
        return error.exit_code
    _show(mirror, report, request, time.monotonic() - begun, face)
    return {"problems": 1, "held": 4}.get(report.outcome, 0)


def _show(mirror: Mirror, report: Report, request: Request, seconds: float, face: Face) -> None:
    if face.as_json:
        face.print_json(report_json(mirror.name, report, seconds, ops=request.dry_run))
        return
    if request.dry_run or report.outcome == "held" or face.verbose:
        face.say(plan_lines(report, everything=face.verbose))
    lines = report_lines(report, seconds, everything=face.verbose)
    if report.outcome in ("problems", "held"):
        face.insist(lines)
    else:
        face.say(lines)


def _agreed() -> bool:
    if not sys.stdin.isatty():
        raise HostKeyError(
            "Nobody can be asked here. Compare the fingerprint with the server's and give it: "
            "--fingerprint SHA256:...",
            "not-accepted",
        )
    return typer.confirm("Is that the fingerprint the server's administrator told you?")


def _refuse(face: Face, error: SkynetError) -> NoReturn:
    """End before any mirror is known; in JSON too, where its name is then empty."""
    if face.as_json:
        face.print_json(failure_json("", error, 0.0))
    _fail(face, error)


def _fail(face: Face, error: SkynetError) -> NoReturn:
    face.error(str(error))
    raise typer.Exit(error.exit_code)


def main() -> None:
    """Run a command; of one that has nothing to say when interrupted, typer ends with 130 too."""
    app()
