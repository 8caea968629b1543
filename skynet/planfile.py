r"""Saved plans: a file that a person reviews, and that a later run carries out as it is.

One JSON object a line, so that two plans can be compared line by line: a header with what the plan
was made from, each operation with what was at its path here, each problem, and an end with the
number of lines and a checksum. Paths are text; a backslash stands for itself when doubled, and
`\xff` for a byte that is no UTF-8.

A plan file is input from outside: its size is bounded, and a path that leads out of the mirror, or
to what is skynet's own, is refused like any other damage.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import msgspec

from skynet.errors import Problem, UsageError
from skynet.manifest_codec import entry_fault, path_fault
from skynet.needs import needs_of
from skynet.ops import Copy, Delete, Mkdir, Op, Patch, Plan, Rename, SetMeta, Upload, step
from skynet.rules import is_parked, is_reserved, was_at
from skynet.saved import Basis, Here, SavedPlan, bound_paths
from skynet.tree import DIR, FILE, LINK, Entry, Kind, ancestors

FORMAT: Literal["skynet plan"] = "skynet plan"
VERSION = 1
MAX_LINE = 4 << 20  # bytes; three paths of the longest kind, escaped, take less
MAX_FILE = 1 << 30
MAX_LINES = 2_000_000

_KINDS: dict[str, type[Op]] = {str(each.__struct_config__.tag): each for each in get_args(Op)}
_MAY_BE: dict[type[Op], set[Kind]] = {  # what the entry of an operation can be
    Mkdir: {DIR},
    Upload: {FILE, LINK},
    Patch: {FILE},
    Copy: {FILE},
    SetMeta: {FILE, DIR},
    Delete: {FILE, LINK},
}
_HEX = frozenset({"digest", "known"})  # fields that are bytes and no path


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    format: Literal["skynet plan"]
    version: int
    made_ns: int
    basis: Basis


class _Version(msgspec.Struct):
    format: Literal["skynet plan"]
    version: int


class _End(msgspec.Struct, forbid_unknown_fields=True):
    end: int
    check: str


class _Fault(Exception):
    """Why a line cannot be one of a plan."""


# Bytes as text ------------------------------------------------------------------------------

_ESCAPE = re.compile(r"\\(\\|x[0-9a-f]{2})?")


def escape(path: bytes) -> str:
    """The bytes as text that can be read, and turned back."""
    return path.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def unescape(text: str) -> bytes:
    """The bytes that `escape` made the text of; ValueError if it made it of none."""
    pieces, last = [], 0
    for found in _ESCAPE.finditer(text):
        pieces += [text[last : found.start()].encode(), _unescaped(found[1])]
        last = found.end()
    path = b"".join([*pieces, text[last:].encode()])
    if escape(path) != text:
        raise ValueError("it is not written as skynet writes it")
    return path


def _unescaped(escaped: str | None) -> bytes:
    if escaped is None:
        raise ValueError("a backslash that stands for nothing")
    return b"\\" if escaped == "\\" else bytes.fromhex(escaped[1:])


# Writing ------------------------------------------------------------------------------------


def write(path: Path, saved: SavedPlan) -> None:
    """Save a plan, for this user only; whole or not at all. UsageError.

    A file that is no saved plan is not overwritten.
    """
    expect_place(path)
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                _write_lines(file, saved, path)
                file.flush()
                os.fsync(handle)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):  # the error that is on its way says more
                os.unlink(temporary)
            raise
    except OSError as error:
        raise _unsaved(path, error) from None


def _unsaved(path: Path, error: OSError) -> UsageError:
    return UsageError(
        f"The plan cannot be saved in {path}: {error.strerror}. Name another file.", "plan-file"
    )


def expect_place(path: Path) -> None:
    """UsageError unless a plan may be saved there: where nothing is, or a plan."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UsageError(f"{path} is no file; name another one for the plan.", "plan-file")
        with path.open("rb") as file:
            msgspec.json.decode(file.readline(MAX_LINE), type=_Version)
    except FileNotFoundError as error:
        if not path.parent.exists():
            raise _unsaved(path, error) from None
    except OSError as error:
        raise _unsaved(path, error) from None
    except _MALFORMED:
        raise UsageError(
            f"{path} is there already and is no saved plan, so it is not overwritten. "
            "Name another file.",
            "plan-file",
        ) from None


