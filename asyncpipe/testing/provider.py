"""Providers that follow a script and buy nothing: FakeProvider, and FakeAccount with money."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncIterator,
    Collection,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from asyncpipe.errors import (
    BalanceExhausted,
    HistoryUnavailable,
    PredictionGone,
    ProviderError,
    Rejected,
    SubmitUnknown,
)
from asyncpipe.jobs import Job, JobType, now
from asyncpipe.pricing import PriceBook, Quote, Rate
from asyncpipe.providers import (
    DEFAULT_PROVIDER,
    Listed,
    Prediction,
    PredictionStatus,
    known_prices,
)

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


USUAL_USD = Decimal("0.01")
"""What a FakeProvider's job costs, of a model that no table knows."""


class _AnyModel(dict[str, Rate]):
    """Rates of some models, and the usual one of every other."""

    def __contains__(self, model: object) -> bool:
        return isinstance(model, str)

    def __missing__(self, model: str) -> Rate:
        return Rate(per_job=USUAL_USD)

    def get(self, model: str, default: Any = None) -> Any:
        """The rate of a model, whichever it is."""
        return self[model]


def any_price() -> PriceBook:
    """A price book that knows every model: the built-in ones, and the rest at USUAL_USD a job."""
    known = known_prices(simulated=True)
    rates = _AnyModel(known.rates if known is not None else {})
    return PriceBook(rates=rates, source="FakeProvider")


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
    is what is known of its prices: unless told, the built-in ones, and USUAL_USD for a job of any
    other model. What ends at once (``generation_s`` 0) is answered by the submit already.
    """

    scripts: Mapping[str, Script] = field(default_factory=dict)
    default: Script = field(default_factory=Script)
    name: str = DEFAULT_PROVIDER
    origin: str = "fake"
    retention_s: float = 14 * 86_400.0
    simulated: bool = True
    account: str = ""
    price_book: PriceBook | None = field(default_factory=any_price)
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
        if script.generation_s <= 0 and not made.polls:
            return self._said(prediction_id, made)
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
        return self._said(prediction_id, made)

    def _said(self, prediction_id: str, made: _Made) -> Prediction:
        """The truth about a prediction as it stands."""
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

    price_book: PriceBook | None = field(default_factory=partial(known_prices, simulated=True))
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
