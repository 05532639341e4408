"""Run AI image and video jobs in bulk: paid once, nothing lost, every cent accounted for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncpipe.commands import (
        Estimate,
        Validated,
        collect,
        estimate,
        export,
        find_lost,
        prune,
        quote,
        reconcile,
        resolve,
        status,
        take_prediction,
        validate,
        verify,
    )
    from asyncpipe.engine import (
        Handle,
        Health,
        HealthStatus,
        JobUpdate,
        Pipeline,
        Pruned,
        Resolved,
        Verified,
    )
    from asyncpipe.errors import (
        AsyncpipeError,
        DownloadError,
        FolderInUse,
        JobFileError,
        LedgerError,
        ProviderError,
        UsageError,
    )
    from asyncpipe.jobfile import load_jobs
    from asyncpipe.jobs import (
        Deadlines,
        Event,
        Hook,
        Job,
        JobRecord,
        JobState,
        JobType,
        Limits,
        Polling,
    )
    from asyncpipe.pricing import Price, Rate, SpendingLimits
    from asyncpipe.providers import Prediction, PredictionStatus, Provider, connect
    from asyncpipe.providers.atlas import AtlasCloud
    from asyncpipe.providers.fal import Fal
    from asyncpipe.providers.replicate import Replicate
    from asyncpipe.report import (
        Asset,
        JobFailed,
        Manifest,
        Outcome,
        Reason,
        Reconciled,
        Result,
        Status,
        read_manifest,
    )
    from asyncpipe.webhooks import Notify

__version__ = "0.1.0"

__all__ = [
    "Asset",
    "AsyncpipeError",
    "AtlasCloud",
    "Deadlines",
    "DownloadError",
    "Estimate",
    "Event",
    "Fal",
    "FolderInUse",
    "Handle",
    "Health",
    "HealthStatus",
    "Hook",
    "Job",
    "JobFailed",
    "JobFileError",
    "JobRecord",
    "JobState",
    "JobType",
    "JobUpdate",
    "LedgerError",
    "Limits",
    "Manifest",
    "Notify",
    "Outcome",
    "Pipeline",
    "Polling",
    "Prediction",
    "PredictionStatus",
    "Price",
    "Provider",
    "ProviderError",
    "Pruned",
    "Rate",
    "Reason",
    "Reconciled",
    "Replicate",
    "Resolved",
    "Result",
    "SpendingLimits",
    "Status",
    "UsageError",
    "Validated",
    "Verified",
    "collect",
    "connect",
    "estimate",
    "export",
    "find_lost",
    "load_jobs",
    "prune",
    "quote",
    "read_manifest",
    "reconcile",
    "resolve",
    "status",
    "take_prediction",
    "validate",
    "verify",
]

_ROOMS = {
    "Asset": "report",
    "AsyncpipeError": "errors",
    "AtlasCloud": "providers.atlas",
    "Deadlines": "jobs",
    "DownloadError": "errors",
    "Estimate": "commands",
    "Event": "jobs",
    "Fal": "providers.fal",
    "FolderInUse": "errors",
    "Handle": "engine",
    "Health": "engine",
    "HealthStatus": "engine",
    "Hook": "jobs",
    "Job": "jobs",
    "JobFailed": "report",
    "JobFileError": "errors",
    "JobRecord": "jobs",
    "JobState": "jobs",
    "JobType": "jobs",
    "JobUpdate": "engine",
    "LedgerError": "errors",
    "Limits": "jobs",
    "Manifest": "report",
    "Notify": "webhooks",
    "Outcome": "report",
    "Pipeline": "engine",
    "Polling": "jobs",
    "Prediction": "providers",
    "PredictionStatus": "providers",
    "Price": "pricing",
    "Provider": "providers",
    "ProviderError": "errors",
    "Pruned": "engine",
    "Rate": "pricing",
    "Reason": "report",
    "Reconciled": "report",
    "Replicate": "providers.replicate",
    "Resolved": "engine",
    "Result": "report",
    "SpendingLimits": "pricing",
    "Status": "report",
    "UsageError": "errors",
    "Validated": "commands",
    "Verified": "engine",
    "collect": "commands",
    "connect": "providers",
    "estimate": "commands",
    "export": "commands",
    "find_lost": "commands",
    "load_jobs": "jobfile",
    "prune": "commands",
    "quote": "commands",
    "read_manifest": "report",
    "reconcile": "commands",
    "resolve": "commands",
    "status": "commands",
    "take_prediction": "commands",
    "validate": "commands",
    "verify": "commands",
}


if not TYPE_CHECKING:  # with it any misspelled name would pass type checks

    def __getattr__(name: str) -> Any:
        # Names are imported when they are asked for: `asyncpipe --help` must not wait for aiohttp.
        if name not in _ROOMS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
