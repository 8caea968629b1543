"""The service is installed, looked at, removed: what is written, what is run, what is refused."""

from __future__ import annotations

import dataclasses
import os
import shlex
import stat
import sys
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from skynet import service
from skynet.cli import app
from skynet.commands_service import Wanted, daemon_of
from skynet.errors import SkynetError, UsageError
from skynet.service import Call, Manager, Ran
from skynet.units import MARKER
from tests.support.command import Result, skynet

TEXT = f"# {MARKER}\nnew\n"
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="about systemd")


class Programs:
    """Stands for the manager's programs: keeps what is run; words that fail, and how."""

    def __init__(self, **fails: str) -> None:
        self.ran: list[Call] = []
        self.fails = fails
        self.defined = Ran(1, "no such task")

    def __call__(self, call: Call) -> Ran:
        self.ran.append(call)
        if "/XML" in call and "/Query" in call:
            return self.defined
        failing = [why for word, why in self.fails.items() if word in call]
        return Ran(1, failing[0]) if failing else Ran(0, "done")


@pytest.fixture
def manager(tmp_path: Path) -> Manager:
    """The systemd manager of a user, which runs."""
    manager = service.systemd_of_user({}, tmp_path)
    return dataclasses.replace(manager, runs_if=tmp_path)


def test_the_unit_is_written_and_the_service_started(manager: Manager, tmp_path: Path) -> None:
    programs = Programs()
    assert service.install(manager, TEXT, programs) == ()
    unit = tmp_path / ".config" / "systemd" / "user" / "skynet.service"
    assert unit.read_text() == TEXT
    assert stat.S_IMODE(unit.stat().st_mode) == 0o644 or os.name != "posix"
    assert [path.name for path in unit.parent.iterdir()] == [unit.name]
    assert [shlex.join(call) for call in programs.ran] == [
        "systemctl --user daemon-reload",
        "systemctl --user enable skynet.service",
        "systemctl --user restart skynet.service",
    ]


def test_a_second_install_replaces_the_first(manager: Manager) -> None:
    service.install(manager, TEXT, Programs())
    service.install(manager, TEXT + "more\n", Programs())
    assert manager.file.read_text() == TEXT + "more\n"


def test_uninstall_leaves_nothing(manager: Manager) -> None:
    service.install(manager, TEXT, Programs())
    programs = Programs()
    assert service.uninstall(manager, programs)
    assert not manager.file.exists()
    assert [shlex.join(call) for call in programs.ran] == [
        "systemctl --user disable --now skynet.service",
        "systemctl --user daemon-reload",
    ]
    assert not service.uninstall(manager, programs)
    assert len(programs.ran) == 2


@pytest.mark.parametrize("content", [b"[Service]\nExecStart=/bin/x\n", b"", b"\xff\xfe"])
def test_a_unit_that_skynet_did_not_write_is_never_touched(
    manager: Manager, content: bytes
) -> None:
    manager.file.parent.mkdir(parents=True)
    manager.file.write_bytes(content)
    programs = Programs()
    for act in (
        lambda: service.install(manager, TEXT, programs),
        lambda: service.uninstall(manager, programs),
    ):
        with pytest.raises(UsageError, match="skynet did not write it"):
            act()
    assert manager.file.read_bytes() == content
    assert programs.ran == []


@linux_only
def test_a_masked_unit_is_never_touched(manager: Manager, tmp_path: Path) -> None:
    manager.file.parent.mkdir(parents=True)
    for target in ("/dev/null", str(tmp_path / "nowhere")):
        manager.file.symlink_to(target)
        with pytest.raises(UsageError, match="did not write it"):
            service.install(manager, TEXT, Programs())
        assert os.readlink(manager.file) == target
        manager.file.unlink()


