"""The private virtual environment that the scripts share: `.venv` at the root of the repository.

Standard library only, because it runs before anything is installed. A stamp inside the
environment records what was installed into it, so that a second run costs one small read.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

Say = Callable[[str], None]

STAMP = "skynet-stamp.json"
COMMAND_SECONDS = 900  # an installation over a slow line; a hung one must still end


class SetupError(Exception):
    """The environment cannot be made; the message says why and what to do."""


class Stamp(NamedTuple):
    """What was installed: `basis` digests everything that decides it, extras aside."""

    basis: str = ""
    python: str = ""
    extras: tuple[str, ...] = ()


def ensure_venv(root: Path, extras: Sequence[str], say: Say) -> Path:
    """Return the Python of `root/.venv`, with the project and `extras` installed into it.

    The project is installed editable. Extras that an earlier call installed stay, so callers
    that ask for different ones do not undo each other. `say` is told each slow step before it
    starts. Raises SetupError.
    """
    _require_python()
    venv = root / ".venv"
    python = venv_program(root, "python")
    had = _read_stamp(venv)
    basis = _basis(root)
    if had.basis == basis and set(extras) <= set(had.extras) and _holds_skynet(python):
        return python
    if had.python != _this_python() or not _has_pip(python):
        say(f"Making a private Python environment in {venv} ...")
        _make(venv, python, say)
        had = Stamp()
    wanted = tuple(sorted({*extras, *had.extras}))
    say("Installing skynet and what it needs into it; the first time takes a minute or so ...")
    _install(root, python, wanted)
    stamp = Stamp(basis, _this_python(), wanted)
    (venv / STAMP).write_text(json.dumps(stamp._asdict()), encoding="utf-8")
    return python


def venv_program(root: Path, name: str) -> Path:
    """Where the environment of `root` keeps the program `name`, such as python or skynet."""
    windows = os.name == "nt"
    return root / ".venv" / ("Scripts" if windows else "bin") / (f"{name}.exe" if windows else name)


def can_apt() -> bool:
    """Whether this process may install packages of the system: root, on a Debian of some kind."""
    return hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get") is not None


def apt_install(package: str, say: Say) -> None:
    """Install `package` of the system, asking nothing, where `can_apt`. Raises SetupError."""
    say(f"Installing {package} with apt-get ...")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    _run(["apt-get", "-q", "update"], env)
    _run(["apt-get", "-q", "install", "-y", "--no-install-recommends", package], env)


def _require_python() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever starts this script may have an older one
        raise SetupError(
            f"skynet needs Python 3.11 or newer, and this is {platform.python_version()}. "
            "Install a newer one and run this script with it: python3.11 SCRIPT."
        )


def _make(venv: Path, python: Path, say: Say) -> None:
    """Create the environment anew, with pip, by the first of three ways that works here."""
    create = [sys.executable, "-m", "venv", "--clear", str(venv)]
    # --ignore-installed, or the pip outside would take itself for one already inside.
    outside_pip = [sys.executable, "-m", "pip", "--python", str(python)]
    bootstrap = [*outside_pip, "install", "-q", "--ignore-installed", "pip"]
    failure = _failure(create)
    # Debian ships venv without ensurepip; the package python3-venv brings it.
    if failure and can_apt():
        failure = _apt_failure("python3-venv", say) or _failure(create)
    if failure:
        failure = _failure([*create, "--without-pip"]) or _failure(bootstrap)
    if failure:
        raise SetupError(
            f"{sys.executable} cannot make a virtual environment with pip in {venv}. On Debian or "
            "Ubuntu this may help: sudo apt-get install python3-venv; elsewhere install Python "
            f"from python.org. The last attempt: {failure}"
        )


def _install(root: Path, python: Path, extras: Sequence[str]) -> None:
    project = f"{root}[{','.join(extras)}]" if extras else str(root)
    _run([str(python), "-m", "pip", "install", "-q", "--editable", project])


def _basis(root: Path) -> str:
    """A digest of all that decides what an installation holds, extras aside."""
    parts = [(root / "pyproject.toml").read_bytes(), str(root).encode(), _this_python().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _this_python() -> str:
    return f"{sys.implementation.name} {platform.python_version()} {sys.base_prefix}"


def _read_stamp(venv: Path) -> Stamp:
    """What the stamp says; nothing when it is missing or damaged, which costs a reinstallation."""
    try:
        fields = json.loads((venv / STAMP).read_text(encoding="utf-8"))
        return Stamp(fields["basis"], fields["python"], tuple(fields["extras"]))
    except (OSError, ValueError, TypeError, KeyError):
        return Stamp()


def _holds_skynet(python: Path) -> bool:
    # -I, or the skynet of the working directory would answer for one not installed.
    return not _failure([str(python), "-I", "-c", "import skynet"])


def _has_pip(python: Path) -> bool:
    return not _failure([str(python), "-m", "pip", "--version"])


def _apt_failure(package: str, say: Say) -> str:
    """Why apt-get could not install the package; "" when it did."""
    try:
        apt_install(package, say)
    except SetupError as error:
        return str(error)
    return ""


def _failure(command: Sequence[str]) -> str:
    """Why the command failed; "" when it did not."""
    try:
        _run(command)
    except SetupError as error:
        return str(error)
    return ""


def _run(command: Sequence[str], env: dict[str, str] | None = None) -> None:
    """Run quietly; SetupError with the end of the output when it fails."""
    shown = " ".join(command)
    try:
        done = subprocess.run(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"Could not run {shown}: {error}") from error
    if done.returncode:
        tail = done.stdout.decode(errors="replace").strip().splitlines()[-15:]
        raise SetupError(f"This failed: {shown}\n" + "\n".join(f"    {line}" for line in tail))
