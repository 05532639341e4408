"""The APIs that are submitted to, polled, and answer URLs.

``base`` is what the engine asks of one; ``atlas`` is Atlas Cloud; ``catalog`` is what a catalogue
of models says. A new provider is a folder beside ``atlas``.
"""

from asyncpipe.providers.base import Prediction, PredictionStatus, Provider, account_of, uploader

__all__ = [
    "Prediction",
    "PredictionStatus",
    "Provider",
    "account_of",
    "uploader",
]
