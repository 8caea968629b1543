"""paramiko, loaded without what skynet never uses: the only room that imports it.

paramiko loads `invoke`, a task runner, for `Match exec` in ssh_config, which skynet refuses; that
import would take as long as the rest of paramiko. It is hidden while paramiko loads, which
paramiko allows for, and visible again to everybody else afterwards.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


def _load() -> Any:
    modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]  # None hides
    hidden = modules.get("invoke")
    modules["invoke"] = None
    try:
        import paramiko  # type: ignore[import-untyped]  # paramiko ships no types
        import paramiko.agent  # type: ignore[import-untyped]  # as above
        import paramiko.auth_handler  # type: ignore[import-untyped]  # as above
        import paramiko.packet  # type: ignore[import-untyped]  # as above
    finally:
        del modules["invoke"]
        if hidden is not None:
            modules["invoke"] = hidden
    return paramiko


paramiko = _load()
