"""The output folder: its state folder, the lock that one run holds, whose predictions it has."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self
from weakref import WeakSet

from asyncpipe._fs import link_trouble, open_unlinked
from asyncpipe.errors import FolderInUse, LedgerError, UsageError
from asyncpipe.jobs import OutputPlace
from asyncpipe.ledger.connection import Connection


def make_folders(folder: Path, names: Iterable[str]) -> None:
    """Make folders inside ``folder``.

    Raises UsageError when they cannot be made or written, LedgerError for a symbolic link.
    """
    names = [*names]
    if trouble := link_trouble(*(folder / name for name in names)):
        raise LedgerError(trouble)
    if STATE_FOLDER in names:
        check_links(folder)
    try:
        for name in names:
            (folder / name).mkdir(parents=True, exist_ok=True)
            if not os.access(folder / name, os.W_OK):
                raise PermissionError(errno.EACCES, f"no right to write into {folder / name}")
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the name
        raise UsageError(
            f"the output folder {folder} cannot be used: {getattr(exc, 'strerror', None) or exc}; "
            "make it writable, or choose another with --output-dir"
        ) from exc


_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})


ELSEWHERE = (
    "let --wait SECONDS wait, or run into another one with --output-dir; many may work in one "
    "whose ledger is in PostgreSQL (--ledger)"
)


def in_use(folder: OutputPlace, who: str, remedy: str = ELSEWHERE) -> FolderInUse:
    """Say who holds an output folder, and what to do."""
    return FolderInUse(
        f"{folder} is in use by {who}: wait for it to end "
        f"(asyncpipe status shows how far it is), {remedy}"
    )


class FolderLock:
    """Hold an output folder for one run; the system lets go when the process ends, however it ends.

    The file is never deleted (a second owner could slip in between) and not inherited by child
    processes; the pid and host in it serve the message only. ``taken`` makes the error of them.
    """

    def __init__(self, path: Path, taken: Callable[[str], FolderInUse] | None = None) -> None:
        self._path = path
        self._taken = taken or partial(in_use, path.parent.parent)
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        """Take the lock; raises FolderInUse naming who holds it, UsageError where none can be."""
        try:
            file = open(self._path, "a+b", opener=open_unlinked)
        except OSError as exc:
            raise UsageError(
                f"{self._path.parent.parent} cannot be written ({exc.strerror or exc}): "
                "make it writable, or choose another folder with --output-dir"
            ) from exc
        try:
            _lock_patiently(file)
        except OSError as exc:
            if exc.errno in _NO_LOCKS:
                file.close()
                raise UsageError(
                    f"{self._path.parent.parent} is on a file system without locks "
                    f"({exc.strerror}): choose a folder on a disk of this machine"
                ) from exc
            file.seek(0)
            owner = file.read(200).decode("utf-8", "replace").strip() or "another process"
            file.close()
            raise self._taken(owner) from exc
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        file.flush()
        self._file = file
        _held.add(self)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        """Let go; a forked child's copy of the file would hold the lock as long as it lives."""
        _held.discard(self)
        if self._file is not None:  # else this is a child
            self._file.close()
            self._file = None


_held: WeakSet[FolderLock] = WeakSet()
"""The locks that this process holds."""


def _let_go_in_child() -> None:
    for lock in [*_held]:
        lock._close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """Who holds an output folder, in the lock's words, and since when (wall time in UTC)."""

    who: str
    since: datetime


def holder(path: Path) -> Holder | None:
    """Return who holds the lock at ``path``; None if nobody does, or nobody can tell.

    The text alone does not say so: it stays when its process is killed. So the lock is tried for
    an instant; ``FolderLock`` tries twice, lest a run that begins just then be turned away.
    """
    try:
        with open(path, "rb", opener=open_unlinked) as file:
            try:
                _try_lock(file)
            except OSError as exc:
                if exc.errno not in _TAKEN:
                    return None
                since = datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC)
                file.seek(0)
                text = file.read(200).decode("utf-8", "replace").strip()
                return Holder(who=text or "another process", since=since)
    except OSError:
        pass
    return None


_TAKEN = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK})

_LOOK_S = 0.05


def _lock_patiently(file: BinaryIO) -> None:
    """Lock; once more after an instant, which is longer than ``holder`` looks."""
    try:
        _lock(file)
    except OSError as exc:
        if exc.errno not in _TAKEN:
            raise
        time.sleep(_LOOK_S)
        _lock(file)


if sys.platform == "win32":
    import msvcrt

    _LOCKED_BYTE = 1 << 30  # far behind the text, which others may then read

    def _lock(file: BinaryIO) -> None:
        file.seek(_LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)

    _try_lock = _lock
else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _try_lock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


