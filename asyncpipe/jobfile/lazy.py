"""Jobs that are read anew from their file each time: none of them stays in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import overload

from asyncpipe.errors import JobFileError, UsageError
from asyncpipe.jobfile.encoding import TextFile
from asyncpipe.jobfile.problems import MOST_PROBLEMS, Problems
from asyncpipe.jobs import Job


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRow:
    """One job, the line its row begins on, and the file of rows where that is not the job file."""

    job: Job
    line: int | None = None
    file: str | None = None


Read = Callable[[Problems], Iterator[JobRow]]


class LazyRows(Sequence[JobRow]):
    """The rows of a file of any length; iterating reads and checks it.

    Iterating raises JobFileError at its end with every problem; no row comes after the first one.
    The first time through, jobs that come twice are found, too. ``source`` is the file they are
    in; it must not change meanwhile.
    """

    def __init__(
        self,
        read: Read,
        file: str,
        *,
        empty: str,
        source: TextFile | None = None,
    ) -> None:
        self._source = source
        self._read, self._file, self._empty = read, file, empty
        self._count: int | None = None

    def __iter__(self) -> Iterator[JobRow]:
        problems = Problems(found=[], file=self._file)
        twice = None if self._count is not None else _Twice()
        count = 0
        for row in self._read(problems):
            count += 1
            if twice is not None:
                twice.look(row, problems)
            if not problems.found:
                yield row
            if len(problems.found) >= MOST_PROBLEMS:
                break
        if self._source is not None and self._source.changed:
            # Its rows would pass for those of the file that was hashed.
            changed = replace(problems, file=str(self._source.path))
            changed.report("has changed since it was looked through: run again when it is whole")
        if count == 0 and not problems.found:
            problems.report(self._empty)
        if twice is not None:
            twice.report(self._read(replace(problems, found=[])), problems)
        if problems.found:
            raise JobFileError(problems.found)
        self._count = count

    def __len__(self) -> int:
        if self._count is None:
            for _ in self:
                pass
        assert self._count is not None
        return self._count

    @overload
    def __getitem__(self, index: int) -> JobRow: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[JobRow]: ...
    def __getitem__(self, index: int | slice) -> JobRow | Sequence[JobRow]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step < 0:
                return list(self)[index]
            return list(islice(self, start, stop, step))
        at = index + len(self) if index < 0 else index
        for row in islice(self, at, at + 1) if at >= 0 else ():
            return row
        raise IndexError(index)


class LazyJobs(Sequence[Job]):
    """The jobs alone of ``rows``, as lazy as they are."""

    def __init__(self, rows: Sequence[JobRow]) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[Job]:
        return (row.job for row in self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Job: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Job]: ...
    def __getitem__(self, index: int | slice) -> Job | Sequence[Job]:
        if isinstance(index, slice):
            return [row.job for row in self._rows[index]]
        return self._rows[index].job


@dataclass(frozen=True, slots=True)
class _Suspect:
    row: JobRow
    n: int


class _Twice:
    """Find jobs that stand in a file twice, without keeping it."""

    def __init__(self) -> None:
        self._seen = Seen()
        self._suspects: dict[str, _Suspect] = {}
        self._n = 0

    def look(self, row: JobRow, problems: Problems) -> None:
        """Take the next row; a job that cannot be told from others is reported."""
        self._n += 1
        try:
            known = self._seen.add(row.job.twin_hash)
        except UsageError as exc:
            problems.report(str(exc), line=row.line)
            return
        if known and len(self._suspects) < MOST_PROBLEMS:
            self._suspects.setdefault(row.job.key(), _Suspect(row, self._n))

    def report(self, rows: Iterator[JobRow], problems: Problems) -> None:
        """Read again, if any is suspected, and report those that are the same indeed."""
        open_keys, told = {*self._suspects}, set[int | None]()
        for n, first in enumerate(rows, start=1):
            if not open_keys:
                return
            key = first.job.key()
            if key not in open_keys:
                continue
            open_keys.discard(key)
            suspect = self._suspects[key]
            if n < suspect.n and (suspect.row.line is None or suspect.row.line not in told):
                told.add(suspect.row.line)
                _report(suspect, first, n, problems)


def _report(suspect: _Suspect, first: JobRow, n: int, problems: Problems) -> None:
    row = suspect.row
    where = f"on line {first.line}" if first.line else f"{n} of the file"
    name = row.job.title(row.job.key())[:80]
    own = Problems(found=problems.found, file=row.file or problems.file, line=row.line, job=name)
    if first.line == row.line and row.line is not None:
        own.report("makes the same job twice: let its name, prompt or another field differ")
    else:
        own.report(f"the same job as {where}: to make several of one, use count:")


def note_row(
    jobs: Sequence[Job], n: int, first: dict[str, tuple[int, int | None]], problems: Problems
) -> None:
    """Report a row that stands for a job some earlier row stands for; once per row.

    ``first`` holds the number and line of the first row of each key.
    """
    earlier: tuple[int, int | None] | None = None
    try:
        keys = [job.key() for job in jobs]
    except UsageError as exc:  # a Job made by hand may hold what JSON has not
        problems.report(str(exc))
        return
    for key in keys:
        known = first.setdefault(key, (n, problems.line))
        if known[0] != n:
            earlier = earlier or known
    if earlier is not None:
        line = f" on line {earlier[1]}" if earlier[1] else ""
        why = f"the same job as job {earlier[0]}{line}"
        problems.report(f"{why}: to make several of one, use count:")


_FEWEST = 1 << 10

_64_BITS = (1 << 64) - 1


class Seen:
    """A set of hashes of 64 bits: 16 to 32 bytes each, a million in 16 MiB."""

    def __init__(self) -> None:
        self._count = 0
        self._make(_FEWEST)

    def _make(self, size: int) -> None:
        self._mask = size - 1
        self._slots = memoryview(bytearray(8 * size)).cast("Q")

    def add(self, value: int) -> bool:
        """Take a hash; whether it was here before."""
        value = value & _64_BITS or 1
        slots, at = self._slots, value & self._mask
        while (there := slots[at]) != 0:
            if there == value:
                return True
            at = (at + 1) & self._mask
        slots[at] = value
        self._count += 1
        if self._count * 3 > len(slots) * 2:
            self._grow()
        return False

    def _grow(self) -> None:
        old = self._slots
        self._make(2 * len(old))
        slots, mask = self._slots, self._mask
        for value in old:
            if value:
                at = value & mask
                while slots[at]:
                    at = (at + 1) & mask
                slots[at] = value
