"""What budgets of labels and of days have come to, in SQL."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, timedelta

from asyncpipe.jobs import label_of_budget
from asyncpipe.ledger.connection import Connection
from asyncpipe.ledger.queries import labelled

_SUM = "SELECT coalesce(sum(a.charged + a.reserved), 0) FROM attempts a"


def spent_on(connection: Connection, budgets: Collection[str], day: date) -> dict[str, int]:
    """Micro-dollars charged or reserved against budgets, by their names; a day's on ``day``."""
    return {name: _spent_on(connection, name, day) for name in budgets}


def _spent_on(connection: Connection, name: str, day: date) -> int:
    label = label_of_budget(name)
    if label is None:
        query = f"{_SUM} WHERE a.intended_at>=? AND a.intended_at<?"
        values = [day.isoformat(), (day + timedelta(days=1)).isoformat()]
    else:
        where, needle = labelled(*label)
        query = f"{_SUM} JOIN jobs j ON j.id=a.job_id WHERE j.labels IS NOT NULL AND {where}"
        values = [needle]
    (micro,) = connection.execute(query, values).fetchone()
    return int(micro)
