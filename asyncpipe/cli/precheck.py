"""Before anything is spent: the models and fields of a job file against the live catalogue."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from asyncpipe.catalog import (
    BodyCheck,
    Lookup,
    field_problems,
    read_schema,
    unknown_problems,
    unlisted_fields,
)
from asyncpipe.cli.catalogue import find_models
from asyncpipe.errors import JobFileError, LedgerError, Problem
from asyncpipe.jobfile import JobFile, JobRow
from asyncpipe.ledger.sqlite import ledger_path, reading
from asyncpipe.providers.atlas import AtlasCloud
from asyncpipe.reach import on_loopback
from asyncpipe.report.text import printable
from asyncpipe.schemas import fetch_schemas
from asyncpipe.states import JobState

_UNSPENT = (JobState.PENDING, JobState.CANCELLED)


async def check_models(
    file: JobFile,
    provider: AtlasCloud,
    folder: Path,
    *,
    allow_unknown: bool,
    echo: Callable[[str], None],
) -> None:
    """Raise JobFileError for models the catalogue lacks, and for fields their schemas refuse.

    A catalogue or schema that cannot be had is said in one line and checks nothing. Jobs of
    ``folder`` that were submitted before are left out: what is paid for is finished, whatever the
    catalogue has become since.
    """
    found = await _look_up(file, provider, echo)
    if found is None:
        return
    checks = await _checks(found, provider, echo, allow_unknown=allow_unknown)
    rows, path = file.rows, str(file.path)
    problems = _problems(rows, found, checks, path, allow_unknown=allow_unknown)
    if problems and (rows := _unspent(rows, folder, provider.name)) is not file.rows:
        problems = _problems(rows, found, checks, path, allow_unknown=allow_unknown)
    if problems:
        raise JobFileError(problems)
    for model, names in unlisted_fields(rows, checks).items():
        many = ", ".join(names)
        echo(printable(f"{model}: its schema does not list {many}: may be ignored or refused"))


async def _look_up(
    file: JobFile, provider: AtlasCloud, echo: Callable[[str], None]
) -> dict[str, Lookup] | None:
    """Look every model up; None when there is no catalogue to trust."""
    ids = list(dict.fromkeys(row.job.model for row in file.rows))
    async with provider:
        catalogue, found = await find_models(provider, ids)
    if catalogue.trouble:
        why = f"models and fields are not checked, the catalogue cannot be had: {catalogue.trouble}"
        echo(printable(why))
        return None
    return found


async def _checks(
    found: Mapping[str, Lookup],
    provider: AtlasCloud,
    echo: Callable[[str], None],
    *,
    allow_unknown: bool,
) -> dict[str, BodyCheck]:
    """The checks there are, by the jobs' model ids.

    A job whose model id is only spelled differently is checked as that model, so that all that is
    to be corrected is said at once.
    """
    urls: dict[str, str] = {}
    for each, lookup in found.items():
        model = lookup.model or (None if allow_unknown else lookup.sure)
        if model and model.schema_url:
            urls[each] = model.schema_url
    documents = await fetch_schemas(urls.values(), loopback=on_loopback(provider.origin))
    schemas = {each: read_schema(documents.get(url)) for each, url in urls.items()}
    lacking = [each for each in found if found[each].model and not schemas.get(each)]
    if lacking:
        echo(printable(f"fields are not checked, no schema is to be had: {', '.join(lacking)}"))
    return {each: BodyCheck(schema) for each, schema in schemas.items() if schema}


def _problems(
    rows: Sequence[JobRow],
    found: Mapping[str, Lookup],
    checks: Mapping[str, BodyCheck],
    path: str,
    *,
    allow_unknown: bool,
) -> list[Problem]:
    problems = [] if allow_unknown else unknown_problems(rows, found, path)
    return sorted([*problems, *field_problems(rows, checks, path)], key=lambda each: each.line or 0)


def _unspent(rows: Sequence[JobRow], folder: Path, provider: str) -> Sequence[JobRow]:
    """The rows that a ledger there is has not seen submitted; the same object without one."""
    if not ledger_path(folder).exists():
        return rows
    query = f"SELECT key FROM jobs WHERE state NOT IN ({','.join('?' * len(_UNSPENT))})"
    try:
        with reading(folder) as connection:
            spent = {key for (key,) in connection.execute(query, _UNSPENT)}
    except LedgerError:  # said by the run that opens it
        return rows
    return [row for row in rows if row.job.key(provider) not in spent]
