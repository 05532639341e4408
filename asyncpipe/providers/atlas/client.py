"""Atlas Cloud: where it is, which paths it has, and the key it takes."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from yarl import URL

from asyncpipe.errors import (
    KeyRefused,
    PollFailed,
    PredictionGone,
    ProviderError,
    Rejected,
)
from asyncpipe.http import (
    DEFAULT_TIMEOUTS,
    FilePart,
    HttpAnswer,
    HttpClient,
    Timeouts,
    is_loopback,
    json_of,
)
from asyncpipe.jobs import Job, JobType
from asyncpipe.media import media_type
from asyncpipe.pricing import Bill, PriceBook, Quote
from asyncpipe.providers import Listed, Prediction
from asyncpipe.providers.address import base_of, segment
from asyncpipe.providers.atlas.answer import open_answer
from asyncpipe.providers.atlas.billing import read_account, read_balance, read_bill
from asyncpipe.providers.atlas.callback import verifier
from asyncpipe.providers.atlas.history import pages
from asyncpipe.providers.atlas.listed import listed_quote
from asyncpipe.providers.atlas.prices import built_in
from asyncpipe.providers.atlas.quote import QuotedNothing, read_quote
from asyncpipe.providers.atlas.reader import (
    ARTICLE,
    KEY_REFUSED,
    TEXTS,
    read_poll,
    read_submit,
    read_upload,
)
from asyncpipe.providers.catalog import CatalogModel, read_models
from asyncpipe.providers.key import account_word, holds_key, read_key, redactor_of, without_key
from asyncpipe.webhooks import Verifier, callback_url

BASE_URL = "https://api.atlascloud.ai/api/v1"

KEY_VARIABLES = ("ATLASCLOUD_API_KEY", "ATLAS_CLOUD_API_KEY")

BASE_URL_VARIABLE = "ATLASCLOUD_BASE_URL"

_ENDPOINTS = {
    JobType.IMAGE: "/model/generateImage",
    JobType.VIDEO: "/model/generateVideo",
    JobType.AUDIO: "/model/generateAudio",
}

_MODELS = "/models"

_HISTORY = "/model/history"

_CALCULATE = "/model/calculate"

_NO_QUOTES = (404, 405, 501)
"""Answers of an API that has no quotes at all."""

_LARGE = 1024 * 1024
"""Answers with more bytes are read in a thread."""

_LISTED_S = 600.0
"""How long the catalogue is taken for today's when a quote is not to be had, in seconds."""

_UPLOAD = "/model/uploadMedia"

_SOME_MEDIUM = "https://example.com/input"

_CANONICAL = "/model/prediction/{id}"

_ARTICLE = "/model/prediction/{id}/get"

_NOBODYS = "asyncpipe-asks-whether-its-key-is-taken"


def has_key() -> bool:
    """Whether the environment holds a key."""
    return holds_key(KEY_VARIABLES)


def connect(*, base_url: str | None, simulated: bool, keyless: bool) -> AtlasCloud:
    """Make the provider, as ``providers.connect`` says."""
    return AtlasCloud(base_url=base_url, simulated=simulated, keyless=keyless)


def known_prices(*, base_url: str | None, simulated: bool) -> PriceBook | None:
    """What is known of its prices, as ``providers.known_prices`` says."""
    return built_in() if simulated or _is_its_own(_base(base_url, simulated=False)) else None


