"""A daemon that is not let in: it says so loudly, and does not hammer the server."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.support.keeping import Household, household
from tests.support.logins import PASSWORD, Rules, login_server

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs an OpenSSH server")


def refused(house: Household, code: str) -> None:
    """The daemon is told no, says so, and leaves the server alone."""
    kept = house.only
    house.begin()
    house.until(lambda: kept.status is not None and kept.status.next_try > 0)
    connections = house.link.connections
    status = kept.status
    assert status is not None
    assert (status.state, status.server) == ("offline", "")
    assert status.next_try > status.since + 20
    time.sleep(2)
    assert house.link.connections == connections <= 2
    (record,) = kept.records()
    assert record.error.startswith(f"{code}: ")
    assert record.error.partition(": ")[2][:60] in house.log
    assert house.run("status").code == 1


def test_a_refused_key(tmp_path: Path) -> None:
    with household(tmp_path) as house:
        house.only.put({"file": b"x"})
        good = house.server.authorized_keys.read_text()
        house.server.authorized_keys.write_text("")
        refused(house, "auth")
        house.server.authorized_keys.write_text(good)
        house.only.ask("sync-now")
        house.finish()


def test_a_host_key_that_has_changed(tmp_path: Path) -> None:
    with household(tmp_path) as house:
        house.only.put({"file": b"x"})
        house.trust(Path(f"{house.server.client_key}.pub").read_text())
        refused(house, "changed-host-key")
        house.trust(house.server.host_public_key)
        house.only.ask("sync-now")
        house.finish()


def test_a_wrong_password(tmp_path: Path) -> None:
    login = tmp_path / "login"
    login.mkdir()
    password = login / "password"
    password.write_text("wrong")
    password.chmod(0o600)
    rules = Rules()
    with (
        login_server(login, rules) as endpoint,
        household(tmp_path, password_file=f'"{password}"') as house,
    ):
        house.trust(key_of(endpoint.known_hosts))
        house.link.to = lambda: endpoint.port or 0
        refused(house, "auth")
        assert rules.seen == ["wrong"]
        assert PASSWORD not in house.log
        assert house.end() == 0


def key_of(known_hosts: Path | None) -> str:
    assert known_hosts is not None
    return known_hosts.read_text().partition(" ")[2]
