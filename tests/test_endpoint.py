"""From what the user names, through ssh_config, to the hops that are connected to."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Any

import pytest

from skynet.errors import ConfigError
from skynet.sftp.connect import Endpoint, _lookup
from skynet.sftp.endpoint import Hop, route


def hops(tmp_path: Path, text: str, host: str = "alias", **fields: Any) -> list[Hop]:
    config = tmp_path / "config"
    config.write_text(text)
    return route(Endpoint(host, ssh_config=config, **fields), _lookup)


def hop(tmp_path: Path, text: str, host: str = "alias", **fields: Any) -> Hop:
    return hops(tmp_path, text, host, **fields)[-1]


def test_defaults(tmp_path: Path, home: Path) -> None:
    found = hop(tmp_path, "")
    assert (found.host, found.port, found.user) == ("alias", 22, getpass.getuser())
    assert found.known_hosts[0] == home / ".ssh" / "known_hosts"
    assert [path.name for path in found.identities] == ["id_ed25519", "id_ecdsa", "id_rsa"]
    assert not found.strict


ALIAS = """
Host alias
  HostName real.example
  Port 2222
  User anna
  IdentityFile ~/a
  IdentityFile %d/b
  IdentitiesOnly yes
  UserKnownHostsFile ~/one "/two words"
  GlobalKnownHostsFile none
  Compression yes
"""


def test_ssh_config_is_followed(tmp_path: Path, home: Path) -> None:
    found = hop(tmp_path, ALIAS)
    assert found.description == "anna@real.example:2222"
    assert found.key_name == "[real.example]:2222"
    assert found.identities == (home / "a", home / "b")
    assert found.known_hosts == (home / "one", Path("/two words"))
    assert (found.compression, found.only_identities, found.strict) == (True, True, False)


def test_the_endpoint_overrides_ssh_config(tmp_path: Path) -> None:
    found = hop(tmp_path, ALIAS, user="bob", port=22, identity=Path("/k"), known_hosts=Path("/h h"))
    assert found.description == "bob@real.example:22"
    assert (found.identities, found.strict) == ((Path("/k"),), True)
    assert found.known_hosts == (Path("/h h"),)
    assert found.trust_command == "skynet trust sftp://bob@alias:22 --known-hosts '/h h'"


def test_host_key_alias_and_ipv6(tmp_path: Path) -> None:
    assert hop(tmp_path, "HostKeyAlias Pool\nPort 99").key_name == "pool"
    assert hop(tmp_path, "", host="::1", user="anna").description == "anna@[::1]:22"
    assert hop(tmp_path, "", host="::1").url == "sftp://[::1]"


def test_proxy_command_sees_what_overrides(tmp_path: Path) -> None:
    found = hop(tmp_path, "ProxyCommand nc -X %% %h %p %r", user="bob", port=2022)
    assert found.proxy_command == "nc -X % alias 2022 bob"
    assert hop(tmp_path, "ProxyCommand none").proxy_command is None


def test_proxy_jump_chains(tmp_path: Path) -> None:
    text = (
        "Host alias\n ProxyJump a@one,ssh://two:2222\n"
        "Host one\n ProxyJump [::1]:9\nHost two\n ProxyJump ignored\n"
    )
    found = hops(tmp_path, text, user="bob", identity=Path("/k"))
    assert [(step.host, step.port) for step in found] == [
        ("::1", 9),
        ("one", 22),
        ("two", 2222),
        ("alias", 22),
    ]
    assert found[1].trust_command == "skynet trust sftp://a@one"


def test_first_of_proxy_jump_and_proxy_command_wins(tmp_path: Path) -> None:
    assert len(hops(tmp_path, "ProxyCommand nc %h %p\nProxyJump gate")) == 1
    assert len(hops(tmp_path, "Host alias\nProxyJump gate\nProxyCommand nc %h %p")) == 2
    assert len(hops(tmp_path, "ProxyJump none")) == 1


def test_include_is_followed_and_closes_its_blocks(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "1.conf").write_text("Host other\n User wrong\n")
    (tmp_path / "more" / "2.conf").write_text("Host alias\n Port 77\n")
    found = hop(tmp_path, "Include more/*.conf missing\nUser right\n")
    assert (found.user, found.port) == ("right", 77)


def test_include_below_a_block_is_conditional(tmp_path: Path) -> None:
    (tmp_path / "part").write_text("Port 77\n")
    text = "Host other\n Include part\n"
    assert hop(tmp_path, text).port == 22
    assert hop(tmp_path, text, host="other").port == 77


def test_match_that_can_be_decided(tmp_path: Path) -> None:
    text = "Match host real.example\n Port 77\nHost alias\n HostName real.example\nMatch all\n"
    assert hop(tmp_path, "Match originalhost alias\n Port 77\n").port == 77
    assert hop(tmp_path, text, host="elsewhere").port == 22


@pytest.mark.parametrize("criterion", ['exec "true"', "tagged x", "localnetwork 10.0.0.0/8"])
def test_match_that_cannot_be_decided(tmp_path: Path, criterion: str) -> None:
    with pytest.raises(ConfigError, match=r"line 1.*Match"):
        hop(tmp_path, f"Match {criterion}\n Port 77\n")
    # It does not matter where its own host pattern excludes this server.
    assert hop(tmp_path, f"Match host other {criterion}\n Port 77\nHost *\n Port 5\n").port == 5


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Port many", "Port 'many'"),
        ("Port 65536", "65535"),
        ("ProxyJump a:b:c", "ProxyJump 'a:b:c'"),
        ("Host loop alias\nProxyJump loop", "more than 8"),
        ("Include config", "nested"),
        ("nonsense", "line 1: 'nonsense'"),
        ('Include "open', "line 1"),
        ("CanonicalizeHostname yes\nCanonicalizeMaxDots x", "followed"),
        ("User a'b\nProxyCommand nc %r", "ProxyCommand"),
    ],
)
def test_bad_configuration_is_named(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        hop(tmp_path, text)
    assert problem in str(caught.value)
    assert caught.value.code == "ssh-config"


def test_included_blocks_below_a_block_are_refused(tmp_path: Path) -> None:
    (tmp_path / "part").write_text("Host alias\n Port 77\n")
    with pytest.raises(ConfigError, match="included below"):
        hop(tmp_path, "Host *.example\n Include part\n")


def test_missing_configuration_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        route(Endpoint("alias", ssh_config=tmp_path / "none"), _lookup)


@pytest.mark.parametrize("name", ["-oProxyCommand=x", "a b", "a\nPort 1", "a'b", "$(x)"])
def test_names_that_could_be_more_than_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="no usable"):
        hop(tmp_path, "", host=name)
    with pytest.raises(ConfigError, match="no usable"):
        hop(tmp_path, "", user=name)


def test_password_command_is_not_in_the_repr() -> None:
    assert "hunter2" not in repr(Endpoint("host", password_command=("echo", "hunter2")))
