"""Shards of jobs through a task queue that is there already: Celery or Redis Queue.

``core`` is what any queue needs and knows none of them; ``celery`` and ``rq`` are thin adapters,
found by their names. Through the broker go an output place and a number, nothing else: jobs, money
and settings are in the ledger, whose URL every worker is told by its own command.
"""

from asyncpipe.queues.core import WorkerSettings, queue_of, shown
from asyncpipe.queues.settings import PlaceSettings

__all__ = [
    "PlaceSettings",
    "WorkerSettings",
    "queue_of",
    "shown",
]
