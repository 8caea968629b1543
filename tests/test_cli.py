"""The command line: a round against `skynet serve`, trust, guides, and secrets kept secret."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skynet import __version__
from tests.support.command import Result, finish, running, serving, skynet, snapshot, wait_until
from tests.support.sshd import make_key, running_sshd

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals or an sshd")
SECRET = "open-sesame-4711"
PASSPHRASE = "hocus-pocus-4712"  # another, as ssh-keygen is told it where all processes are seen

Server = dict[str, Any]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "one.txt").write_bytes(b"one")
    (source / "sub" / "two.txt").write_bytes(b"two two")
    return source


@pytest.fixture
def target(tmp_path: Path) -> Path:
    target = tmp_path / "target"
    target.mkdir()
    return target


@pytest.fixture
def server(target: Path) -> Iterator[Server]:
    with serving(target) as server:
        yield server


def mirror(source: Path, server: Server, *more: str | Path) -> list[str | Path]:
    return ["sync", "--once", "--source", source, "--target", server["url"], *more]


# A round without any OpenSSH.


@posix_only
def test_a_whole_round_against_the_embedded_server(
    source: Path, target: Path, server: Server, home: Path
) -> None:
    password = {"SKYNET_PASSWORD": server["password"]}
    unknown = skynet(*mirror(source, server), environ=password)
    assert unknown.code == 3
    assert f"accept it with: skynet trust {server['url'].rstrip('/')}" in unknown.err

    trusted = skynet("trust", server["url"], "--fingerprint", server["fingerprint"])
    assert trusted.code == 0
    assert server["fingerprint"] in trusted.out
    assert (home / ".ssh" / "known_hosts").read_text() == server["known_hosts"] + "\n"
    assert "trusted already" in skynet("trust", server["url"]).out

    first = skynet(*mirror(source, server, "--json"), environ=password).json
    assert (first["outcome"], first["sent_bytes"]) == ("changed", 10)
    assert snapshot(target) == snapshot(source)
    second = skynet(*mirror(source, server, "--json"), environ=password).json
    assert (second["outcome"], second["mutations"]) == ("in-sync", 0)


def test_a_key_with_another_fingerprint_is_not_trusted(server: Server, tmp_path: Path) -> None:
    known_hosts = tmp_path / "known"
    result = skynet(
        *("trust", server["url"], "--fingerprint", "SHA256:" + "A" * 43),
        *("--known-hosts", known_hosts),
    )
    assert result.code == 3
    assert f"The server's key is {server['fingerprint']}, not SHA256:AAA" in result.err
    assert "It is not trusted" in result.err
    assert not known_hosts.exists()


def test_a_fingerprint_is_compared_also_with_a_key_that_is_trusted(
    server: Server, tmp_path: Path
) -> None:
    known_hosts = tmp_path / "known"
    known_hosts.write_text(server["known_hosts"] + "\n")
    call = ["trust", server["url"], "--known-hosts", known_hosts, "--fingerprint"]
    assert "trusted already" in skynet(*call, server["fingerprint"]).out
    result = skynet(*call, "SHA256:" + "A" * 43)
    assert result.code == 3
    assert f"The server's key is {server['fingerprint']}, not SHA256:AAA" in result.err
    assert "Yet it is trusted already" in result.err


def test_a_key_is_not_trusted_when_nobody_can_be_asked(server: Server, tmp_path: Path) -> None:
    result = skynet("trust", server["url"], "--known-hosts", tmp_path / "known")
    assert result.code == 3
    assert server["fingerprint"] in result.out
    assert "--fingerprint SHA256:" in result.err
    assert not (tmp_path / "known").exists()


def test_a_server_that_cannot_be_served_is_explained(tmp_path: Path) -> None:
    result = skynet("serve", tmp_path / "gone")
    assert result.code == 2
    assert "gone: No such file or directory. Name a directory that exists." in result.err


def test_a_password_file_that_cannot_be_used_is_a_wrong_option(tmp_path: Path) -> None:
    result = skynet("serve", tmp_path, "--password-file", tmp_path / "gone")
    assert result.code == 2
    assert "gone cannot be read (No such file or directory)" in result.err


@posix_only
def test_serving_for_people_ends_with_an_interrupt(target: Path) -> None:
    with running("serve", target) as process:
        assert process.stdout is not None
        said = b"".join(iter(process.stdout.readline, b"Ctrl-C ends it.\n")).decode()
        process.send_signal(signal.SIGINT)
        ended = finish(process)
    assert "Serving at sftp://skynet@127.0.0.1:" in said
    assert "Password, for this run only:" in said
    assert ended.code == 130
    assert "Traceback" not in ended.err


# What needs no server.


def test_what_a_library_warns_its_users_of_is_not_told(tmp_path: Path) -> None:
    """As pathspec's pattern for this is: Python may give it another meaning one day."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / ".skynetignore").write_text("[[]draft[]]*\n")
    (tmp_path / "target").mkdir()
    with serving(tmp_path / "target") as server:
        skynet("trust", server["url"], "--fingerprint", server["fingerprint"])
        password = {"SKYNET_PASSWORD": server["password"]}
        result = skynet(*mirror(tmp_path / "source", server), environ=password)
    assert (result.code, result.err) == (0, "")


