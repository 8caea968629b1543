"""What the commands do: read the options, call a room, show the result, give the exit code.

What a cycle needs is loaded while the server is connected, so nothing here may load it before.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from skynet.config import Login, Mirror, Options, check, describe_keys, load_mirrors, state_base
from skynet.console import Face
from skynet.cycle import Request
from skynet.errors import ExitCode, HostKeyError, Interrupted, SkynetError, UsageError
from skynet.interrupts import as_usual, whole
from skynet.monitor import BrokenOff, Event
from skynet.target import parse_server
from skynet.wiring import connector, endpoint, serve_options

if TYPE_CHECKING:
    from skynet.remote import Remote
    from skynet.serve import ServeOptions

__all__ = [
    "Face",
    "Options",
    "Request",
    "guide",
    "plan",
    "refuse_beside_plan",
    "refuse_without_once",
    "serve",
    "sync",
    "trust",
]

SETTINGS = "settings"  # the guide that is made from the table of keys


def sync(options: Options, request: Request, face: Face, *, saved: Path | None = None) -> int:
    """One cycle for each mirror; for one mirror what the plan saved in the file says."""
    return _run_mirrors(options, request, face, saved)


def plan(options: Options, request: Request, face: Face, out: Path | None = None) -> int:
    """The plan of each mirror, shown and not carried out; that of one mirror is saved in `out`."""
    if not request.dry_run:
        return _refuse(
            face, UsageError("Say `skynet plan --dry-run`; to carry a plan out, skynet sync.")
        )
    return _run_mirrors(options, request, face, out)


def trust(target: str, fingerprint: str, known_hosts: Path | None, face: Face) -> int:
    """Show a server's host key; trust it if it has the fingerprint, or if a person agrees."""
    from skynet.sftp import connect

    try:
        server = endpoint(parse_server(target), Login(known_hosts=known_hosts))
        key = connect.scan_host_key(server, prompter=face, environ=os.environ)
        face.say([f"{key.name} has the {key.key_type} key {key.fingerprint}"])
        is_trusted = connect.is_trusted(server, key)
        _expect_fingerprint(key.fingerprint, fingerprint, is_trusted=is_trusted)
        if is_trusted:
            face.say(["It is trusted already."])
            return ExitCode.IN_SYNC
        if not fingerprint:
            _expect_agreement(face)
        face.say([f"Trusted from now on, in {connect.trust(server, key)}."])
    except SkynetError as error:
        return face.fail(error)
    return ExitCode.IN_SYNC


def serve(
    options: ServeOptions, password_file: Path | None, state_dir: Path | None, face: Face
) -> int:
    """Serve a directory until Ctrl-C; its host key is kept below the state directory."""
    from skynet.serve import serve as run_server

    try:
        state = state_base(Options(state_dir=state_dir), os.environ, Path.cwd())
        as_usual()
        run_server(serve_options(replace(options, state=state), password_file), face.announce)
    except SkynetError as error:
        return face.fail(error)
    return ExitCode.IN_SYNC


def guide(name: str, face: Face) -> int:
    """A guide as it is written, or the list of them."""
    from importlib import resources  # slow to load, and needed here only

    shelf = resources.files("skynet") / "guides"
    guides = [*sorted(file.name.removesuffix(".md") for file in shelf.iterdir()), SETTINGS]
    if not name:
        sys.stdout.write("\n".join(guides) + "\n")
    elif name == SETTINGS:
        from skynet.render import settings_text

        sys.stdout.write(settings_text(describe_keys()))
    elif name in guides:
        sys.stdout.write((shelf / f"{name}.md").read_text(encoding="utf-8"))
    else:
        known = ", ".join(guides)
        return face.fail(UsageError(f"There is no guide {name!r}. There are: {known}."))
    return ExitCode.IN_SYNC


def _run_mirrors(options: Options, request: Request, face: Face, file: Path | None) -> int:
    """One cycle for each mirror; the highest of their exit codes. file: of a saved plan."""
    try:
        mirrors = load_mirrors(options, os.environ, Path.cwd())
        if file is not None:
            request = _with_plan_file(request, file, mirrors)
    except SkynetError as error:
        return _refuse(face, error)
    code = ExitCode.IN_SYNC
    for mirror in mirrors:
        if len(mirrors) > 1:
            from skynet.render import headline

            face.head(headline(mirror.name))
        code = max(code, _run_mirror(mirror, options, request, face, file))
        if code == ExitCode.INTERRUPTED:
            break
    return code


