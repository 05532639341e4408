"""Where requests to one API wait for their turn: polls in a row, submits before them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from asyncpipe.flow.pace import Pace

IN_A_ROW = 2
"""Submits that go before a waiting poll."""


class Gate:
    """Turns to send a request, as the pace allows; without a limit everybody goes at once.

    Polls wait here, first come, first served. Only admission submits, and it waits elsewhere as
    well: ``submit_at`` asks for a turn and ``news`` is called when it has come. Polls may be held
    on their own (``hold_polls``), submits go on then.
    """

    def __init__(
        self, pace: Pace, *, clock: Callable[[], float], news: Callable[[], None] = lambda: None
    ) -> None:
        self.pace = pace
        self.news = news
        self.clock = clock
        self._polls: deque[asyncio.Future[None]] = deque()
        self._held = 0.0
        self._wanted = self._granted = False
        self._row = 0
        self._timer: asyncio.Handle | None = None
        self._timer_at = 0.0  # uvloop's handles do not say when they are due

    def share_pace(self, workers: int) -> None:
        """Keep to the user's rate together with so many workers, ourselves among them."""
        self.pace.share(workers, self.clock())

    # -- submits --------------------------------------------------------------------------------

    def submit_free(self) -> bool:
        """Whether a submit may go now; if not, it gets the next turn it is due."""
        if self._granted:
            return True
        now = self.clock()
        if not self._polls and self.pace.ready_at(now) <= now:
            return True
        if self.pace.limit is None:  # polls wait because they are held
            return True
        self._wanted = True
        self._arm()
        return False

    def submit_taken(self) -> None:
        """A submit takes its turn."""
        if self._granted:
            self._granted = False
        else:
            self.pace.sent(self.clock())

    # -- polls ----------------------------------------------------------------------------------

    def hold_polls(self, until: float) -> None:
        """Let no poll go before ``until``."""
        self._held = max(self._held, until)

    async def poll_turn(self) -> None:
        """Wait for the turn of a poll; cancelling gives the place in the row up."""
        now = self.clock()
        if not self._polls and self._poll_at(now) <= now and not self._wanted:
            self.pace.sent(now)
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._polls.append(place)
        self._arm()
        try:
            await place
        except asyncio.CancelledError:
            if place in self._polls:
                self._polls.remove(place)
            raise

    def _poll_at(self, now: float) -> float:
        return max(self.pace.ready_at(now), self._held)

    # -- turns ----------------------------------------------------------------------------------

    def _arm(self) -> None:
        """Set the one timer to the next turn of anybody."""
        now = self.clock()
        if self._wanted:
            at = self.pace.ready_at(now)
        elif self._polls:
            at = self._poll_at(now)
        else:
            return
        if self._timer is not None:
            if self._timer_at <= at and not self._timer.cancelled():
                return
            self._timer.cancel()
        self._timer, self._timer_at = asyncio.get_running_loop().call_at(at, self._turn), at

    def _turn(self) -> None:
        self._timer = None
        now = self.clock()
        while self._wanted or self._polls:
            poll = bool(self._polls) and self._poll_at(now) <= now
            if self.pace.ready_at(now) > now or not (self._wanted or poll):
                break
            self.pace.sent(now)
            if self._wanted and not (poll and self._row >= IN_A_ROW):
                self._row += 1
                self._wanted, self._granted = False, True
                self.news()
            else:
                self._row = 0
                place = self._polls.popleft()
                if not place.done():
                    place.set_result(None)
        self._arm()
