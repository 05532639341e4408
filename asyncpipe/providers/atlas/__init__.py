"""Atlas Cloud: its paths and its key, and how its answers are read.

``client`` sends, ``reader`` and ``fields`` turn answers into predictions, ``billing`` and
``quote`` read what things cost, ``prices`` is what they cost once.
"""

from asyncpipe.providers.atlas.client import (
    KEY_VARIABLES,
    AtlasCloud,
    connect,
    has_key,
    known_prices,
)

__all__ = [
    "KEY_VARIABLES",
    "AtlasCloud",
    "connect",
    "has_key",
    "known_prices",
]
