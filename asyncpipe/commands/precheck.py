"""Before anything is spent: the models and fields of a job file against the live catalogue."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from itertools import islice

from asyncpipe._text import printable
from asyncpipe.errors import Problem
from asyncpipe.http import on_loopback
from asyncpipe.jobfile import LONGEST_MESSAGE, MOST_PROBLEMS, JobFile, JobRow
from asyncpipe.jobs import Job
from asyncpipe.providers import DEFAULT_PROVIDER, Provider
from asyncpipe.providers.catalog import (
    BodyCheck,
    Catalogue,
    Lookup,
    fetch_schemas,
    find_models,
    read_schema,
)


class CatalogueCheck:
    """Look at rows one by one: models the catalogue lacks, fields their schemas refuse.

    A catalogue or schema that cannot be had is said in one line and checks nothing. Jobs that are
    not ``wanted`` are left out: what is paid for is finished, whatever the catalogue has become
    since.
    """

    def __init__(
        self,
        file: JobFile,
        provider: Provider,
        wanted: Callable[[Job], bool],
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
            str(file.path), wanted, allow_unknown=allow_unknown, provider=provider.name
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


class RowCheck:
    """Check rows one by one; ``wanted`` tells whether a job is still to be bought.

    It is asked only where one is refused.

    ``unlisted`` holds, by model, the fields that its schema neither lists nor forbids.
    """

    def __init__(
        self,
        file: str,
        wanted: Callable[[Job], bool],
        *,
        allow_unknown: bool = False,
        provider: str = DEFAULT_PROVIDER,
    ) -> None:
        self._provider = provider
        self._file, self._wanted, self._allow_unknown = file, wanted, allow_unknown
        self._found: dict[str, Lookup] = {}
        self._checks: dict[str, BodyCheck] = {}
        self._unknown: dict[str, Problem] = {}
        self._faults: dict[tuple[str | None, int | None, str], Problem] = {}
        self.unlisted: dict[str, dict[str, None]] = {}

    def learn(self, found: Mapping[str, Lookup], checks: Mapping[str, BodyCheck]) -> None:
        """Take what is known of some models, by the jobs' model ids."""
        self._found.update(found)
        self._checks.update(checks)

    def look(self, row: JobRow) -> None:
        """Check one row; equal faults of a row count once, an unknown model at its first job."""
        model = row.job.model
        lookup = self._found.get(model)
        if lookup is None:
            return
        unknown = lookup.model is None and not self._allow_unknown
        if unknown and model not in self._unknown and self._wanted(row.job):
            self._unknown[model] = self._problem(row, _unknown(lookup))
        if (check := self._checks.get(model)) is not None:
            body = row.job.body
            if faults := check.faults(body):
                self._refuse(row, faults)
            for name in check.unlisted(body):
                self.unlisted.setdefault(model, {})[name] = None

    def _refuse(self, row: JobRow, faults: Iterable[str]) -> None:
        if len(self._faults) >= MOST_PROBLEMS or not self._wanted(row.job):
            return
        for text in faults:
            place = (row.file, row.line, text)
            if place not in self._faults:
                self._faults[place] = self._problem(row, text)

    def problems(self) -> list[Problem]:
        """All that is wrong, by line."""
        found = [*self._unknown.values(), *islice(self._faults.values(), MOST_PROBLEMS)]
        return sorted(found, key=lambda problem: problem.line or 0)

    def _problem(self, row: JobRow, text: str) -> Problem:
        if len(text) > LONGEST_MESSAGE:
            text = f"{text[:LONGEST_MESSAGE]}…"
        name = row.job.title(row.job.key(self._provider))
        file = row.file or self._file
        return Problem(message=text, file=file, line=row.line, job=name[:80])


def _unknown(lookup: Lookup) -> str:
    said = f"model: {lookup.id!r} is not in the provider's catalogue"
    if lookup.near:
        return f"{said}: did you mean {' or '.join(repr(each) for each in lookup.near)}?"
    maker, _, name = lookup.id.partition("/")
    word = next(iter(re.findall(r"[A-Za-z]{2,}", name or maker)), "")
    look = f"asyncpipe models --search {word}" if word else "asyncpipe models"
    return f"{said}, nor is any like it: look with `{look}`, or use --allow-unknown-models"