STATE_FOLDER = ".asyncpipe"

LEDGER_NAME = "ledger.sqlite3"


def ledger_path(folder: Path) -> Path:
    """Where the ledger of an output folder is."""
    return folder / STATE_FOLDER / LEDGER_NAME


def check_links(folder: Path) -> None:
    """Raise LedgerError where the state folder of an output folder is a link, or holds one."""
    state = folder / STATE_FOLDER
    inside = []
    with suppress(OSError):  # it is not there, or no folder, which others say
        inside = [*state.iterdir()]
    if trouble := link_trouble(state, *inside):
        raise LedgerError(trouble)


def lock_of(folder: Path) -> FolderLock:
    """The lock of an output folder; raises LedgerError where its state lies behind a link."""
    check_links(folder)
    return FolderLock(folder / STATE_FOLDER / "lock")


def choosing_lock(root: Path, job_file: Path, template: object) -> FolderLock:
    """The lock of whoever chooses a folder in ``root`` for a job file: two would choose two."""

    def taken(who: str) -> FolderInUse:
        return FolderInUse(
            f"{who} is about to open a folder of {template} for {job_file}: wait for it to end"
        )

    check_links(root)
    name = hashlib.sha256(os.fsencode(job_file)).hexdigest()[:16]
    return FolderLock(root / STATE_FOLDER / f"choosing-{name}", taken)


def check_unused(path: Path) -> None:
    """Raise LedgerError where a folder shows that the ledger missing at ``path`` has been there."""
    for sign in (path.parent.parent / "manifest.json", path.with_name("ballast")):
        if sign.exists():
            raise LedgerError(
                f"{sign} is there, and the ledger {path} that belongs to it is missing or empty: "
                "it knows what was paid for, without it everything would be bought again. Put it "
                "back (with the files beside it), or choose another folder with --output-dir; if "
                f"nothing was ever bought here, delete {sign}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Which provider a folder's predictions were bought from; a folder belongs to one.

    ``account`` is the provider's own id of the account that bought them; None: not known.
    """

    provider: str
    origin: str
    simulated: bool
    account: str | None = field(default=None, compare=False)  # it has a rule of its own

    def __str__(self) -> str:
        if self.simulated:
            return f"simulator ({self.provider})"
        return f"{self.origin} ({self.provider})"


def read_origin(connection: Connection) -> Origin | None:
    """Which provider a ledger belongs to; None while it has met none."""
    meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    if not meta:
        return None
    return Origin(
        provider=meta.get("provider", "none"),
        origin=meta.get("origin", "none"),
        simulated=meta.get("simulated") == "1",
        account=meta.get("account"),
    )


def check_origin(connection: Connection, origin: Origin, folder: object) -> None:
    """Note the origin of a new ledger; raises UsageError for another one than a folder has."""
    theirs = read_origin(connection)
    if theirs is None:
        ours = {
            "provider": origin.provider,
            "origin": origin.origin,
            "simulated": str(int(origin.simulated)),
        }
        connection.executemany("INSERT INTO meta(key, value) VALUES(?,?)", ours.items())
    elif theirs != origin:
        raise UsageError(
            f"{folder} holds predictions of {theirs}, this run would use {origin}: "
            "choose another folder with --output-dir, or run against the same provider as before"
        )


_BOUGHT = (
    "SELECT EXISTS(SELECT 1 FROM attempts WHERE prediction_id IS NOT NULL OR lost_at IS NOT NULL"
    " OR charged>0 OR reserved>0)"
)


def note_account(connection: Connection, account: str, *, accept: bool) -> str | None:
    """Note which account a folder's predictions are bought with from now on.

    Returns the one noted before, and notes nothing, where that is another: unless ``accept``, or
    nothing was bought yet.
    """
    query = "SELECT value FROM meta WHERE key='account'"
    (theirs,) = connection.execute(query).fetchone() or (None,)
    (bought,) = connection.execute(_BOUGHT).fetchone()
    if bought and theirs not in (None, account) and not accept:
        return str(theirs)
    connection.execute(
        "INSERT INTO meta(key, value) VALUES('account', ?)"
        " ON CONFLICT(key) DO UPDATE SET value=excluded.value",
        (account,),
    )
    return None


def check_account(theirs: str | None, ours: str | None, origin: object, folder: object) -> None:
    """Raise UsageError where a folder's predictions were bought with another account."""
    if theirs is None or ours is None or theirs == ours:
        return
    raise UsageError(
        f"{folder} holds predictions that account {theirs} bought from {origin}, and the key is "
        f"one of account {ours}, which cannot ask for them: use a key of account {theirs}, choose "
        "another folder with --output-dir, or add --same-account (same_account=True) if the one "
        "account has taken over from the other"
    )


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
