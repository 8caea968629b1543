"""Which names are mirrored: ignore rules, reserved names, names that fold together."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skynet.errors import ConfigError
from skynet.rules import Rules, colliding, folded, is_reserved, parse_ignore_file, shown


@pytest.mark.parametrize(
    ("patterns", "path", "is_dir", "hidden"),
    [
        (["*.tmp"], b"a.tmp", False, True),
        (["*.tmp"], b"d/a.tmp", False, True),
        (["/a"], b"a", False, True),
        (["/a"], b"d/a", False, False),
        (["build/"], b"build", True, True),
        (["build/"], b"build", False, False),
        (["d/**/x"], b"d/e/f/x", False, True),
        (["*", "!keep"], b"keep", False, False),
        (["!keep", "*"], b"keep", False, True),
        (["# comment", "", "a"], b"# comment", False, False),
        (["caf\u00e9"], "café".encode(), False, True),
        (["*.\udcff"], b"a.\xff", False, True),
        (["a?c"], b"a\nc", False, True),
        (["-rf"], b"-rf", False, True),
    ],
)
def test_gitignore_syntax(patterns: list[str], path: bytes, is_dir: bool, hidden: bool) -> None:
    assert Rules(patterns).hides(path, is_dir=is_dir) is hidden


@pytest.mark.parametrize(
    ("pattern", "what"),
    [
        ("[[:digit:]]*.txt", "[:digit:]"),
        ("a[!x[:space:]]", "[:space:]"),
        ("[a\\]]", "\\"),
        ("[]\\-a]", "\\"),
    ],
)
def test_what_is_not_understood_in_brackets_is_refused(pattern: str, what: str) -> None:
    """As another pattern it would hide other names than are meant."""
    with pytest.raises(ConfigError, match=re.escape(f"does not understand {what} in brackets")):
        Rules(["fine", pattern])


@pytest.mark.parametrize(
    "pattern", [r"\[:digit:]", r"[a]\ ", r"\[\]", "[]a]", "[:a]", "# [[:digit:]]"]
)
def test_other_brackets_are_understood(pattern: str) -> None:
    Rules([pattern])


def test_without_patterns_only_our_own_names_are_hidden() -> None:
    rules = Rules()
    assert rules.hides(b".skynet", is_dir=True)
    assert rules.hides(b"d/.skynet-tmp-1", is_dir=False)
    assert not rules.hides(b".skynetignore", is_dir=False)
    assert not rules.hides(b"d/.skynet", is_dir=True)


def test_no_pattern_brings_our_own_names_back() -> None:
    assert Rules(["!.skynet", "!*"]).hides(b".skynet", is_dir=True)


@pytest.mark.parametrize(
    ("path", "reserved"),
    [
        (b".skynet", True),
        (b".skynet-tmp-x", True),
        (b"a/b/.skynet-tmp-", True),
        (b".Skynet", True),
        (b".SKYNET", True),
        (b"a/.Skynet-TMP-x", True),
        (b".skynets", False),
        (b"a/.Skynet", False),
        (b"a/.skynet", False),
        (b"", False),
    ],
)
def test_reserved_names(path: bytes, reserved: bool) -> None:
    assert is_reserved(path) is reserved


def test_pattern_that_is_no_syntax_is_refused_with_its_place() -> None:
    with pytest.raises(ConfigError, match=r"^the place holds a pattern"):
        Rules(["a", "!"], where="the place")


@given(
    st.lists(st.sampled_from([b"a", b"A", b"b", b"\xc3\x84", b"\xc3\xa4", b"\xff"]), unique=True)
)
def test_names_that_fold_together_are_told_each_with_another(names: list[bytes]) -> None:
    pairs = colliding(names)
    for text in names:
        others = [other for other in names if other != text and folded(other) == folded(text)]
        assert (text in pairs) == bool(others)
        assert text not in pairs or pairs[text] in others


def test_ignore_file_is_read_as_lines_of_bytes() -> None:
    assert parse_ignore_file(b"\xef\xbb\xbfa\r\nb\n\n\xff") == ["a", "b", "", "\udcff"]
    assert Rules(parse_ignore_file(b"\xff*\n")).hides(b"\xffx", is_dir=False)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (b"plain name", "plain name"),
        ("größe".encode(), "größe"),
        (b"a\nb\tc\x1b[31m", "a\\nb\\tc\\x1b[31m"),
        (b"\xff", "\\xff"),
        ("a\u202eb".encode(), "a\\u202eb"),
        (b"", "."),
    ],
)
def test_path_is_shown_without_control_characters(path: bytes, text: str) -> None:
    assert shown(path) == text


@given(st.binary())
def test_whatever_is_shown_is_printable(path: bytes) -> None:
    assert shown(path).isprintable()