def test_the_version() -> None:
    assert skynet("--version").out == f"skynet {__version__}\n"


def test_help_names_every_command() -> None:
    text = skynet("--help").out
    for command in (
        *("sync", "plan", "trust", "serve", "guide"),
        *("daemon", "unlock", "status", "pause", "resume", "sync-now", "approve", "log"),
    ):
        assert f" {command} " in text


def test_guides_are_listed_and_shown() -> None:
    names = skynet("guide").out.split()
    assert names == [
        *["bandwidth", "daemon", "first-mirror", "linux-server", "passwords", "review-a-plan"],
        *["ssh-keys", "windows-server", "settings"],
    ]
    shown = skynet("guide", "passwords")
    assert shown.code == 0
    assert shown.out.startswith("# ")


def test_an_unknown_guide_is_answered_with_those_there_are() -> None:
    result = skynet("guide", "cooking")
    assert result.code == 2
    assert "There is no guide 'cooking'" in result.err
    assert "first-mirror, linux-server" in result.err


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [(["sync", "--no-audit"], "skynet sync --once"), (["plan"], "skynet plan --dry-run")],
)
def test_a_command_without_its_mode_says_which_one_it_has(
    arguments: list[str], advice: str
) -> None:
    result = skynet(*arguments)
    assert (result.code, result.out) == (2, "")
    assert advice in result.err
    as_json = skynet(*arguments, "--json")
    assert (as_json.code, as_json.json["error"]["code"]) == (2, "usage")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--source", "x"], ["--source and --target go together"]),
        (["--source", "", "--target", "sftp://h/x"], ["'--source': it is empty"]),
        (["--source", "x", "--target", "sftp://h/x", "name"], ["leave out --config and mirror"]),
        (["--target", "sftp://me:secret@h/x", "--source", "."], ["holds a password", "***"]),
        (["-c", "gone.toml"], ["gone.toml cannot be read", "Correct its path"]),
        ([], ["There is no skynet.toml", "[mirror.photos]", "--source DIR --target"]),
    ],
)
def test_wrong_options_are_explained(
    arguments: list[str], words: list[str], tmp_path: Path
) -> None:
    result = skynet("sync", "--once", *arguments, cwd=tmp_path)
    assert result.code == 2
    assert result.out == ""
    for word in words:
        assert word in result.err
    assert "secret" not in result.err


def test_two_mirrors_of_the_same_are_refused_at_once(tmp_path: Path) -> None:
    table = f'source = "."\ntarget = "sftp://h/x"\nstate_dir = "{tmp_path.parent}"\n'
    (tmp_path / "skynet.toml").write_text(f"[mirror.a]\n{table}[mirror.b]\n{table}")
    for command in (["sync", "--once"], ["sync"], ["daemon"]):
        result = skynet(*command, cwd=tmp_path)
        assert result.code == 2
        assert "[mirror.a] and [mirror.b] have the same source and target" in result.err
    assert "no daemon runs" in skynet("status", "b", cwd=tmp_path).out


def test_an_unknown_mirror_is_answered_with_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "skynet.toml").write_text(
        '[mirror.photos]\nsource = "."\ntarget = "sftp://h/x"\nstate_dir = "/elsewhere"\n'
    )
    result = skynet("sync", "--once", "photo", cwd=tmp_path)
    assert result.code == 2
    assert 'has no mirror "photo". Did you mean "photos"? Its mirrors: photos.' in result.err


