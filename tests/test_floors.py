"""The house stands as it is drawn: rooms import only from lower floors, and keep the house rules.

The drawings below are the law (DESIGN.md explains them). The checker reads source text and never
imports it, so imports inside functions and under TYPE_CHECKING count like all others.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A room is a module of skynet, or sftp/. Each imports only from the lines below its own.
HOUSE = """
    __main__
    cli
    cli_daemon | cli_service
    commands_keep
    commands_daemon | cli_options
    commands | commands_service
    commands_cycle
    console
    render | render_status | keeping
    daemon | wiring
    serve
    keeper
    bulletin | docket
    reconcile | outline
    execute | line
    session
    planning | cycle | memory
    contents
    survey
    scope | parked
    apply | lease | ledger | audit | stale | trashed | agenda | flusher
    control | history | claims
    status
    scan | watch | journal | intents | index | signatures | statefile
    manifest | planfile | vigil
    manifest_codec | sightings | lookout
    remote
    sftp | plan | guard | sftpserver
    closed | renaming | matching | moves | spelling
    needs | preview | saved | findings
    ops | shuffle
    delta
    rules | manifest_frames | index_file | index_paths | rolling | hints | dirty | state
    tree | blocks | marks | watchable
    config
    keys
    service
    bandwidth | units | notify | logs | processors | markup
    target
    monitor | errors | settling | backoff | lifecycle | outlet | interrupts
"""

# The same inside the rooms that are packages; an __init__ may show what any of them offers.
SFTP = """
    __init__
    connect
    patch
    upload | transport
    client | session | auth | resume
    channel | capabilities
    pending
    conversation | refusals | stream | flow
    replies | credentials
    endpoint
    wire | hostkeys | sshconfig | pieces | window | ration | gain | backlog
    dial
    waits | library | pace
"""
REMOTE = """
    __init__
    sftp
    removal
    carry | own | walk | turnstile
    copies
    send
    places
    verbs
"""

# (who, whom): neighbours on one floor that may meet, and for what.
NEIGHBOURS: dict[tuple[str, str], str] = {}

# Neither a clock nor a disk nor a network, in these rooms, and so none of these modules.
PURE = """
    tree rules ops needs findings matching moves spelling shuffle renaming closed plan guard
    sftp.wire sftp.replies render render_status outline preview saved scope
    errors monitor bandwidth blocks rolling delta settling backoff lifecycle units dirty marks
"""
IMPURE = """
    os time threading random secrets socket socketserver ssl select selectors asyncio subprocess
    multiprocessing concurrent signal shutil tempfile urllib.request http ftplib smtplib
