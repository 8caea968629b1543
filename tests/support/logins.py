"""An SSH server in this process for logins that sshd cannot be given: passwords and questions."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh

from skynet.sftp.connect import Endpoint

PASSWORD = "correct horse"


@dataclass
class Rules:
    """What the server accepts, and what it has seen.

    methods: "password", "keyboard-interactive" or both. questions: what a keyboard-interactive
    login asks, with the right answers.
    """

    methods: tuple[str, ...] = ("password",)
    questions: tuple[tuple[str, str], ...] = (("Password: ", PASSWORD),)
    seen: list[str] = field(default_factory=list)


class _Server(asyncssh.SSHServer):
    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return "password" in self._rules.methods

    def validate_password(self, username: str, password: str) -> bool:
        self._rules.seen.append(password)
        return password == PASSWORD

    def kbdint_auth_supported(self) -> bool:
        return "keyboard-interactive" in self._rules.methods

    def get_kbdint_challenge(
        self, username: str, lang: str, submethods: str
    ) -> tuple[str, str, str, list[tuple[str, bool]]]:
        return "", "", "", [(question, False) for question, _ in self._rules.questions]

    def validate_kbdint_response(self, username: str, responses: object) -> bool:
        assert isinstance(responses, list | tuple)
        self._rules.seen.extend(responses)
        return list(responses) == [answer for _, answer in self._rules.questions]


@contextmanager
def login_server(directory: Path, rules: Rules) -> Iterator[Endpoint]:
    """Run the server on a thread of its own; yields an endpoint that names no credentials."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    key = asyncssh.generate_private_key("ssh-ed25519")
    try:
        listening = asyncio.run_coroutine_threadsafe(_listen(rules, key), loop)
        server = listening.result(30)
        yield _endpoint(directory, server.get_port(), key.export_public_key().decode())
        asyncio.run_coroutine_threadsafe(_stop(server), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


async def _listen(rules: Rules, key: asyncssh.SSHKey) -> asyncssh.SSHAcceptor:
    return await asyncssh.listen(
        "127.0.0.1", 0, server_factory=lambda: _Server(rules), server_host_keys=[key]
    )


async def _stop(server: asyncssh.SSHAcceptor) -> None:
    server.close()
    await server.wait_closed()


def _endpoint(directory: Path, port: int, public_key: str) -> Endpoint:
    known_hosts = directory / "known_hosts"
    known_hosts.write_text(f"[127.0.0.1]:{port} {public_key}")
    config = directory / "ssh_config"
    config.write_text("")
    return Endpoint("127.0.0.1", "anna", port, known_hosts=known_hosts, ssh_config=config)
