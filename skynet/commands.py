"""What the commands do: read the options, call a room, show the result, give the exit code."""

from __future__ import annotations

import os
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path

from skynet.config import Login, Mirror, Options, check, describe_keys, load_mirrors, state_base
from skynet.console import Face
from skynet.errors import ExitCode, HostKeyError, SkynetError, UsageError
from skynet.reconcile import Report, Request, run_cycle
from skynet.render import failure_json, plan_lines, report_json, report_lines, settings_text
from skynet.serve import ServeOptions
from skynet.target import parse_server
from skynet.wiring import connector, endpoint, serve_options, surroundings

__all__ = ["Face", "Options", "Request", "ServeOptions", "guide", "plan", "serve", "sync", "trust"]

SETTINGS = "settings"  # the guide that is made from the table of keys
EXIT_CODES = {"problems": ExitCode.PROBLEMS, "held": ExitCode.HELD}  # of a report's outcome


def sync(options: Options, request: Request, face: Face, *, once: bool) -> int:
    """One cycle for each mirror."""
    if not once:
        return _refuse(
            face, UsageError("Say `skynet sync --once`: this version runs one cycle at a time.")
        )
    return _run_mirrors(options, request, face)


def plan(options: Options, request: Request, face: Face) -> int:
    """The plan of each mirror, shown and not carried out."""
    if not request.dry_run:
        return _refuse(
            face, UsageError("Say `skynet plan --dry-run`; to carry a plan out, skynet sync.")
        )
    return _run_mirrors(options, request, face)


def trust(target: str, fingerprint: str, known_hosts: Path | None, face: Face) -> int:
    """Show a server's host key; trust it if it has the fingerprint, or if a person agrees."""
    from skynet.sftp import connect

    try:
        server = endpoint(parse_server(target), Login(known_hosts=known_hosts))
        key = connect.scan_host_key(server, prompter=face, environ=os.environ)
        face.say([f"{key.name} has the {key.key_type} key {key.fingerprint}"])
        if connect.is_trusted(server, key):
            face.say(["It is trusted already."])
            return ExitCode.IN_SYNC
        _expect_agreement(key.fingerprint, fingerprint, face)
        face.say([f"Trusted from now on, in {connect.trust(server, key)}."])
    except SkynetError as error:
        return _fail(face, error)
    return ExitCode.IN_SYNC


def serve(
    options: ServeOptions, password_file: Path | None, state_dir: Path | None, face: Face
) -> int:
    """Serve a directory until Ctrl-C; its host key is kept below the state directory."""
    from skynet.serve import serve as run_server

    try:
        state = state_base(Options(state_dir=state_dir), os.environ, Path.cwd())
        run_server(serve_options(replace(options, state=state), password_file), face.announce)
    except SkynetError as error:
        return _fail(face, error)
    return ExitCode.IN_SYNC


def guide(name: str, face: Face) -> int:
    """A guide as it is written, or the list of them."""
    from importlib import resources  # slow to load, and needed here only

    shelf = resources.files("skynet") / "guides"
    guides = [*sorted(file.name.removesuffix(".md") for file in shelf.iterdir()), SETTINGS]
    if not name:
        sys.stdout.write("\n".join(guides) + "\n")
    elif name == SETTINGS:
        sys.stdout.write(settings_text(describe_keys()))
    elif name in guides:
        sys.stdout.write((shelf / f"{name}.md").read_text(encoding="utf-8"))
    else:
        known = ", ".join(guides)
        return _fail(face, UsageError(f"There is no guide {name!r}. There are: {known}."))
    return ExitCode.IN_SYNC


def _run_mirrors(options: Options, request: Request, face: Face) -> int:
    """One cycle for each mirror; the highest of their exit codes."""
    try:
        mirrors = load_mirrors(options, os.environ, Path.cwd())
    except SkynetError as error:
        return _refuse(face, error)
    code = ExitCode.IN_SYNC
    for mirror in mirrors:
        code = max(code, _run_mirror(mirror, options, request, face))
        if code == ExitCode.INTERRUPTED:
            break
    return code


def _run_mirror(mirror: Mirror, options: Options, request: Request, face: Face) -> ExitCode:
    begun = time.monotonic()
    try:
        check(mirror)
        with face.watch(mirror.name) as watching:
            connect = connector(mirror, face, os.environ, watching)
            report = run_cycle(mirror, connect, request, surroundings(watching))
    except KeyboardInterrupt:
        words = "interrupted; what was finished is recorded. Run skynet again for the rest."
        _tell(mirror.name, SkynetError(words, "interrupted"), time.monotonic() - begun, face)
        return ExitCode.INTERRUPTED
    except SkynetError as error:
        _tell(mirror.name, error, time.monotonic() - begun, face)
        return error.exit_code
    seconds = time.monotonic() - begun
    if face.as_json:
        face.print_json(report_json(mirror.name, report, seconds, ops=request.dry_run))
    else:
        _show(report, request, seconds, call_of(mirror, options, request), face)
    return EXIT_CODES.get(report.outcome, ExitCode.IN_SYNC)


def call_of(mirror: Mirror, options: Options, request: Request) -> str:
    """The words, quoted for a shell, that make the same request of this mirror again."""
    given = {
        "--config": options.config,
        "--source": options.source,
        "--target": options.target,
        "--identity": options.identity,
        "--known-hosts": options.known_hosts,
        "--state-dir": options.state_dir,
        "--adopt": None if request.adopt == "stat" else request.adopt,
    }
    words = [] if options.source else [mirror.name]
    for option, value in given.items():
        if value is not None:
            words += [option, str(value)]
    if options.complete_sync is not None:
        words.append("--complete-sync" if options.complete_sync else "--no-complete-sync")
    if not request.audit:
        words.append("--no-audit")
    return shlex.join(words)


def _tell(mirror: str, error: SkynetError, seconds: float, face: Face) -> None:
    if face.as_json:
        face.print_json(failure_json(mirror, error, seconds))
    face.error(f"{mirror}: {error}" if mirror else str(error))


def _show(report: Report, request: Request, seconds: float, call: str, face: Face) -> None:
    if request.dry_run or report.outcome == "held" or face.verbose:
        face.say(plan_lines(report, everything=face.verbose))
    lines = report_lines(report, seconds, everything=face.verbose, call=call)
    if report.outcome in ("problems", "held"):
        face.insist(lines)
    else:
        face.say(lines)


def _expect_agreement(shown: str, expected: str, face: Face) -> None:
    """HostKeyError unless the key shown is the expected one, or a person agrees to it."""
    if expected and expected != shown:
        raise HostKeyError(
            f"The server's key is {shown}, not {expected}. It is not trusted. "
            "Ask the server's administrator which one is right.",
            "other-fingerprint",
        )
    if expected:
        return
    agreed = face.confirm("Is that the fingerprint the server's administrator told you?")
    if agreed is None:
        raise HostKeyError(
            "Nobody can be asked here. Compare the fingerprint with the server's and give it: "
            "--fingerprint SHA256:...",
            "not-accepted",
        )
    if not agreed:
        raise HostKeyError("The key was not accepted; nothing was changed.", "not-accepted")


def _refuse(face: Face, error: SkynetError) -> int:
    """Fail before any mirror is known."""
    _tell("", error, 0.0, face)
    return error.exit_code


def _fail(face: Face, error: SkynetError) -> int:
    face.error(str(error))
    return error.exit_code
