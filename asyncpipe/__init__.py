"""Run AI image and video jobs in bulk: paid once, nothing lost, every cent accounted for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncpipe.engine import Handle, JobUpdate, Pipeline
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
    from asyncpipe.jobs import Deadlines, Event, Job, JobRecord, JobState, JobType, Limits, Polling
    from asyncpipe.pricing import Rate, SpendingLimits
    from asyncpipe.providers import Prediction, PredictionStatus, Provider
    from asyncpipe.providers.atlas import AtlasCloud
    from asyncpipe.providers.fal import Fal
    from asyncpipe.providers.replicate import Replicate
    from asyncpipe.report import Asset, Manifest, Outcome, Result, read_manifest

__version__ = "0.1.0"

__all__ = [
    "Asset",
    "AsyncpipeError",
    "AtlasCloud",
    "Deadlines",
    "DownloadError",
    "Event",
    "Fal",
    "FolderInUse",
    "Handle",
    "Job",
    "JobFileError",
    "JobRecord",
    "JobState",
    "JobType",
    "JobUpdate",
    "LedgerError",
    "Limits",
    "Manifest",
    "Outcome",
    "Pipeline",
    "Polling",
    "Prediction",
    "PredictionStatus",
    "Provider",
    "ProviderError",
    "Rate",
    "Replicate",
    "Result",
    "SpendingLimits",
    "UsageError",
    "load_jobs",
    "read_manifest",
]

_ROOMS = {
    "Asset": "report",
    "AsyncpipeError": "errors",
    "AtlasCloud": "providers.atlas",
    "Deadlines": "jobs",
    "DownloadError": "errors",
    "Event": "jobs",
    "Fal": "providers.fal",
    "FolderInUse": "errors",
    "Handle": "engine",
    "Job": "jobs",
    "JobFileError": "errors",
    "JobRecord": "jobs",
    "JobState": "jobs",
    "JobType": "jobs",
    "JobUpdate": "engine",
    "LedgerError": "errors",
    "Limits": "jobs",
    "Manifest": "report",
    "Outcome": "report",
    "Pipeline": "engine",
    "Polling": "jobs",
    "Prediction": "providers",
    "PredictionStatus": "providers",
    "Provider": "providers",
    "ProviderError": "errors",
    "Rate": "pricing",
    "Replicate": "providers.replicate",
    "Result": "report",
    "SpendingLimits": "pricing",
    "UsageError": "errors",
    "load_jobs": "jobfile",
    "read_manifest": "report",
}


if not TYPE_CHECKING:  # with it any misspelled name would pass type checks

    def __getattr__(name: str) -> Any:
        # Names are imported when they are asked for: `asyncpipe --help` must not wait for aiohttp.
        if name not in _ROOMS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
