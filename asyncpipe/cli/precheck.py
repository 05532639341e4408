"""Before anything is spent: the models and fields of a job file against the live catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from sqlite3 import Connection

from asyncpipe._text import printable
from asyncpipe.catalog.rows import RowCheck
from asyncpipe.errors import LedgerError, Problem
from asyncpipe.http.hosts import on_loopback
from asyncpipe.jobfile.load import JobFile
from asyncpipe.jobfile.validate import JobRow
from asyncpipe.jobs.states import JobState
from asyncpipe.ledger.database import reading
from asyncpipe.ledger.folder import ledger_path
from asyncpipe.providers.atlas.client import AtlasCloud
from asyncpipe.providers.catalog.body import BodyCheck
from asyncpipe.providers.catalog.live import Catalogue, fetch_schemas, find_models
from asyncpipe.providers.catalog.models import Lookup
from asyncpipe.providers.catalog.schema import read_schema

_UNSPENT = (JobState.PENDING, JobState.CANCELLED)


class ModelCheck:
    """Look at rows one by one: models the catalogue lacks, fields their schemas refuse.

    A catalogue or schema that cannot be had is said in one line and checks nothing. Jobs of
    ``folder`` that were submitted before are left out: what is paid for is finished, whatever the
    catalogue has become since.
    """

    def __init__(
        self,
        file: JobFile,
        provider: AtlasCloud,
        folder: Path,
        *,
        allow_unknown: bool,
        echo: Callable[[str], None],
    ) -> None:
        self._provider, self._allow_unknown, self._echo = provider, allow_unknown, echo
        # All at once where that costs no pass: schemas are then fetched beside each other.
        self._coming = {r.job.model for r in file.rows} if isinstance(file.rows, list) else set()
        self._catalogue: Catalogue | None = None
        self._known: set[str] = set()
        self._rows = RowCheck(
            str(file.path), _Spent(folder, provider.name), allow_unknown=allow_unknown
        )

    async def look(self, row: JobRow) -> None:
        """Look at one row; a model that is new is looked up first."""
        model = row.job.model
        if model not in self._known:
            await self._learn({model, *self._coming} - self._known)
        self._rows.look(row)

    @property
    def checked(self) -> bool:
        """Whether there was a catalogue to check against: else it is to be done another time."""
        return self._catalogue is not None and not self._catalogue.trouble

    def problems(self) -> list[Problem]:
        """What was found, by line; says which fields no schema lists."""
        if found := self._rows.problems():
            return found
        for model, names in self._rows.unlisted.items():
            many = ", ".join(names)
            self._echo(
                printable(f"{model}: its schema does not list {many}: may be ignored or refused")
            )
        return []

    async def _learn(self, models: Iterable[str]) -> None:
        ids = sorted(models)
        self._known.update(ids)
        self._coming = set()
        if self._catalogue is not None and self._catalogue.trouble:
            return
        async with self._provider:
            self._catalogue, found = await find_models(self._provider, ids, self._catalogue)
        if self._catalogue.trouble:
            self._echo(
                printable(
                    "models and fields are not checked, the catalogue cannot be had: "
                    f"{self._catalogue.trouble}"
                )
            )
            return
        self._rows.learn(found, await self._checks(found))

    async def _checks(self, found: Mapping[str, Lookup]) -> dict[str, BodyCheck]:
        """The checks there are, by the jobs' model ids.

        A job whose model id is only spelled differently is checked as that model, so that all that
        is to be corrected is said at once.
        """
        urls: dict[str, str] = {}
        for each, lookup in found.items():
            model = lookup.model or (None if self._allow_unknown else lookup.sure)
            if model and model.schema_url:
                urls[each] = model.schema_url
        loopback = on_loopback(self._provider.origin)
        documents = await fetch_schemas(urls.values(), loopback=loopback)
        schemas = {each: read_schema(documents.get(url)) for each, url in urls.items()}
        lacking = [each for each in found if found[each].model and not schemas.get(each)]
        if lacking:
            many = ", ".join(lacking)
            self._echo(printable(f"fields are not checked, no schema is to be had: {many}"))
        return {each: BodyCheck(schema) for each, schema in schemas.items() if schema}


class _Spent:
    """Whether a job was submitted before, by a folder's ledger; asked only where one is refused."""

    def __init__(self, folder: Path, provider: str) -> None:
        self._folder, self._provider = folder, provider
        self._keys: set[str] | None = None

    def __call__(self, row: JobRow) -> bool:
        if self._keys is None:
            self._keys = self._read()
        return row.job.key(self._provider) in self._keys

    def _read(self) -> set[str]:
        if not ledger_path(self._folder).exists():
            return set()
        try:
            with reading(self._folder) as connection:
                return _spent(connection)
        except LedgerError:  # said by the run that opens it
            return set()


def _spent(connection: Connection) -> set[str]:
    query = f"SELECT key FROM jobs WHERE state NOT IN ({','.join('?' * len(_UNSPENT))})"
    return {key for (key,) in connection.execute(query, _UNSPENT)}
