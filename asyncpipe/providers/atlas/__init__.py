"""Atlas Cloud: its paths and its key, and how its answers are read.

``client`` sends, ``reader`` and ``fields`` turn answers into predictions, ``billing`` and
``quote`` read what things cost.
"""

from asyncpipe.providers.atlas.billing import read_bill
from asyncpipe.providers.atlas.client import AtlasCloud, has_key

__all__ = [
    "AtlasCloud",
    "has_key",
    "read_bill",
]
