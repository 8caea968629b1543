"""The configuration's promises: every good file is understood, every bad one is explained."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from skynet import config
from skynet.config import Mirror, Options, check, load_mirrors
from skynet.errors import ConfigError, SkynetError, SourceError, UsageError
from skynet.keys import Login, MaxDelete
from skynet.target import Target

TARGET = "sftp://me@host/srv/photos"
Load = Callable[..., list[Mirror]]
posix_only = pytest.mark.skipif(os.name != "posix", reason="files have owners on POSIX alone")


def one_answer(answer: str, *_: object, **__: object) -> str:
    return answer


@pytest.fixture(autouse=True)
def own_user_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the configuration, state or home of whoever runs it."""
    for kind in ("config", "state"):
        directory = str(tmp_path / "user" / kind / "skynet")
        monkeypatch.setattr(f"platformdirs.user_{kind}_dir", partial(one_answer, directory))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A working directory with one source in it."""
    (tmp_path / "work" / "photos").mkdir(parents=True)
    return tmp_path / "work"


@pytest.fixture
def load(work: Path) -> Load:
    """Write `text` as the working directory's skynet.toml and load it."""

    def run(text: str, options: Options = Options(), **environ: str) -> list[Mirror]:  # noqa: B008  # frozen
        (work / "skynet.toml").write_text(text, encoding="utf-8")
        return checked(options, environ, work)

    return run


def checked(options: Options, environ: dict[str, str], cwd: Path) -> list[Mirror]:
    """The mirrors, each of which passes its check."""
    mirrors = load_mirrors(options, environ, cwd)
    for mirror in mirrors:
        check(mirror)
    return mirrors


def photos(*lines: str) -> str:
    """A file with one good mirror, and more lines in its table."""
    return "\n".join(("[mirror.photos]", 'source = "photos"', f'target = "{TARGET}"', *lines))


def refusal(kind: type[SkynetError], call: Callable[[], object]) -> str:
    """The message with which `call` fails; its class is `kind` exactly, its exit code 2."""
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert caught.value.exit_code == 2
    return str(caught.value)


# Good files


def test_a_short_file_has_the_documented_defaults(load: Load, work: Path, tmp_path: Path) -> None:
    assert load(photos()) == [
        Mirror(
            name="photos",
            source=os.fsencode(work / "photos"),
            target=Target("host", b"/srv/photos", "me"),
            login=Login(None, None, (), None, False, 15.0, 60.0),
            complete_sync=False,
            ignore=(),
            symlinks="keep",
            empty_dirs=False,
            foreign="ask",
            trash="deleted",
            trash_days=7,
            verify_patches="size",
            max_delete=MaxDelete(0.5, 1000),
            channels=9,
            state_dir=tmp_path / "user" / "state" / "skynet",
        )
    ]


SOME = """
channels = 64
timeout = 0.5
identity = "keys/id"
known_hosts = "hosts"
complete_sync = true
max_delete = ["10%", 5]
state_dir = "../state"
"""


def test_keys_may_stand_in_defaults_and_a_mirror_wins(load: Load, work: Path) -> None:
    login = Login(identity=work / "keys" / "id", known_hosts=work / "hosts", timeout=0.5)
    [plain] = load(photos())
    some = replace(
        plain,
        login=login,
        complete_sync=True,
        max_delete=MaxDelete(0.1, 5),
        channels=64,
        state_dir=work.parent / "state",
    )
    assert load(photos(SOME)) == load("[defaults]" + SOME + photos()) == [some]
    [mixed] = load("[defaults]" + SOME + photos("channels = 2", 'max_delete = "1.5%"'))
    assert mixed == replace(some, channels=2, max_delete=MaxDelete(0.015, 1000))


def test_a_byte_order_mark_and_other_line_ends_are_taken(load: Load) -> None:
    [mirror] = load("\ufeff" + photos("channels = 2\r\ntimeout = 3"))
    assert (mirror.channels, mirror.login.timeout) == (2, 3.0)


