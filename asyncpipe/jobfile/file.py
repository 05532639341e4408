"""An opened job file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpipe.jobfile.lazy import JobRow, LazyJobs, LazyRows
from asyncpipe.jobs import Job

if TYPE_CHECKING:
    from asyncpipe.jobfile.settings import RunSettings

EXPANSION = b"1"
"""The version of the rules by which a file becomes jobs; part of every digest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobFile:
    """A job file; ``rows`` holds at least one job, in the file's order.

    The rows of a table or of JSON Lines, and those of templates, are read anew whenever they are
    iterated. ``made_of`` says in words what templates are filled from, ``unused`` which columns
    no template names, ``kept`` which columns of a table of jobs are labels. ``notes`` says what
    the last reading of the rows took for something else than stands there.
    """

    path: Path
    settings: RunSettings
    rows: Sequence[JobRow]
    made_of: str | None = None
    columns: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    notes: Sequence[str] = ()
    digests: tuple[str, ...] = field(default=(), repr=False)

    @property
    def jobs(self) -> Sequence[Job]:
        """The jobs alone, as ``Pipeline.batch_generate`` takes them."""
        if isinstance(self.rows, LazyRows):
            return LazyJobs(self.rows)
        return [row.job for row in self.rows]

    def digest(self, *settings: object) -> str:
        """A hash of the file, its rows and ``settings``: the same ones make the same jobs."""
        parts = [*self.digests, *(repr(setting) for setting in settings)]
        return hashlib.sha256(b"\0".join([EXPANSION, *(p.encode() for p in parts)])).hexdigest()
