"""Passwords, questions and several steps: where a secret comes from, and that it stays secret."""

from __future__ import annotations

import base64
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from skynet.errors import AuthError, ConnectError
from skynet.sftp.auth import Answer, HungUpError, Offer, Responder, log_in
from skynet.sftp.connect import Endpoint, connect
from skynet.sftp.credentials import KeyFile, read_key_file, run_password_command
from skynet.sftp.endpoint import Hop, route
from tests.support.logins import PASSWORD, Rules, login_server
from tests.support.persons import Person
from tests.support.sshd import make_key


def logs_in(endpoint: Endpoint, person: Person | None = None, **environ: str) -> None:
    connect(endpoint, prompter=person or Person(), environ=environ).close()


@contextmanager
def server(directory: Path, *methods: str, **rules: object) -> Iterator[tuple[Endpoint, Rules]]:
    given = Rules(methods=methods or ("password",), **rules)  # type: ignore[arg-type]  # per test
    with login_server(directory, given) as endpoint:
        yield endpoint, given


@pytest.mark.parametrize("method", ["password", "keyboard-interactive"])
def test_password_from_the_environment(tmp_path: Path, method: str) -> None:
    with server(tmp_path, method) as (endpoint, rules):
        logs_in(endpoint, SKYNET_PASSWORD=PASSWORD)
        assert rules.seen == [PASSWORD]


def test_a_server_of_passwords_does_not_mind_a_named_key(tmp_path: Path) -> None:
    with server(tmp_path) as (endpoint, rules):
        key = make_key(tmp_path / "key")
        logs_in(dataclasses.replace(endpoint, identity=key), SKYNET_PASSWORD=PASSWORD)
        assert rules.seen == [PASSWORD]


def test_password_from_a_command(tmp_path: Path) -> None:
    command = (sys.executable, "-c", f"print({PASSWORD!r}); print('a second line')")
    with server(tmp_path) as (endpoint, _):
        logs_in(dataclasses.replace(endpoint, password_command=command))


def test_password_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    file.chmod(0o600)
    with server(tmp_path) as (endpoint, _):
        logs_in(dataclasses.replace(endpoint, password_file=file))


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such permission bits")
def test_a_password_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    file.chmod(0o640)
    with (
        server(tmp_path) as (endpoint, _),
        pytest.raises(AuthError, match="chmod 600") as caught,
    ):
        logs_in(dataclasses.replace(endpoint, password_file=file))
    assert caught.value.code == "password-file"


def test_a_person_is_asked_last_and_may_mistype(tmp_path: Path) -> None:
    person = Person("mistyped", PASSWORD)
    with server(tmp_path) as (endpoint, rules):
        logs_in(endpoint, person, SKYNET_PASSWORD="outdated")
        assert rules.seen == ["outdated", "mistyped", PASSWORD]
    assert person.asked == [f"Password for anna@127.0.0.1:{endpoint.port}: "] * 2


def test_refused_passwords_are_named_by_origin_and_never_shown(tmp_path: Path) -> None:
    with server(tmp_path) as (endpoint, _), pytest.raises(AuthError) as caught:
        logs_in(endpoint, Person("hunter2"), SKYNET_PASSWORD="hunter1")
    message = str(caught.value)
    assert "password from SKYNET_PASSWORD" in message
    assert "accepts: password" in message
    assert "hunter" not in message + repr(caught.value.__context__)


def test_nothing_to_log_in_with(tmp_path: Path) -> None:
    with server(tmp_path) as (endpoint, _), pytest.raises(AuthError, match="Tried: nothing"):
        logs_in(endpoint)


def test_questions_beyond_the_password_go_to_the_person(tmp_path: Path) -> None:
    questions = (("Password: ", PASSWORD), ("Code:\x1b[31m ", "123"))
    with server(tmp_path, "keyboard-interactive", questions=questions) as (endpoint, _):
        person = Person("123")
        logs_in(endpoint, person, SKYNET_PASSWORD=PASSWORD)
    assert [prompt.isprintable() for prompt in person.asked] == [True]


def test_a_person_may_take_longer_than_the_server(tmp_path: Path) -> None:
    class Slow(Person):
        def secret(self, prompt: str) -> str | None:
            # Longer than connect_timeout: the deadline is for the server alone.
            time.sleep(4)
            return super().secret(prompt)

    with server(tmp_path, "keyboard-interactive") as (endpoint, _):
        logs_in(dataclasses.replace(endpoint, connect_timeout=3), Slow(PASSWORD))


@pytest.mark.parametrize(
    ("code", "seconds", "problem"),
    [
        ("import sys; print('hunter2'); sys.exit(3)", 60.0, "exit code 3"),
        ("pass", 60.0, "no password"),
        ("import time; print('hunter2', flush=True); time.sleep(60)", 0.5, "did not end"),
        ("while True: print('hunter2')", 60.0, "more than 65536 bytes"),
    ],
)
def test_a_failing_password_command_is_explained(code: str, seconds: float, problem: str) -> None:
    with pytest.raises(AuthError, match=problem) as caught:
        run_password_command((sys.executable, "-c", code), seconds=seconds)
    assert "hunter2" not in str(caught.value)