"""

# One foreign name, one room (or the few named here).
FOREIGN = {
    "asyncssh": {"sftpserver"},
    "diskcache": {"hints"},
    "msgspec": {
        *(
            "tree",
            "ops",
            "closed",
            "renaming",
            "findings",
            "plan",
            "survey",
            "audit",
            "contents",
            "reconcile",
        ),
        *("lease", "ledger", "remote.verbs", "remote.send", "remote.copies"),
        *(
            "claims",
            "parked",
            "index",
            "intents",
            "journal",
            "manifest",
            "manifest_codec",
            "planfile",
            "saved",
        ),
        *("statefile", "status", "control", "history", "render_status"),
        "trashed",
    },
    "numpy": {"rolling"},
    "paramiko": {"sftp.library"},
    "pathspec": {"rules"},
    "platformdirs": {"config"},
    "rich": {"markup", "console"},
    "typer": {"cli", "cli_daemon", "cli_options", "cli_service"},
    "watchdog": {"lookout", "sightings"},
    "xxhash": {"scan", "sftp.pieces", "sftp.patch", "blocks", "delta"},
    "zstandard": {"manifest_codec"},
}

# The only ones that may write to the terminal.
FACES = {"cli", "commands", "commands_keep", "commands_service", "console", "__main__"}
LATE_IMPORTS = ("import_module", "__import__")
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "shelve", "marshal"}
UNSAFE_CALLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 400


class Source(NamedTuple):
    """One file: `where` it is for messages, its `room` ("" outside of skynet), its text, parsed."""

    where: str
    room: str
    text: str
    tree: ast.Module


class Import(NamedTuple):
    """One imported dotted name, absolute, and the line that imports it."""

    line: int
    name: str


def parse(where: str, room: str, text: str) -> Source:
    return Source(where, room, text, ast.parse(text, where))


def floors(drawing: str) -> dict[str, int]:
    """Room -> height, the lowest floor being 0."""
    rows = [row.split("|") for row in drawing.strip().splitlines()]
    return {room.strip(): height for height, row in enumerate(reversed(rows)) for room in row}


HEIGHT = floors(HOUSE)
PACKAGES = {"sftp": floors(SFTP), "remote": floors(REMOTE)}


def room_of(path: Path) -> str:
    """The room of a file below skynet/: "plan", "sftp.wire"; "skynet" for the package itself."""
    room = ".".join(path.with_suffix("").parts)
    return "skynet" if room == "__init__" else room


def imports(source: Source) -> Iterator[Import]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from _imported_from(source, node)
        elif isinstance(node, ast.Call) and dotted(node.func).endswith(LATE_IMPORTS):
            yield Import(node.lineno, _text_argument(node))


def _imported_from(source: Source, node: ast.ImportFrom) -> Iterator[Import]:
    """`from A import B` may name a module A.B or something in A: both are asked about as A.B."""
    base = node.module or ""
    if node.level:
        package = ["skynet", *source.room.split(".")][: -node.level]
        base = ".".join([*package, base]).rstrip(".")
    yield from (Import(node.lineno, f"{base}.{alias.name}") for alias in node.names)


def _text_argument(call: ast.Call) -> str:
    """The literal first argument; "?" for a name that only a running program would know."""
    first = call.args[0] if call.args else None
    return str(first.value) if isinstance(first, ast.Constant) else "?"


def dotted(node: ast.AST) -> str:
    """`a.b.c` for a chain of names; "" for anything else."""
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return node.id if isinstance(node, ast.Name) else ""


def imported_room(name: str) -> str | None:
    """The room that the imported dotted name lies in; None when it is none of skynet's."""
    package, _, rest = name.partition(".")
    if package != "skynet":
        return None
    parts = rest.split(".")
    if parts[0] not in HEIGHT:
        return "skynet"  # a name of the package itself, such as __version__
    inner = PACKAGES.get(parts[0])
    if inner is not None:
        return f"{parts[0]}.{parts[1] if parts[1:2] and parts[1] in inner else '__init__'}"
    return parts[0]


def stands(room: str) -> bool:
    """Whether the drawings show the room."""
    outer, _, inner = room.partition(".")
    return inner in PACKAGES[outer] if outer in PACKAGES else room in {*HEIGHT, "skynet"}


def may_import(room: str, other: str) -> bool:
    """Whether the drawings let `room` import from `other`; the package itself is open to all."""
    if other in {room, "skynet"}:
        return True
    if room == "skynet":
        return False
    (outer, _, inner), (other_outer, _, other_inner) = room.partition("."), other.partition(".")
    if outer == other_outer:
        heights = PACKAGES[outer]
        return heights[other_inner] < heights[inner]
    return HEIGHT[other_outer] < HEIGHT[outer] or (room, other) in NEIGHBOURS


def check_floors(source: Source) -> Iterator[str]:
    if not stands(source.room):
        yield (
            f"{source.where}: {source.room} stands on no floor. Add it to the drawing in "
            "tests/test_floors.py, above all that it imports and below all that import it."
        )
        return
    for line, name in imports(source):
        other = imported_room(name)
        if other is not None and not may_import(source.room, other):
            yield (
                f"{source.where}:{line}: {source.room} imports {other}, which does not stand on a "
                "lower floor. Move what both need further down, or pass it in as a value."
            )


def check_purity(source: Source) -> Iterator[str]:
    if source.room not in PURE.split():
        return
    for line, name in imports(source):
        parts = name.split(".")
        prefixes = {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
        if prefixes & set(IMPURE.split()):
            yield f"{source.where}:{line}: {source.room} is pure and must not import {name}."


def check_foreign(source: Source) -> Iterator[str]:
    for line, name in imports(source):
        top = name.split(".")[0]
        if top == "skynet" or top in sys.stdlib_module_names:
            continue
        if source.room not in FOREIGN.get(top, set()):
            rooms = " and ".join(sorted(FOREIGN.get(top, set()))) or "no room yet"
            yield (
                f"{source.where}:{line}: {source.room} imports {name}, which belongs to {rooms}. "
                "Use that room, or change FOREIGN in tests/test_floors.py on purpose."
            )


def check_silence(source: Source) -> Iterator[str]:
    if source.room in FACES:
        return
    streams = {"sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__"}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Name) and node.id == "print":
            yield f"{source.where}:{node.lineno}: {source.room} prints; report a value instead."
        elif isinstance(node, ast.Attribute) and dotted(node) in streams:
            yield f"{source.where}:{node.lineno}: {source.room} uses {dotted(node)}."
    for line, name in imports(source):
        if name in streams:
            yield f"{source.where}:{line}: {source.room} imports {name}."