def _with_plan_file(request: Request, file: Path, mirrors: Sequence[Mirror]) -> Request:
    """The request with the plan to carry out, or to save one; UsageError."""
    if len(mirrors) != 1:
        raise UsageError(
            f"A saved plan is of one mirror, and these are {len(mirrors)}: name one of them, and "
            "a file of its own for each."
        )
    from skynet.planfile import expect_place, read

    if not request.dry_run:
        return replace(request, saved=read(file))
    expect_place(file)
    if Path(os.fsdecode(mirrors[0].source)).resolve() in file.resolve().parents:
        raise UsageError(f"{file} is in the source, which skynet never writes to. Name another.")
    return replace(request, bind=True)


def refuse_beside_plan(face: Face) -> int:
    """Refuse options that say how a plan is made, beside one that is made already."""
    return _refuse(
        face, UsageError("A saved plan is carried out as it is: leave out --audit and --adopt.")
    )


def refuse_without_once(face: Face, given: Sequence[str]) -> int:
    """Refuse options that are about one cycle in a sync that goes on."""
    names = " and ".join(given)
    words = f"{names}: for one cycle only. Say `skynet sync --once`, or leave it out to go on."
    return _refuse(face, UsageError(words))


def _run_mirror(
    mirror: Mirror, options: Options, request: Request, face: Face, file: Path | None
) -> ExitCode:
    begun = time.monotonic()
    broken: list[BrokenOff] = []
    try:
        check(mirror)
        with face.watch(mirror.name) as watching:

            def monitor(event: Event) -> None:
                if isinstance(event, BrokenOff):
                    broken.append(event)
                watching(event)

            with early(connector(mirror, face, os.environ, monitor), face) as connect:
                from skynet import commands_cycle

                report = commands_cycle.run(mirror, connect, request, monitor, file)
    except KeyboardInterrupt:
        words = "interrupted; what was finished is recorded. Run skynet again for the rest."
        error = Interrupted(words)
        _tell(mirror.name, error, time.monotonic() - begun, face, *broken[-1:])
        return ExitCode.INTERRUPTED
    except SkynetError as error:
        _tell(mirror.name, error, time.monotonic() - begun, face, *broken[-1:])
        return error.exit_code
    seconds = time.monotonic() - begun
    return commands_cycle.tell(mirror, options, request, report, seconds, face, file)


@contextmanager
def early(connect: Callable[[], Remote], face: Face) -> Iterator[Callable[[], Remote]]:
    """Connect now, and load what a cycle needs meanwhile: the server is what is waited for.

    What is yielded gives that connection to who asks first, and then new ones.
    """
    loading = threading.Thread(target=_load, args=(face,), name="load", daemon=True)
    try:
        _start(loading)
        made = [connect()]
    finally:
        _join(loading)
    try:
        yield lambda: made.pop() if made else connect()
    finally:
        for remote in made:
            remote.close()


@whole
def _start(loading: threading.Thread) -> None:
    loading.start()


@whole
def _join(loading: threading.Thread) -> None:
    """Wait for a thread that imports: no two may do so, nor one while Python ends, or it crashes.

    What it imports is on the disk, so there is an end.
    """
    if loading.ident is not None:  # else it was not started
        loading.join()


def _load(face: Face) -> None:
    from skynet import commands_cycle as commands_cycle

    face.get_ready()


def _tell(
    mirror: str,
    error: SkynetError,
    seconds: float,
    face: Face,
    until_then: BrokenOff | None = None,
) -> None:
    if face.as_json:
        from skynet.render import failure_json

        face.print_json(failure_json(mirror, error, seconds, until_then))
    face.error(f"{mirror}: {error}" if mirror else str(error))


def _expect_fingerprint(shown: str, expected: str, *, is_trusted: bool) -> None:
    """HostKeyError if a fingerprint is expected, and the key has another one."""
    if expected in ("", shown):
        return
    raise HostKeyError(
        f"The server's key is {shown}, not {expected}. "
        + ("Yet it is trusted already. " if is_trusted else "It is not trusted. ")
        + "Ask the server's administrator which one is right.",
        "other-fingerprint",
    )


def _expect_agreement(face: Face) -> None:
    """HostKeyError unless a person agrees to the key that was shown."""
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