def test_where_no_manager_runs_the_unit_is_written_and_nothing_is_run(manager: Manager) -> None:
    absent = dataclasses.replace(manager, runs_if=manager.file / "nowhere")
    programs = Programs()
    assert service.install(absent, TEXT, programs) == manager.start
    assert service.status(absent, programs).code != 0
    assert service.uninstall(absent, programs)
    assert not manager.file.exists()
    assert programs.ran == []


def test_a_manager_that_refuses_is_told_with_what_is_left_to_do(manager: Manager) -> None:
    programs = Programs(enable="Failed to connect\nto bus: No medium\x1b found")
    with pytest.raises(SkynetError) as caught:
        service.install(manager, TEXT, programs)
    assert str(caught.value) == (
        "systemctl --user enable skynet.service failed: Failed to connect to bus: No medium\\x1b "
        f"found. {manager.file} is written, but the service does not run. When the cause is gone, "
        "run: systemctl --user enable skynet.service; systemctl --user restart skynet.service"
    )
    assert len(programs.ran) == 2


def test_a_service_that_cannot_be_stopped_keeps_its_unit(manager: Manager) -> None:
    service.install(manager, TEXT, Programs())
    with pytest.raises(SkynetError, match="is still there"):
        service.uninstall(manager, Programs(disable="busy"))
    assert manager.file.exists()


def test_a_place_that_cannot_be_written_is_named(manager: Manager, tmp_path: Path) -> None:
    (tmp_path / ".config").touch()
    with pytest.raises(UsageError, match=r"skynet\.service cannot be (read|written)"):
        service.install(manager, TEXT, Programs())


def test_a_user_may_have_another_place_for_configuration(tmp_path: Path) -> None:
    chosen = service.systemd_of_user({"XDG_CONFIG_HOME": str(tmp_path / "c")}, tmp_path)
    assert chosen.file == tmp_path / "c" / "systemd" / "user" / "skynet.service"
    relative = service.systemd_of_user({"XDG_CONFIG_HOME": "c"}, tmp_path)  # to be ignored
    assert relative.file == tmp_path / ".config" / "systemd" / "user" / "skynet.service"


# The others


def test_launchd_takes_the_agent_anew(tmp_path: Path) -> None:
    manager = service.launchd(tmp_path, 501)
    programs = Programs(bootout="Boot-out failed: 3: No such process")  # the first time
    service.install(manager, TEXT, programs)
    file = tmp_path / "Library" / "LaunchAgents" / "local.skynet.plist"
    assert file.read_text() == TEXT
    assert programs.ran == [
        ("launchctl", "bootout", "gui/501/local.skynet"),
        ("launchctl", "enable", "gui/501/local.skynet"),
        ("launchctl", "bootstrap", "gui/501", str(file)),
    ]
    programs = Programs()
    assert service.uninstall(manager, programs)
    assert programs.ran == [("launchctl", "bootout", "gui/501/local.skynet")]
    assert not file.exists()


def test_the_task_scheduler_reads_utf_16_and_keeps_a_copy(tmp_path: Path) -> None:
    manager = service.task_scheduler(tmp_path)
    programs = Programs()
    service.install(manager, TEXT, programs)
    assert manager.file.read_bytes()[:2] in (b"\xff\xfe", b"\xfe\xff")
    assert manager.file.read_bytes().decode("utf-16").splitlines() == TEXT.splitlines()
    create = ("schtasks", "/Create", "/TN", "skynet", "/XML", str(manager.file), "/F")
    assert programs.ran[-2:] == [create, ("schtasks", "/Run", "/TN", "skynet")]
    assert not service.uninstall(manager, programs)  # it says that it has none
    programs.defined = Ran(0, TEXT)
    assert service.uninstall(manager, programs)
    assert programs.ran[-1] == ("schtasks", "/Delete", "/TN", "skynet", "/F")
    assert not manager.file.exists()