def check_safety(source: Source) -> Iterator[str]:
    for line, name in imports(source):
        if name.split(".")[0] in UNSAFE_MODULES or name in UNSAFE_CALLS:
            yield f"{source.where}:{line}: {name} is not safe and has no place here."
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and dotted(node) in UNSAFE_CALLS:
            yield f"{source.where}:{node.lineno}: {dotted(node)} starts a shell."
        elif isinstance(node, ast.keyword) and node.arg == "shell" and not _is_false(node.value):
            yield f"{source.where}:{node.value.lineno}: shell= starts a shell; pass a list."
        elif isinstance(node, ast.ExceptHandler | ast.Call) and _swallows(node):
            yield f"{source.where}:{node.lineno}: this hides errors nobody foresaw."


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def _swallows(node: ast.ExceptHandler | ast.Call) -> bool:
    """A bare except, an except of everything that does nothing, or a suppress of everything."""
    if isinstance(node, ast.Call):
        return dotted(node.func).endswith("suppress") and any(map(_is_broad, node.args))
    if node.type is None:
        return True
    caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    return any(map(_is_broad, caught)) and all(map(_does_nothing, node.body))


def _is_broad(caught: ast.expr) -> bool:
    return dotted(caught).removeprefix("builtins.") in {"Exception", "BaseException"}


def _does_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    return isinstance(statement, ast.Pass | ast.Continue)


def check_shape(source: Source) -> Iterator[str]:
    if not ast.get_docstring(source.tree):
        yield f"{source.where}:1: the module has no docstring that says what it is for."
    lines = len(source.text.splitlines())
    if lines > MAX_FILE_LINES:
        yield f"{source.where}: {lines} lines, more than {MAX_FILE_LINES}; split it in two."
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                yield f"{source.where}:{node.lineno}: {node.name} has {length} lines."


RULES_OF_ROOMS = [check_floors, check_purity, check_foreign, check_silence]
RULES_OF_ALL = [check_safety, check_shape]


def findings(source: Source) -> list[str]:
    """Every way in which the source breaks the house rules, in sentences."""
    rules = [*RULES_OF_ROOMS, *RULES_OF_ALL] if source.room else RULES_OF_ALL
    return [finding for rule in rules for finding in rule(source)]


def files() -> dict[str, str]:
    """Path -> room: every Python file of skynet, and those of the scripts, which have no room."""
    package, scripts = ROOT / "skynet", ROOT / "scripts"
    rooms = {path: room_of(path.relative_to(package)) for path in package.rglob("*.py")}
    plain = [path for path in scripts.iterdir() if path.is_file() and path.suffix in {"", ".py"}]
    found = rooms | dict.fromkeys([ROOT / "noxfile.py", *plain], "")
    return {str(path.relative_to(ROOT)): found[path] for path in sorted(found)}


@pytest.mark.parametrize(("where", "room"), files().items(), ids=list(files()))
def test_file_keeps_the_house_rules(where: str, room: str) -> None:
    source = parse(where, room, (ROOT / where).read_text(encoding="utf-8"))
    assert "\n".join(findings(source)) == ""


def test_tables_name_only_rooms_that_are_drawn() -> None:
    named = {*PURE.split(), *FACES, *(room for pair in NEIGHBOURS for room in pair)}
    named.update(room for rooms in FOREIGN.values() for room in rooms)
    assert [room for room in sorted(named) if not stands(room)] == []


def test_the_map_names_every_room_and_no_other() -> None:
    text = (ROOT / "skynet" / "README.md").read_text()
    table = text.split("## Map")[1].split("##")[0]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall("`([a-z_0-9]+/?)`", row[0])}
    assert named == {room for room in HEIGHT if room not in PACKAGES} - {"__main__"} | {
        f"{package}/" for package in PACKAGES
    }
    for package, rooms in PACKAGES.items():
        (told,) = (row[1] for row in rows if row[0] == f"| `{package}/`")
        assert [room for room in rooms if f"`{room}`" not in told] == ["__init__"]


def test_neighbours_stand_on_one_floor() -> None:
    assert all(HEIGHT[room] == HEIGHT[other] for room, other in NEIGHBOURS)


