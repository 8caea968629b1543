"""A plan with what it was made from, as values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from skynet.ops import Op, Plan, Rename

Here = tuple[int, int, int, int, int] | None  # as scan.fields has it; None: nothing is there


class Standing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a manifest stood: mirror id and chain in hex digits, "" where there was none.

    trusted: nothing about it forbade deleting.
    """

    mirror: str
    generation: int
    chain: str
    trusted: bool


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings of a mirror that a plan depends on. ignore: with what `.skynetignore` holds."""

    complete_sync: bool
    empty_dirs: bool
    symlinks: str
    foreign: str
    trash: str
    trash_days: int
    ignore: tuple[str, ...]


class Basis(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a plan was made from, paths and operations apart. root: "device:inode" of the source."""

    source: str
    target: str
    root: str
    manifest: Standing
    settings: Settings


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """A plan and what it was made from. made_ns: wall clock, just before anything was looked at.

    here: what was at the paths of `bound_paths` then. plan.problems: every path left out of it.
    """

    basis: Basis
    made_ns: int
    plan: Plan
    here: Mapping[bytes, Here]


def bound_paths(op: Op) -> tuple[bytes, ...]:
    """The local paths whose state an operation was planned for."""
    return (op.path, op.source) if isinstance(op, Rename) else (op.path,)