def test_mirrors_are_chosen_by_name_in_the_order_named(load: Load) -> None:
    films = photos().replace("[mirror.photos]", '[mirror."my films"]').replace(TARGET, TARGET + "2")
    text = photos() + "\n" + films
    assert [each.name for each in load(text)] == ["photos", "my films"]
    chosen = load(text, Options(names=("my films", "photos", "my films")))
    assert [each.name for each in chosen] == ["my films", "photos"]


# Bad files


@pytest.mark.parametrize(
    ("line", "right"),
    [
        ("channels = 65", "a whole number from 1 to 64"),
        ("identity = 1", "a path in quotes"),
    ],
)
def test_a_wrong_value_names_file_mirror_and_key(
    line: str, right: str, load: Load, work: Path
) -> None:
    message = refusal(ConfigError, lambda: load(photos(line)))
    assert message == f"{work / 'skynet.toml'}: [mirror.photos] {line} must be {right}."


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (photos("complte_sync = true"), ['"complte_sync"', 'Did you mean "complete_sync"?']),
        ('[mirrors.photos]\nsource = "x"', ['"mirrors"', 'Did you mean "mirror"?']),
        (f'[defaults]\ntarget = "{TARGET}"', ["[defaults]", "belongs in a [mirror.NAME] table"]),
        ('source = "x"', ['"source"', "belongs in a [mirror.NAME] table"]),
        ('[mirror]\nsource = "x"', ['[mirror.source] = "x"', "must be a table"]),
        ("mirror = 5", ["mirror = 5", "must be a table"]),
        ("[[defaults]]", ["[defaults] = [{}]", "must be a table"]),
        ("[defaults]\nchannels = 99\n" + photos(), [": [defaults] channels = 99 must be a whole"]),
        ("", ["has no mirror", "[mirror.NAME]"]),
        (photos('trash = "all"\ntrash_days = 0'), ["[mirror.photos] trash", "for ever", "choose"]),
        ('[mirror."../x"]', ['"../x"', "must be 1 to 64 letters"]),
        ('[mirror."a\\nb"]', ['"a\\nb"', "must be 1 to 64 letters"]),
        (f'[mirror.photos]\ntarget = "{TARGET}"', ["[mirror.photos] has no source", "/data/"]),
        ('[mirror.photos]\nsource = "photos"', ["[mirror.photos] has no target", "sftp://"]),
        (photos().replace("sftp:", "scp:"), ["[mirror.photos] target: ", "write sftp://me@host"]),
        ("[mirror.photos]\nsource = x", ["not valid TOML", "line 2, column 10"]),
        ("[mirror.photos]\nsource =", ["not valid TOML", "line 2, column 9"]),
        ("[mirror.photos]\nx = [\n1", ["not valid TOML", "line 3, column 2"]),
        ("x = " + "[" * 100_000, ["not valid TOML"]),
        ("#" * (config.FILE_LIMIT + 1), ["longer than 1048576 bytes"]),
    ],
)
def test_a_wrong_file_is_refused(text: str, parts: list[str], load: Load, work: Path) -> None:
    message = refusal(ConfigError, lambda: load(text))
    for part in (str(work / "skynet.toml"), *parts):
        assert part in message


def test_a_file_that_is_not_utf8_names_the_line(work: Path) -> None:
    (work / "skynet.toml").write_bytes(b"[mirror.photos]\nsource = '\xff'")
    message = refusal(ConfigError, lambda: load_mirrors(Options(), {}, work))
    assert f"{work / 'skynet.toml'}, line 2: not UTF-8" in message


def test_an_unreadable_file_is_named(work: Path) -> None:
    for wrong in ("missing.toml", "photos"):
        options = Options(config=Path(wrong))
        message = refusal(ConfigError, partial(load_mirrors, options, {}, work))
        assert f"{work / wrong} cannot be read: " in message


def test_an_unknown_name_lists_those_that_exist(load: Load) -> None:
    message = refusal(ConfigError, lambda: load(photos(), Options(names=("photo",))))
    assert 'no mirror "photo"' in message
    assert 'Did you mean "photos"?' in message
    assert "Its mirrors: photos." in message


# Which file, which options


