"""Ask the provider what jobs cost: once per price key, bounded, and without it if need be."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import partial
from itertools import islice
from typing import Protocol, runtime_checkable

import anyio

from asyncpipe._tasks import Retries, once_more, provider_code, retrying
from asyncpipe.errors import (
    CannotConnect,
    ProviderError,
    RateLimited,
    Rejected,
    SubmitStopped,
    without_numbers,
)
from asyncpipe.jobs import Job
from asyncpipe.pricing.money import MOST_USD
from asyncpipe.pricing.price import Prices
from asyncpipe.pricing.quotes import Quote, QuoteBook, price_key


@runtime_checkable
class HasQuotes(Protocol):
    """What a provider may have besides: it says beforehand what a job will cost."""

    async def quote(self, job: Job) -> Quote:
        """Ask what a submit would cost; buys nothing.

        Raises Rejected when there is no quote for this job, SubmitStopped when there are none at
        all, and any other ProviderError when asking again may help.
        """


logger = logging.getLogger("asyncpipe.quoting")

AT_ONCE = 8
"""Quotes that are asked for at once, of one model; and of all, but for those that are slow."""

SLOW_S = 1.0
"""After so many seconds without an answer a quote holds up no other any more."""

QUOTE_S = 10.0
"""Longest wait for one quote, second tries included."""

FILL_S = 60.0
"""Longest wait for all that are asked for in one go."""

RETRIES = Retries(attempts=3, initial_s=0.5)

LONGEST_WISH_S = 5.0
"""The longest Retry-After that is waited for: prices are worth no more."""

FRESH_S = 3600.0
"""How long a quote holds in a process that lives long."""

AGAIN_S = 600.0
"""When a quote that was not to be had is asked for again."""

IN_A_ROW = 3
"""After so many failures of a model without any answer between them nothing more is asked of it for
a while; after failures of so many models, nothing at all."""

MOST_NAMED = 3

MOST_KEPT = 10_000
"""Price keys that are remembered, the latest, and reasons; an older one is asked for again."""

Tell = Callable[[str], None]


@dataclass(kw_only=True, slots=True)
class _Lot:
    """What is asked for in one go: what has no answer yet, and why models have no quote."""

    left: dict[bytes, Job]
    told: Callable[[], None] | None
    lacking: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


class _Silence:
    """Of which models nothing is asked for a while: failures in a row, without any answer.

    Those of one model speak of it alone; those of as many models, and a refusal of all, of all.
    """

    def __init__(self) -> None:
        self._failed: dict[str, int] = {}  # in a row, by model, since an answer came
        self._until: dict[str | None, tuple[float, str]] = {}

    def why(self, model: str) -> str | None:
        """Why nothing is asked of a model now, or None."""
        for each in (None, model):
            until, why = self._until.get(each, (-1.0, ""))
            if _clock() < until:
                return why
        return None

    def heard(self, model: str, answer: Quote | ProviderError) -> None:
        """Note an answer."""
        if isinstance(answer, Quote | Rejected):
            self._failed.clear()
            return
        self._failed[model] = self._failed.get(model, 0) + 1
        if isinstance(answer, SubmitStopped) or len(self._failed) >= IN_A_ROW:
            self._fall(None, str(answer))
        elif self._failed[model] >= IN_A_ROW:
            self._fall(model, str(answer))

    def _fall(self, model: str | None, why: str) -> None:
        self._until = {each: told for each, told in self._until.items() if told[0] > _clock()}
        self._until[model] = _clock() + AGAIN_S, why
        self._failed.clear()


class Quotes:
    """Ask for quotes and hold them in ``quotes``; a provider without any is never asked.

    ``want`` notes what is to be asked, ``fill`` asks it. What cannot be had is told to ``tell``
    once per reason and model; then prices come from the price books. Nothing here raises for a
    quote that is not to be had, but for CannotConnect, and nothing here costs money.
    """

    def __init__(self, provider: object, *, tell: Tell = logger.warning) -> None:
        self.quotes: QuoteBook = QuoteBook()
        self.asked: int = 0
        self._provider = provider if isinstance(provider, HasQuotes) else None
        self._tell = tell
        self._told: set[tuple[str, str]] = set()
        self._wanted: dict[bytes, Job] = {}
        self._asking: dict[bytes, Job] = {}
        self._due: dict[bytes, float] = {}
        self._silent = _Silence()
        self._lots: list[anyio.Event] = []  # those that are being asked for
        self._turns = asyncio.Semaphore(AT_ONCE)
        self.refusal: SubmitStopped | None = None
        """Why no quote was to be had at all when one was asked for last, or None."""

    def ask_of(self, provider: object) -> None:
        """Ask another one from now on; what is known stays."""
        self._provider = provider if isinstance(provider, HasQuotes) else None

    @property
    def wanted(self) -> bool:
        """Whether ``fill`` has something to ask."""
        return bool(self._wanted)

    def want(self, job: Job) -> bool:
        """Note a job whose quote is to be asked; False when nothing is to be asked for it now."""
        if self._provider is None:
            return False
        key, clock = price_key(job), _clock()
        if key in self._wanted or key in self._asking:
            return True
        if clock < self._due.get(key, -1.0) or self._silent.why(job.model) is not None:
            return False
        self._wanted[key] = job
        return True

    async def fill(self, *, limit_s: float = FILL_S) -> None:
        """Ask for everything wanted; what has no answer within ``limit_s`` is done without.

        Returns when others who ask at the moment are done, too: it may be what we want.
        """
        others = list(self._lots)
        await self.ask(limit_s=limit_s)
        for other in others:
            await other.wait()

    async def ask(self, *, limit_s: float = FILL_S, told: Callable[[], None] | None = None) -> None:
        """Like ``fill``, and wait for nobody else; ``told`` is called after each answer.

        Raises CannotConnect.
        """
        wanted, self._wanted = self._wanted, {}
        if not wanted:
            return
        done = anyio.Event()
        self._lots.append(done)
        self._asking.update(wanted)
        self._forget(len(wanted))
        lot = _Lot(left=dict(wanted), told=told)
        try:
            with anyio.move_on_after(limit_s):
                await self._ask_all(lot)
            for key, job in [*lot.left.items()]:
                late = self._silent.why(job.model) or f"no answer within {limit_s:g} s"
                self._settle(lot, key, ProviderError(late))
            for why, models in lot.lacking.items():
                self._tell(_remark(sorted(models), why))
        finally:
            for key in wanted:
                self._asking.pop(key, None)
            self._lots.remove(done)
            done.set()
        if isinstance(self.refusal, CannotConnect):
            raise self.refusal

    async def _ask_all(self, lot: _Lot) -> None:
        """Ask for a lot, the models side by side: one whose quotes hang holds up no other."""
        models: dict[str, list[tuple[bytes, Job]]] = defaultdict(list)
        for key, job in lot.left.items():
            models[job.model].append((key, job))
        lefts = {model: iter(pairs) for model, pairs in models.items()}
        async with anyio.create_task_group() as tasks:
            for n in range(AT_ONCE):
                for model, pairs in models.items():
                    if n < len(pairs):
                        name = f"asyncpipe quote {n + 1} of {model}"
                        tasks.start_soon(self._ask_each, lefts[model], lot, name=name)

    async def _ask_each(self, left: Iterator[tuple[bytes, Job]], lot: _Lot) -> None:
        for key, job in left:
            async with self._turn():
                if self._silent.why(job.model) is not None:
                    return
                answer = await self._ask(job)
            self._silent.heard(job.model, answer)
            self.refusal = answer if isinstance(answer, SubmitStopped) else None
            self._settle(lot, key, answer)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait for a turn; one who takes longer than SLOW_S holds up nobody else any more."""
        await self._turns.acquire()
        over = False

        def end() -> None:
            nonlocal over
            if not over:
                over = True
                self._turns.release()

        timer = asyncio.get_running_loop().call_later(SLOW_S, end)
        try:
            yield
        finally:
            timer.cancel()
            end()

    async def _ask(self, job: Job) -> Quote | ProviderError:
        """One quote, or why there is none."""
        last = ProviderError(f"no quote came within {QUOTE_S:g} s")

        async def keep(error: ProviderError, failures: int, pause_s: float) -> float:
            nonlocal last
            last = error
            return pause_s

        once = partial(once_more, partial(self._once, job))
        try:
            with anyio.move_on_after(QUOTE_S):
                return await retrying(
                    once, RETRIES, on=ProviderError, again=_may_come, between=keep
                )
        except ProviderError as exc:
            return exc
        return last

    async def _once(self, job: Job) -> Quote:
        assert self._provider is not None, "only then is anything wanted"
        self.asked += 1
        with provider_code("a quote", logger=logger, action="quote.failed"):
            return _sane(await self._provider.quote(job))

    def _settle(self, lot: _Lot, key: bytes, answer: Quote | ProviderError) -> None:
        """Keep what came, and note, to be said once, what did not."""
        job, clock = lot.left.pop(key), _clock()
        self._asking.pop(key, None)
        self._due.pop(key, None)  # what is asked last is forgotten last
        if isinstance(answer, Quote) and not answer.listed:
            self.quotes.add(key, answer)
            self._due[key] = clock + FRESH_S
        else:
            self._due[key] = clock + AGAIN_S
            if key not in self.quotes:  # an older one tells more than a table or a list
                self._do_without(lot, key, job, answer)
        if lot.told is not None:
            lot.told()

    def _do_without(self, lot: _Lot, key: bytes, job: Job, answer: Quote | ProviderError) -> None:
        """Take what is listed in a quote's place, if anything is, and note what to say of it."""
        if isinstance(answer, Quote):
            self.quotes.add(key, answer)
            why = answer.unquoted
        else:
            why = str(answer)
        if (known := (without_numbers(why), job.model)) not in self._told:
            self._told.add(known)
            lot.lacking[why].add(job.model)

    def _forget(self, coming: int) -> None:
        """Make room: a service whose jobs are all different must not remember each of them."""
        for key in [*islice(self._due, max(len(self._due) + coming - MOST_KEPT, 0))]:
            del self._due[key]
            self.quotes.drop(key)
        if len(self._told) >= MOST_KEPT:
            self._told.clear()


