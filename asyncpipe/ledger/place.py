"""Where an output place's record is: in the folder itself, or in a ledger that many share."""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import orjson

from asyncpipe._fs import cache_folder, whole_file
from asyncpipe.errors import DiskError, LedgerError, UsageError
from asyncpipe.jobs import BucketUrl, OutputPlace
from asyncpipe.ledger import database
from asyncpipe.ledger.asset_names import NamesIn
from asyncpipe.ledger.folder import STATE_FOLDER, Origin, ledger_path, lock_of, make_folders
from asyncpipe.ledger.protocol import Ledger, LedgerReader, SharedLedger

LEDGER_VARIABLE = "ASYNCPIPE_LEDGER"
"""The environment's word for the address of a shared ledger."""

_SCHEMES = ("postgresql://", "postgres://")

MARK_NAME = "place"

_MISSING = "a shared ledger needs psycopg: pip install 'asyncpipe[postgres]'"

_CHOSEN: ContextVar[tuple[str | None, str | None]] = ContextVar("_CHOSEN", default=(None, None))


def choose(url: str | None, name: str | None) -> None:
    """Say for this context which ledger and place are meant where nothing else is said."""
    _CHOSEN.set((url, name))


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedPlace:
    """An output place in a shared ledger: its name there, and where files go.

    That is ``bucket`` where it is one, and then ``folder`` is this machine's own for what is no
    asset. ``url`` is the ledger's address, which may hold a password: never print it.
    """

    folder: Path
    url: str
    name: str
    bucket: BucketUrl | None = None

    def __str__(self) -> str:
        if self.bucket is not None:
            return str(self.bucket)
        return f"{self.folder} (place {self.name})"


Where: TypeAlias = Path | BucketUrl | SharedPlace
"""An output folder with a ledger of its own, or a place in a shared one; a bucket is always one."""


def folder_of(where: Where) -> Path:
    """The folder that files go to; of a bucket this machine's own, for what is no asset."""
    if isinstance(where, BucketUrl):
        return _own_folder(where)
    return where.folder if isinstance(where, SharedPlace) else where


def bucket_of(where: Where) -> BucketUrl | None:
    """The bucket that files go to, or None."""
    return where.bucket if isinstance(where, SharedPlace) else None


def _own_folder(bucket: BucketUrl) -> Path:
    """Where this machine keeps what belongs to a bucket and is no asset, as a simulator's books."""
    base = cache_folder() or Path(tempfile.gettempdir())
    return base / "asyncpipe" / "places" / hashlib.sha256(str(bucket).encode()).hexdigest()[:16]


def where_of(
    folder: OutputPlace, url: str | None = None, name: str | None = None
) -> Path | SharedPlace:
    """Say where a folder's record is, by what it says itself and what the user said.

    ``url`` is a shared ledger's address (default: what was chosen, or that of ASYNCPIPE_LEDGER for
    folders without a ledger of their own), ``name`` that of the place in it: by default the folder
    as it was named, so that the same command on another machine is at the same place. Raises
    UsageError where they disagree.
    """
    chosen_url, chosen_name = _CHOSEN.get()
    url, name = url or chosen_url, name or chosen_name
    if isinstance(folder, BucketUrl):
        return _place_in(folder, url, name)
    own, mark = ledger_path(folder).exists(), _mark(folder)
    if url is None and not own:
        url = os.environ.get(LEDGER_VARIABLE) or None
    if url is None:
        if mark is not None and not own:
            raise UsageError(
                f"{folder} belongs to the place {mark['place']} of a shared ledger: say which with "
                f"--ledger postgresql://… or {LEDGER_VARIABLE}"
            )
        if name is not None:
            raise UsageError(f"--place {name} is a place in a shared ledger: say --ledger, too")
        return folder
    if not url.startswith(_SCHEMES):
        raise UsageError("--ledger must be the address of a PostgreSQL database: postgresql://…")
    if own:
        raise UsageError(
            f"{folder} has a ledger of its own, which knows what was paid for: go on without "
            "--ledger, or choose another folder with --output-dir"
        )
    known = mark["place"] if mark is not None else None
    if known is not None and name is not None and known != name:
        raise UsageError(f"{folder} belongs to the place {known}, not to {name} (--place)")
    return SharedPlace(folder=folder, url=url, name=known or name or str(folder))


def resolved(where: Where) -> Path | SharedPlace:
    """Say where the record of a folder or bucket is; see ``where_of``."""
    return where if isinstance(where, SharedPlace) else where_of(where)


def _place_in(bucket: BucketUrl, url: str | None, name: str | None) -> SharedPlace:
    """The place whose files go to a bucket."""
    url = url or os.environ.get(LEDGER_VARIABLE) or None
    if url is None:
        raise UsageError(
            f"{bucket} is a bucket, and what was paid for is recorded in a ledger: say which "
            f"database keeps it with --ledger postgresql://… or {LEDGER_VARIABLE}, or choose a "
            "folder with --output-dir"
        )
    if not url.startswith(_SCHEMES):
        raise UsageError("--ledger must be the address of a PostgreSQL database: postgresql://…")
    return SharedPlace(folder=_own_folder(bucket), url=url, name=name or str(bucket), bucket=bucket)