def test_a_task_of_somebody_else_is_never_touched(tmp_path: Path) -> None:
    manager = service.task_scheduler(tmp_path)
    programs = Programs()
    programs.defined = Ran(0, "<Task>backup</Task>")
    with pytest.raises(UsageError, match='the task "skynet" is there, and skynet did not'):
        service.install(manager, TEXT, programs)
    assert list(tmp_path.iterdir()) == []
    assert programs.ran == [manager.defined]


def test_a_program_is_run_without_a_shell_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    say = (sys.executable, "-c", "import sys; print(sys.argv[1]); sys.exit(3)", "$HOME; *")
    ran = service.run_call(say)
    assert (ran.code, ran.text.strip()) == (3, "$HOME; *")
    assert service.run_call(("/nowhere/systemctl",)).code == 127
    monkeypatch.setattr(service, "CALL_SECONDS", 0.05)
    ran = service.run_call((sys.executable, "-c", "import time; time.sleep(60)"))
    assert ran.code == 124


# The commands


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A directory with a configuration of two mirrors."""
    (tmp_path / "a b").mkdir()
    tables = [
        f'[mirror."{name}"]\nsource = "a b"\ntarget = "sftp://h/{number}"\n'
        for number, name in enumerate(["pictures", "my docs"])
    ]
    (tmp_path / "skynet.toml").write_text("\n".join(tables))
    return tmp_path


def call(work: Path, *arguments: str, **environ: str) -> Result:
    return skynet("service", *arguments, cwd=work, environ=environ)


def unit_of(home: Path) -> Path:
    return home / ".config" / "systemd" / "user" / "skynet.service"


def files(home: Path) -> list[Path]:
    return [path for path in home.rglob("*") if path.is_file()]


@linux_only
def test_print_shows_what_install_writes_and_writes_nothing(work: Path, home: Path) -> None:
    shown = call(work, "install", "my docs", "--print")
    assert shown.code == 0, shown.text
    assert files(home) == []
    head, _, rest = shown.out.partition("\n")
    text, _, calls = rest.partition("\n# then:\n")
    assert head == f"# {unit_of(home)}"
    assert f'"-c" "{work / "skynet.toml"}"' in text
    assert '"my docs"\n' in text
    assert calls.splitlines()[0] == "systemctl --user daemon-reload"
    if service.SYSTEMD_RUNS.exists():
        pytest.skip("a systemd runs here, and a test is not to start services in it")
    done = call(work, "install", "my docs")
    assert unit_of(home).read_text() == text
    assert done.code == 1
    assert "No service manager runs here" in done.out
    assert done.out.endswith(calls)


@linux_only
def test_a_service_is_looked_at_and_removed(work: Path, home: Path) -> None:
    if service.SYSTEMD_RUNS.exists():
        pytest.skip("a systemd runs here, and a test is not to start services in it")
    assert call(work, "status").code == 1
    assert "There is no service to remove" in call(work, "uninstall").out
    call(work, "install")
    assert "No service manager runs here" in call(work, "status").out
    assert call(work, "uninstall").code == 0
    assert files(home) == []


@linux_only
@pytest.mark.parametrize("platform", ["linux", "macos", "windows"])
def test_the_daemon_understands_what_the_service_tells_it(
    work: Path, monkeypatch: pytest.MonkeyPatch, platform: service.Platform
) -> None:
    monkeypatch.chdir(work)
    wanted = Wanted(("my docs", "pictures"), state_dir=Path("own"), platform=platform)
    program, *words = daemon_of(platform, wanted).command
    assert (program, words[:4]) == (sys.executable, ["-P", "-m", "skynet", "daemon"])
    command = typer.main.get_command(app)
    assert isinstance(command, TyperGroup)
    told = command.commands["daemon"].make_context("daemon", words[4:]).params
    assert list(told["names"]) == ["my docs", "pictures"]
    assert Path(told["config"]) == work / "skynet.toml"
    assert Path(told["state_dir"]) == work / "own"
    assert (told["log_file"] is None) is (platform == "linux")


@linux_only
def test_no_secret_gets_into_a_unit(work: Path) -> None:
    secret = {"SKYNET_PASSWORD": "sesame", "SSH_ASKPASS": "sesame"}
    for platform in ("linux", "macos", "windows"):
        shown = call(work, "install", "--print", "--for", platform, **secret)
        assert shown.code == 0, shown.text
        assert "sesame" not in shown.text


@linux_only
def test_what_a_shell_alone_knows_is_written_down(work: Path, home: Path) -> None:
    agent = {"XDG_RUNTIME_DIR": "/run/user/7", "SSH_AUTH_SOCK": "/run/user/7/keyring/ssh"}
    text = call(work, "install", "--print", SKYNET_STATE_DIR="own", **agent).out
    assert f'"--state-dir" "{work / "own"}"' in text
    assert 'Environment="SSH_AUTH_SOCK=%t/keyring/ssh"' in text
    # The place of this one is another at each login.
    text = call(work, "install", "--print", SSH_AUTH_SOCK="/tmp/ssh-x/agent.7").out
    assert "agent.7" not in text


@linux_only
def test_a_service_of_the_machine_writes_where_systemd_lets_it(work: Path) -> None:
    system = ("install", "--print", "--system", "--user", "root")
    text = call(work, *system).out
    assert '"--state-dir" "/var/lib/skynet"' in text
    assert "User=root\nStateDirectory=skynet\n" in text
    (work / "own").mkdir()
    text = call(work, *system, "--state-dir", "own").out
    assert f'ReadWritePaths="{work / "own"}"\n' in text
    assert "StateDirectory" not in text


@linux_only
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--print", "--system"], "Say who runs a service of the machine"),
        (["--print", "--system", "--user", "a\nb"], "Say who runs a service of the machine"),
        (["--print", "--system", "--user", "nobody-at-all"], "there is no such user"),
        (["--print", "--user", "root"], "--user goes with --system"),
        (["--print", "--system", "--for", "macos"], "--system is for systemd"),
        (["--for", "windows"], "add --print"),
        (["--print", "elsewhere"], 'has no mirror "elsewhere"'),
        (["--print", "-c", "gone.toml"], "gone.toml cannot be read"),
        (
            ["--print", "--system", "--user", "root", "--state-dir", "no where"],
            "Make it first: install -d -m 700 -o root",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_a_service_is_refused(
    work: Path, home: Path, words: list[str], told: str
) -> None:
    result = call(work, "install", *words)
    assert result.code == 2, result.text
    assert told in result.err
    assert result.out == ""
    assert files(home) == []


@linux_only
def test_mirrors_with_and_without_a_state_directory_do_not_mix(work: Path) -> None:
    file = work / "skynet.toml"
    file.write_text(file.read_text() + f'state_dir = "{work}/own"\n')
    (work / "own").mkdir()
    system = ("install", "--print", "--system", "--user", "root")
    assert "pictures has no state_dir" in call(work, *system).err
    assert f'ReadWritePaths="{work / "own"}"' in call(work, *system, "my docs").out


@linux_only
def test_a_path_in_our_home_is_none_in_the_homes_of_others(work: Path, home: Path) -> None:
    file = work / "skynet.toml"
    file.write_text('[mirror.m]\nsource = "~/x"\ntarget = "sftp://h/x"\n')
    result = call(work, "install", "--print", "--system", "--user", "root")
    assert result.code == 2
    assert f"{home / 'x'} is in your home, and root has another" in result.err


@linux_only
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may")
def test_only_root_installs_and_removes_a_service_of_the_machine(work: Path) -> None:
    for words in (["install", "--user", "root"], ["uninstall"]):
        result = call(work, *words, "--system")
        assert result.code == 2
        assert "by root only" in result.err


def test_who_is_not_root_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000, raising=False)
    with pytest.raises(UsageError, match="by root only: run it with sudo"):
        service.expect_root()
