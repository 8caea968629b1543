"""The longer ways to check skynet: `nox` runs the quick ones; props, laws, e2e and chaos take time.

`nox -l` lists the sessions; what follows `--` goes to pytest, or to scripts/bench. Environments are
kept and reused.
"""

from __future__ import annotations

import os

import nox

nox.options.sessions = ["lint", "types", "floors", "tests"]
nox.options.reuse_existing_virtualenvs = True

LONG_EXAMPLES = "20000"  # for every property; SKYNET_EXAMPLES=1000000 is the bar of a release


def _install(session: nox.Session) -> None:
    session.install("--editable", ".[dev,serve]")


def _pytest(session: nox.Session, *options: str, **env: str) -> None:
    session.run("python", "-m", "pytest", *options, *session.posargs, env=env)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and common mistakes: ruff check, ruff format."""
    session.install("ruff>=0.14")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Types: mypy in its strict mode, and whether skynet calls what other systems lack."""
    _install(session)
    session.run("mypy")
    for platform in ("win32", "darwin"):
        cache = f".mypy_cache/{platform}"
        session.run("mypy", "--platform", platform, "--cache-dir", cache, "skynet")


@nox.session
def floors(session: nox.Session) -> None:
    """Who may import whom, and the other house rules."""
    _install(session)
    _pytest(session, "tests/test_floors.py")


@nox.session
def tests(session: nox.Session) -> None:
    """All quick tests; those of real servers skip themselves where there is no sshd."""
    _install(session)
    _pytest(session)


@nox.session
def props(session: nox.Session) -> None:
    """Every property at length: SKYNET_EXAMPLES inputs each, 20,000 unless told otherwise."""
    _install(session)
    examples = os.environ.get("SKYNET_EXAMPLES", LONG_EXAMPLES)
    _pytest(session, "-m", "hypothesis or props_long", "--timeout=0", SKYNET_EXAMPLES=examples)


@nox.session
def laws(session: nox.Session) -> None:
    """The laws of the plan over a million lives of trees and all pairs of small ones: hours."""
    _install(session)
    lives = {"SKYNET_LIVES": "1000000", "SKYNET_SMALL_TREES": "7"}
    _pytest(session, "tests/test_laws.py", "--timeout=0", **lives)


@nox.session
def e2e(session: nox.Session) -> None:
    """Everything against real servers, which must be there, and their long histories too."""
    _install(session)
    marks = "not props_long and not bench"
    _pytest(session, "-m", marks, "--timeout=1800", SKYNET_REQUIRE_SERVERS="1")


@nox.session
def chaos(session: nox.Session) -> None:
    """The daemon through SKYNET_KILLS kills of it and of the server: 200, unless told otherwise."""
    _install(session)
    env = {"SKYNET_KILLS": os.environ.get("SKYNET_KILLS", "200"), "SKYNET_REQUIRE_SERVERS": "1"}
    _pytest(session, "-m", "e2e_long", "tests/test_daemon_chaos.py", **env)


@nox.session
def bench(session: nox.Session) -> None:
    """Speed beside the peers; what follows `--` goes to scripts/bench."""
    _install(session)
    session.run("python", "scripts/bench", *session.posargs)
