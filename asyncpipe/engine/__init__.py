"""The only starter of tasks: jobs are taken in, admitted, submitted, polled and fetched.

``drive`` shows one job's way from beginning to end; ``Pipeline`` is the public face; ``verify``
and ``resolve`` mend a folder.
"""

from asyncpipe.engine.account import ask_account
from asyncpipe.engine.engine import learned_before
from asyncpipe.engine.handles import Handle
from asyncpipe.engine.health import Health, HealthStatus
from asyncpipe.engine.ingest import JobLike, Jobs
from asyncpipe.engine.notices import Notices, notice_of
from asyncpipe.engine.pipeline import Pipeline, ShardWork
from asyncpipe.engine.prune import Pruned, prune
from asyncpipe.engine.resolve import (
    Decision,
    Resolved,
    find_lost,
    resolve,
    take_prediction,
)
from asyncpipe.engine.verify import BadAsset, Verified, verify
from asyncpipe.engine.watch import JobUpdate

__all__ = [
    "BadAsset",
    "Decision",
    "Handle",
    "Health",
    "HealthStatus",
    "JobLike",
    "JobUpdate",
    "Jobs",
    "Notices",
    "Pipeline",
    "Pruned",
    "Resolved",
    "ShardWork",
    "Verified",
    "ask_account",
    "find_lost",
    "learned_before",
    "notice_of",
    "prune",
    "resolve",
    "take_prediction",
    "verify",
]
