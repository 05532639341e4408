"""What a job's files are called: no two jobs share a stem, nor takes one a stranger's file."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from asyncpipe._fs import can_be_named, folded, link_trouble, make_durable, safe_stem
from asyncpipe.errors import LedgerError
from asyncpipe.jobs import JobRecord, JobType, changed
from asyncpipe.ledger.connection import Connection

FLAT_UP_TO = 10_000
"""Jobs of a ledger whose assets lie in one folder; file managers are slow beyond."""

PER_SUBFOLDER = 1000
"""Jobs whose assets share a subfolder, by their ids."""


def claim_stems(
    connection: Connection, records: Sequence[JobRecord], folder: Path | FolderNames
) -> list[JobRecord]:
    """Fix the stem of every record that has none: two jobs never share one, nor a stranger's file.

    A taken stem gets ``-`` and six digits of the job's key; compared without extension, case and
    Unicode form, as the strictest file systems do. In a ledger of more than FLAT_UP_TO jobs stems
    lie in subfolders, which are made.
    """
    bare = [record for record in records if not record.stem]
    if not bare:
        return list(records)
    (last,) = connection.execute("SELECT coalesce(max(id), 0) FROM jobs").fetchone()
    flat = last <= FLAT_UP_TO
    places = {r.id: r.job.kind.folder if flat else subfolder(r) for r in bare}
    names = FolderNames.of(folder)
    names.make(set(places.values()))
    stems = _claim_first(connection, bare, places, names)
    for record in bare:
        if record.id not in stems:
            stems[record.id] = _claim_next(connection, record, places[record.id], names)
    connection.executemany(
        "UPDATE jobs SET stem=? WHERE id=?", ((stem, job_id) for job_id, stem in stems.items())
    )
    return [changed(r, stem=stems[r.id]) if r.id in stems else r for r in records]


PLACES = 8
"""So many folders' names are remembered, those asked for first forgotten first."""

_MADE = {JobType.IMAGE.folder, JobType.VIDEO.folder}
"""What is made with the output folder."""


NamesIn: TypeAlias = Callable[[str], Iterable[str]]
"""Gives the names of what lies in a folder of an output place; runs in the ledger's thread."""


class FolderNames:
    """What lies in an output folder beside our own assets, whatever it ends with.

    Each folder in it is read once: our own names are claimed, and who stores a file never takes
    another's name, so what comes later costs no more than a nicer one. ``taken`` reads where the
    place is none of this machine's disks, which has folders to be made.
    """

    def __init__(self, folder: Path, taken: NamesIn | None = None) -> None:
        self.folder, self._names_in = folder, taken
        self._taken: dict[str, set[str]] = {}

    @classmethod
    def of(cls, folder: Path | FolderNames) -> FolderNames:
        """The names in a folder."""
        return folder if isinstance(folder, FolderNames) else cls(folder)

    def make(self, places: Iterable[str]) -> None:
        """Make folders for assets; raises LedgerError for one that is a symbolic link."""
        for place in places:
            if place in self._taken or self._names_in is not None:
                continue
            if trouble := link_trouble(self.folder / place):
                raise LedgerError(trouble)
            if place not in _MADE:
                make_durable(self.folder, place)

    def has_stranger(self, stem: str) -> bool:
        """Whether there is a file of that name, with any ending."""
        place, _, name = stem.rpartition("/")
        if (taken := self._taken.get(place)) is None:
            taken = self._taken[place] = self._read(place)
            if len(self._taken) > PLACES:
                del self._taken[next(iter(self._taken))]
        return folded(name) in taken

    def _read(self, place: str) -> set[str]:
        if self._names_in is not None:
            return {folded(name.rpartition(".")[0]) for name in self._names_in(place)}
        try:
            with os.scandir(self.folder / place) as entries:
                return {folded(entry.name.rpartition(".")[0]) for entry in entries}
        except FileNotFoundError:
            return set()


_CLAIM = "INSERT INTO stems(folded, job_id) VALUES(?,?) ON CONFLICT(folded) DO NOTHING"