# The checker itself: (room, source, a part of what it must say).
CAUGHT = [
    ("attic", "", "attic stands on no floor"),
    ("sftp.attic", "", "sftp.attic stands on no floor"),
    ("plan.parts", "", "plan.parts stands on no floor"),
    ("plan", "from skynet.apply import run", "plan imports apply"),
    ("plan", "import skynet.cli as face", "plan imports cli"),
    ("plan", "from . import remote", "plan imports remote"),
    ("plan", "from .remote import Remote", "plan imports remote"),
    ("plan", "def late():\n    from skynet import cli", "x.py:3: plan imports cli"),
    ("plan", "if TYPE_CHECKING:\n    from skynet import cli", "plan imports cli"),
    ("plan", "importlib.import_module('skynet.cli')", "plan imports cli"),
    ("plan", "from skynet.sftp import wire", "plan imports sftp.wire"),
    ("plan", "from skynet.guard import hazards", "plan imports guard"),
    ("scan", "from skynet import watch", "scan imports watch"),
    ("skynet", "from skynet import tree", "skynet imports tree"),
    ("sftp.wire", "from skynet.sftp.client import Client", "sftp.wire imports sftp.client"),
    ("sftp.wire", "from ..remote import Remote", "sftp.wire imports remote"),
    ("sftp.wire", "from skynet.sftp import Client", "sftp.wire imports sftp.__init__"),
    ("tree", "import os.path", "tree is pure and must not import os.path"),
    ("tree", "from urllib import request", "must not import urllib.request"),
    ("remote.sftp", "import paramiko", "belongs to sftp.library"),
    ("cli", "import requests", "belongs to no room yet"),
    ("cli", "__import__(name)", "imports ?"),
    ("apply", "print('done')", "apply prints"),
    ("apply", "run(report=print)", "apply prints"),
    ("apply", "sys.stderr.write('done')", "apply uses sys.stderr"),
    ("apply", "from sys import stdout", "apply imports sys.stdout"),
    ("", "import pickle", "pickle is not safe"),
    ("", "from pickle import loads", "pickle.loads is not safe"),
    ("", "run(command, shell=True)", "starts a shell"),
    ("", "run(command, shell=wanted)", "starts a shell"),
    ("", "os.system(command)", "os.system starts a shell"),
    ("", "from os import system", "os.system is not safe"),
    ("", "try:\n    f()\nexcept:\n    log()", "hides errors"),
    ("", "try:\n    f()\nexcept Exception:\n    pass", "hides errors"),
    ("", "try:\n    f()\nexcept (OSError, Exception):\n    ...", "hides errors"),
    ("", "with contextlib.suppress(Exception):\n    f()", "hides errors"),
    ("", "def long():\n" + "    f()\n" * 60, "long has 61 lines"),
    ("", "class C:\n    async def long(self):\n" + "        f()\n" * 60, "long has 61 lines"),
    ("", "\n" * 400, "401 lines, more than 400"),
]


@pytest.mark.parametrize(("room", "text", "said"), CAUGHT)
def test_checker_catches(room: str, text: str, said: str) -> None:
    found = findings(parse("x.py", room, f'"""A room."""\n{text}'))
    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize("text", ["", "x = 1", "# A comment is not a docstring."])
def test_checker_catches_a_module_without_docstring(text: str) -> None:
    assert "no docstring" in "".join(findings(parse("x.py", "", text)))


ALLOWED = [
    ("__main__", "from skynet.cli import main"),
    ("plan", "from skynet import __version__"),
    ("plan", "from skynet.tree import Entry"),
    ("plan", "from skynet import rules, tree"),
    ("guard", "from skynet.ops import Plan"),
    ("remote.sftp", "from skynet.sftp import client\nfrom skynet.plan import Op"),
    ("sftp.client", "from . import wire\nfrom .wire import Packet\nfrom ..errors import LinkLost"),
    ("sftp.__init__", "from skynet.sftp.upload import upload"),
    ("sftp.library", "import paramiko"),
    ("console", "import rich.table\nimport sys\nsys.stdout.flush()"),
    ("scan", "import os\nimport xxhash\nos.lstat(b'.')"),
    ("", "run(command, shell=False)"),
    ("", "try:\n    f()\nexcept Exception:\n    clean()\n    raise"),
    ("", "try:\n    f()\nexcept OSError:\n    pass"),
    ("", "with contextlib.suppress(OSError):\n    f()"),
    ("", "def long():\n" + "    f()\n" * 59),
    ("", "\n" * 399),
]


@pytest.mark.parametrize(("room", "text"), ALLOWED)
def test_checker_lets_pass(room: str, text: str) -> None:
    assert findings(parse("x.py", room, f'"""A room."""\n{text}')) == []
