"""A plan as a person reads it: what happens where, then the totals. Pure: values in, text out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from textwrap import wrap
from typing import NamedTuple

from skynet.cycle import Report
from skynet.markup import columns, escape
from skynet.ops import Copy, Delete, Mkdir, Op, Patch, Record, Rename, Rmdir, SetMeta, Upload
from skynet.preview import Preview, Weight, preview
from skynet.rules import shown, was_at
from skynet.tree import DIR, LINK, Entry, order, parent

SHOWN_AT_MOST = 40  # lines of one section, unless all are asked for
FEW = 3  # files of one directory that are worth a line each
COLUMNS = 80  # what a summary is laid out for
LABEL_COLUMNS = 48  # paths up to this long have what is said of them in one column

_WORDS = {  # counted operation: of what, how it is told as a plan, and when it is done
    "upload": ("", "to upload", "uploaded"),
    "patch": ("", "to patch", "patched"),
    "copy": ("", "to copy on the server", "copied on the server"),
    "rename": ("", "to rename", "renamed"),
    "setmeta": ("", "to get other times or modes", "got other times or modes"),
    "delete": ("", "to delete", "deleted"),
    "mkdir": ("directory", "to make", "made"),
    "rmdir": ("directory", "to remove", "removed"),
    "retain": ("", "gone here and kept there", "gone here and kept there"),
    "record": ("", "right already", "right already"),
}


class _Line(NamedTuple):
    """A path, or a directory for all below it, and what is said of it."""

    label: str
    detail: str


def size(count: float) -> str:
    """A number of bytes for people, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def counts_text(counts: Counter[str], *, planned: bool) -> str:
    """How many operations of each kind, in words; "" if there are none."""
    parts = []
    sending = [name for name in ("upload", "patch") if counts[name]]
    for name, (what, plan, past) in _WORDS.items():
        if counts[name]:
            noun = "" if not what else f" {what}" if counts[name] == 1 else " directories"
            extra = f" ({size(counts['bytes'])})" if name in sending[-1:] else ""
            parts.append(f"{counts[name]:,}{noun} {plan if planned else past}{extra}")
    return ", ".join(parts)


def plan_lines(report: Report, *, everything: bool) -> Iterator[str]:
    """A plan by sections, renames first, in rich markup. everything: a line for each operation."""
    sections: dict[type[Op], list[Op]] = defaultdict(list)
    for op in report.plan.ops:
        sections[type(op)].append(op)
    for kind, (title, sign, style) in _SECTIONS.items():
        ops = sorted(sections[kind], key=lambda op: order(op.path))
        if not ops or (kind is Record and not everything):
            continue
        lines = _lines(kind, ops, report.moved, everything=everything)
        yield f"[bold]{title}[/]"
        yield from _laid_out(lines, sign, style, everything=everything)
    counts = counts_text(report.plan.counts(), planned=True)
    first, *rest = wrap(f"Plan: {counts or 'nothing to do'}.", COLUMNS, subsequent_indent="  ")
    yield first.replace("Plan:", "[bold]Plan:[/]")
    yield from rest
    if report.plan.ops:
        yield from _totals(preview(report.plan, report.moved))


_SECTIONS: dict[type[Op], tuple[str, str, str]] = {
    Rename: ("Rename on the server", ">", "cyan"),
    Patch: ("Patch, sending only what changed", "*", "cyan"),
    Copy: ("Copy on the server", "=", "cyan"),
    Upload: ("Upload", "+", "green"),
    Mkdir: ("Make directories", "+", "green"),
    SetMeta: ("Set times or modes", "~", "yellow"),
    Delete: ("Delete", "-", "red"),
    Rmdir: ("Remove directories", "-", "red"),
    Record: ("Only note", ".", "dim"),
}


def _totals(cost: Preview) -> Iterator[str]:
    spared = {"renames": cost.by_rename, "copies": cost.by_copy, "patches": cost.by_patch}
    parts = [f"{size(count)} by {what}" for what, count in spared.items() if count > 0]
    yield f"[bold]Content to send:[/] {size(cost.sends)}, and about {cost.trips:,} round trips."
    if parts:
        yield f"[bold]Not sent again:[/] {', '.join(parts)}."


def _laid_out(lines: Sequence[_Line], sign: str, style: str, *, everything: bool) -> Iterator[str]:
    limit = len(lines) if everything else SHOWN_AT_MOST
    widths = [columns(line.label) for line in lines[:limit]]
    column = max((width for width in widths if width <= LABEL_COLUMNS), default=0)
    for line, width in zip(lines, widths, strict=False):
        gap = " " * (max(column - width, 0) + 2) if line.detail else ""
        yield f"  [{style}]{sign} {escape(line.label)}[/]{gap}{escape(line.detail)}"
    if len(lines) > limit:
        yield f"  [dim]... and {len(lines) - limit:,} lines more like these (-v shows all)[/]"


def _lines(
    kind: type[Op], ops: Sequence[Op], moved: Mapping[bytes, Weight], *, everything: bool
) -> list[_Line]:
    if everything:
        return [_line(op, moved) for op in ops]
    if kind in (Mkdir, Rmdir):
        return _topmost(ops)
    if kind is Rename:
        return _renames([op for op in ops if isinstance(op, Rename)], moved)
    return _by_directory(ops, moved)