class AtlasCloud:
    """The provider Atlas Cloud, or its simulator.

    ``api_key`` defaults to ATLASCLOUD_API_KEY, then ATLAS_CLOUD_API_KEY; ``base_url`` to
    ATLASCLOUD_BASE_URL, then the API's own, with or without ``/api/v1``. ``simulated`` is for a
    simulator on this machine: then neither variable is read and any key will do. ``keyless`` reads
    and sends no key: enough for ``catalog`` and ``quote``, and for nothing else. With a
    ``webhook_url`` every submit asks to be called back there when its prediction has ended. Raises
    UsageError for a missing or impossible key or address.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        simulated: bool = False,
        keyless: bool = False,
        webhook_url: str | None = None,
    ) -> None:
        self._simulated = simulated
        self._base = _base(base_url, simulated=simulated)
        self._webhook_url = callback_url(webhook_url, origin=str(self._base.origin()))
        self._verifier = verifier(str(self._base))
        key = "" if keyless else read_key(api_key, KEY_VARIABLES, simulated=simulated)
        self._account = account_word(key)
        self._account_id = ""
        self._redactor = redactor_of(key)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = HttpClient(str(self._base), headers=headers, timeouts=timeouts)
        self._listing, self._listed_until = asyncio.Lock(), -1.0
        self._models: dict[str, CatalogModel] = {}
        self._known: str | None = None  # the path that has answered on the article's route

    def __repr__(self) -> str:
        return f"AtlasCloud({self.origin})"

    @property
    def name(self) -> str:
        """``atlas``: part of every job's key."""
        return "atlas"

    @property
    def origin(self) -> str:
        """``https://host``, or ``simulator``."""
        return "simulator" if self._simulated else str(self._base.origin())

    @property
    def simulated(self) -> bool:
        """Whether its pictures are made up and its money is not real."""
        return self._simulated

    @property
    def price_book(self) -> PriceBook | None:
        """The built-in prices, at its own address and of what stands in for it on this machine."""
        return built_in() if self._simulated or _is_its_own(self._base) else None

    @property
    def account(self) -> str:
        """A word that tells accounts apart: 12 hex digits of a hash of the key; empty without one.

        It names what is learned about an account in the user's cache folder.
        """
        return self._account

    @property
    def retention_s(self) -> float:
        """How long predictions and media are kept, by its documents: 14 days."""
        return 14 * 86_400.0

    @property
    def webhook_url(self) -> str | None:
        """Where submits ask to be called back; None: nowhere."""
        return self._webhook_url

    @property
    def verifier(self) -> Verifier:
        """What tells its deliveries from forgeries; their keys are fetched from its own host."""
        return self._verifier

    async def __aenter__(self) -> Self:
        """Open its connections. Raises UsageError for a proxy that cannot be used."""
        if not self._http.is_open:  # a lock belongs to the loop it was waited for in
            self._listing, self._listed_until = asyncio.Lock(), -1.0
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.__aexit__(exc_type, exc, traceback)

    async def submit(self, job: Job) -> Prediction:
        """Buy one prediction with one POST; the answer may already be final.

        Raises NotAccepted, SubmitStopped, Rejected, or SubmitUnknown.
        """
        body = job.body
        if self._webhook_url is not None:  # not the job's: its key and its traces are without
            body = {"webhook_url": self._webhook_url, **body}
        answer = self._without_key(await self._http.post(_ENDPOINTS[job.kind], body))
        texts = job.kind is JobType.AUDIO
        prediction = read_submit(answer.status, answer.headers, answer.body, texts=texts)
        return replace(prediction, route=TEXTS) if texts and not prediction.route else prediction

    async def poll(self, prediction_id: str, *, route: str = "") -> Prediction:
        """Ask for a prediction once; on the article's route, at both of its paths if need be.

        Raises PredictionGone, PollFailed or KeyRefused. What ``data.urls.get`` said on submit is
        not used: the key goes to paths known beforehand only.
        """
        if route == ARTICLE:
            prediction = await self._probe(prediction_id)
        else:
            prediction = await self._ask(_CANONICAL, prediction_id, texts=route == TEXTS)
        if (prediction.id, prediction.route) == (prediction_id, route):
            return prediction
        return replace(prediction, id=prediction_id, route=route)

    async def history(
        self, since: datetime, until: datetime, *, models: Collection[str] = ()
    ) -> AsyncIterator[Sequence[Listed]]:
        """Pages of the account's predictions, newest first, until one is older than ``since``.

        Raises HistoryUnavailable, or ProviderError where the list cannot be had or has a hole.
        """
        async for page in pages(self, since):
            yield page

    async def ask_history(self, query: str) -> HttpAnswer:
        """Ask for one page of the history; costs nothing. Raises PollFailed without an answer."""
        answer = await self._http.get(f"{_HISTORY}?{query}", what="the list of predictions")
        return self._without_key(answer)

    def body_of(self, job: Job) -> Mapping[str, Any]:
        """The request body that a submit of ``job`` sends, as JSON has it."""
        body: dict[str, Any] = json.loads(json_of(job.body))
        return body

    def route_of(self, job: Job) -> str:
        """How a prediction of ``job`` is polled that is known from the history alone."""
        return TEXTS if job.kind is JobType.AUDIO else ARTICLE

    async def upload(self, path: Path) -> str:
        """Send a file of this machine and return a temporary URL of it, for submits; costs nothing.

        Raises NotAccepted where trying again may help, SubmitStopped, or Rejected.
        """
        answer = self._without_key(
            await self._http.send_file(_UPLOAD, FilePart(path, tell=media_type))
        )
        return read_upload(answer.status, answer.headers, answer.body)

    async def ask_account(self, path: str) -> HttpAnswer:
        """Ask the account's own API, ``/public/v1`` on the same host, once; costs nothing.

        Raises PollFailed without an answer; ``atlas_billing`` reads what comes.
        """
        public = self._base.with_path(f"{self._base.path.removesuffix('/api/v1')}/public/v1")
        answer = await self._http.get(path, base_url=str(public), what="the billing API")
        return self._without_key(answer)

    async def catalog(self) -> tuple[CatalogModel, ...]:
        """Every model the API lists, hidden ones too; free, and needs no key.

        Raises KeyRefused, or ProviderError when it cannot be had.
        """
        try:
            answer = self._without_key(await self._http.get(_MODELS))
        except PollFailed as exc:
            raise ProviderError(str(exc).replace("a poll got", "it got", 1)) from exc
        opened = open_answer(answer.status, answer.headers, answer.body)
        models = read_models((opened.document or {}).get("data")) if opened.code == 200 else ()
        if not models:
            said = f", {opened.said}" if opened.said else ""
            if opened.code == 401 and await self._refuses_the_key():
                raise KeyRefused(
                    f"{KEY_REFUSED} (at its catalogue{said})",
                    status=401,
                    request_id=opened.request_id,
                )
            raise ProviderError(
                f"it answered {opened.code}{said}" if opened.code != 200 else "it lists no models",
                status=opened.code,
                request_id=opened.request_id,
            )
        return models

    async def quote(self, job: Job) -> Quote:
        """Ask what a submit of ``job`` would cost; free, and with a key at the account's discount.

        Where the API quotes nothing, what the catalogue lists may do. Raises ProviderError as
        ``read_quote`` does, and PollFailed without an answer.
        """
        # A file need not be uploaded for a price, and where it lies is nobody's business.
        body = job.sent_with(dict.fromkeys(job.inputs, _SOME_MEDIUM)).body
        answer = self._without_key(await self._http.ask(_CALCULATE, body, what="a quote"))
        at = datetime.now(UTC)
        try:
            return read_quote(answer.status, answer.headers, answer.body, at=at)
        except ProviderError as exc:
            if not (isinstance(exc, Rejected) or exc.status in _NO_QUOTES):
                raise
            listed = await self._listed(job.model)
            if listed is None:
                raise
            if isinstance(exc, QuotedNothing):
                free = listed.base_price == 0
                return read_quote(answer.status, answer.headers, answer.body, at=at, free=free)
            if (quote := listed_quote(job, listed, at=at, why=str(exc))) is None:
                raise
            return quote

    async def _listed(self, model: str) -> CatalogModel | None:
        """What the catalogue says of a model; asked for once, and again after a while."""
        clock = asyncio.get_running_loop().time()
        async with self._listing:
            if clock >= self._listed_until:
                try:
                    models = await self.catalog()
                except ProviderError:
                    models = ()
                self._models = {each.id: each for each in models}
                self._listed_until = clock + _LISTED_S
        return self._models.get(model)

    async def balance(self) -> Decimal:
        """USD the account has available; free. Raises ProviderError when it cannot be told."""
        return read_balance(await self.ask_account("/balance"))

    async def account_id(self) -> str:
        """The account's own id, the same for each of its keys; free.

        Raises ProviderError where it is not told, KeyRefused where it is certain that nothing will
        be; told once, it is not asked for again.
        """
        if not self._account_id:
            try:
                self._account_id = read_account(await self.ask_account("/balance"))
            except KeyRefused as exc:
                told: dict[str, Any] = {"status": exc.status, "request_id": exc.request_id}
                if await self._refuses_the_key():
                    raise KeyRefused(f"{KEY_REFUSED} (401)", **told) from None
                raise ProviderError(str(exc), **told) from None
        return self._account_id

    async def _refuses_the_key(self) -> bool:
        """Whether a 401 speaks of the key: the API answers it to paths it does not have, too.

        Of an id that nobody has it tells nothing but that, and costs nothing.
        """
        if not self._account:
            return False
        for path in (_CANONICAL, _ARTICLE):
            try:
                await self._ask(path, _NOBODYS)
            except KeyRefused:
                continue
            except ProviderError:
                return False
            return False
        return True

    async def bill(self, days: Iterable[date]) -> Bill:
        """What the account's key was charged on ``days`` (UTC); free.

        Raises KeyRefused, or ProviderError when the bill cannot be had or makes no sense.
        """
        return await read_bill(self, days)

    async def _probe(self, prediction_id: str) -> Prediction:
        """Ask at the path that has answered before, or at the article's, then at the other.

        The API answers 401 to paths it does not have: only where a path has answered before does
        that speak of the key.
        """
        first = self._known or _ARTICLE
        refused: PredictionGone | KeyRefused | PollFailed | None = None
        for path in (first, _CANONICAL if first == _ARTICLE else _ARTICLE):
            try:
                prediction = await self._ask(path, prediction_id)
            except (PredictionGone, KeyRefused, PollFailed) as exc:
                if isinstance(exc, KeyRefused) and path == self._known:
                    raise
                if isinstance(exc, PollFailed) and exc.status != 405:
                    raise
                refused = exc if refused is None or isinstance(exc, PredictionGone) else refused
            else:
                self._known = path
                return prediction
        raise _neither(refused)

    async def _ask(self, path: str, prediction_id: str, *, texts: bool = False) -> Prediction:
        answer = await self._http.get(path.replace("{id}", segment(prediction_id)))
        answer = self._without_key(answer)
        read = partial(read_poll, answer.status, answer.headers, answer.body, texts=texts)
        # Media of 20 MB inside an answer would hold the loop a quarter of a second.
        return read() if len(answer.body) < _LARGE else await asyncio.to_thread(read)

    def _without_key(self, answer: HttpAnswer) -> HttpAnswer:
        return without_key(answer, self._redactor)


def _neither(refused: Exception | None) -> PredictionGone | PollFailed:
    if isinstance(refused, PredictionGone):
        return refused
    text = f"neither path of the prediction answers: {refused}"
    status = refused.status if isinstance(refused, KeyRefused | PollFailed) else None
    return PollFailed(text, status=status)


def _base(base_url: str | None, *, simulated: bool) -> URL:
    text = base_url or ("" if simulated else os.environ.get(BASE_URL_VARIABLE) or BASE_URL)
    return _with_version(base_of(text, example=BASE_URL, simulated=simulated))


def _is_its_own(base: URL) -> bool:
    """Whether this is where it is, or what stands in for it on this machine."""
    return str(base.origin()) == str(URL(BASE_URL).origin()) or is_loopback(base.raw_host or "")


def _with_version(url: URL) -> URL:
    path = url.path.rstrip("/")
    if path.endswith("/api/v1"):
        return url.with_path(path)
    return url.with_path(f"{path}/v1" if path.endswith("/api") else f"{path}/api/v1")
