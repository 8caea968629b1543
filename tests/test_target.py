"""A target's promises: every good URL is understood, every bad one is explained."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from skynet.errors import ConfigError
from skynet.target import Target, parse_target, redacted


def refusal(url: str) -> str:
    """The message with which `url` is refused."""
    with pytest.raises(ConfigError) as caught:
        parse_target(url)
    assert type(caught.value) is ConfigError
    assert caught.value.exit_code == 2
    return str(caught.value)


segments = (
    st.binary(min_size=1)
    .filter(lambda name: not {0, 47} & set(name))
    .filter(lambda name: name not in (b".", b".."))
)
paths = st.builds(
    lambda start, names: start + b"/".join(names) if names else start.removesuffix(b"/") or b"/",
    st.sampled_from([b"/", b"~/"]),
    st.lists(segments | st.just(b"~"), max_size=4),
)
hosts = (
    st.from_regex(r"[a-z0-9_][a-z0-9_.-]{0,20}", fullmatch=True)
    | st.ip_addresses().map(str)
    | st.ip_addresses(v=6).map(lambda address: f"{address}%eth0")
)
users = st.text(min_size=1, max_size=8).filter(
    lambda user: user.isprintable() and user[0] not in " -"
)
targets = st.builds(Target, hosts, paths, st.none() | users, st.none() | st.integers(1, 65535))


@given(targets)
@example(Target("::1", b"/~/not the home", "DOMAIN\\me@corp:1", 22))
@example(Target("host", b"~"))
@example(Target("host", b"/~"))
@example(Target("host", b"/"))
def test_a_target_survives_its_own_url(target: Target) -> None:
    url = str(target)
    assert parse_target(url) == target
    assert not set(url[len("sftp://") :]) & set(" ?#\n\\'\"$")


@given(st.text() | st.text("sftp://[]:@%~.?#a1", max_size=30).map(lambda rest: "sftp://" + rest))
def test_any_text_is_a_target_or_is_refused(url: str) -> None:
    try:
        target = parse_target(url)
    except ConfigError as error:
        assert "sftp://me@host/" in str(error)
    else:
        assert parse_target(str(target)) == target


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("sftp://host/srv/photos", Target("host", b"/srv/photos")),
        ("SFTP://me@host:2222/srv//a/./b/", Target("host", b"/srv/a/b", "me", 2222)),
        ("sftp://host/~", Target("host", b"~")),
        ("sftp://host/~/", Target("host", b"~")),
        ("sftp://host/~/a%20b", Target("host", b"~/a b")),
        ("sftp://host/%7E/a", Target("host", b"/~/a")),
        ("sftp://host/", Target("host", b"/")),
        ("sftp://me%40corp@host/a", Target("host", b"/a", "me@corp")),
        ("sftp://[::1]/a", Target("::1", b"/a")),
        ("sftp://me@[fe80::1%25eth0]:22/a", Target("fe80::1%eth0", b"/a", "me", 22)),
        ("sftp://host/caf\u00e9/%ff%0a", Target("host", b"/caf\xc3\xa9/\xff\n")),
        ("sftp://host/\udcff", Target("host", b"/\xff")),
    ],
)
def test_urls(url: str, target: Target) -> None:
    assert parse_target(url) == target


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "does not begin with sftp://"),
        ("/srv/photos", "does not begin with sftp://"),
        ("C:\\photos", "does not begin with sftp://"),
        ("https://host/x", "does not begin with sftp://"),
        ("scp://me@host/x", "write sftp://me@host/x"),
        ("ssh://me@host/x", "write sftp://me@host/x"),
        ("me@host:/srv/x", "write sftp://me@host/srv/x"),
        ("host:photos", "write sftp://host/~/photos"),
        ("host:a b\udcff", "write sftp://host/~/a%20b%FF"),
        ("host:~/photos", "write sftp://host/~/photos"),
        ("sftp://host", "names no path"),
        ("sftp:///srv", "host is missing"),
        ("sftp://-oProxyCommand=x/srv", "no host name has"),
        ("sftp://ho st/srv", "no host name has"),
        ("sftp://@host/srv", "user name is empty"),
        ("sftp://-l@host/srv", "no user name has"),
        ("sftp://a%00b@host/srv", "no user name has"),
        ("sftp://%ff@host/srv", "not valid UTF-8"),
        ("sftp://host/\ud800", "not valid UTF-8"),
        ("sftp://host:/srv", "number from 1 to 65535"),
        ("sftp://host:0/srv", "number from 1 to 65535"),
        ("sftp://host:65536/srv", "number from 1 to 65535"),
        ("sftp://host:\u0663/srv", "number from 1 to 65535"),
        ("sftp://::1/srv", "IPv6 address stands in brackets"),
        ("sftp://[::1/srv", "IPv6 address stands in brackets"),
        ("sftp://[host]/srv", "not an IPv6 address"),
        ("sftp://[fe80::1%25a b]/srv", "zone of its IPv6 address"),
        ("sftp://host/a/../b", '".."'),
        ("sftp://host/a/%2e%2E", '".."'),
        ("sftp://host/%00", "NUL"),
        ("sftp://host/100%", "write %25"),
        ("sftp://host/a?b", "write %3F"),
        ("sftp://host/a#b", "%23"),
    ],
)
def test_refused_urls(url: str, why: str) -> None:
    message = refusal(url)
    assert why in message
    assert "sftp://me@host/absolute/path" in message
    assert message.isprintable()


@pytest.mark.parametrize(
    "url",
    [
        "sftp://me:hunter2@host/srv",
        "sftp://me:hunter2/@host/srv",
        "sftp://me:hunter2@:@host/srv",
        "sftp://me@corp:hunter2@host/srv",
        "scp://me:hunter2@host/srv",
        "me:hunter2@host:/srv",
        "me:hunter2://@host/srv",
        "sftp:/me:hunter2@host/srv",
    ],
)
def test_no_message_repeats_a_password(url: str) -> None:
    assert "hunter2" not in refusal(url)
    for shown in (url, f'"{url}"', f'["{url}"]'):
        assert "hunter2" not in redacted(shown)


def test_a_password_in_a_url_is_explained() -> None:
    message = refusal("sftp://me:hunter2@host/srv")
    assert "skynet guide passwords" in message
