"""fal: what is sent to it, and the key it takes."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit

from yarl import URL

from asyncpipe.errors import (
    DownloadError,
    NotAccepted,
    PollFailed,
    ProviderError,
    RateLimited,
    Rejected,
    SubmitUnknown,
    UsageError,
)
from asyncpipe.http import (
    DEFAULT_TIMEOUTS,
    HttpAnswer,
    HttpClient,
    Timeouts,
    WholeFile,
    check_host,
    is_loopback,
    json_of,
)
from asyncpipe.jobs import Job
from asyncpipe.media import media_type
from asyncpipe.pricing import Quote
from asyncpipe.providers.base import Cancelled, Listed, Prediction, PredictionStatus
from asyncpipe.providers.client import ApiProvider
from asyncpipe.providers.fal.answer import open_answer
from asyncpipe.providers.fal.callback import verifier
from asyncpipe.providers.fal.history import pages
from asyncpipe.providers.fal.money import (
    UnitPrice,
    batches,
    quote_by_unit,
    read_balance,
    read_bills,
    read_estimate,
    read_prices,
)
from asyncpipe.providers.fal.reader import (
    is_doubtful,
    read_result,
    read_status,
    read_submit,
    refusal,
    units_of,
)
from asyncpipe.providers.fal.routes import (
    endpoint_of,
    hosts_of,
    request_path,
    submit_path,
)
from asyncpipe.providers.key import holds_key, read_key
from asyncpipe.webhooks import Verifier, callback_url

KEY_VARIABLES = ("FAL_KEY",)

_HALVES = ("FAL_KEY_ID", "FAL_KEY_SECRET")
"""A key in two parts, as fal's own clients take it."""

_PRICES = "/models/pricing"

_ESTIMATE = "/models/pricing/estimate"

_BILLS = "/models/billing-events"

_BALANCE = "/account/billing?expand=credits"

_UPLOAD = "/storage/upload/initiate?storage_type=fal-cdn-v3"

_BILLED = timedelta(days=89)
"""How far back a bill is asked for; at most 90 days may be."""

_MOST_BILLED = 10_000

_MOST_PAGES = 1000

_LARGE = 1024 * 1024
"""Answers with more bytes are read in a thread."""

_SOME_MEDIUM = "https://example.com/input"

_PRICED_S = 600.0
"""How long the price of a unit, or that there is none, is taken for today's, in seconds."""


def has_key() -> bool:
    """Whether the environment holds a key."""
    return holds_key(KEY_VARIABLES) or all(holds_key([half]) for half in _HALVES)


def connect(*, base_url: str | None, simulated: bool, keyless: bool) -> Fal:
    """Make the provider, as ``providers.connect`` says."""
    return Fal(base_url=base_url, simulated=simulated, keyless=keyless)


