"""Host keys: what known_hosts says of a server, and whether the key it shows is the right one.

Files are in the format of OpenSSH's sshd(8): plain and hashed names, patterns, [host]:port,
`@revoked`. Lines of `@cert-authority` are ignored: host certificates are not accepted.
A key is the public key blob of RFC 4253, as bytes. Nothing is ever accepted silently.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from skynet.errors import HostKeyError

DEFAULT_PORT = 22
# Far above any real known_hosts file, low enough to be read whole.
MAX_FILE_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class HostKey:
    """The key a server shows.

    name: as it stands in known_hosts, "[host]:port" when the port is not 22.
    fingerprint: "SHA256:...", as ssh-keygen -l prints it. line: what to append to known_hosts.
    """

    name: str
    key_type: str
    fingerprint: str
    line: str


class KnownKey(NamedTuple):
    """One key that known_hosts holds for a host, and where it stands."""

    file: Path
    line: int
    key_type: str
    blob: bytes
    revoked: bool


def host_name(host: str, port: int) -> str:
    """The name of a server in known_hosts."""
    host = host.lower()
    return host if port == DEFAULT_PORT else f"[{host}]:{port}"


def fingerprint(blob: bytes) -> str:
    """The fingerprint of a key, as OpenSSH prints it."""
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode("ascii")
    return "SHA256:" + digest.rstrip("=")


def host_key(name: str, key_type: str, blob: bytes) -> HostKey:
    """The key a server shows, with the line that would make it known."""
    line = f"{name} {key_type} {base64.b64encode(blob).decode('ascii')}"
    return HostKey(name, key_type, fingerprint(blob), line)


def known_keys(files: Iterable[Path], name: str) -> list[KnownKey]:
    """Every key the files hold for `name`, in order. A file that is missing holds none."""
    return [key for file in files for key in _read(file, name)]


def known_first(algorithms: Sequence[str], known: Sequence[KnownKey]) -> list[str]:
    """Host key algorithms, those first for which a key is known.

    Otherwise a known server that prefers another type of key would look like a changed one.
    """
    types = {key.key_type for key in known if not key.revoked}
    return sorted(algorithms, key=lambda algorithm: _key_type(algorithm) not in types)


def _key_type(algorithm: str) -> str:
    """The type, as in known_hosts, of the keys that a host key algorithm uses."""
    return "ssh-rsa" if algorithm.startswith("rsa-sha2-") else algorithm


def verify(shown: HostKey, known: Sequence[KnownKey], trust_command: str) -> None:
    """Accept `shown` only if it is known and not revoked; else HostKeyError saying what to do."""
    if not is_known(shown, known, trust_command):
        raise _unknown(shown, trust_command)


def is_known(shown: HostKey, known: Sequence[KnownKey], trust_command: str) -> bool:
    """Whether `shown` is known; HostKeyError if it is revoked, or if another key is known."""
    same = [key for key in known if fingerprint(key.blob) == shown.fingerprint]
    revoked = next((key for key in same if key.revoked), None)
    if revoked is not None:
        raise _revoked(shown, revoked)
    others = [key for key in known if not key.revoked]
    if same or not others:
        return bool(same)
    # Of several known keys, one of the type that was shown is the one that changed.
    others.sort(key=lambda key: key.key_type != shown.key_type)
    raise _changed(shown, others[0], trust_command)


def append(files: Sequence[Path], key: HostKey) -> Path:
    """Add the key to the first file, made, private, when it is missing; returns that file."""
    if not files:
        raise HostKeyError(
            "ssh_config sets UserKnownHostsFile to none, so there is no file to keep the host "
            "key in. Give one with --known-hosts.",
            "known-hosts",
        )
    try:
        files[0].parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _append_line(files[0], key.line.encode("utf-8"))
    except OSError as error:
        raise HostKeyError(
            f"the host key cannot be written to {files[0]} ({error.strerror}). "
            "Make it writable, or give another file with --known-hosts.",
            "known-hosts",
        ) from error
    return files[0]


def _append_line(file: Path, line: bytes) -> None:
    """Add the line to the end of a file that does not have it yet."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(file, flags, 0o600), "r+b") as stream:
        text = stream.read()
        if line not in text.splitlines():
            gap = b"" if not text or text.endswith(b"\n") else b"\n"
            stream.write(gap + line + b"\n")


