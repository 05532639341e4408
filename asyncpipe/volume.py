"""The file system an output folder is on: how much room is left, and whether it is a network's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from asyncpipe.errors import DiskError, UsageError

GIB = 1024**3

LOOK_EVERY_S = 1.0
"""Free space is asked for at most so often."""

_NETWORK = re.compile(
    r"(fuse\.)?(nfs\d*|cifs|smb\d*|smbfs|afpfs|webdav|davfs\d*|sshfs|afs|ceph|glusterfs|lustre|ncpfs"
    r"|s3fs|rclone|goofys|gcsfuse|blobfuse\d*|ossfs|juicefs)$"
)


class Room:
    """Whether there is room for what submits would bring: ``minimum`` bytes free, looked at often.

    ``clock`` gives seconds; ``give_up`` is called when there was too little for ``patience_s``
    (None: never). ``free`` is for tests.
    """

    def __init__(
        self,
        folder: Path,
        minimum: int,
        clock: Callable[[], float],
        patience_s: float | None = None,
        give_up: Callable[[DiskError], None] = lambda _: None,
        *,
        free: Callable[[Path], int] | None = None,
    ) -> None:
        self._folder, self._minimum, self._clock = folder, minimum, clock
        self._patience_s, self._give_up = patience_s, give_up
        self._free = free or (lambda path: shutil.disk_usage(path).free)
        self._next_look = 0.0
        self._low_since: float | None = None
        self._left = 0

    def enough(self) -> bool:
        """Whether a submit may go out now."""
        now = self._clock()
        if not self._minimum:
            return True
        if now >= self._next_look:
            self._next_look = now + LOOK_EVERY_S
            self._left = self._free(self._folder)
            if self._left >= self._minimum:
                self._low_since = None
            elif self._low_since is None:
                self._low_since = now
            self._lose_patience(now)
        return self._low_since is None

    def _lose_patience(self, now: float) -> None:
        problem = self.problem
        if problem is None or self._low_since is None or self._patience_s is None:
            return
        if now - self._low_since > self._patience_s:
            self._give_up(problem)

    @property
    def problem(self) -> DiskError | None:
        """What to tell people while there is too little, or None."""
        if self._low_since is None:
            return None
        return DiskError(
            f"only {self._left / GIB:.2f} GiB are free where {self._folder} is, and submits stop "
            f"below {self._minimum / GIB:.2f}: make room, or lower the floor with --min-free"
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
