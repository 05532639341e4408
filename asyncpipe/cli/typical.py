"""How long predictions take, as the provider and others state it; nothing of this is measured."""

from __future__ import annotations

from asyncpipe.jobs.job import JobType

_SECONDS: tuple[tuple[str, float, float], ...] = (
    ("flux-2-pro", 5, 10),
    ("seedance", 30, 90),
    ("veo3", 60, 120),
    ("sora", 60, 180),
    ("hailuo", 130, 150),
)
"""Seconds from submit to end, by a word of the model's id (atlas-api §9)."""

_BY_TYPE = {JobType.IMAGE: (10.0, 30.0), JobType.VIDEO: (60.0, 300.0), JobType.AUDIO: (10.0, 60.0)}


def typical_s(model: str, kind: JobType) -> tuple[float, float]:
    """The least and the most seconds that are stated for a model, or for its type."""
    for word, least, most in _SECONDS:
        if word in model.lower():
            return least, most
    return _BY_TYPE[kind]
