"""The confined SFTP server: what it refuses, what it keeps, and that real clients work with it."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from skynet import sftpserver
from skynet.serve import Announcement, ServeOptions
from skynet.sftpserver import Guests
from tests.support.embedded import (
    DEADLINE,
    connection,
    directory_beside_a_secret,
    posix_only,
    refused,
    serving,
    use,
)


@pytest.fixture
def served(tmp_path: Path) -> Path:
    return directory_beside_a_secret(tmp_path)


@pytest.fixture
def announced(served: Path, tmp_path: Path) -> Iterator[Announcement]:
    with serving(ServeOptions(directory=served, state=tmp_path / "state")) as announcement:
        yield announcement


# --- confinement


def test_a_path_cannot_climb_out(announced: Announcement, served: Path) -> None:
    async def work(sftp: asyncssh.SFTPClient) -> None:
        for path in ("../outside/secret", "/../outside/secret", str(served.parent / "outside")):
            await refused(sftp.stat(path))
            await refused(sftp.open(path, "rb"))
        await refused(sftp.open("../outside/new", "wb"))
        await refused(sftp.rename("../outside/secret", "here"))
        assert await sftp.realpath("../..") == "/"

    use(announced, work)
    assert os.listdir(served.parent / "outside") == ["secret"]


@posix_only
@pytest.mark.parametrize(
    "target", ["../outside", "{outside}", "via/../../outside", "door2", "nowhere/../../outside"]
)
def test_nothing_is_reached_through_a_link_that_leads_outside(
    announced: Announcement, served: Path, target: str
) -> None:
    outside = served.parent / "outside"
    (served / "via").mkdir()
    os.symlink("../outside", served / "door2")
    os.symlink(target.format(outside=outside), served / "door")
    os.symlink(f"{target.format(outside=outside)}/secret", served / "file")

    async def work(sftp: asyncssh.SFTPClient) -> None:
        await refused(sftp.stat("file"))
        await refused(sftp.open("file", "rb"))
        await refused(sftp.open("file", "r+b"))
        await refused(sftp.stat("door/secret"))
        await refused(sftp.lstat("door/secret"))
        await refused(sftp.open("door/secret", "rb"))
        await refused(sftp.open("door/new", "wb"))
        await refused(sftp.open("door/new", "xb"))
        await refused(sftp.mkdir("door/new"))
        await refused(sftp.readdir("door"))
        await refused(sftp.remove("door/secret"))
        await refused(sftp.rmdir("door"))
        await refused(sftp.rename("door/secret", "taken"))
        await refused(sftp.posix_rename("door/secret", "taken"))
        await refused(sftp.link("file", "hard"))
        await refused(sftp.symlink("x", "door/link"))
        await refused(sftp.readlink("door/secret"))
        await refused(sftp.setstat("file", asyncssh.SFTPAttrs(permissions=0o777)))
        await refused(sftp.truncate("file", 0))
        await refused(sftp.statvfs("door"))

    use(announced, work)
    assert os.listdir(outside) == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"
    assert stat.S_IMODE((outside / "secret").stat().st_mode) != 0o777


@posix_only
def test_a_loop_of_links_hides_no_way_out(announced: Announcement, served: Path) -> None:
    # Resolved leniently, `trap` looks like the harmless path door/secret inside.
    os.symlink("../outside", served / "door")
    os.symlink("trap/../door/secret", served / "trap")

    async def work(sftp: asyncssh.SFTPClient) -> None:
        await refused(sftp.open("trap", "rb"))
        await refused(sftp.stat("trap"))

    use(announced, work)


@posix_only
def test_a_dangling_link_makes_no_file_outside(announced: Announcement, served: Path) -> None:
    os.symlink("../outside/made", served / "link")

    async def work(sftp: asyncssh.SFTPClient) -> None:
        await refused(sftp.open("link", "wb"))
        await refused(sftp.open("link", "xb"))
        await refused(sftp.open("link", asyncssh.FXF_WRITE | asyncssh.FXF_EXCL))

    use(announced, work)
    assert os.listdir(served.parent / "outside") == ["secret"]


@posix_only
def test_a_directory_replaced_while_it_is_read_shows_nothing_else(
    announced: Announcement, served: Path
) -> None:
    (served / "many").mkdir()
    for number in range(300):
        (served / "many" / str(number)).write_bytes(b"12345")
        (served.parent / "outside" / str(number)).write_bytes(b"")

    async def work(sftp: asyncssh.SFTPClient) -> None:
        sizes: list[int | None] = []
        async for entry in sftp.scandir("many"):
            if not sizes:
                (served / "many").rename(served / "moved")
                os.symlink("../outside", served / "many")
            sizes.append(entry.attrs.size)
        assert sizes == [5] * 300

    use(announced, work)


@posix_only
def test_links_are_kept_to_the_byte(announced: Announcement, served: Path) -> None:
    targets = [b"../outside/secret", b"/etc/passwd", b"a//b/./c", b"\xff\xfe", b"nowhere"]

    async def work(sftp: asyncssh.SFTPClient) -> None:
        for number, target in enumerate(targets):
            name = b"link%d" % number
            await sftp.symlink(target, name)
            assert await sftp.readlink(name) == target
            assert os.readlink(os.fsencode(served) + b"/" + name) == target
            assert (await sftp.lstat(name)).type == asyncssh.FILEXFER_TYPE_SYMLINK
            await sftp.posix_rename(name, b"moved")
            assert await sftp.readlink(b"moved") == target
            await sftp.remove(b"moved")

    use(announced, work)


@posix_only
def test_links_inside_are_followed(announced: Announcement, served: Path) -> None:
    (served / "real").mkdir()
    os.symlink("real", served / "link")

    async def work(sftp: asyncssh.SFTPClient) -> None:
        async with sftp.open("link/file", "wb") as file:
            await file.write(b"content")
        assert await sftp.realpath("link/file") == "/real/file"
        assert [entry.filename for entry in await sftp.readdir("link")] == ["file"]

    use(announced, work)
    assert (served / "real" / "file").read_bytes() == b"content"


@posix_only
def test_a_pipe_cannot_block_the_server(announced: Announcement, served: Path) -> None:
    os.mkfifo(served / "pipe")

    async def work(sftp: asyncssh.SFTPClient) -> None:
        await refused(sftp.open("pipe", "rb"))

    use(announced, work)


def test_the_served_directory_itself_stays(announced: Announcement, served: Path) -> None:
    use(announced, lambda sftp: refused(sftp.rmdir("/")))
    assert served.is_dir()


# --- files


def test_it_works_with_many_files_at_once_over_several_channels(
    announced: Announcement, served: Path
) -> None:
    async def put(sftp: asyncssh.SFTPClient, name: str) -> None:
        async with sftp.open(f"{name}.part", "xb") as file:
            await file.write(name.encode() * 1000)
            await file.fsync()
        await sftp.posix_rename(f"{name}.part", name)

    async def session() -> None:
        async with connection(announced) as conn:
            channels = [await conn.start_sftp_client() for _ in range(4)]
            names = [f"file {number}" for number in range(400)]
            await asyncio.gather(
                *(put(channels[number % 4], name) for number, name in enumerate(names))
            )
            assert sorted(await channels[0].listdir("/")) == sorted(names)

    asyncio.run(asyncio.wait_for(session(), DEADLINE))
    assert (served / "file 399").read_bytes() == b"file 399" * 1000


def test_what_a_mirror_asks_of_a_server(announced: Announcement, served: Path) -> None:
    async def work(sftp: asyncssh.SFTPClient) -> None:
        assert sftp.supports_remote_copy
        assert sftp.limits.max_write_len >= 255 * 1024
        await sftp.mkdir("dir")
        async with sftp.open("dir/a", "wb") as file:
            await file.write(b"x" * (20 << 20))
        await sftp.remote_copy("dir/a", "dir/b")
        await sftp.utime("dir/b", (1_600_000_000, 1_600_000_001))
        await sftp.chmod("dir/b", 0o640)
        attributes = await sftp.lstat("dir/b")
        assert (attributes.size, attributes.mtime) == (20 << 20, 1_600_000_001)
        await refused(sftp.rename("dir/a", "dir/b"))
        if hasattr(os, "statvfs"):
            assert (await sftp.statvfs("/")).bavail > 0
        with pytest.raises(asyncssh.SFTPNoSuchFile):
            await sftp.readdir("missing")

    use(announced, work)
    assert (served / "dir" / "b").read_bytes() == b"x" * (20 << 20)
    if os.name == "posix":
        assert stat.S_IMODE((served / "dir" / "b").stat().st_mode) == 0o640


class ReluctantFile:
    """Takes at most three bytes at a time."""

    def __init__(self) -> None:
        self.content = b""

    def seek(self, offset: int) -> None:
        assert offset == len(self.content)

    def write(self, data: memoryview) -> int:
        self.content += bytes(data[:3])
        return len(data[:3])


def bare_files(directory: Path) -> sftpserver._Files:
    channel: Any = object()
    return sftpserver._Files(channel, str(directory))


def test_a_write_that_the_disk_takes_in_parts_is_written_whole(served: Path) -> None:
    file = ReluctantFile()
    assert bare_files(served).write(file, 0, b"0123456789") == 10
    assert file.content == b"0123456789"


def test_a_long_copy_lets_others_have_a_turn(served: Path) -> None:
    class Sink(ReluctantFile):
        def seek(self, offset: int) -> None:
            pass

        def write(self, data: memoryview) -> int:
            return len(data)

    files, block = bare_files(served), bytes(1 << 20)
    waits = [not isinstance(files.write(Sink(), 0, block), int) for _ in range(4)]
    assert not any(waits)
    turn = [files.write(Sink(), 0, block) for _ in range(4)][-1]
    assert not isinstance(turn, int)
    assert asyncio.run(asyncio.wait_for(turn, DEADLINE)) == len(block)


def test_guessing_ends_the_connection() -> None:
    door = sftpserver._Door(Guests("skynet", "", "right"), set())
    for _ in range(sftpserver.MAX_WRONG_PASSWORDS - 1):
        assert not door.validate_password("skynet", "wrong")
    with pytest.raises(asyncssh.PermissionDenied):
        door.validate_password("skynet", "wrong")


# --- the OpenSSH client


@pytest.mark.skipif(not shutil.which("sftp"), reason="needs the OpenSSH client")
def test_the_openssh_client(served: Path, tmp_path: Path) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    (tmp_path / "id").touch(mode=0o600)
    (tmp_path / "id").write_bytes(key.export_private_key())
    (tmp_path / "keys").write_bytes(key.export_public_key())
    (tmp_path / "picture").write_bytes(bytes(range(256)) * 10_000)
    batch = f"""put {tmp_path}/picture "/a name"
mkdir dir
rename "a name" dir/picture
ln -s ../../outside/secret dir/link
-get dir/link {tmp_path}/stolen
-get ../outside/secret {tmp_path}/stolen
ls -la dir
get dir/picture {tmp_path}/back
"""
    options = ServeOptions(served, tmp_path / "state", authorized_keys=tmp_path / "keys")
    with serving(options) as announcement:
        (tmp_path / "known_hosts").write_text(announcement.known_hosts + "\n")
        settings = {
            "IdentityFile": tmp_path / "id",
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": tmp_path / "known_hosts",
            "StrictHostKeyChecking": "yes",
        }
        arguments = [f"-o{name}={value}" for name, value in settings.items()]
        done = subprocess.run(
            ["sftp", "-F", os.devnull, "-b", "-", *arguments, announcement.url],
            input=batch.encode(),
            capture_output=True,
            timeout=DEADLINE,
        )
    assert done.returncode == 0, done.stderr.decode()
    assert b"lrwxrwxrwx" in done.stdout
    assert (tmp_path / "back").read_bytes() == (tmp_path / "picture").read_bytes()
    assert os.readlink(served / "dir" / "link") == "../../outside/secret"
    assert not (tmp_path / "stolen").exists()
