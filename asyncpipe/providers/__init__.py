"""The APIs asyncpipe can buy from: the protocol, and Atlas Cloud."""

from __future__ import annotations