class Fal(ApiProvider):
    """The provider fal (its queue), or its simulator.

    ``api_key`` defaults to FAL_KEY, then FAL_KEY_ID and FAL_KEY_SECRET together; ``base_url`` is
    where something stands in for fal's three hosts. ``simulated`` is for a simulator on this
    machine: then no variable is read and any key will do. ``keyless`` reads and sends no key.
    Results are kept for 30 days, by its documents, and media as long as the account says. Its list
    shows requests by their end: what is not in it may be queued. With a ``webhook_url`` every
    submit asks to be called back there. Raises UsageError for a missing or impossible key or
    address.

    What is sent of headers is the key alone: ``X-Fal-Store-IO: 0`` would make a lost submit one
    that nobody finds again, and without fal's own retries more requests would fail.
    """

    name = "fal"

    retention_s: float = 30 * 86_400.0

    lists_ended_only = True

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
        self._hosts = hosts_of(base_url, simulated=simulated)
        self._webhook_url = callback_url(webhook_url, origin=self._hosts.queue)
        self._verifier = verifier(self._hosts.storage)
        key = "" if keyless else _key(api_key, simulated=simulated)
        headers = {"Authorization": f"Key {key}"} if key else {}
        super().__init__(
            URL(self._hosts.queue), key, headers=headers, simulated=simulated, timeouts=timeouts
        )
        self._api = HttpClient(self._hosts.api, headers=headers, timeouts=timeouts)
        self._storage = HttpClient(self._hosts.storage, headers=headers, timeouts=timeouts)
        self._bought: dict[str, None] = {}  # the endpoints of what was submitted here
        self._prices: dict[str, tuple[float, UnitPrice | ProviderError]] = {}
        self._asking: dict[str, asyncio.Lock] = {}

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
        async with AsyncExitStack() as stack:
            for client in (self._http, self._api, self._storage):
                await stack.enter_async_context(client)
            stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # One entry's worth: each of the three counts its own.
        async with AsyncExitStack() as stack:
            for client in (self._storage, self._api, self._http):
                stack.push_async_exit(client)

    async def submit(self, job: Job) -> Prediction:
        """Buy one prediction with one POST.

        Raises NotAccepted, SubmitStopped, Rejected, or SubmitUnknown.
        """
        path = submit_path(job.model)
        if self._webhook_url is not None:
            path = f"{path}?fal_webhook={quote(self._webhook_url, safe='')}"
        self._bought[job.model] = None
        answer = self._clean(await self._http.post(path, _input(job)))
        return read_submit(
            answer.status, answer.headers, answer.body, model=job.model, hosts=self._hosts
        )

    async def poll(self, prediction_id: str, *, route: str = "") -> Prediction:
        """Ask for a request once: for its status, and for its result when it has ended.

        Raises PredictionGone, PollFailed or KeyRefused.
        """
        path = request_path(route, prediction_id)
        answer = self._clean(await self._http.get(f"{path}/status"))
        status = read_status(answer.status, answer.headers, answer.body)
        if status.running is not None:
            return replace(status.running, id=prediction_id, route=route)
        found = await self._result(path, status.error)
        read = partial(read_result, found.status, found.headers, found.body, told=status.error)
        # An error echoes the input, media and all: 5 MB of it are usual.
        ended = read() if len(found.body) < _LARGE else await asyncio.to_thread(read)
        charged = await self._charge(endpoint_of(route), found, ended)
        return replace(ended, id=prediction_id, route=route, charged=charged)

    async def cancel(self, prediction_id: str, *, route: str = "") -> Cancelled:
        """Ask for the end of a request: one in the queue is dropped, one that runs may go on.

        Raises PredictionGone, PollFailed or KeyRefused.
        """
        path = request_path(route, prediction_id)
        answer = self._clean(await self._http.put(f"{path}/cancel", what="a cancellation"))
        if 200 <= answer.status < 300:
            return Cancelled.UNKNOWN
        if answer.status == 400:
            return Cancelled.TOO_LATE
        read_status(answer.status, answer.headers, answer.body)
        raise PollFailed(f"fal could not cancel a request ({answer.status})", status=answer.status)

    def history(
        self, since: datetime, until: datetime, *, models: Collection[str] = ()
    ) -> AsyncIterator[Sequence[Listed]]:
        """Pages of the account's requests to ``models`` that have ended since then.

        And to the models that were submitted to here. Raises HistoryUnavailable, or ProviderError
        where the list cannot be had or is not whole.
        """
        return pages(self, since, {*models, *self._bought})

    async def ask_api(self, path: str, *, what: str) -> HttpAnswer:
        """Ask the platform's API once; costs nothing. Raises PollFailed without an answer."""
        return self._clean(await self._api.get(path, what=what))

    def body_of(self, job: Job) -> Mapping[str, Any]:
        """The request that a submit of ``job`` sends, as JSON has it, and its model."""
        sent: dict[str, Any] = json.loads(json_of(_input(job)))
        return {**sent, "model": job.model}

    def route_of(self, job: Job) -> str:
        """How a request of ``job`` is polled that is known from the history alone."""
        return job.model

    async def upload(self, path: Path) -> str:
        """Send a file of this machine to fal's storage and return its URL; costs nothing.

        The key goes to fal; the bytes go where fal says, and no key with them. Raises NotAccepted
        where trying again may help, SubmitStopped, or Rejected.
        """
        file = WholeFile(path, tell=media_type)
        try:
            await file.look()
        except OSError as exc:
            raise Rejected(f"{path} cannot be read: {exc.strerror or exc}") from exc
        begin = {"file_name": f"input.{file.ending}", "content_type": file.content_type}
        try:
            answer = self._clean(await self._storage.ask(_UPLOAD, begin, what="an upload"))
        except PollFailed as exc:
            raise NotAccepted(str(exc)) from None
        place, url = self._places(answer)
        put = await self._storage.put_file(place, file)
        if not 200 <= put.status < 300:
            text = f"fal's storage did not take {path.name} ({put.status})"
            raise NotAccepted(text, status=put.status)
        return url

    async def quote(self, job: Job) -> Quote:
        """Estimate what a submit of ``job`` will cost; free, and by the account's own prices.

        By the price of its model's unit, where the job says how many there will be; else by what
        calls have cost on average. Raises ProviderError as ``money.refusal_of`` says.
        """
        # A file need not be uploaded for a price, and where it lies is nobody's business.
        job = job.sent_with(dict.fromkeys(job.inputs, _SOME_MEDIUM))
        price, at = await self._unit_price(job.model), datetime.now(UTC)
        if (quote := quote_by_unit(job, price, at=at)) is not None:
            return quote
        body = {
            "estimate_type": "historical_api_price",
            "endpoints": {job.model: {"call_quantity": 1}},
        }
        answer = self._clean(await self._api.ask(_ESTIMATE, body, what="an estimate"))
        return read_estimate(answer, at=at)

    async def balance(self) -> Decimal:
        """USD the account has left; free. Raises ProviderError: fal tells ADMIN keys only."""
        return read_balance(await self.ask_api(_BALANCE, what="the balance"))

    async def bills(self, ids: Collection[str]) -> Mapping[str, Decimal]:
        """USD charged by request id; what is not billed, or not yet, is left out.

        Costs nothing. Raises KeyRefused, or ProviderError: fal tells ADMIN keys only.
        """
        charged: dict[str, Decimal] = {}
        for batch in batches(ids):
            async for page in self._bill_pages(batch):
                for name, usd in page.items():
                    charged[name] = charged.get(name, Decimal(0)) + usd
        return charged

    async def _bill_pages(self, ids: Sequence[str]) -> AsyncIterator[Mapping[str, Decimal]]:
        now = datetime.now(UTC)
        query = [("request_id", each) for each in ids]
        query += [("start", f"{now - _BILLED:%Y-%m-%dT%H:%M:%SZ}"), ("limit", str(_MOST_BILLED))]
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            more = [("cursor", cursor)] if cursor else []
            path = f"{_BILLS}?{urlencode([*query, *more])}"
            ask = partial(self.ask_api, path, what="the bill")
            page = read_bills(await ask())
            yield page.charged
            cursor = page.cursor
            if cursor is None:
                return
        raise ProviderError(f"fal's bill has more than {_MOST_PAGES} pages")

    # -- what is asked for within -----------------------------------------------------------------

    async def _result(self, path: str, told: str) -> HttpAnswer:
        """The answer that holds a result, or the model's error.

        Whether an error that no word of fal's is in was some gateway's tells a second answer.
        """
        first = self._clean(await self._http.get(path))
        if not is_doubtful(first.status, first.headers, first.body, told=told):
            return first
        second = self._clean(await self._http.get(path))
        if second.status >= 500 and second.status != first.status:
            raise PollFailed(
                f"the result of a request is answered {first.status}, then {second.status}",
                status=second.status,
            )
        return second

    async def _charge(self, model: str, answer: HttpAnswer, ended: Prediction) -> Decimal | None:
        """What a delivered result cost: the units that it says, at the price of one."""
        units = units_of(answer.headers)
        if units is None or ended.status is not PredictionStatus.COMPLETED or not model:
            return None
        try:
            return units * (await self._unit_price(model)).amount
        except ProviderError:
            return None

    async def _unit_price(self, model: str) -> UnitPrice:
        """What a unit of a model costs; asked for once, and again after a while."""
        clock = asyncio.get_running_loop().time()
        async with self._asking.setdefault(model, asyncio.Lock()):
            until, known = self._prices.get(model, (-1.0, None))
            if known is None or clock >= until:
                known = await self._ask_price(model)
                if not isinstance(known, RateLimited | PollFailed):
                    self._prices[model] = clock + _PRICED_S, known
        if isinstance(known, ProviderError):
            raise known.with_traceback(None)
        return known

    async def _ask_price(self, model: str) -> UnitPrice | ProviderError:
        query = urlencode({"endpoint_id": model})
        try:
            prices = read_prices(await self.ask_api(f"{_PRICES}?{query}", what="a price"))
        except ProviderError as exc:
            return exc
        return prices.get(model) or Rejected(f"fal lists no price in USD of {model}")

    def _places(self, answer: HttpAnswer) -> tuple[str, str]:
        """Where the bytes of an upload go, and the URL that the file will have."""
        opened = open_answer(answer.status, answer.headers, answer.body)
        if not 200 <= answer.status < 300:
            error = refusal(opened)
            if isinstance(error, SubmitUnknown):  # a file buys nothing
                raise NotAccepted(
                    f"fal did not take an upload ({answer.status})", status=answer.status
                )
            raise error
        document = opened.document or {}
        place, url = document.get("upload_url"), document.get("file_url")
        if not isinstance(place, str) or not isinstance(url, str):
            raise NotAccepted("fal says of an upload not where it goes", status=answer.status)
        if not (self._may_send_to(place) and url.startswith(("https://", "http://"))):
            raise Rejected("fal says of an upload that it goes where no file is sent to")
        return place, url

    def _may_send_to(self, url: str) -> bool:
        """Whether a file may go there: to a public host by https, or to where fal is simulated."""
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
        except ValueError:
            return False
        if is_loopback(host):
            return is_loopback(urlsplit(self._hosts.queue).hostname or "")
        try:
            check_host(host)
        except DownloadError:
            return False
        return parts.scheme == "https" and parts.username is None


def _input(job: Job) -> dict[str, Any]:
    """The model's input, flat: the model itself stands in the path."""
    body = job.body
    del body["model"]
    return body


def _key(api_key: str | None, *, simulated: bool) -> str:
    """The key that was given, or that of the environment, whole or in two halves."""
    if api_key is None and not simulated and not holds_key(KEY_VARIABLES):
        halves = [os.environ.get(half, "").strip() for half in _HALVES]
        if all(halves):
            api_key = ":".join(halves)
        elif any(halves):
            there, lacking = sorted(_HALVES, key=lambda half: not os.environ.get(half, "").strip())
            raise UsageError(
                f"{there} is set and {lacking} is not: set both, or {KEY_VARIABLES[0]} alone"
            )
    return read_key(api_key, KEY_VARIABLES, simulated=simulated)
