"""What a program may do with a pipeline that runs: hold it, let it go on, empty it, set it anew."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal

from asyncpipe.engine.engine import Engine, EngineSettings
from asyncpipe.engine.tickets import Ticket
from asyncpipe.errors import AsyncpipeError, UsageError
from asyncpipe.jobs import JobState, Limits, check_whole
from asyncpipe.pricing import checked_cap


class Unsaid:
    """What an option is that nobody said: None says something, that there is no limit."""


UNSAID = Unsaid()


@dataclass(frozen=True, slots=True)
class Controls:
    """The controls of one opened pipeline."""

    engine: Engine

    def pause(self) -> None:
        """Submit nothing until ``go``; what was submitted goes on, the rest waits."""
        self.engine.admission.paused = True
        self.engine.waits.note("pause", AsyncpipeError("submitting is paused: go() goes on"))
        self._look()

    def go(self) -> None:
        """Submit again, whatever had paused, drained or stopped it."""
        engine = self.engine
        engine.admission.paused = False
        engine.waits.end("pause")
        engine.stops.go()
        engine.take_up_soon()
        self._look()

    async def drain(self, grace_s: float | None) -> list[Ticket]:
        """Submit nothing more, and wait for what was; return what is left after the grace."""
        self.engine.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self.idle()
        return [t for t in self.engine.tickets.values() if t.state is not JobState.PENDING]

    async def idle(self) -> None:
        """Wait until nothing is under way that could go on."""
        tickets = self.engine.tickets
        while self._busy():
            await tickets.change()

    def _busy(self) -> bool:
        engine, paused = self.engine, self.engine.admission.paused
        if engine.taking_up or any(
            ticket.state is not JobState.PENDING or not (paused or engine.stops.of(ticket.record))
            for ticket in engine.tickets.values()
        ):
            return True
        return not paused and engine.admission.draws

    def set(self, settings: EngineSettings) -> None:
        """Go by other settings from now on."""
        engine, before = self.engine, self.engine.settings
        if settings.limits.window != before.limits.window:
            raise UsageError("limits.window: it is chosen when the pipeline is opened")
        if engine.shared is not None and settings.spending != before.spending:
            raise UsageError("max_cost: of a shared ledger it is said when the pipeline is opened")
        engine.set(settings)
        if settings.spending.max_cost != before.spending.max_cost:
            self.go_if_it_fits()
        self._look()

    def go_if_it_fits(self) -> None:
        """Take up again what did not fit into the budget."""
        engine = self.engine
        engine.stops.forget_budget()
        engine.take_up_soon()

    def _look(self) -> None:
        self.engine.news.set()
        self.engine.tickets.tell_change()


def changed(
    settings: EngineSettings,
    *,
    max_workers: int | None,
    max_cost: Decimal | Unsaid | None,
    limits: Limits | None,
) -> EngineSettings:
    """The settings with what is said changed; raises UsageError naming what is wrong. Pure."""
    if max_workers is not None:
        check_whole("max_workers", max_workers, 1)
        settings = replace(settings, workers=max_workers)
    if not isinstance(max_cost, Unsaid):
        if max_cost is not None:
            checked_cap(max_cost)
        settings = replace(settings, spending=replace(settings.spending, max_cost=max_cost))
    if limits is not None:
        settings = replace(settings, limits=limits)
    return settings
