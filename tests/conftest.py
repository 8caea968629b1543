"""What every test stands on: a home of its own, and how hard the property tests try.

`SKYNET_EXAMPLES=N` makes hypothesis try N examples a property (profile "long"); without it the
profile "short" tries hypothesis' own number. `SKYNET_SAME_EXAMPLES=1` has it try the same ones in
every run, so that a change is judged by what it does and not by luck; new ones are for those who
look for mistakes. A property that names its own `max_examples` in
`@settings` keeps it: to follow the profile it should leave that out.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.command import Site, make_site
from tests.support.sshd import Sshd, running_sshd

# What steers the tests themselves; every other SKYNET_* variable is a user's and is unset.
CONTROLS = {
    "SKYNET_EXAMPLES",
    "SKYNET_KILLS",
    "SKYNET_REQUIRE_SERVERS",
    "SKYNET_SAME_EXAMPLES",
}

HOME_VARIABLES = {
    "HOME": ".",
    "USERPROFILE": ".",
    "APPDATA": "AppData/Roaming",
    "LOCALAPPDATA": "AppData/Local",
    "XDG_CONFIG_HOME": ".config",
    "XDG_DATA_HOME": ".local/share",
    "XDG_STATE_HOME": ".local/state",
    "XDG_CACHE_HOME": ".cache",
    "XDG_RUNTIME_DIR": ".run",
}


def _load_hypothesis_profile() -> None:
    # A busy machine is no bug: nothing fails for being slow, and a failure prints its seed.
    slow_is_fine = [HealthCheck.too_slow]
    settings.register_profile(
        "short",
        deadline=None,
        print_blob=True,
        suppress_health_check=slow_is_fine,
        derandomize=os.environ.get("SKYNET_SAME_EXAMPLES") == "1",
    )
    examples = os.environ.get("SKYNET_EXAMPLES")
    if examples is None:
        settings.load_profile("short")
        return
    if not examples.isdecimal() or int(examples) < 1:
        raise pytest.UsageError(
            f"SKYNET_EXAMPLES={examples!r} is no number of examples; give a whole number from 1 on."
        )
    settings.register_profile("long", settings.get_profile("short"), max_examples=int(examples))
    settings.load_profile("long")


_load_hypothesis_profile()
# A shell has what it starts in the background ignore Ctrl-C; what the tests start is ended by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home directory, so that no test reads or writes the user's keys, hosts or state.

    The OpenSSH programs ask the user database instead of HOME: give them their files by option.
    """
    directory = tmp_path_factory.mktemp("home")
    for variable, below in HOME_VARIABLES.items():
        monkeypatch.setenv(variable, str(directory / below))
    users = [name for name in os.environ if name.startswith("SKYNET_") and name not in CONTROLS]
    for variable in ["SSH_AUTH_SOCK", "SSH_ASKPASS", *users]:
        monkeypatch.delenv(variable, raising=False)
    return directory


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """An OpenSSH server for the tests of a module, unless that has one of its own."""
    with running_sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def site(sshd: Sshd, tmp_path: Path) -> Site:
    """A mirror of that server, with a source and a target of its own."""
    return make_site(sshd, tmp_path)
