"""The command lines of skynet and its peers for one sync, and the measurement of one run."""

from __future__ import annotations

import contextlib
import os
import resource
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

HOST = "127.0.0.1"
LSYNCD_DELAY = 1  # seconds that it gathers changes for; its own default is 15
STOP_SECONDS = 10.0  # for a daemon to end after it was asked to
POLL_SECONDS = 0.01


class Access(NamedTuple):
    """How to log in to the server at the end of a link."""

    user: str
    port: int
    key: Path
    known_hosts: Path

    @property
    def ssh_options(self) -> list[str]:
        """Options that ssh and sftp share; nothing of the user's own configuration is read."""
        settings = [
            f"UserKnownHostsFile={self.known_hosts}",
            "StrictHostKeyChecking=yes",
            "IdentitiesOnly=yes",
            "BatchMode=yes",
        ]
        options = ["-F", "/dev/null", "-i", str(self.key)]
        return options + [word for setting in settings for word in ("-o", setting)]


class Job(NamedTuple):
    """One sync: the files of `source` shall be in `target`, a path on the server.

    is_update: an older state of them is there, and what is gone shall go there too.
    rate: bytes a second that may be sent, 0 for any number.
    """

    source: Path
    target: Path
    is_single_file: bool = False
    audit: bool = True
    is_update: bool = False
    rate: int = 0

    @property
    def limit(self) -> list[str]:
        """The option that skynet and rsync share, in KiB a second."""
        return [f"--bwlimit={self.rate // 1024}k"] if self.rate else []


class Command(NamedTuple):
    """What to run, and what it reads from standard input."""

    words: list[str]
    stdin: bytes = b""


class Usage(NamedTuple):
    """What one run took. memory: the largest peak of one of its processes, in bytes.

    exit_code: None when it was stopped for taking too long.
    """

    seconds: float
    cpu_seconds: float
    memory: int
    exit_code: int | None


def rsync(access: Access, job: Job) -> Command:
    """Archive mode; one large file is sent whole, unless there is something to compare it with."""
    shell = shlex.join(["ssh", "-p", str(access.port), *access.ssh_options])
    update = ["--no-W", "--delete"] if job.is_update else []
    whole = ["-W"] if job.is_single_file else []
    target = f"{access.user}@{HOST}:{job.target}/"
    options = [*update, *whole, *job.limit]
    return Command(["rsync", "-a", *options, "-e", shell, f"{job.source}/", target])


def rclone(access: Access, job: Job) -> Command:
    """16 transfers at a time, no checksums asked of the server. Its own settings are not read."""
    login = {
        "host": HOST,
        "port": str(access.port),
        "user": access.user,
        "key-file": str(access.key),
        "known-hosts-file": str(access.known_hosts),
    }
    options = [word for name, value in login.items() for word in (f"--sftp-{name}", value)]
    tuning = ["--sftp-disable-hashcheck", "--transfers", "16"]
    copy = ["rclone", "copy", "--config", "", *tuning, *options]
    return Command([*copy, str(job.source), f":sftp:{job.target}"])


def sftp(access: Access, job: Job) -> Command:
    """A batch of one line: put the directory, times and permissions included."""
    login = ["-P", str(access.port), *access.ssh_options, f"{access.user}@{HOST}"]
    batch = f"put -rp {_quoted(job.source)} {_quoted(job.target)}\n"
    return Command(["sftp", "-q", "-b", "-", *login], os.fsencode(batch))


def lftp(access: Access, job: Job) -> Command:
    """A reverse mirror. The password is empty, as the key logs in."""
    shell = shlex.join(["ssh", "-a", "-x", *access.ssh_options])
    lines = [
        f"set sftp:connect-program {_quoted(shell)}",
        "set net:max-retries 1",
        f"open -u {access.user}, sftp://{HOST}:{access.port}",
        f"mirror -R {_quoted(job.source)} {_quoted(job.target)}",
    ]
    return Command(["lftp", "--norc", "-c", "; ".join(lines)])


def lsyncd(access: Access, job: Job) -> Command:
    """It watches, and lets rsync send what has changed. It only takes settings from a file."""
    shell = shlex.join(["ssh", "-p", str(access.port), *access.ssh_options])
    config = f"""\
settings {{ nodaemon = true }}
sync {{
    default.rsync,
    source = {_quoted(job.source)},
    target = {_quoted(f"{access.user}@{HOST}:{job.target}/")},
    delay = {LSYNCD_DELAY},
    rsync = {{ archive = true, rsh = {_quoted(shell)} }},
}}
"""
    start = 'cat > "$HOME/lsyncd.lua" && exec lsyncd "$HOME/lsyncd.lua"'
    return Command(["sh", "-c", start], os.fsencode(config))


COMMANDS: dict[str, Callable[[Access, Job], Command]] = {
    "rsync": rsync,
    "rclone": rclone,
    "sftp": sftp,
    "lftp": lftp,
    "lsyncd": lsyncd,
}
VERSION_WORDS = {
    "rsync": ("rsync", "--version"),
    "rclone": ("rclone", "version"),
    "sftp": ("ssh", "-V"),  # sftp itself has no way to say it
    "lftp": ("lftp", "--version"),
    "lsyncd": ("lsyncd", "--version"),
}


