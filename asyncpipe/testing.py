"""For tests of pipelines, yours and ours: virtual time, and a provider that follows a script.

A test of a service needs no network, no key, and no patience::

    >>> from decimal import Decimal
    >>> from tempfile import TemporaryDirectory
    >>> from asyncpipe import Pipeline
    >>> from asyncpipe.errors import RateLimited
    >>> async def main() -> str:
    ...     provider = FakeAccount(
    ...         prices={"demo/text-to-image": Decimal("0.04")},
    ...         scripts={"mug": Script(submits=[RateLimited("429")], generation_s=120.0)},
    ...     )
    ...     job = {"name": "mug", "model": "demo/text-to-image", "prompt": "a mug"}
    ...     with TemporaryDirectory() as folder:
    ...         async with Pipeline(provider, folder, min_free_bytes=0) as pipeline:
    ...             result = await pipeline.generate(job)
    ...     return f"{result.outcome}: {result.cost:.2f} USD, {provider.money} are left"
    >>> run_virtual(main())
    'succeeded: 0.04 USD, 99.96 are left'

Whoever writes a provider has ``check_provider`` try it.
"""

from __future__ import annotations

import asyncio
import selectors
import tempfile
from base64 import b64decode
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Mapping,
    Sequence,
)
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from asyncpipe.errors import (
    BalanceExhausted,
    HistoryUnavailable,
    PollFailed,
    PredictionGone,
    ProviderError,
    Rejected,
    SubmitUnknown,
)
from asyncpipe.jobs import Job, JobType, now
from asyncpipe.pricing import HasBalance, HasBill, HasQuotes, PriceBook, Quote
from asyncpipe.providers import (
    DEFAULT_PROVIDER,
    HasAccountId,
    HasHistory,
    Listed,
    Prediction,
    PredictionStatus,
    Provider,
    Uploader,
    account_of,
    known_prices,
)
from asyncpipe.providers.catalog import CatalogModel, HasCatalogue

T = TypeVar("T")

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "YPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
"""A whole picture of one pixel, as a URL that needs no server."""

SAMPLES = {
    JobType.IMAGE: PIXEL,
    JobType.VIDEO: "data:video/mp4;base64,AAAAGGZ0eXBpc29tAAAAAAAAAAAAAAAAAAAACG1vb3Y=",
    JobType.AUDIO: "data:audio/wav;base64,UklGRgQAAABXQVZF",
}
"""The least that passes for a file of each kind of job."""

GRACE_S = 0.002
"""How long sockets get to answer before time jumps, in real seconds."""

STUCK_S = 10.0
"""After how many real seconds without any timer or answer a virtual loop gives up."""