def test_files_are_looked_for_in_the_documented_order(work: Path, tmp_path: Path) -> None:
    deep = work / "a" / "b"
    deep.mkdir(parents=True)
    user = tmp_path / "user" / "config" / "skynet"
    user.mkdir(parents=True)
    places = {
        "user": user / "skynet.toml",
        "far": work / "skynet.toml",
        "near": work / "a" / "skynet.toml",
        "environ": tmp_path / "e.toml",
        "option": work / "o.toml",
    }
    for name, file in places.items():
        file.write_text(f'[mirror.{name}]\nsource = "{work.as_posix()}"\ntarget = "{TARGET}"')
        options = Options(config=Path("../../o.toml") if name == "option" else None)
        environ = {"SKYNET_CONFIG": str(places["environ"])} if name in ("environ", "option") else {}
        assert [each.name for each in load_mirrors(options, environ, deep)] == [name]


def pretend(monkeypatch: pytest.MonkeyPatch, user: int, file: int, link: int) -> None:
    """This process is `user`, every open file is `file`'s and every link is `link`'s."""

    def owned(stat: Callable[[Any], os.stat_result], owner: int, path: Any) -> os.stat_result:
        found = stat(path)
        return os.stat_result((*found[:4], owner, *found[5:10]))

    monkeypatch.setattr("os.getuid", lambda: user)
    monkeypatch.setattr("os.fstat", partial(owned, os.fstat, file))
    monkeypatch.setattr("os.lstat", partial(owned, os.lstat, link))