def skynet(python: Path, state: Path, access: Access, job: Job) -> Command:
    """One cycle, reported as JSON. What skynet knows of the mirror is in `state`."""
    return _skynet(python, ["sync", "--once", *_terms(job), *job.limit], state, access, job)


def skynet_plan(python: Path, state: Path, access: Access, job: Job) -> Command:
    """What that cycle would do, as JSON with every operation."""
    return _skynet(python, ["plan", "--dry-run", *_terms(job)], state, access, job)


def skynet_daemon(python: Path, state: Path, access: Access, job: Job) -> Command:
    """The daemon of one mirror."""
    return _skynet(python, ["daemon"], state, access, job)


def _terms(job: Job) -> list[str]:
    audit = "--audit" if job.audit else "--no-audit"
    return ["--json", audit, *(["--complete-sync"] if job.is_update else [])]


def _skynet(python: Path, doing: list[str], state: Path, access: Access, job: Job) -> Command:
    url = f"sftp://{quote(access.user)}@{HOST}:{access.port}{quote(os.fsencode(job.target))}"
    login = ["--identity", str(access.key), "--known-hosts", str(access.known_hosts)]
    mirror = ["--source", str(job.source), "--target", url, "--state-dir", str(state)]
    return Command([str(python), "-m", "skynet", *doing, *mirror, *login])


def _quoted(text: Path | str) -> str:
    """One word, for the batches of sftp and lftp, and for Lua."""
    return '"' + str(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


class Meter:
    """Runs commands and measures them. Their output goes to files in `directory`."""

    def __init__(self, directory: Path, working_directory: Path, home: Path) -> None:
        """Programs run in `working_directory`; `home` stands in for the user's, and is empty."""
        self.output = directory / "output"
        self.errors = directory / "errors"
        self._working_directory = working_directory
        self._env = tool_environment(os.environ, home)

    def run(
        self, command: Command, timeout: float, is_enough: Callable[[], bool] | None = None
    ) -> Usage:
        """Run it to its end, for `timeout` seconds, or until it is enough: then it is killed.

        Nothing that it started goes on.
        """
        begun = time.monotonic()
        process = self._start(command)
        try:
            _feed(process, command.stdin)
            late = _wait(process.pid, timeout, is_enough)
            seconds = time.monotonic() - begun
        finally:
            usage = _end(process)
        return Usage(
            seconds,
            usage.ru_utime + usage.ru_stime,
            usage.ru_maxrss * 1024,
            None if late else process.returncode,
        )

    @contextlib.contextmanager
    def running(self, command: Command) -> Iterator[subprocess.Popen[bytes]]:
        """Have it run for the block; then it is asked to end, and made to if it does not."""
        process = self._start(command)
        try:
            _feed(process, command.stdin)
            yield process
            process.send_signal(signal.SIGTERM)
            _wait(process.pid, STOP_SECONDS, None)
        finally:
            _end(process)

    def _start(self, command: Command) -> subprocess.Popen[bytes]:
        with self.output.open("wb") as output, self.errors.open("wb") as errors:
            return subprocess.Popen(
                command.words,
                cwd=self._working_directory,
                env=self._env,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )

    def complaint(self) -> str:
        """The last lines of what the last run said, its errors if it had any."""
        for path in (self.errors, self.output):
            if lines := path.read_text(errors="replace").strip().splitlines():
                return " / ".join(lines[-3:])
        return "it said nothing"


def tool_environment(environ: os._Environ[str] | dict[str, str], home: Path) -> dict[str, str]:
    """The environment without what would change the tools' settings, logins or language."""
    # Nor does a user run skynet without its compiled files.
    ours = (
        "SKYNET_",
        "PYTHONDONTWRITEBYTECODE",
        "RSYNC_",
        "RCLONE_",
        "LFTP_",
        "SSH_",
        "LC_",
        "LANG",
    )
    env = {key: value for key, value in environ.items() if not key.startswith(ours)}
    own = {"HOME": str(home), "LC_ALL": "C.UTF-8"}
    return {**env, **own, **{f"XDG_{name}_HOME": str(home) for name in ("CONFIG", "STATE")}}


def _feed(process: subprocess.Popen[bytes], text: bytes) -> None:
    assert process.stdin is not None
    try:
        with process.stdin as pipe:
            pipe.write(text)
    except BrokenPipeError:
        return  # it has ended already; its exit code says why


def has_ended(pid: int) -> bool:
    """Whether this child has; it is not reaped."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _wait(pid: int, timeout: float, is_enough: Callable[[], bool] | None) -> bool:
    """Wait for the process to end; True when it had to be killed, being late or done enough.

    It stays a zombie meanwhile, so that its number, and its group's, cannot become another's.
    """
    late = threading.Event()

    def stop() -> None:
        late.set()
        os.killpg(pid, signal.SIGKILL)

    timer = threading.Timer(timeout, stop)
    timer.start()
    try:
        while is_enough is not None and not late.is_set():
            if has_ended(pid):
                break
            if is_enough():
                stop()
            time.sleep(POLL_SECONDS)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    finally:
        timer.cancel()
        timer.join()
    return late.is_set()


def _end(process: subprocess.Popen[bytes]) -> resource.struct_rusage:
    """Kill what is left of the process and its group, and reap it."""
    os.killpg(process.pid, signal.SIGKILL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage
