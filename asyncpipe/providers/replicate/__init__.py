"""Replicate: its paths and its key, and how its answers are read.

``client`` sends, ``models`` tells the forms of a model apart, ``reader`` and ``outputs`` turn
answers into predictions, ``history`` reads the list of them.
"""

from asyncpipe.providers.replicate.client import KEY_VARIABLES, Replicate, connect, has_key

__all__ = ["KEY_VARIABLES", "Replicate", "connect", "has_key"]
