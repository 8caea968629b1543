"""The guides that `skynet guide` shows: each has a title, steps, and examples that are right."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import pytest

from skynet.config import Mirror, check
from skynet.errors import SourceError
from skynet.keys import DEFAULTS, KEYS
from skynet.target import parse_target

GUIDES = Path(__file__).parent.parent / "skynet" / "guides"
EXPECTED = {
    *("bandwidth", "first-mirror", "linux-server", "passwords", "review-a-plan", "ssh-keys"),
    *("daemon", "windows-server"),
}
MADE = {"settings"}  # not written down, but made from the table of keys
guides = pytest.mark.parametrize("path", sorted(GUIDES.glob("*.md")), ids=lambda path: path.stem)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_all_guides_are_there() -> None:
    assert {path.stem for path in GUIDES.glob("*.md")} == EXPECTED


@guides
def test_a_guide_has_a_title_checks_and_help(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.match(r"# \S", text)
    assert text.count("\n# ") == 0
    assert "ou should see" in text
    assert "## If it does not work\n" in text
    assert 60 <= len(text.splitlines()) <= 120


@guides
def test_a_guide_fits_a_terminal(path: Path) -> None:
    """Commands and tables must stand in one line; prose need not be wider than 100 columns."""
    outside = re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    prose = [line for line in outside.splitlines() if not line.startswith("|")]
    assert [line for line in prose if len(line) > 100] == []


@guides
def test_toml_examples_hold_known_keys_only(path: Path) -> None:
    for block in blocks(path.read_text(encoding="utf-8"), "toml"):
        tables = tomllib.loads(block)
        assert tables.keys() <= {"mirror", "defaults"}
        assert tables.get("defaults", {}).keys() <= DEFAULTS.keys()
        for mirror in tables.get("mirror", {}).values():
            assert {"source", "target"} <= mirror.keys() <= KEYS.keys()
            parse_target(mirror["target"])


@guides
def test_a_guide_refers_to_guides_that_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert set(re.findall(r"skynet guide ([a-z-]+)", text)) <= EXPECTED | MADE


@guides
def test_targets_in_commands_can_be_used(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    commands = [line for block in blocks(text, "") for line in block.splitlines()]
    for url in re.findall(r"sftp://\S+", "\n".join(commands)):
        parse_target(url)


def test_every_variable_that_skynet_reads_is_told_of() -> None:
    rooms = GUIDES.parent.rglob("*.py")
    read = {name for room in rooms for name in re.findall(r"SKYNET_[A-Z_]+", room.read_text())}
    pages = [GUIDES.parent.parent / "README.md", *GUIDES.glob("*.md")]
    told = {name for page in pages for name in re.findall(r"SKYNET_[A-Z_]+", page.read_text())}
    assert read - told == set()
    assert "SKYNET_CONFIG" in read


def test_the_first_guide_has_the_words_for_a_missing_source(tmp_path: Path) -> None:
    rows = (GUIDES / "first-mirror.md").read_text(encoding="utf-8").splitlines()
    [told] = [row.split("|")[1].strip() for row in rows if "Is the disk mounted" in row]
    target = parse_target("sftp://me@host/srv/pictures")
    source = os.fsencode(tmp_path / "gone")
    with pytest.raises(SourceError, match=re.escape(told)):
        check(Mirror(name="pictures", source=source, target=target, state_dir=tmp_path))