_FLAT = {kind.folder for kind in JobType}


def _claim_first(
    connection: Connection,
    records: Sequence[JobRecord],
    places: Mapping[int, str],
    names: FolderNames,
) -> dict[int, str]:
    """Claim for each job the best of its stems, all at once; those that got theirs, by id."""
    best = {r.id: next(stem_candidates(r, places[r.id])) for r in records}
    rows = [(folded(stem), job_id) for job_id, stem in best.items()]
    if connection.executemany(_CLAIM, rows).rowcount < len(rows):
        for key, job_id in rows:
            owner = connection.execute("SELECT job_id FROM stems WHERE folded=?", (key,))
            if owner.fetchone() != (job_id,):
                del best[job_id]
    return {
        r.id: best[r.id] for r in records if r.id in best and not names.has_stranger(best[r.id])
    }


def _claim_next(connection: Connection, record: JobRecord, place: str, names: FolderNames) -> str:
    """Claim the next best stem that is free."""
    for stem in itertools.islice(stem_candidates(record, place), 1, None):
        cursor = connection.execute(_CLAIM, (folded(stem), record.id))
        if cursor.rowcount and not names.has_stranger(stem):
            return stem
    raise AssertionError("there is always another number")


def subfolder(record: JobRecord) -> str:
    """Where a job's assets go when there are too many for one folder: ``images/0001`` and so on."""
    return f"{record.job.kind.folder}/{(record.id - 1) // PER_SUBFOLDER + 1:04d}"


def stem_candidates(record: JobRecord, place: str) -> Iterator[str]:
    """Stems for a job in the folder ``place`` without end, best first."""
    stem = safe_stem(record.name)
    if not stem or not can_be_named(stem):
        stem = f"{record.job.kind.value}-{record.key[:6]}"
    yield f"{place}/{stem}"
    yield f"{place}/{stem}-{record.key[:6]}"
    yield f"{place}/{record.key}"
    for n in itertools.count(2):  # whoever knows the key can take that name, too
        yield f"{place}/{record.key}-{n}"


def has_namesake(connection: Connection, record: JobRecord) -> bool:
    """Whether the best stem of this job's name is that of another one, which was not withdrawn.

    One whose files lie in a subfolder is not found: names have no index.
    """
    query = (
        "SELECT 1 FROM stems JOIN jobs ON jobs.id=stems.job_id WHERE stems.folded=?"
        " AND jobs.id<>? AND jobs.name=? AND jobs.state<>'cancelled'"
    )
    stems = (folded(next(stem_candidates(record, place))) for place in _FLAT)
    owners = (connection.execute(query, (stem, record.id, record.name)) for stem in stems)
    return any(owner.fetchone() for owner in owners)


def claim_parts(
    connection: Connection,
    record: JobRecord,
    count: int,
    folder: Path | FolderNames,
    word: str = "",
) -> list[str]:
    """Claim ``count`` stems for a job with several outputs: ``name_1``, ``name_2`` … .

    With a ``word`` it stands before the number.
    """
    assert record.stem is not None, "admission fixes the stem"
    place = record.stem.rpartition("/")[0]
    bases, names = (
        itertools.chain([record.stem], stem_candidates(record, place)),
        FolderNames.of(folder),
    )
    for base in bases:
        stems = [f"{base}{word}_{n}" for n in range(1, count + 1)]
        if all([_claim_part(connection, record, stem, names) for stem in stems]):
            return stems
    raise AssertionError("there is always another number")


def _claim_part(connection: Connection, record: JobRecord, stem: str, names: FolderNames) -> bool:
    taken = connection.execute("SELECT job_id FROM stems WHERE folded=?", (folded(stem),))
    if (owner := taken.fetchone()) is not None:
        return bool(owner[0] == record.id)
    if names.has_stranger(stem):
        return False
    connection.execute("INSERT INTO stems(folded, job_id) VALUES(?,?)", (folded(stem), record.id))
    return True