def _write_lines(file: BinaryIO, saved: SavedPlan, path: Path) -> None:
    digest = hashlib.blake2b(digest_size=16)
    count = size = 0
    for line in _lines(saved):
        count += 1
        size += len(line)
        if len(line) > MAX_LINE or count >= MAX_LINES or size > MAX_FILE - MAX_LINE:
            raise UsageError(
                f"The plan is too large to be saved in {path}: {len(saved.plan.ops)} operations. "
                "Carry it out with skynet sync --once.",
                "plan-file",
            )
        digest.update(line)
        file.write(line)
    file.write(msgspec.json.encode(_End(count, digest.hexdigest())) + b"\n")


def _lines(saved: SavedPlan) -> Iterator[bytes]:
    encode = msgspec.json.Encoder().encode
    yield encode(_Header(FORMAT, VERSION, saved.made_ns, saved.basis)) + b"\n"
    for op in saved.plan.ops:
        yield encode(_op_plain(op, saved.here)) + b"\n"
    for problem in saved.plan.problems:
        path, code, message = problem
        plain = {"problem": escape(path), "code": code, "message": _writable(message)}
        yield encode(plain) + b"\n"


def _writable(message: str) -> str:
    return message.encode("utf-8", "backslashreplace").decode()


def _op_plain(op: Op, here: Mapping[bytes, Here]) -> dict[str, Any]:
    states = [here[path] for path in bound_paths(op)]
    return {"op": op.__struct_config__.tag, **_struct_plain(op), "here": states}


def _struct_plain(value: msgspec.Struct) -> dict[str, Any]:
    """The fields that are not as by default."""
    found = {}
    for each in msgspec.structs.fields(value):
        content = getattr(value, each.name)
        if content != each.default:
            found[each.name] = _plain(each.name, content)
    return found


def _plain(name: str, content: object) -> object:
    if isinstance(content, bytes):
        return content.hex() if name in _HEX else escape(content)
    return _struct_plain(content) if isinstance(content, msgspec.Struct) else content


# Reading ------------------------------------------------------------------------------------

# Values nested without end and text that is none have errors of their own.
_MALFORMED = (msgspec.DecodeError, ValueError, RecursionError, _Fault)


def read(path: Path) -> SavedPlan:
    """A plan as `write` saved it. UsageError if it cannot be read, or is none, or damaged."""
    try:
        _expect_bounded(path)
        with path.open("rb") as file:
            return _Reader(file).read()
    except OSError as error:
        raise UsageError(
            f"The plan {path} cannot be read: {error.strerror}. Correct its path.", "plan-file"
        ) from None
    except _MALFORMED as error:
        raise UsageError(
            f"{path} is no plan that this skynet saved, or it is damaged: {error}. "
            "Nothing was done; save a new one with skynet plan --out.",
            "plan-file",
        ) from None


def _expect_bounded(path: Path) -> None:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise _Fault("it is no file")
    if status.st_size > MAX_FILE:
        raise _Fault(f"it is larger than {MAX_FILE >> 30} GiB")


