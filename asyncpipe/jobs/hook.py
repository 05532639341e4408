"""What a program gives to hear of events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from asyncpipe.jobs.events import Event
from asyncpipe.jobs.record import JobRecord

Hook = Callable[[Event, JobRecord], Awaitable[None] | None]
"""Called once for every event, with the job as it stands after it; sync, or async and awaited.

An object's methods ``on_open(pipeline)`` and ``on_close()``, sync or async, are called when the
pipeline is open, and when it has closed.
"""
