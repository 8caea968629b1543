"""What a login is made of: private key files, passwords, and a person who can be asked.

Nothing here sends anything. A secret never stands in a message or a repr.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
import struct
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from skynet.errors import AuthError
from skynet.sftp.endpoint import Endpoint
from skynet.sftp.waits import bounded

PASSWORD_VARIABLE = "SKYNET_PASSWORD"  # noqa: S105 - the variable's name, not a password
PASSPHRASE_VARIABLE = "SKYNET_PASSPHRASE"  # noqa: S105 - the variable's name, not a passphrase
MAX_KEY_BYTES = 64 * 1024
MAX_PASSWORD_BYTES = 4096
MAX_COMMAND_BYTES = 64 * 1024  # some print notes below the password
# A password manager may have to ask a person to unlock it.
COMMAND_SECONDS = 60.0
PROMPTS = 3


class Prompter(Protocol):
    """Asks a person. May be called from any thread."""

    def secret(self, prompt: str) -> str | None:
        """The answer, not shown while it is typed; None when nobody can be asked."""


class _Nobody:
    """A prompter with nobody behind it."""

    def secret(self, _prompt: str) -> None:
        return None


NOBODY: Prompter = _Nobody()


@dataclass(frozen=True, slots=True)
class Secret:
    """A password and where it came from; the value is None when only a person can answer."""

    origin: str
    value: str | None = field(repr=False)


class KeyFile(NamedTuple):
    """A key file as it was read, not decrypted.

    kind: "ssh-ed25519", "ssh-rsa", "ecdsa", "public" for a public key, or "agent" for one that
    only an agent can use, as on a security key. blob: its public key, b"" when the format keeps it
    inside the encrypted part.
    """

    path: Path
    text: str
    kind: str
    encrypted: bool
    blob: bytes

    def __repr__(self) -> str:
        return f"KeyFile({self.path})"


def read_key_file(path: Path) -> KeyFile:
    """Read a private (or public) key. AuthError, code "identity", says what is wrong with it."""
    text = _read(path)
    for marker, read in _FORMATS:
        if marker in text:
            return read(path, text)
    words = text.split()
    if len(words) >= 2 and words[0].startswith(("ssh-", "ecdsa-", "sk-")):
        return KeyFile(path, text, "public", False, _decoded(path, words[1]))
    raise _bad_key(path, "is no private key", "Name the file that ssh-keygen made.")


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_KEY_BYTES + 1)
    except FileNotFoundError as error:
        raise AuthError(
            f"there is no key file {path}. Correct --identity, or identity in skynet.toml, or make "
            "a key: `skynet guide ssh-keys`.",
            "identity",
        ) from error
    except OSError as error:
        raise _bad_key(path, f"cannot be read ({error.strerror})", "Make it readable.") from error
    if len(data) > MAX_KEY_BYTES:
        raise _bad_key(path, "is too large to be a key", "Name the file that ssh-keygen made.")
    return data.decode("utf-8", "replace")


def _openssh(path: Path, text: str) -> KeyFile:
    """OpenSSH's own format: the public key stands before the part that may be encrypted."""
    body = text.partition("-----BEGIN OPENSSH PRIVATE KEY-----")[2].partition("-----END")[0]
    data = _decoded(path, "".join(body.split()))
    try:
        cipher, after = _field(data, len(b"openssh-key-v1\0"))
        _, after = _field(data, after)
        _, after = _field(data, after)
        blob, _ = _field(data, after + 4)
        name = _field(blob, 0)[0].decode("ascii")
    except (struct.error, UnicodeDecodeError) as error:
        raise _bad_key(path, "is damaged", "Restore it from a copy.") from error
    kind = "ecdsa" if name.startswith("ecdsa-") else name
    if kind not in ("ecdsa", "ssh-ed25519", "ssh-rsa"):
        kind = "agent"
    return KeyFile(path, text, kind, cipher != b"none", blob)


def _pem(path: Path, text: str) -> KeyFile:
    kind = "ssh-rsa" if "BEGIN RSA" in text else "ecdsa"
    return KeyFile(path, text, kind, "Proc-Type: 4,ENCRYPTED" in text, b"")


def _pkcs8(path: Path, _text: str) -> KeyFile:
    raise _bad_key(
        path,
        "is in PKCS#8 format, which is not supported",
        f"Convert a copy of it with: ssh-keygen -p -f {path}",
    )


def _putty(path: Path, _text: str) -> KeyFile:
    raise _bad_key(
        path,
        "is a PuTTY key, which is not supported",
        f"Convert it with: puttygen {path} -O private-openssh -o {path.with_suffix('')}",
    )


_FORMATS = (
    ("PuTTY-User-Key-File", _putty),
    ("-----BEGIN OPENSSH PRIVATE KEY-----", _openssh),
    ("-----BEGIN RSA PRIVATE KEY-----", _pem),
    ("-----BEGIN EC PRIVATE KEY-----", _pem),
    ("PRIVATE KEY-----", _pkcs8),
)


def _field(data: bytes, start: int) -> tuple[bytes, int]:
    """A length-prefixed string of SSH, and where the next one starts."""
    (length,) = struct.unpack_from(">I", data, start)
    end = start + 4 + length
    if end > len(data):
        raise struct.error
    return data[start + 4 : end], end


