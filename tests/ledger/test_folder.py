"""Which file systems can keep a record."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from asyncpipe import Pipeline
from asyncpipe.errors import UsageError
from asyncpipe.ledger.folder import FolderLock, linux_mounts, mac_mounts, mounted_as
from asyncpipe.testing import FakeProvider, run_virtual

LINUX = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 22 0:40 / /mnt/nas rw,relatime shared:20 - nfs4 server:/export rw,vers=4.2
41 22 0:41 / /mnt/my\\040share rw,relatime - cifs //server/share rw
42 40 0:42 / /mnt/nas/local rw - xfs /dev/vdb rw
43 22 0:43 / /home/me/remote rw - fuse.sshfs me@host: rw
44 22 0:44 / /mnt/c rw - 9p drvfs rw
"""
MAC = """\
/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)
//me@nas/Photos on /Volumes/My Photos (smbfs, nodev, nosuid, mounted by me)
host:/export on /Volumes/nas (nfs)
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/home/me/out", "ext4"),
        ("/mnt/nas", "nfs4"),
        ("/mnt/nas/out", "nfs4"),
        ("/mnt/nas-two/out", "ext4"),
        ("/mnt/nas/local/out", "xfs"),
        ("/mnt/my share/产品", "cifs"),
        ("/home/me/remote/out", "fuse.sshfs"),
    ],
)
def test_the_longest_mount_point_tells_the_kind(folder: str, kind: str) -> None:
    """On Linux; spaces are octal in the table."""
    assert mounted_as(folder, linux_mounts(LINUX)) == kind


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("/Users/me", "apfs"), ("/Volumes/My Photos/a", "smbfs"), ("/Volumes/nas", "nfs")],
)
def test_the_same_from_what_mount_prints(folder: str, kind: str) -> None:
    """On macOS."""
    assert mounted_as(folder, mac_mounts(MAC)) == kind


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's table")
@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "fuse.rclone"])
def test_network_file_systems_are_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """With the kind and the remedy; a local one is not refused."""
    read = Path.read_text

    def table(self: Path, *arguments: object, **options: object) -> str:
        if str(self) != "/proc/self/mountinfo":
            return read(self)
        return f"22 1 8:0 / / rw - ext4 /dev/a rw\n40 22 0:40 / {tmp_path} rw - {kind} x rw\n"

    monkeypatch.setattr(Path, "read_text", table)

    async def main() -> None:
        async with Pipeline(FakeProvider(), tmp_path / "out"):
            raise AssertionError("it was opened")

    with pytest.raises(UsageError, match=rf"network file system \({kind}\).*--output-dir"):
        run_virtual(main())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("refused_by_system", [True, False])
def test_a_lock_that_is_a_link_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, refused_by_system: bool
) -> None:
    """A folder got from somebody else overwrites no file of the user, on Windows either."""
    if not refused_by_system:
        monkeypatch.delattr("os.O_NOFOLLOW")
    mine, lock = tmp_path / "mine.txt", tmp_path / "out" / ".asyncpipe" / "lock"
    mine.write_text("mine")
    lock.parent.mkdir(parents=True)
    lock.symlink_to(mine)
    with pytest.raises(UsageError, match="symbolic link"), FolderLock(lock):
        pass
    assert mine.read_text() == "mine"