class _VirtualSelector(selectors.DefaultSelector):
    """Waits in virtual time, unless a thread works: then it really waits for the thread."""

    now = 0.0
    holds = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout == 0:
            return super().select(0)
        if self.holds:
            return super().select(STUCK_S)
        sockets = len(self.get_map()) > 1  # one is the loop's own
        ready = super().select(GRACE_S if sockets else 0)
        if ready:
            return ready
        if timeout is None:
            ready = super().select(STUCK_S)
            if not ready:
                raise RuntimeError("every coroutine waits and nothing will wake any of them")
            return ready
        self.now += timeout
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer as soon as everybody waits.

    It stands still while a thread of an executor works, so that a file or ledger write takes no
    time at all instead of hours. Sleeping an hour takes no time; loopback sockets work.
    """

    def __init__(self) -> None:
        self._virtual = _VirtualSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._virtual.now

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Hold the clock until ``func`` has returned."""
        self._virtual.holds += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._release)
        return future

    def _release(self, _: asyncio.Future[Any]) -> None:
        self._virtual.holds -= 1


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` like ``asyncio.run``, in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


@dataclass(frozen=True, kw_only=True, slots=True)
class Script:
    """How a provider treats one job.

    ``submits`` are raised, one per submit, before one is accepted; so many after them are bought
    and ``lost``: SubmitUnknown is raised all the same. ``polls`` are raised or
    answered, one per poll, before the truth is told: running until ``generation_s`` after the
    submit, then ``end``. ``submit_s`` is how long a submit takes, ``charged`` what the provider
    says at the end that it cost, in USD; PIXEL among ``outputs`` stands for the least file of the
    job's kind; ``prediction_id`` the id it answers, if not one of its
    own.
    """

    submits: Sequence[ProviderError] = ()
    lost: int = 0
    polls: Sequence[ProviderError | Prediction] = ()
    generation_s: float = 10.0
    submit_s: float = 0.0
    end: PredictionStatus = PredictionStatus.COMPLETED
    outputs: tuple[str, ...] = (PIXEL,)
    error: str | None = None
    moderated: bool = False
    released: bool | None = True
    charged: Decimal | None = None
    prediction_id: str | None = None


class _AnswerLost(SubmitUnknown):
    """Bought, and nobody is told."""


@dataclass(slots=True)
class _Made:
    script: Script
    ready: float
    polls: list[ProviderError | Prediction]


@dataclass(kw_only=True)
class FakeProvider:
    """A provider that follows ``scripts`` (by job name; ``default`` for the others).

    It counts what it sells: ``sold`` names the job of every prediction, ``peak_in_flight`` is the
    most it worked on at once. ``uploads`` holds the path of every file it took, ``submitted`` every
    job as it came; ``upload_errors`` are raised first, one per upload, and one takes ``upload_s``.
    ``listed`` is its history, newest last, which it shows with ``shows_history``, each after
    ``history_lag_s``; without, it has none. A test may add to it what others bought. ``price_book``
    is what is known of its prices: the built-in ones unless told.
    """

    scripts: Mapping[str, Script] = field(default_factory=dict)
    default: Script = field(default_factory=Script)
    name: str = DEFAULT_PROVIDER
    origin: str = "fake"
    retention_s: float = 14 * 86_400.0
    simulated: bool = True
    account: str = ""
    price_book: PriceBook | None = field(default_factory=partial(known_prices, simulated=True))
    sold: list[str] = field(default_factory=list)
    submits: int = 0
    polls: int = 0
    peak_in_flight: int = 0
    uploads: list[Path] = field(default_factory=list)
    upload_errors: list[ProviderError] = field(default_factory=list)
    upload_s: float = 0.0
    submitted: list[Job] = field(default_factory=list)
    shows_history: bool = False
    history_lag_s: float = 0.0
    histories: int = 0
    listed: list[Listed] = field(default_factory=list)
    _shown_at: dict[str, float] = field(default_factory=dict)
    _lost: dict[str, int] = field(default_factory=dict)
    _made: dict[str, _Made] = field(default_factory=dict)
    _refusals: dict[str, list[ProviderError]] = field(default_factory=dict)
    _working: list[_Made] = field(default_factory=list)

    async def submit(self, job: Job) -> Prediction:
        """Accept, or raise what the script says."""
        self.submits += 1
        self.submitted.append(job)
        name = job.name or job.prompt
        script = self.scripts.get(name, self.default)
        refusals = self._refusals.setdefault(name, list(script.submits))
        await asyncio.sleep(script.submit_s)
        if refusals:
            raise refusals.pop(0)
        clock = asyncio.get_running_loop().time()
        prediction_id = script.prediction_id or f"p{len(self.sold) + 1}"
        self.sold.append(name)
        outputs = tuple(SAMPLES[job.kind] if url == PIXEL else url for url in script.outputs)
        script = replace(script, outputs=outputs)
        made = _Made(script, clock + script.generation_s, list(script.polls))
        self._made[prediction_id] = made
        self._working = [each for each in (*self._working, made) if each.ready > clock]
        self.peak_in_flight = max(self.peak_in_flight, len(self._working))
        self._shown_at[prediction_id] = clock + self.history_lag_s
        self.listed.append(
            Listed(id=prediction_id, created=now(), model=job.model, body=self.body_of(job))
        )
        if self._lost.setdefault(name, script.lost):
            self._lost[name] -= 1
            raise _AnswerLost("the connection was lost before the answer came")
        return Prediction(id=prediction_id)

    async def history(
        self, since: datetime, until: datetime, *, models: Collection[str] = ()
    ) -> AsyncIterator[Sequence[Listed]]:
        """Show what was bought since, of all models, two a page."""
        self.histories += 1
        if not self.shows_history:
            raise HistoryUnavailable("this provider has no history", status=404)
        clock = asyncio.get_running_loop().time()
        shown = [
            each
            for each in reversed(self.listed)
            if each.created >= since and self._shown_at.get(each.id, clock) <= clock
        ]
        for start in range(0, len(shown), 2):
            await asyncio.sleep(0)
            yield shown[start : start + 2]

    def body_of(self, job: Job) -> Mapping[str, Any]:
        """What the job says."""
        return job.body

    def route_of(self, job: Job) -> str:
        """None: its predictions are all polled alike."""
        return ""

    async def upload(self, path: Path) -> str:
        """Take a file, or raise what the script says."""
        self.uploads.append(path)
        await asyncio.sleep(self.upload_s)
        if self.upload_errors:
            raise self.upload_errors.pop(0)
        return f"https://fake.example/{len(self.uploads)}/{path.name}"

    async def poll(self, prediction_id: str, *, route: str = "") -> Prediction:
        """Tell how a prediction stands."""
        self.polls += 1
        made = self._made.get(prediction_id)
        if made is None:
            raise PredictionGone(f"no prediction {prediction_id}", status=404)
        if made.polls:
            said = made.polls.pop(0)
            if isinstance(said, ProviderError):
                raise said
            return said
        if asyncio.get_running_loop().time() < made.ready:
            return Prediction(id=prediction_id, said="processing")
        script = made.script
        return Prediction(
            id=prediction_id,
            status=script.end,
            outputs=script.outputs if script.end is PredictionStatus.COMPLETED else (),
            error=script.error,
            moderated=script.moderated,
            released=script.released,
            charged=script.charged,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None


@dataclass(kw_only=True)
class FakeAccount(FakeProvider):
    """One that also quotes ``prices`` (USD by model) and has ``money`` to spend, in USD.

    A submit that is accepted costs its price, one that there is not enough money for raises
    BalanceExhausted. Models without a price have no quote and cost nothing. ``quoted`` holds every
    job that a quote was asked for.
    """

    prices: Mapping[str, Decimal] = field(default_factory=dict)
    money: Decimal = Decimal(100)
    quoted: list[Job] = field(default_factory=list)

    async def quote(self, job: Job) -> Quote:
        """The price of the job's model; raises Rejected where there is none."""
        self.quoted.append(job)
        if job.model not in self.prices:
            raise Rejected(f"no quote for {job.model}", status=404)
        return Quote(amount=self.prices[job.model], asked_at=now())

    async def balance(self) -> Decimal:
        """What is left."""
        return self.money

    async def submit(self, job: Job) -> Prediction:
        """Accept and take the money, or raise what the script says, or BalanceExhausted."""
        price = self.prices.get(job.model, Decimal(0))
        if price > self.money:
            raise BalanceExhausted(f"{self.money} USD are left", status=402)
        self.money -= price  # before any wait: two submits must not spend the same
        try:
            return await super().submit(job)
        except _AnswerLost:
            raise
        except BaseException:
            self.money += price
            raise


NOBODYS = "no-prediction-of-anybody"
"""An id that ``check_provider`` asks for in vain."""


async def check_provider(
    provider: Provider, job: Job, *, poll_s: float = 1.0, within_s: float = 600.0
) -> Prediction:
    """Try whether a provider does what the engine relies on; buys one prediction of ``job``.

    ``provider`` is entered here, twice. Returns how the prediction ended, which it must within
    ``within_s`` seconds, polled every ``poll_s``. Raises AssertionError with the rule that is
    broken, and the provider's own error where it refuses the job.
    """
    _rule(isinstance(provider, Provider), "it has everything that a Provider has")
    _rule(provider.name.isidentifier(), "its name is one word, since it is part of every job's key")
    _rule(bool(provider.origin), "it says where it is")
    _rule(isinstance(provider.simulated, bool), "it says whether its money is real")
    _rule(isinstance(account_of(provider), str), "its account is a word")
    async with provider:
        async with provider:
            pass
        # Still open: of two that entered it one has left.
        bought = await provider.submit(job)
        _check_prediction(bought)
        running = bought.status is PredictionStatus.RUNNING
        _rule(bool(bought.id) or not running, "a prediction that runs has an id")
        end = await _end_of(provider, bought, poll_s, within_s) if running else bought
        await _check_nobodys(provider)
        await _check_capabilities(provider, job)
    return end


def _rule(kept: bool, rule: str) -> None:
    if not kept:
        raise AssertionError(f"broken: {rule}")


def _check_prediction(one: Prediction) -> None:
    _rule(isinstance(one, Prediction), "submit and poll return a Prediction")
    _rule(isinstance(one.status, PredictionStatus), "its status is one of three")
    schemes = ("http://", "https://", "data:")
    outputs: tuple[object, ...] = one.outputs
    _rule(
        all(isinstance(url, str) and url.startswith(schemes) for url in outputs),
        "outputs are http, https or data URLs",
    )
    _rule(one.released in (True, False, None), "released is True, False or None")
    _rule(one.charged is None or _is_amount(one.charged), "charged is an amount as Decimal")


def _is_amount(amount: object) -> bool:
    return isinstance(amount, Decimal) and amount.is_finite()


async def _end_of(
    provider: Provider, bought: Prediction, poll_s: float, within_s: float
) -> Prediction:
    """Poll to the end; a poll may fail, and may not yet know the prediction."""
    async with asyncio.timeout(within_s):
        while True:
            try:
                said = await provider.poll(bought.id, route=bought.route)
            except (PollFailed, PredictionGone):
                await asyncio.sleep(poll_s)
                continue
            _check_prediction(said)
            _rule(said.id == bought.id, "a poll keeps the id it was asked for")
            if said.status is PredictionStatus.FAILED or said.outputs:
                break
            await asyncio.sleep(poll_s)
    again = await provider.poll(bought.id, route=bought.route)
    _rule(again.status is said.status, "an end stays the end, however often it is asked for")
    return said


async def _check_nobodys(provider: Provider) -> None:
    try:
        said: object = await provider.poll(NOBODYS)
    except (PredictionGone, PollFailed):
        return
    _rule(False, f"an id that is nobody's is no prediction, and not {said!r}")


async def _check_capabilities(provider: object, job: Job) -> None:
    """Ask for what it can do besides: an answer of the right kind, or a ProviderError."""
    if isinstance(provider, HasQuotes):
        quote = await _or_none(provider.quote(job))
        _rule(quote is None or _is_amount(quote.amount), "a quote is an amount as Decimal")
    if isinstance(provider, HasBalance):
        balance = await _or_none(provider.balance())
        _rule(balance is None or _is_amount(balance), "a balance is an amount as Decimal")
    if isinstance(provider, HasAccountId):
        account: object = await _or_none(provider.account_id())
        named = account is None or (isinstance(account, str) and account != "")
        _rule(named, "an account's id is a word")
    if isinstance(provider, HasBill):
        days = [now().date() - timedelta(days=n) for n in range(2)]
        bill = await _or_none(provider.bill(days))
        _rule(bill is None or set(bill.days) <= {*days}, "a bill is of the days it is asked for")
    if isinstance(provider, HasCatalogue):
        models = await _or_none(provider.catalog()) or ()
        _rule(all(isinstance(m, CatalogModel) for m in models), "a catalogue lists models")
    if isinstance(provider, HasHistory):
        _rule(provider.body_of(job).get("model") == job.model, "a request's body names its model")
        pages = await _or_none(_pages(provider)) or ()
        _rule(all(each.created.tzinfo for each in pages), "listed predictions have a time in UTC")
    if isinstance(provider, Uploader):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "pixel.png")
            path.write_bytes(b64decode(PIXEL.partition(",")[2]))
            url = await _or_none(provider.upload(path))
        _rule(url is None or url.startswith(("http://", "https://")), "an upload answers a URL")


async def _pages(provider: HasHistory) -> list[Listed]:
    until = now()
    since = until - timedelta(hours=1)
    return [each async for page in provider.history(since, until) for each in page]


async def _or_none(asking: Awaitable[T]) -> T | None:
    try:
        return await asking
    except ProviderError:
        return None
