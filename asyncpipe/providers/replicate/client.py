"""Replicate: where it is, which paths it has, and the key it takes."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from yarl import URL

from asyncpipe.http import DEFAULT_TIMEOUTS, FilePart, HttpAnswer, Timeouts, json_of
from asyncpipe.jobs import Job
from asyncpipe.media import media_type
from asyncpipe.providers import Cancelled, Listed, Prediction
from asyncpipe.providers.address import base_of, segment
from asyncpipe.providers.client import ApiProvider
from asyncpipe.providers.key import holds_key, read_key
from asyncpipe.providers.replicate.callback import SECRET, verifier
from asyncpipe.providers.replicate.history import body_of, pages
from asyncpipe.providers.replicate.models import read_model
from asyncpipe.providers.replicate.reader import (
    read_account,
    read_cancel,
    read_poll,
    read_submit,
    read_upload,
)
from asyncpipe.webhooks import Verifier, callback_url

BASE_URL = "https://api.replicate.com/v1"

KEY_VARIABLES = ("REPLICATE_API_TOKEN",)

BASE_URL_VARIABLE = "REPLICATE_API_BASE_URL"

MEDIA_S = 3600.0
"""How long the output, the input and the logs of a prediction are kept after its end."""

_LARGE = 1024 * 1024
"""Answers with more bytes are read in a thread."""


def has_key() -> bool:
    """Whether the environment holds a key."""
    return holds_key(KEY_VARIABLES)


def connect(*, base_url: str | None, simulated: bool, keyless: bool) -> Replicate:
    """Make the provider, as ``providers.connect`` says."""
    return Replicate(base_url=base_url, simulated=simulated, keyless=keyless)


class Replicate(ApiProvider):
    """The provider Replicate, or its simulator.

    ``api_key`` defaults to REPLICATE_API_TOKEN; ``base_url`` to REPLICATE_API_BASE_URL, then the
    API's own, with or without ``/v1``. ``simulated`` is for a simulator on this machine: then
    neither variable is read and any key will do. ``keyless`` reads and sends no key. A job's model
    is ``owner/name``, ``owner/name:version``, a version's 64 digits, or ``deployments/owner/name``.
    It tells no prices: they come from ``prices`` of the user. With a ``webhook_url`` every submit
    asks to be called back there. Raises UsageError for a missing or impossible key or address.
    """

    name = "replicate"

    retention_s = MEDIA_S

    media_s = MEDIA_S

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
        key = "" if keyless else read_key(api_key, KEY_VARIABLES, simulated=simulated)
        super().__init__(
            _base(base_url, simulated=simulated),
            key,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            simulated=simulated,
            timeouts=timeouts,
        )

        self._webhook_url = callback_url(webhook_url, origin=str(self._base.origin()))
        self._verifier = verifier(self._ask_secret)

    @property
    def webhook_url(self) -> str | None:
        """Where submits ask to be called back; None: nowhere."""
        return self._webhook_url

    @property
    def verifier(self) -> Verifier:
        """What tells its deliveries from forgeries; the API tells the secret, with the key."""
        return self._verifier

    async def _ask_secret(self) -> HttpAnswer:
        return self._clean(await self._http.get(SECRET, what="a question for a secret"))

    async def submit(self, job: Job) -> Prediction:
        """Buy one prediction with one POST; the answer may already be final.

        Raises NotAccepted, SubmitStopped, Rejected, or SubmitUnknown. It is not asked to hold its
        answer until the end (``Prefer: wait``): the longer a submit is open, the likelier its
        answer is lost.
        """
        named = read_model(job.model)
        version = {"version": named.told} if named.told else {}
        called: dict[str, Any] = {}
        if self._webhook_url is not None:
            called = {"webhook": self._webhook_url, "webhook_events_filter": ["completed"]}
        answer = await self._http.post(named.path, {**version, "input": _input(job), **called})
        answer = self._clean(answer)
        return read_submit(answer.status, answer.headers, answer.body)

    async def poll(self, prediction_id: str, *, route: str = "") -> Prediction:
        """Ask for a prediction once. Raises PredictionGone, PollFailed or KeyRefused."""
        answer = self._clean(await self._http.get(f"/predictions/{segment(prediction_id)}"))
        read = partial(read_poll, answer.status, answer.headers, answer.body, prediction_id)
        # Media of 20 MB inside an answer would hold the loop a quarter of a second.
        return read() if len(answer.body) < _LARGE else await asyncio.to_thread(read)

    async def cancel(self, prediction_id: str, *, route: str = "") -> Cancelled:
        """Ask for the end of a prediction; of one that runs its time so far is charged.

        Raises PredictionGone, PollFailed or KeyRefused.
        """
        path = f"/predictions/{segment(prediction_id)}/cancel"
        answer = self._clean(await self._http.ask(path, {}, what="a cancel"))
        return read_cancel(answer.status, answer.headers, answer.body)

    async def history(
        self, since: datetime, until: datetime, *, models: Collection[str] = ()
    ) -> AsyncIterator[Sequence[Listed]]:
        """Pages of the account's predictions, newest first, until one is older than ``since``.

        An input is shown for an hour. Raises HistoryUnavailable, or ProviderError where the list
        cannot be had or has a hole.
        """
        async for page in pages(self, since):
            yield page

    async def ask_history(self, query: str) -> HttpAnswer:
        """Ask for one page of the list; costs nothing. Raises PollFailed without an answer."""
        path = f"/predictions?{query}" if query else "/predictions"
        return self._clean(await self._http.get(path, what="the list of predictions"))

    def body_of(self, job: Job) -> Mapping[str, Any]:
        """What a submit of ``job`` asks for, as a row of the list shows it: flat."""
        named = read_model(job.model)
        given: dict[str, Any] = json.loads(json_of(_input(job)))
        return body_of(given, model=named.model, version=named.version, deployment=named.deployment)

    def route_of(self, job: Job) -> str:
        """None: all are polled alike."""
        return ""

    async def upload(self, path: Path) -> str:
        """Send a file of this machine and return its URL, for submits; it is kept for a day.

        Costs nothing. Raises NotAccepted where trying again may help, SubmitStopped, or Rejected.
        """
        part = FilePart(path, tell=media_type, field="content")
        answer = self._clean(await self._http.send_file("/files", part))
        return read_upload(answer.status, answer.headers, answer.body)

    async def account_id(self) -> str:
        """The account's name, the same for each of its keys; free.

        Raises KeyRefused, or ProviderError where it is not told.
        """
        answer = self._clean(await self._http.get("/account", what="a question for the account"))
        return read_account(answer.status, answer.headers, answer.body)


def _input(job: Job) -> dict[str, Any]:
    """What the job says, and nothing invented; its model stands in the path, or beside this."""
    return {name: value for name, value in job.body.items() if name != "model"}


def _base(base_url: str | None, *, simulated: bool) -> URL:
    text = base_url or ("" if simulated else os.environ.get(BASE_URL_VARIABLE) or BASE_URL)
    url = base_of(text, example=BASE_URL, simulated=simulated)
    path = url.path.rstrip("/")
    return url.with_path(path if path.endswith("/v1") else f"{path}/v1")
