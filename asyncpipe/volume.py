"""The file system an output folder is on: how much room is left, and whether it is a network's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from asyncpipe.errors import UsageError

_NETWORK = re.compile(
    r"(fuse\.)?(nfs\d*|cifs|smb\d*|smbfs|afpfs|webdav|davfs\d*|sshfs|afs|ceph|glusterfs|lustre|ncpfs"
    r"|s3fs|rclone|goofys|gcsfuse|blobfuse\d*|ossfs|juicefs)$"
)


def check_local(folder: Path) -> None:
    """Raise UsageError when ``folder`` is on a network file system.

    SQLite's write-ahead log needs memory that all its users share, and locks that hold; a network
    file system has neither, and would lose what was recorded.
    """
    kind = _kind(folder.resolve())
    if kind is not None:
        raise UsageError(
            f"{folder} is on a network file system ({kind}), which cannot keep a safe record: "
            "choose a folder on a disk of this machine with --output-dir, and copy the results"
        )


def _kind(folder: Path) -> str | None:
    if sys.platform == "win32":
        import ctypes

        remote = 4  # DRIVE_REMOTE
        drive = ctypes.windll.kernel32.GetDriveTypeW(f"{folder.anchor}")
        return "network drive" if drive == remote else None
    try:
        if sys.platform == "darwin":
            shown = subprocess.run(["/sbin/mount"], capture_output=True, check=False, timeout=5)
            mounts = mac_mounts(shown.stdout.decode("utf-8", "replace"))
        else:
            mounts = linux_mounts(Path("/proc/self/mountinfo").read_text(errors="replace"))
    except (OSError, subprocess.SubprocessError):
        return None  # nobody can tell; a refusal would be worse
    kind = mounted_as(str(folder), mounts)
    return kind if _NETWORK.match(kind) else None


def linux_mounts(table: str) -> list[tuple[str, str]]:
    """Read (mount point, kind) from /proc/self/mountinfo."""
    mounts = []
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) > 4 and after:
            point = re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), fields[4])
            mounts.append((point, after.split()[0]))
    return mounts


def mac_mounts(table: str) -> list[tuple[str, str]]:
    """Read (mount point, kind) from what ``mount`` prints on macOS."""
    return re.findall(r"^.* on (/.*) \((\w+)[,)]", table, re.MULTILINE)


def mounted_as(folder: str, mounts: list[tuple[str, str]]) -> str:
    """The kind of the file system that ``folder`` is on; "" when no mount holds it.

    The longest mount point counts, and of equal ones the last, which covers the others.
    """
    best, kind = -1, ""
    for point, found in mounts:
        inside = folder == point or folder.startswith(point.rstrip("/") + os.sep)
        if inside and len(point) >= best:
            best, kind = len(point), found
    return kind