def _line(op: Op, moved: Mapping[bytes, Weight]) -> _Line:
    """One operation."""
    path = shown(op.path)
    match op:
        case Rename(source=source, entry=entry) if entry.kind == DIR:
            weight = moved.get(op.path, Weight())
            what = f"{_count(weight.files)}, {size(weight.size)}" if weight.files else ""
            return _Line(f"{shown(source)}/ -> {path}/", what)
        case Copy(source=source, entry=entry) if was_at(source):
            return _Line(path, f"{size(entry.size)}, from the trash{_version(op)}")
        case Rename(source=source, entry=entry) | Copy(source=source, entry=entry):
            return _Line(f"{shown(source)} -> {path}", size(entry.size) + _version(op))
        case Patch(entry=entry, sends=sends):
            return _Line(path, f"{size(sends)} of {size(entry.size)}")
        case Upload(entry=entry):
            what = f"-> {shown(entry.link)}" if entry.kind == LINK else size(entry.size)
            return _Line(path, what + _version(op))
        case Delete(entry=entry):
            return _Line(path, size(entry.size))
        case Record(entry=Entry(kind=kind, retained=True)):
            return _Line(f"{path}/" if kind == DIR else path, "gone here and kept there")
        case _:
            is_dir = isinstance(op, Mkdir | Rmdir) or (op.entry and op.entry.kind == DIR)
            return _Line(f"{path}/" if is_dir else path, "")


def _version(op: Upload | Copy | Rename) -> str:
    return ", replaces the old version" if op.replaces is not None else ""


def _count(files: int) -> str:
    return f"{files:,} file" if files == 1 else f"{files:,} files"


def _renames(ops: Sequence[Rename], moved: Mapping[bytes, Weight]) -> list[_Line]:
    """Directories first, one by one; then files, together where many go the same way."""
    lines = [_line(op, moved) for op in ops if op.entry.kind == DIR]
    ways: dict[tuple[bytes, bytes], list[Rename]] = defaultdict(list)
    for op in ops:
        if op.entry.kind != DIR:
            ways[parent(op.source), parent(op.path)].append(op)
    for (source, path), group in ways.items():
        if len(group) <= FEW:
            lines += [_line(op, moved) for op in group]
        else:
            label = f"{shown(source)}/* -> {shown(path)}/*"
            lines.append(_Line(label, _sum_of(group)))
    return lines


def _topmost(ops: Sequence[Op]) -> list[_Line]:
    """Directories, those inside of others only counted."""
    paths = {op.path for op in ops}
    inside = Counter(_highest(path, paths) for path in (op.path for op in ops))
    return [
        _Line(f"{shown(path)}/", f"and {count - 1:,} in it" if count > 1 else "")
        for path, count in inside.items()
    ]


def _highest(path: bytes, paths: set[bytes]) -> bytes:
    """The uppermost of the directories above that are all in `paths`."""
    while parent(path) in paths:
        path = parent(path)
    return path


def _by_directory(ops: Sequence[Op], moved: Mapping[bytes, Weight]) -> list[_Line]:
    """Many files of one directory as one line; directories together until the lines are few."""
    group_of = _grouping(Counter(parent(op.path) for op in ops))
    groups: dict[bytes, list[Op]] = defaultdict(list)
    for op in ops:
        groups[group_of(parent(op.path))].append(op)
    lines = []
    for directory, group in groups.items():
        if len(group) <= FEW:
            lines += [_line(op, moved) for op in group]
        else:
            lines.append(_Line(f"{shown(directory)}/", _sum_of(group)))
    return lines


def _grouping(counts: Counter[bytes]) -> Callable[[bytes], bytes]:
    """The directory under which each directory is told. counts: files of each."""
    depth = max(map(_depth, counts))
    while True:
        groups: Counter[bytes] = Counter()
        for directory, count in counts.items():
            groups[_cut(directory, depth)] += count
        lines = sum(count if count <= FEW else 1 for count in groups.values())
        if lines <= SHOWN_AT_MOST or depth <= 1:
            return lambda directory: _cut(directory, depth)
        depth -= 1


def _depth(directory: bytes) -> int:
    return directory.count(b"/") + 1 if directory else 0


def _cut(directory: bytes, depth: int) -> bytes:
    """The directory, or the one above it that is `depth` names deep."""
    return b"/".join(directory.split(b"/", depth)[:depth])


def _sum_of(ops: Sequence[Op]) -> str:
    """What many operations of one kind come to."""
    directories = len({parent(op.path) for op in ops})
    text = _count(len(ops)) + (f" in {directories:,} directories" if directories > 1 else "")
    if isinstance(ops[0], Patch):
        patches = [op for op in ops if isinstance(op, Patch)]
        sends, whole = sum(op.sends for op in patches), sum(op.entry.size for op in patches)
        return f"{text}, {size(sends)} of {size(whole)}"
    if isinstance(ops[0], SetMeta | Record):
        return text
    text += f", {size(sum(_content(op) for op in ops))}"
    trashed = sum(isinstance(op, Copy) and bool(was_at(op.source)) for op in ops)
    text += f", {trashed:,} from the trash" if trashed else ""
    replaced = sum(getattr(op, "replaces", None) is not None for op in ops)
    return text + (f", {replaced:,} replaced" if replaced else "")


def _content(op: Op) -> int:
    return op.entry.size if isinstance(op, Upload | Copy | Rename | Delete) else 0
