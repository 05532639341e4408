"""fal's queue: its paths and its key, and how its answers are read.

``client`` sends, ``routes`` says where, ``answer`` and ``reader`` turn answers into predictions,
``outputs`` finds media in them, ``history`` reads the list of requests, ``money`` what things cost.
"""

from asyncpipe.providers.fal.client import KEY_VARIABLES, Fal, connect, has_key

__all__ = ["KEY_VARIABLES", "Fal", "connect", "has_key"]
