"""Run AI image and video jobs in bulk: paid once, nothing lost, every cent accounted for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncpipe.engine.pipeline import Pipeline
    from asyncpipe.errors import (
        AsyncpipeError,
        DownloadError,
        FolderInUse,
        JobFileError,
        LedgerError,
        ProviderError,
        UsageError,
    )
    from asyncpipe.jobfile.load import load_jobs
    from asyncpipe.jobs.job import Job, JobType
    from asyncpipe.jobs.settings import Deadlines, Polling
    from asyncpipe.jobs.states import JobState
    from asyncpipe.pricing.rates import Rate
    from asyncpipe.providers.atlas.client import AtlasCloud
    from asyncpipe.providers.base import Prediction, PredictionStatus, Provider
    from asyncpipe.report.manifest import Manifest, read_manifest
    from asyncpipe.report.results import Asset, Outcome, Result

__version__ = "0.1.0"

__all__ = [
    "Asset",
    "AsyncpipeError",
    "AtlasCloud",
    "Deadlines",
    "DownloadError",
    "FolderInUse",
    "Job",
    "JobFileError",
    "JobState",
    "JobType",
    "LedgerError",
    "Manifest",
    "Outcome",
    "Pipeline",
    "Polling",
    "Prediction",
    "PredictionStatus",
    "Provider",
    "ProviderError",
    "Rate",
    "Result",
    "UsageError",
    "load_jobs",
    "read_manifest",
]

_HOMES = {
    "Asset": "report.results",
    "AsyncpipeError": "errors",
    "AtlasCloud": "providers.atlas.client",
    "Deadlines": "jobs.settings",
    "DownloadError": "errors",
    "FolderInUse": "errors",
    "Job": "jobs.job",
    "JobFileError": "errors",
    "JobState": "jobs.states",
    "JobType": "jobs.job",
    "LedgerError": "errors",
    "Manifest": "report.manifest",
    "Outcome": "report.results",
    "Pipeline": "engine.pipeline",
    "Polling": "jobs.settings",
    "Prediction": "providers.base",
    "PredictionStatus": "providers.base",
    "Provider": "providers.base",
    "ProviderError": "errors",
    "Rate": "pricing.rates",
    "Result": "report.results",
    "UsageError": "errors",
    "load_jobs": "jobfile.load",
    "read_manifest": "report.manifest",
}


def __getattr__(name: str) -> Any:
    # Names are imported when they are asked for: `asyncpipe --help` must not wait for aiohttp.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
