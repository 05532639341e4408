"""A provider with limits nobody is told, and clients that retry each for themselves."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Protocol

from asyncpipe.errors import PollFailed, RateLimited
from asyncpipe.jobs.job import Job
from asyncpipe.providers.base import Prediction, PredictionStatus
from asyncpipe.testing import PIXEL, FakeProvider

ARTICLE_TRIES = 3


class Rate(Protocol):
    """A limit of the rate of requests."""

    def allows(self, now: float) -> bool:
        """Whether a request at ``now`` is taken; counts it."""


@dataclass(slots=True)
class Bucket:
    """``rate`` tokens a second, at most a second's worth; refused requests cost none."""

    rate: float
    _tokens: float = math.inf
    _at: float = 0.0

    def allows(self, now: float) -> bool:
        """Take a token if there is one."""
        self._tokens = min(self._tokens + (now - self._at) * self.rate, self.rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@dataclass(slots=True)
class Sliding:
    """``rate`` requests in any second; refused ones count as well, as at many gateways."""

    rate: float
    _times: deque[float] = field(default_factory=deque)

    def allows(self, now: float) -> bool:
        """Count the last second's requests."""
        while self._times and self._times[0] <= now - 1:
            self._times.popleft()
        self._times.append(now)
        return len(self._times) <= self.rate


@dataclass(kw_only=True)
class Limited(FakeProvider):
    """A provider that takes ``in_flight`` predictions at once (a number, or by the time).

    Generation times are lognormal; a request takes ``answer_s`` seconds, a submit ``submit_s``.
    With ``wish_s`` a refusal carries Retry-After. ``chance`` is the share of submits that are
    refused whatever is in flight.
    """

    median_s: float
    sigma: float = 0.6
    submit_s: float = 0.3
    answer_s: float = 0.05
    in_flight: Callable[[float], float] = lambda _: math.inf
    rate: Rate | None = None
    wish_s: float | None = None
    chance: float = 0.0
    seed: int = 1
    sent: list[tuple[float, bool]] = field(default_factory=list)  # submits: when, and if refused
    requests: int = 0
    refusals: int = 0
    running: int = 0
    curve: list[tuple[float, int]] = field(default_factory=list)  # when, and how many run then
    _ends: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rng, self._by_chance = Random(self.seed), Random(self.seed + 1)

    async def submit(self, job: Job) -> Prediction:
        """Take it, or refuse it for one of the limits."""
        await asyncio.sleep(self.submit_s * self._rng.uniform(0.7, 1.3))
        loop = asyncio.get_running_loop()
        full = self.running >= self.in_flight(loop.time())
        refused = not self._in_rate(loop.time()) or full or self._by_chance.random() < self.chance
        self.sent.append((loop.time(), refused))
        if refused:
            raise RateLimited("too many", retry_after_s=self.wish_s)
        takes_s = self._rng.lognormvariate(math.log(self.median_s), self.sigma)
        prediction_id = f"p{len(self._ends)}"
        self._ends[prediction_id] = loop.time() + takes_s
        self._count(1)
        loop.call_later(takes_s, self._count, -1)
        return Prediction(id=prediction_id)

    def _count(self, change: int) -> None:
        self.running += change
        self.curve.append((asyncio.get_running_loop().time(), self.running))

    def _in_rate(self, now: float) -> bool:
        allowed = self.rate is None or self.rate.allows(now)
        self.requests += 1
        self.refusals += not allowed
        return allowed

    async def poll(self, prediction_id: str, *, route: str = "") -> Prediction:
        """Tell whether it has ended, unless there are too many requests."""
        await asyncio.sleep(self.answer_s * self._rng.uniform(0.7, 1.3))
        now = asyncio.get_running_loop().time()
        if not self._in_rate(now):
            raise PollFailed("too many", status=429, retry_after_s=self.wish_s)
        if now < self._ends[prediction_id]:
            return Prediction(id=prediction_id)
        done = PredictionStatus.COMPLETED
        return Prediction(id=prediction_id, status=done, outputs=(PIXEL,))


Wait = Callable[[int, float | None, Random], float]
"""How long a client waits after its n-th refusal in a row, told a wish or none."""

PRIVATE: dict[str, Wait] = {
    "fixed 1 s": lambda n, wish, rng: 1.0,
    "Retry-After only": lambda n, wish, rng: wish or 1.0,
    "exponential": lambda n, wish, rng: min(0.5 * 2.0**n, 30.0),
    "exponential, full jitter": lambda n, wish, rng: rng.uniform(0, min(0.5 * 2.0**n, 30.0)),
    "Retry-After + jitter": lambda n, wish, rng: (wish or 1.0) * rng.uniform(1.0, 2.0),
    "the article's three tries": lambda n, wish, rng: 4.0 * 2.0 ** (n - 1),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a herd of clients came to."""

    done: int
    lost: int
    seconds: float


async def run_private(
    provider: Limited, *, name: str, jobs: int, at_once: int, gaps: Sequence[float], limit_s: float
) -> Outcome:
    """Run jobs whose clients retry each for itself; stop after ``limit_s``."""
    wait, rng, loop = PRIVATE[name], Random(2), asyncio.get_running_loop()
    tries = ARTICLE_TRIES if name.startswith("the article") else None
    places, done, lost, last = asyncio.Semaphore(at_once), 0, 0, 0.0

    async def ask(request: Callable[[], Awaitable[Prediction]]) -> Prediction | None:
        refused = 0
        while True:
            try:
                return await request()
            except (RateLimited, PollFailed) as exc:
                refused += 1
                if refused == tries:
                    return None
                await asyncio.sleep(wait(refused, exc.retry_after_s, rng))

    async def one(number: int) -> None:
        nonlocal done, lost, last
        async with places:
            job = Job(name=f"{number}", model="m/text-to-image", prompt="a mug")
            answer = await ask(lambda: provider.submit(job))
            polls = 0
            while answer is not None and answer.status is PredictionStatus.RUNNING:
                poll = partial(provider.poll, answer.id)
                await asyncio.sleep(gaps[min(polls, len(gaps) - 1)] * rng.uniform(0.9, 1.1))
                answer, polls = await ask(poll), polls + 1
        done, lost = done + (answer is not None), lost + (answer is None)
        last = loop.time()

    herd = [asyncio.ensure_future(one(n)) for n in range(jobs)]
    _, late = await asyncio.wait(herd, timeout=limit_s)
    for client in late:
        client.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    return Outcome(done=done, lost=lost, seconds=limit_s if late else last)