def _mark(folder: Path) -> dict[str, str] | None:
    """What a folder says of the place it belongs to."""
    path = folder / STATE_FOLDER / MARK_NAME
    try:
        mark = orjson.loads(path.read_bytes())
        return {"place": str(mark["place"]), "store": str(mark["store"])}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise LedgerError(
            f"{path} cannot be read ({exc}): it says which place of a shared ledger this folder "
            "belongs to; put it back, or name another folder with --output-dir"
        ) from exc


def has_record(folder: Path) -> bool:
    """Whether a folder has a ledger of its own, or says which place of a shared one it belongs to.

    Raises LedgerError where that cannot be read.
    """
    return ledger_path(folder).exists() or _mark(folder) is not None


def mark(place: SharedPlace) -> str:
    """Note in a folder which place it belongs to; return the name of the folder as a store.

    Raises DiskError where it cannot be written.
    """
    if place.bucket is not None:
        return str(place.bucket)
    known = _mark(place.folder)
    if known is not None:
        return known["store"]
    # For people to find it; what tells it from others stays with the folder when that is moved.
    store = f"{socket.gethostname()}:{place.folder.absolute()} ({uuid.uuid4().hex[:6]})"
    path = place.folder / STATE_FOLDER / MARK_NAME
    try:
        with whole_file(path) as file:
            file.write(orjson.dumps({"place": place.name, "store": store}))
    except OSError as exc:
        raise DiskError(f"{path} cannot be written ({exc.strerror or exc})") from exc
    after = _mark(place.folder)
    assert after is not None, "it was written"
    return after["store"]


def reading(where: Where) -> AbstractContextManager[LedgerReader]:
    """Open a ledger read-only, beside whoever may be writing it: one moment of it.

    Raises LedgerError when there is none or it cannot be read, UsageError where a folder belongs to
    a shared ledger and nobody says which.
    """
    where = resolved(where)
    if isinstance(where, SharedPlace):
        try:
            from asyncpipe.ledger.postgres import read_place
        except ImportError as exc:
            raise UsageError(_MISSING) from exc
        return read_place(where.url, where.name)
    return database.reading(where)


def origin_of(where: Where) -> Origin:
    """Which provider a place's predictions were bought from; raises LedgerError without ledger."""
    with reading(where) as ledger:
        return ledger.origin() or Origin(provider="none", origin="none", simulated=False)


def place_names(place: SharedPlace) -> list[str]:
    """The names of all places in the ledger of ``place``; raises LedgerError without it."""
    try:
        from asyncpipe.ledger import postgres
    except ImportError as exc:
        raise UsageError(_MISSING) from exc
    return postgres.place_names(place.url)


def place_settings(url: str, place: str) -> dict[str, Any] | None:
    """What was kept for the workers of a place, or None where there is none.

    Raises LedgerError when the database cannot be reached.
    """
    try:
        from asyncpipe.ledger import postgres
    except ImportError as exc:
        raise UsageError(_MISSING) from exc
    return postgres.place_settings(url, place)


def open_shared(
    place: SharedPlace,
    origin: Origin | None,
    *,
    lease_s: float = 30.0,
    cap: int | None = None,
    budgets: Mapping[str, int] | None = None,
    taken: NamesIn | None = None,
    on_gone: Callable[[Collection[int]], None] = lambda ids: None,
) -> AbstractAsyncContextManager[SharedLedger]:
    """Enter a place as a worker, whose folder the caller has made; leave it at the end.

    ``cap`` is the most micro-dollars that may be committed, ``budgets`` are those of labels and of
    days, ``on_gone`` hears of jobs that other
    workers have by now, ``taken`` says which names are in a bucket's folder. Raises LedgerError
    when the database cannot be reached, or is of another version; UsageError when the address is
    wrong, the extra is missing, or the place belongs to another ``origin``.
    """
    try:
        from asyncpipe.ledger.postgres import open_place
    except ImportError as exc:
        raise UsageError(_MISSING) from exc
    return open_place(
        place.url,
        place.name,
        place.folder,
        origin,
        lease_s=lease_s,
        cap=cap,
        budgets=budgets,
        store=mark(place),
        taken=taken,
        on_gone=on_gone,
    )


@asynccontextmanager
async def mending(where: Where, origin: Origin | None = None) -> AsyncIterator[Ledger]:
    """Open a ledger to change what is in it; ``origin`` is for work that asks a provider.

    In a shared one only jobs that no other worker has can be changed. Raises FolderInUse while a
    run holds the folder, LedgerError where there is no ledger, and what ``open_shared`` does.
    """
    where = resolved(where)
    if isinstance(where, SharedPlace):
        with reading(where):  # raises where there is none
            pass
        if where.bucket is None:
            make_folders(where.folder, [STATE_FOLDER])
        async with open_shared(where, origin) as shared:
            yield shared
        return
    if not ledger_path(where).exists():
        raise LedgerError(f"{where} has no ledger: no run has used it as its output folder")
    with lock_of(where):
        async with database.open_ledger(where, origin) as ledger:
            yield ledger