def test_a_missing_password_command_is_explained() -> None:
    with pytest.raises(AuthError, match="could not be started"):
        run_password_command(("/no/such/program",))


# Key files


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("PuTTY-User-Key-File-3: ssh-ed25519\n", "puttygen"),
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----\n", "ssh-keygen -p"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END", "damaged"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\n!\n-----END", "damaged"),
        ("hello", "is no private key"),
        ("", "is no private key"),
        ("x" * 100_000, "too large"),
    ],
)
def test_unusable_key_files_say_why(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    with pytest.raises(AuthError, match=problem) as caught:
        read_key_file(file)
    assert caught.value.code == "identity"
    assert str(file) in str(caught.value)


def test_missing_key_file(tmp_path: Path) -> None:
    with pytest.raises(AuthError, match="there is no key file"):
        read_key_file(tmp_path / "key")


def test_key_file_repr_hides_the_key(tmp_path: Path) -> None:
    assert "PRIVATE" not in repr(read_key_file(make_key(tmp_path / "key")))


# Several steps, against a server that is a script


class Script:
    """A Login whose answers are a list; it records what was requested.

    grants: the login service; else the server hangs up when it is asked for.
    """

    def __init__(self, *answers: Answer | Exception, grants: bool = True) -> None:
        self.answers = list(answers)
        self.requests: list[str] = []
        self.held: list[Offer] = []  # by the agent
        self._grants = grants

    def _next(self, request: str) -> Answer:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def begin(self) -> None:
        if not self._grants:
            raise HungUpError("")

    def none(self) -> Answer:
        return self._next("none")

    def publickey(self, offer: Offer) -> Answer:
        return self._next("publickey")

    def password(self, secret: str) -> Answer:
        return self._next(f"password {secret}")

    def interactive(self, respond: Responder) -> Answer:
        return self._next(f"interactive {respond([('Code: ', False)])}")

    def agent(self) -> list[Offer]:
        return self.held

    def load(self, file: KeyFile, passphrase: str | None) -> list[Offer]:
        return [Offer(f"key {file.path}", None, b"")]


def wants(*methods: str, partial: bool = False) -> Answer:
    return Answer(False, frozenset(methods), partial)


YES, NO = Answer(True), Answer(False)


def hop_with(key: Path) -> Hop:
    """A server for which the user has named this key."""
    endpoint = Endpoint("host", "anna", identity=key, ssh_config=Path(os.devnull))
    return route(endpoint, lambda _text, host: {"hostname": host, "user": "anna"})[0]


@pytest.fixture
def named(tmp_path: Path) -> Hop:
    return hop_with(make_key(tmp_path / "key"))


@pytest.fixture
def hop(named: Hop) -> Hop:
    """A server for which ssh_config, or nobody, has named the key."""
    return dataclasses.replace(named, strict=False)


def run(script: Script, hop: Hop, person: Person, environ: Mapping[str, str]) -> None:
    log_in(script, hop, Endpoint("host"), environ, person)


@pytest.mark.parametrize(
    ("answers", "requests"),
    [
        ([YES], []),
        ([wants("publickey"), wants("password", partial=True), YES], ["publickey", "password pw"]),
        ([wants("password"), wants("publickey", partial=True), YES], ["password pw", "publickey"]),
        (
            [wants("password"), wants("keyboard-interactive", partial=True), YES],
            ["password pw", "interactive ['123']"],
        ),
        (
            [wants("password", "keyboard-interactive"), NO, YES],
            ["password pw", "interactive ['pw']"],
        ),
    ],
)
def test_steps_follow_what_the_server_asks(
    hop: Hop, answers: list[Answer], requests: list[str]
) -> None:
    script = Script(*answers)
    run(script, hop, Person("123"), {"SKYNET_PASSWORD": "pw"})
    assert script.requests == ["none", *requests]


def test_a_jump_host_never_sees_the_password(hop: Hop) -> None:
    script = Script(wants("password"))
    with pytest.raises(AuthError, match="Tried: nothing"):
        log_in(script, hop, None, {"SKYNET_PASSWORD": "pw"}, Person())
    assert script.requests == ["none"]


def test_a_server_that_hangs_up_is_quoted(hop: Hop) -> None:
    with pytest.raises(AuthError, match="Too many") as caught:
        run(Script(wants("publickey"), HungUpError("Too many")), hop, Person(), {})
    assert caught.value.code == "too-many-tries"
    for early in Script(HungUpError("")), Script(grants=False):
        with pytest.raises(ConnectError) as closed:
            run(early, hop, Person(), {})
        assert closed.value.code == "closed"


# A key that was named: offered before the server is asked what it takes, if nobody need be asked


PW = {"SKYNET_PASSWORD": "pw"}


@pytest.mark.parametrize(
    ("answers", "requests"),
    [
        ([YES], []),
        ([wants("password"), YES], ["password pw"]),
        ([wants("password", partial=True), YES], ["password pw"]),
        ([wants("publickey", "password"), YES], ["password pw"]),
        # Its refusal does not tell the rest: then the server is asked after all.
        ([NO, wants("password"), YES], ["none", "password pw"]),
        # Before giving up, too: it may let in whoever asks.
        ([wants("publickey"), YES], ["none"]),
        ([wants("password"), NO, YES], ["password pw", "none"]),
    ],
)
def test_a_named_key_is_offered_first(
    named: Hop, answers: list[Answer], requests: list[str]
) -> None:
    script = Script(*answers)
    run(script, named, Person("pw"), {})
    assert script.requests == ["publickey", *requests]


def test_a_server_of_passwords_is_not_offered_a_named_key_if_one_was_given(named: Hop) -> None:
    script = Script(wants("password"), YES)
    run(script, named, Person(), PW)
    assert script.requests == ["none", "password pw"]
    script = Script(wants("publickey", "password"), YES)
    run(script, named, Person(), PW)
    assert script.requests == ["none", "publickey"]


@pytest.mark.parametrize("last", [wants("publickey"), HungUpError("Too many")])
def test_what_refuses_a_named_key_is_asked_once_and_told_by_the_key(
    named: Hop, last: Answer | Exception
) -> None:
    script = Script(wants("publickey"), last)
    with pytest.raises(AuthError, match=r"Tried: key [^;]*key\. The server accepts: pub") as caught:
        run(script, named, Person(), {})
    assert caught.value.code == "auth"
    assert script.requests == ["publickey", "none"]


def test_a_server_that_hangs_up_on_a_named_key(named: Hop) -> None:
    with pytest.raises(AuthError, match="Too many") as caught:
        run(Script(HungUpError("Too many")), named, Person(), {})
    assert caught.value.code == "too-many-tries"
    with pytest.raises(ConnectError) as closed:
        run(Script(grants=False), named, Person(), {})
    assert closed.value.code == "closed"


def test_a_server_that_hangs_up_on_a_password_is_no_matter_of_keys(hop: Hop) -> None:
    with pytest.raises(AuthError, match="skynet guide passwords") as caught:
        run(Script(wants("password"), HungUpError("No")), hop, Person(), PW)
    assert "right key" not in str(caught.value)


def locked(directory: Path) -> Path:
    return make_key(directory / "locked", passphrase="open sesame")


def damaged(directory: Path) -> Path:
    key = directory / "damaged"
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END")
    return key


def missing(directory: Path) -> Path:
    return directory / "missing"


def public(directory: Path) -> Path:
    return Path(f"{make_key(directory / 'key')}.pub")


@pytest.mark.parametrize("key", [locked, damaged, missing, public])
def test_a_named_key_that_does_not_open_by_itself_waits_for_its_turn(
    tmp_path: Path, key: Callable[[Path], Path]
) -> None:
    script, person = Script(wants("password"), YES), Person("pw")
    run(script, hop_with(key(tmp_path)), person, {})
    assert script.requests == ["none", "password pw"]
    assert person.asked == ["Password for anna@host:22: "]


def test_a_passphrase_that_is_given_opens_a_named_key(tmp_path: Path) -> None:
    script = Script(YES)
    run(script, hop_with(locked(tmp_path)), Person(), {"SKYNET_PASSPHRASE": "open sesame"})
    assert script.requests == ["publickey"]


def test_a_key_on_a_security_key_is_the_agents(tmp_path: Path) -> None:
    blob = field(b"sk-ssh-ed25519@openssh.com") + field(bytes(32)) + field(b"ssh:")
    body = b"openssh-key-v1\0" + field(b"none") * 2 + field(b"") + b"\0\0\0\1" + field(blob)
    key = tmp_path / "id_ed25519_sk"
    middle = base64.b64encode(body).decode()
    key.write_text(f"-----BEGIN OPENSSH PRIVATE KEY-----\n{middle}\n-----END")
    with pytest.raises(AuthError, match=r"sk-ssh-ed25519@openssh\.com.*does not hold it"):
        run(Script(wants("publickey")), hop_with(key), Person(), {})
    script = Script(wants("publickey"), YES)
    script.held = [Offer("stranger", None, b"stranger"), Offer("agent key", None, blob)]
    run(script, hop_with(key), Person(), {})
    assert script.requests == ["none", "publickey"]


def field(text: bytes) -> bytes:
    return len(text).to_bytes(4, "big") + text


def test_a_public_key_is_told_from_a_private_one(hop: Hop) -> None:
    public_hop = hop_with(Path(f"{hop.identities[0]}.pub"))
    with pytest.raises(AuthError, match="is a public key"):
        run(Script(wants("publickey")), public_hop, Person(), {})