def _sane(quote: Quote) -> Quote:
    """A quote that a budget can be held by: of a nonsense, or of nothing, it would leak."""
    told: object = quote
    if not isinstance(told, Quote) or not isinstance(told.asked_at, datetime):
        raise ProviderError(f"{told!r:.80} is no quote")
    amount: object = quote.amount
    finite = isinstance(amount, Decimal) and amount.is_finite()
    if finite and 0 <= quote.amount <= MOST_USD and (quote.amount > 0 or quote.free):
        return quote
    raise ProviderError(f"a quote of {amount!r} USD is no price")


def _may_come(error: ProviderError) -> bool:
    """Whether the same quote is worth being asked for again, and soon."""
    if isinstance(error, Rejected | SubmitStopped):
        return False
    if isinstance(error, RateLimited) and error.retry_after_s is not None:
        return error.retry_after_s <= LONGEST_WISH_S
    # A page that says no will say so again.
    return error.status is None or error.status >= 500 or error.status in (408, 429)


async def ask_unpriced(quoting: Quotes, prices: Prices, jobs: Iterable[Job]) -> None:
    """Ask for quotes of those jobs that no price book can price."""
    if [job for job in jobs if prices.lacks(job) and quoting.want(job)]:
        await quoting.fill()


def _remark(models: list[str], why: str) -> str:
    left = len(models) - MOST_NAMED
    more = f" and {left} more models" if left > 0 else ""
    named = ", ".join(models[:MOST_NAMED])
    return f"no quote for {named}{more}, priced from files, tables and lists instead: {why}"


def _clock() -> float:
    return asyncio.get_running_loop().time()