def _decoded(path: Path, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise _bad_key(path, "is damaged", "Restore it from a copy.") from error


def _bad_key(path: Path, problem: str, remedy: str) -> AuthError:
    return AuthError(f"the key file {path} {problem}. {remedy}", "identity")


def no_agent_for(file: KeyFile) -> AuthError:
    """The error for a key that the SSH agent would have to hold."""
    if file.kind == "public":
        return _bad_key(
            file.path,
            "is a public key that the SSH agent does not hold",
            "Name the private key, the file without .pub.",
        )
    name = _field(file.blob, 0)[0].decode("ascii")
    return _bad_key(
        file.path,
        f"is of type {name}, which works only through the SSH agent, and that does not hold it",
        "Add it to the agent with ssh-add, or use an ed25519 key.",
    )


def unusable_key(file: KeyFile, passphrase: str | None) -> AuthError:
    """The error for a key that did not open: damaged, or code "passphrase" when one was given."""
    if passphrase is None:
        return _bad_key(file.path, "is damaged", "Restore it from a copy.")
    return AuthError(f"the passphrase for {file.path} is wrong. Try another.", "passphrase")


def unusable_certificate(path: Path, why: str) -> AuthError:
    """The error for a certificate beside a key that does not belong to it."""
    return AuthError(
        f"the certificate {path} does not fit its key ({why}). Renew it, or move it away.",
        "identity",
    )


def as_sent(secret: str) -> bytes:
    """A secret as it is sent; bytes that are no UTF-8 stand for themselves."""
    return secret.encode("utf-8", "surrogateescape")


def passphrases(path: Path, environ: Mapping[str, str], prompter: Prompter) -> Iterator[str]:
    """Passphrases to try on a key file: from the environment, then what a person types."""
    if environ.get(PASSPHRASE_VARIABLE):
        yield environ[PASSPHRASE_VARIABLE]
    for _ in range(PROMPTS):
        answer = prompter.secret(f"Passphrase for {path}: ")
        if answer is None:
            return
        yield answer


def has_password(endpoint: Endpoint, environ: Mapping[str, str]) -> bool:
    """Whether there is a password that needs nobody, as far as is known without looking it up."""
    named = endpoint.password_command or endpoint.password_file
    return bool(environ.get(PASSWORD_VARIABLE) or named)


def unattended_passwords(endpoint: Endpoint, environ: Mapping[str, str]) -> Iterator[Secret]:
    """The passwords that need nobody, each looked up when its turn comes.

    AuthError, code "password-command" or "password-file", when one was named but fails.
    """
    if environ.get(PASSWORD_VARIABLE):
        yield Secret(PASSWORD_VARIABLE, environ[PASSWORD_VARIABLE])
    if endpoint.password_command:
        yield Secret("password_command", run_password_command(endpoint.password_command))
    if endpoint.password_file is not None:
        yield Secret("password_file", read_password_file(endpoint.password_file.expanduser()))


def run_password_command(argv: tuple[str, ...], seconds: float = COMMAND_SECONDS) -> str:
    """The first line that a program prints. Its stderr is dropped: it might hold the password."""
    try:
        process = subprocess.Popen(  # noqa: S603 - the user's own command, without a shell
            argv,
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError as error:
        raise _bad_command(argv, f"could not be started ({error.strerror})") from error
    try:
        output = bounded(lambda: _output_of(process), seconds)
    except TimeoutError:
        raise _bad_command(argv, f"did not end within {seconds:g} s") from None
    finally:
        process.kill()
        process.wait()
    if len(output) > MAX_COMMAND_BYTES:
        raise _bad_command(argv, f"printed more than {MAX_COMMAND_BYTES} bytes")
    if process.returncode != 0:
        raise _bad_command(argv, f"failed with exit code {process.returncode}")
    password = _first_line(output)
    if not password:
        raise _bad_command(argv, "printed no password")
    return password


def _output_of(process: subprocess.Popen[bytes]) -> bytes:
    """All that it prints until it ends; or so much that it is too much, while it goes on."""
    assert process.stdout is not None
    output = b""
    with process.stdout as stream:
        while len(output) <= MAX_COMMAND_BYTES:
            data = stream.read(MAX_COMMAND_BYTES)
            if not data:
                process.wait()
                break
            output += data
    return output


def read_password_file(path: Path) -> str:
    """The first line of a file that nobody but its owner can read."""
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            data = stream.read(MAX_PASSWORD_BYTES)
    except OSError as error:
        raise AuthError(
            f"the password file {path} cannot be read ({error.strerror}). Correct password_file.",
            "password-file",
        ) from error
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise AuthError(
            f"the password file {path} can be read by others than its owner, so it is not used. "
            f"Run: chmod 600 {path}",
            "password-file",
        )
    password = _first_line(data)
    if not password:
        raise AuthError(
            f"the password file {path} is empty. Write the password in its first line.",
            "password-file",
        )
    return password


def _first_line(data: bytes) -> str:
    """A password need not be UTF-8; the escaped bytes are sent as they were."""
    return data.partition(b"\n")[0].rstrip(b"\r").decode("utf-8", "surrogateescape")


def _bad_command(argv: tuple[str, ...], problem: str) -> AuthError:
    return AuthError(
        f"the password command {argv[0]!r} {problem}. Run it by hand to see why, and correct "
        "password_command.",
        "password-command",
    )
