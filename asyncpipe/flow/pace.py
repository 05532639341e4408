"""How many requests a second one API takes from one key: learned from what it refuses."""

from __future__ import annotations

from dataclasses import dataclass

CUT = 0.7
"""What a refusal leaves of the rate …"""

FIRST_CUT = 0.5
"""… of a rate nobody paced; much may be under way, and at some gateways that counts …"""

CUT_EVERY_S = 0.25
"""… at most so often: requests that were under way belong to the same refusal."""

REGAINED = 1.1
"""A cut before the rate has grown so much since the last is for the same reason: gateways that
count what they refuse go on refusing for a second, and the rate refused then says nothing."""

SHARE = 0.05
"""Fewer refused answers than this are no limit of the rate: some APIs refuse at random."""

EVIDENCE = 3
"""One or two refusals are none either."""

MEMORY = 100
"""Answers that count, roughly."""

QUICK, STEADY, SLOW = 0.5, 0.05, 0.01
"""Growth a second, as a share of the rate that was refused: far below it, below it, beyond it."""

BELOW, NEAR, PAST = 0.85, 0.95, 1.05
"""Where growth becomes steady, slow, and quick again."""

LOWEST = 0.5
"""Requests a second that are always made."""

HEARD_S = 2.0
"""Workers that share a cap look once a second at how many they are; a look may be late."""

LATE_S = 0.01
"""A turn that was taken so much late does not put off the next: timers are not exact."""

FORGOTTEN_S = 60.0
"""Without any refusal for so long there is no limit."""


@dataclass(slots=True)
class Pace:
    """The rate of requests: none (as fast as they come) until one is refused for the rate.

    ``cap`` is the user's own limit in requests a second (None: no limit). Requests are spaced
    evenly, since a burst within the limit of a second may exceed that of a shorter time.
    """

    cap: float | None = None
    rate: float | None = None
    sharers: int = 0  # workers that keep to the cap together; 0: nobody has told of any
    _next: float = 0.0
    _bound: bool = False  # whether the last request had to wait for its turn
    _met: float | None = None  # the rate that was refused
    _left: float = 0.0  # what the last cut left of it
    _cut_at: float = float("-inf")
    _grown_at: float = 0.0
    _answers: float = 0.0
    _refusals: float = 0.0
    _second: float = 0.0  # when the second began that is counted
    _count: int = 0  # requests answered in it
    _before: int = 0  # and in the one before

    @property
    def limit(self) -> float | None:
        """Requests a second that may be made now; None: any number."""
        cap = None if self.cap is None else self.cap / max(self.sharers, 1)
        if self.rate is None or cap is None:
            return cap if self.rate is None else self.rate
        return min(self.rate, cap)

    def ready_at(self, now: float) -> float:
        """When the next request may go; ``now`` without a limit."""
        return now if self.limit is None else max(self._next, now)

    def share(self, workers: int, now: float) -> None:
        """Keep to the cap together with so many workers, ourselves among them.

        Whoever comes to others begins when they have heard of it, and slowed down.
        """
        if self.cap is not None and workers > 1 and not self.sharers:
            self._next = max(self._next, now + HEARD_S)
        self.sharers = max(workers, 1)

    def sent(self, now: float) -> None:
        """A request goes out."""
        if self.limit is not None:
            self._bound = now - self._next <= LATE_S
            self._next = max(self._next, now - LATE_S) + 1 / self.limit

    def answered(self, now: float) -> None:
        """A request was answered, and not refused for the rate."""
        self._note(refused=False)
        elapsed = now - self._second
        if elapsed >= 1.0:
            self._before = self._count if elapsed < 2.0 else 0
            self._second, self._count = now, 0
        self._count += 1
        self._grow(now)

    def refused(self, now: float) -> bool:
        """A request was refused for the rate; returns whether that slows all of them."""
        if now - self._cut_at < CUT_EVERY_S:
            return False
        self._note(refused=True)
        if self._refusals < EVIDENCE - 0.5 or self._refusals < SHARE * self._answers:
            return False
        if self.rate is None:  # nobody knows yet what it takes: begin with what it took
            self._met = max(self._measured(now), LOWEST)
            self.rate = max(self._met * FIRST_CUT, LOWEST)
        else:
            if self.rate >= REGAINED * self._left:
                self._met = self.rate
            self.rate = max(self.rate * CUT, LOWEST)
        self._left = self.rate
        self._cut_at = self._grown_at = now
        self._answers = self._refusals = 0.0
        return True

    def limiting(self, now: float) -> bool:
        """Whether requests were slowed lately, so that what is refused now is for the rate."""
        return self.rate is not None and now - self._cut_at <= 2.0

    def _note(self, *, refused: bool) -> None:
        kept = 1 - 1 / MEMORY
        self._answers = self._answers * kept + 1
        self._refusals = self._refusals * kept + refused

    def _measured(self, now: float) -> float:
        """Requests taken in the last second."""
        share = min(max(now - self._second, 0.0), 1.0)
        return self._before * (1 - share) + self._count

    def _grow(self, now: float) -> None:
        if self.rate is None:
            return
        if now - self._cut_at >= FORGOTTEN_S:
            self.rate = self._met = None
            return
        elapsed = min(now - self._grown_at, 0.1) if self._bound else 0.0
        self._grown_at = now
        if self._met is not None and self.rate > PAST * self._met:
            self._met = None  # more is taken than was
        if self._met is None or self.rate < BELOW * self._met:
            self.rate += QUICK * (self._met or self.rate) * elapsed
        else:
            share = STEADY if self.rate < NEAR * self._met else SLOW
            self.rate += share * self._met * elapsed