# Secrets.


def everything_written(*places: Path) -> bytes:
    files = [file for place in places for file in place.rglob("*") if file.is_file()]
    return b"\0".join(file.read_bytes() for file in files)


def assert_nowhere(result: Result, *places: Path) -> None:
    written = everything_written(*places)
    for secret in (SECRET, PASSPHRASE):
        assert secret not in result.text
        assert secret.encode() not in written


def command_lines() -> str:
    """The arguments of every process that can be seen."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            found.append((place / "cmdline").read_bytes().decode(errors="replace"))
        except OSError:
            continue  # it has ended meanwhile
    return "\n".join(found)


@posix_only
@pytest.mark.parametrize("face", ["-v", "--json"])
def test_a_password_is_told_nowhere(
    source: Path, target: Path, home: Path, tmp_path: Path, face: str
) -> None:
    password_file = tmp_path / "password"
    password_file.write_text(SECRET + "\n")
    password_file.chmod(0o600)
    state = tmp_path / "state"
    with serving(target, "--password-file", password_file) as server:
        assert SECRET not in str(server)
        skynet("trust", server["url"], "--fingerprint", server["fingerprint"])
        arguments = mirror(source, server, face, "--state-dir", state)
        result = skynet(*arguments, environ={"SKYNET_PASSWORD": SECRET})
        assert result.code == 0
        assert_nowhere(result, state, home, target)

        refused = skynet(*arguments, environ={"SKYNET_PASSWORD": SECRET + "-wrong"})
        assert refused.code == 3
        assert_nowhere(refused, state, home)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the arguments of processes in /proc")
def test_a_password_command_tells_nobody(
    source: Path, target: Path, home: Path, tmp_path: Path
) -> None:
    password_file = tmp_path / "password"
    password_file.write_text(SECRET + "\n")
    password_file.chmod(0o600)
    with (source / "large").open("wb") as file:
        file.truncate(8 << 20)
    with serving(target, "--password-file", password_file) as server:
        skynet("trust", server["url"], "--fingerprint", server["fingerprint"])
        (tmp_path / "skynet.toml").write_text(
            f'[mirror.m]\nsource = "source"\ntarget = "{server["url"]}"\n'
            f'password_command = ["cat", "{password_file}"]\nstate_dir = "state"\n'
        )
        arguments = ["sync", "--once", "-v", "-c", str(tmp_path / "skynet.toml")]
        slowly = ["--bwlimit", "4M"]  # or it may have ended before anybody looks at it
        temps = target / ".skynet" / "tmp"
        with running(*arguments, *slowly) as process:
            wait_until(lambda: temps.is_dir() and any(temps.iterdir()), process)
            seen = command_lines()
            result = finish(process)
        assert "skynet.toml" in seen
        assert SECRET not in seen
        assert result.code == 0
        assert_nowhere(result, tmp_path / "state", home, target)

        password_file.write_text("\n" + SECRET)
        refused = skynet(*arguments)
        assert refused.code == 3
        assert "the password command 'cat' printed no password" in refused.err
        assert_nowhere(refused, tmp_path / "state", home)


@posix_only
def test_a_passphrase_is_told_nowhere(source: Path, home: Path, tmp_path: Path) -> None:
    with running_sshd(tmp_path / "sshd") as sshd:
        key = make_key(tmp_path / "locked_key", passphrase=PASSPHRASE)
        with sshd.authorized_keys.open("a") as file:
            file.write(key.with_suffix(".pub").read_text())
        arguments: list[str | Path] = [
            *("sync", "--once", "-v", "--source", source, "--target", sshd.url()),
            *("--identity", key, "--known-hosts", sshd.known_hosts, "--state-dir", tmp_path / "s"),
        ]
        opened = skynet(*arguments, environ={"SKYNET_PASSPHRASE": PASSPHRASE})
        assert opened.code == 0
        assert_nowhere(opened, tmp_path / "s", home, sshd.home)

        wrong = skynet(*arguments, environ={"SKYNET_PASSPHRASE": PASSPHRASE + "-wrong"})
        assert wrong.code == 3
        assert "SKYNET_PASSPHRASE" in wrong.err
        assert_nowhere(wrong, tmp_path / "s", home)