def _read(file: Path, name: str) -> list[KnownKey]:
    try:
        with file.open("rb") as stream:
            text = stream.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HostKeyError(
            f"the host keys in {file} cannot be read ({error.strerror}). "
            "Make it readable, or give another file with --known-hosts.",
            "known-hosts",
        ) from error
    if len(text) > MAX_FILE_BYTES:
        raise HostKeyError(
            f"{file} is larger than {MAX_FILE_BYTES} bytes, so it is no known_hosts file. "
            "Give another file with --known-hosts.",
            "known-hosts",
        )
    lines = enumerate(text.decode("utf-8", "replace").splitlines(), 1)
    keys = (_parse(file, number, line, name) for number, line in lines)
    return [key for key in keys if key is not None]


def _parse(file: Path, number: int, line: str, name: str) -> KnownKey | None:
    """The key on this line if it is one for `name`; lines that OpenSSH skips give None."""
    fields = line.split()
    marker = fields.pop(0) if fields and fields[0].startswith("@") else ""
    if len(fields) < 3 or fields[0].startswith("#") or marker not in ("", "@revoked"):
        return None
    names, key_type, encoded = fields[:3]
    if not _matches(names, name):
        return None
    try:
        blob = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return None
    return KnownKey(file, number, key_type, blob, marker == "@revoked")


def _matches(names: str, name: str) -> bool:
    """Whether the first field of a line means `name`; a negated pattern outweighs the others."""
    if names.startswith("|"):
        return _matches_hashed(names, name)
    found = False
    for pattern in names.lower().split(","):
        if pattern.startswith("!"):
            if _glob(pattern[1:], name):
                return False
        elif _glob(pattern, name):
            found = True
    return found


def _matches_hashed(field: str, name: str) -> bool:
    """Whether "|1|salt|hash" is the HMAC-SHA1 of `name`."""
    parts = field.split("|")
    if len(parts) != 4 or parts[1] != "1":
        return False
    try:
        salt, digest = base64.b64decode(parts[2]), base64.b64decode(parts[3])
    except binascii.Error:
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode("utf-8"), hashlib.sha1).digest(), digest)


def _glob(pattern: str, name: str) -> bool:
    """OpenSSH's patterns: only * and ? are special, so brackets stand for themselves."""
    return re.match(fnmatch.translate(pattern.replace("[", "[[]")), name) is not None


def _unknown(shown: HostKey, trust_command: str) -> HostKeyError:
    return HostKeyError(
        f"the server {shown.name} is not known yet. It shows the {shown.key_type} key "
        f"{shown.fingerprint}. Compare it with the one its owner gives you; if they are equal, "
        f"accept it with: {trust_command}",
        "unknown-host-key",
    )


def _changed(shown: HostKey, known: KnownKey, trust_command: str) -> HostKeyError:
    remove = shlex.join(["ssh-keygen", "-R", shown.name, "-f", str(known.file)])
    return HostKeyError(
        f"the host key of {shown.name} is not the one it had. The server shows the "
        f"{shown.key_type} key {shown.fingerprint}; {known.file} line {known.line} holds the "
        f"{known.key_type} key {fingerprint(known.blob)}. Somebody may stand between you and the "
        "server, so nothing was sent. If its owner confirms the new key, remove that line "
        f"({remove}), then run: {trust_command}",
        "changed-host-key",
    )


def _revoked(shown: HostKey, known: KnownKey) -> HostKeyError:
    return HostKeyError(
        f"the {shown.key_type} key {shown.fingerprint} that {shown.name} shows is marked as "
        f"revoked in {known.file} line {known.line}. Do not connect; ask the server's owner.",
        "revoked-host-key",
    )
