"""The commands as functions: they return data, print nothing, and raise what went wrong.

The command line is a thin caller of them; ``asyncpipe.sync`` has them without ``await``.
"""

from asyncpipe.commands.estimate import (
    Costs,
    Estimate,
    ask_all,
    estimate,
    quote,
    surveyed,
    with_balance,
)
from asyncpipe.commands.folder import (
    Folder,
    Rows,
    collect,
    export,
    find_lost,
    prune,
    reconcile,
    reconcile_with,
    resolve,
    status,
    take_prediction,
    verify,
)
from asyncpipe.commands.jobs import Jobs
from asyncpipe.commands.precheck import CatalogueCheck
from asyncpipe.commands.survey import Survey, Wanted, prices_of, survey_rows, told
from asyncpipe.commands.validate import Validated, look_over, validate, validated

__all__ = [
    "CatalogueCheck",
    "Costs",
    "Estimate",
    "Folder",
    "Jobs",
    "Rows",
    "Survey",
    "Validated",
    "Wanted",
    "ask_all",
    "collect",
    "estimate",
    "export",
    "find_lost",
    "look_over",
    "prices_of",
    "prune",
    "quote",
    "reconcile",
    "reconcile_with",
    "resolve",
    "status",
    "survey_rows",
    "surveyed",
    "take_prediction",
    "told",
    "validate",
    "validated",
    "verify",
    "with_balance",
]