class _Reader:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.blake2b(digest_size=16)
        self._count = 0

    def read(self) -> SavedPlan:
        header = self._header(self._line())
        ops: list[Op] = []
        here: dict[bytes, Here] = {}
        problems: list[Problem] = []
        while True:
            line, check = self._line(), self._before
            plain = msgspec.json.decode(line, type=dict[str, Any])
            if "end" in plain:
                break
            if "problem" in plain:
                problems.append(_problem(plain))
            else:
                ops.append(_op(plain, here))
        if msgspec.convert(plain, _End) != _End(self._count - 1, check) or self._file.read(1):
            raise _Fault("what it holds is not what its end says")
        if len({step(op) for op in ops}) < len(ops):
            raise _Fault("an operation that is there twice")
        plan = Plan(ops, needs_of(ops), problems)
        return SavedPlan(header.basis, header.made_ns, plan, here)

    def _line(self) -> bytes:
        self._before = self._digest.hexdigest()
        line = self._file.readline(MAX_LINE + 1)
        self._count += 1
        if not line.endswith(b"\n") or len(line) > MAX_LINE or self._count > MAX_LINES:
            raise _Fault(f"line {self._count} is cut off, or there are too many")
        self._digest.update(line)
        return line

    @staticmethod
    def _header(line: bytes) -> _Header:
        if msgspec.json.decode(line, type=_Version).version > VERSION:
            raise _Fault("a newer skynet saved it")
        return msgspec.json.decode(line, type=_Header)


def _problem(plain: dict[str, Any]) -> Problem:
    if plain.keys() != {"problem", "code", "message"}:
        raise _Fault("a problem with other fields")
    texts = [msgspec.convert(plain[key], str) for key in ("problem", "code", "message")]
    return Problem(unescape(texts[0]), texts[1], texts[2])


def _op(plain: dict[str, Any], here: dict[bytes, Here]) -> Op:
    """The operation of a line; what was at its paths is added to `here`."""
    kind = _KINDS.get(msgspec.convert(plain.pop("op", ""), str))
    if kind is None:
        raise _Fault("an operation that there is not")
    states = msgspec.convert(plain.pop("here", None), list[Here])
    op = msgspec.convert(_struct_raw(plain, kind), kind, builtin_types=(bytes,))
    _expect_fit(op)
    paths = bound_paths(op)
    if len(states) != len(paths):
        raise _Fault("an operation without the state of its paths")
    for path, state in zip(paths, states, strict=True):
        if here.setdefault(path, state) != state:
            raise _Fault("a path with two states")
    return op


def _struct_raw(plain: dict[str, Any], kind: type[msgspec.Struct]) -> dict[str, Any]:
    fields = {each.name: each for each in msgspec.structs.fields(kind)}
    if not plain.keys() <= fields.keys():
        raise _Fault("a field that there is not")
    return {name: _raw(name, content, fields[name].type) for name, content in plain.items()}


def _raw(name: str, content: Any, kind: Any) -> Any:
    if kind is bytes:
        text = msgspec.convert(content, str)
        return bytes.fromhex(text) if name in _HEX else unescape(text)
    if isinstance(content, dict) and Entry in (kind, *get_args(kind)):
        given = _struct_raw(content, Entry)
        return [given.get(each.name, each.default) for each in msgspec.structs.fields(Entry)]
    return content


def _expect_fit(op: Op) -> None:
    """_Fault unless the operation is one that a plan may hold."""
    for path in (op.path, *_sources(op)):
        fault = path_fault(path)
        if fault or any(is_reserved(p) and not is_parked(p) for p in (path, *ancestors(path))):
            raise _Fault(fault or "a path that is skynet's own")
    entries = [getattr(op, name, None) for name in ("entry", "replaces", "original")]
    for entry in entries:
        fault = entry_fault(entry) if entry is not None else ""
        if fault:
            raise _Fault(fault)
    entry = entries[0]
    if entry is not None and entry.kind not in _MAY_BE.get(type(op), {entry.kind}):
        raise _Fault(f"{op.__struct_config__.tag} of what it cannot be of")
    if isinstance(op, Patch) and not 0 <= op.sends <= op.entry.size:
        raise _Fault("a patch that sends more than there is")


def _sources(op: Op) -> tuple[bytes, ...]:
    """Where it takes something from; of what is in the trash, where that was."""
    if isinstance(op, Copy):
        return (was_at(op.source) or op.source,)
    return (op.source,) if isinstance(op, Rename) else ()