@posix_only
@pytest.mark.parametrize(("file", "link"), [(1001, 1001), (1001, 0), (1000, 1001)])
@pytest.mark.parametrize("user", [0, 1000])
def test_a_strangers_file_is_read_only_when_it_is_named(
    user: int, file: int, link: int, load: Load, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [mirror] = load(photos())
    pretend(monkeypatch, user, file, link)
    path = work / "skynet.toml"
    for place in (work, work / "photos"):
        message = refusal(ConfigError, partial(load_mirrors, Options(), {}, place))
        assert f"{path} belongs to user id 100" in message
        assert "If you trust it, name it: -c " in message
    assert load_mirrors(Options(config=path), {}, work) == [mirror]
    assert load_mirrors(Options(), {"SKYNET_CONFIG": str(path)}, work) == [mirror]


@posix_only
@pytest.mark.parametrize(("file", "link"), [(0, 0), (1000, 1000), (0, 1000)])
def test_a_file_of_ones_own_or_of_root_is_found(
    file: int, link: int, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, 1000, file, link)
    assert [each.name for each in load(photos())] == ["photos"]


def test_without_any_file_both_ways_are_shown(work: Path, tmp_path: Path) -> None:
    message = refusal(ConfigError, lambda: load_mirrors(Options(), {"SKYNET_CONFIG": ""}, work))
    for part in (str(work), str(tmp_path / "user" / "config"), "[mirror.photos]", "--source DIR"):
        assert part in message


def test_options_win_over_the_environment_and_it_over_the_file(load: Load, work: Path) -> None:
    text = photos(SOME)
    [mirror] = load(text, SKYNET_STATE_DIR="env")
    assert mirror.state_dir == work / "env"
    given_options = Options(
        identity=Path("id"),
        known_hosts=Path("~/known"),
        complete_sync=False,
        state_dir=Path("option"),
    )
    [mirror] = load(text, given_options, SKYNET_STATE_DIR="env")
    assert mirror.state_dir == work / "option"
    assert mirror.complete_sync is False
    assert mirror.login.identity == work / "id"
    assert mirror.login.known_hosts == work.parent / "home" / "known"


def test_an_ad_hoc_mirror_reads_no_file(load: Load, work: Path) -> None:
    options = Options(source=Path("x/../photos"), target=TARGET, complete_sync=True)
    [mirror] = load("this is not TOML", options, SKYNET_CONFIG="missing")
    assert (mirror.name, mirror.source) == ("photos", os.fsencode(work / "photos"))
    assert (str(mirror.target), mirror.complete_sync) == (TARGET, True)


@pytest.mark.parametrize(
    ("options", "kind", "part"),
    [
        (Options(source=Path("photos")), UsageError, "go together"),
        (Options(target=TARGET), UsageError, "go together"),
        (Options(("x",), source=Path("photos"), target=TARGET), UsageError, "leave out"),
        (
            Options(config=Path("f"), source=Path("photos"), target=TARGET),
            UsageError,
            "leave out --config",
        ),
        (Options(source=Path("photos"), target="host:x"), ConfigError, '--target: the target "ho'),
        (Options(source=Path("photos"), target=""), ConfigError, "--target: "),
        (Options(source=Path("~no such user"), target=TARGET), UsageError, "--source ~no such"),
        (Options(config=Path("~no such user/f")), UsageError, "--config ~no such user/f"),
    ],
)
def test_contradictory_options(
    options: Options, kind: type[SkynetError], part: str, work: Path
) -> None:
    assert part in refusal(kind, lambda: load_mirrors(options, {}, work))


# Sources


@pytest.mark.parametrize(
    ("source", "why"),
    [("gone", "no such directory"), ("file", "not a directory"), ("x" * 300, "cannot be read")],
)
def test_a_source_that_is_no_directory(source: str, why: str, load: Load, work: Path) -> None:
    (work / "file").touch()
    text = photos().replace('"photos"', f'"{source}"')
    message = refusal(SourceError, lambda: load(text))
    assert f'skynet.toml: [mirror.photos] source = "{work / source}": ' in message
    assert why in message
    options = Options(source=Path(source), target=TARGET)
    message = refusal(SourceError, lambda: checked(options, {}, work))
    assert message.startswith(f'--source "{work / source}": ')


def test_a_source_that_may_not_be_read(
    load: Load, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: bytes) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("os.scandir", refuse)  # the superuser may read everything
    assert "cannot be read: Permission denied" in refusal(SourceError, lambda: load(photos()))


def local(work: Path, path: str, url: str = "sftp://localhost") -> Callable[[], object]:
    """Load an ad hoc mirror of `photos` whose target is `path` on this machine."""
    options = Options(source=Path("photos"), target=url + path)
    return partial(checked, options, {}, work)


@pytest.mark.parametrize(
    "url", ["sftp://localhost", "sftp://LOCALHOST:22", "sftp://127.0.0.1:2222", "sftp://me@[::1]"]
)
@pytest.mark.parametrize("target", ["photos", "photos/mirror", ""])
def test_source_and_target_may_not_hold_each_other(url: str, target: str, work: Path) -> None:
    path = "/" + (work / target).as_posix().lstrip("/")
    message = refusal(SourceError, local(work, path, url))
    assert "--source" in message
    assert str(work / "photos") in message
    assert "one holds the other" in message
    assert local(work, path, "sftp://elsewhere")()


def test_nesting_is_seen_through_links_and_homes(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert local(work, "/~/photos")()
    assert local(work, f"{work.as_posix()}/photos2")()
    monkeypatch.setenv("HOME", str(work))
    monkeypatch.setenv("USERPROFILE", str(work))
    assert "one holds the other" in refusal(SourceError, local(work, "/~/photos"))
    (work / "link").symlink_to(work / "photos")
    path = f"{work.as_posix()}/link/mirror"
    assert "one holds the other" in refusal(SourceError, local(work, path))


def test_the_root_of_a_confined_server_is_not_this_machines_root(work: Path) -> None:
    assert "one holds the other" in refusal(SourceError, local(work, "/"))
    assert local(work, "/", "sftp://localhost:2222")()


@pytest.mark.parametrize("state", ["photos", "photos/deep/state"])
def test_the_state_may_not_lie_in_the_source(state: str, load: Load, work: Path) -> None:
    for attempt in (
        partial(load, photos(f'state_dir = "{state}"')),
        partial(load, photos(), SKYNET_STATE_DIR=state),
        partial(load, photos(), Options(state_dir=Path(state))),
    ):
        message = refusal(ConfigError, attempt)
        assert f'[mirror.photos] source = "{work / "photos"}"' in message
        assert f'the state directory "{work / state}"' in message
        assert "state_dir, SKYNET_STATE_DIR or --state-dir" in message
