"""What the engine asks of a provider; everything provider-specific stays behind this."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from asyncpipe.jobs import Job, Notes
from asyncpipe.webhooks import Verifier


class PredictionStatus(StrEnum):
    """What a provider's own word for a prediction's status comes down to."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """The provider's side of a job, as one answer tells it.

    ``outputs`` are URLs (http, https or data) in the provider's order, ``extras`` those of files
    beside them that nobody asked for, like a cover. ``moderated`` means the
    input was refused by content moderation: never send it unchanged again. ``released`` says of
    a failed one whether its money is returned: True, False, or None where nobody knows; without
    ``again`` it is not submitted again unless the user says so. ``error`` is why one failed, or
    what is said of trouble where there are no outputs.
    ``charged`` is what this prediction cost in USD, where the provider says so; it goes before the
    price. ``route`` is the provider's own note on how to poll this prediction; the ledger keeps it
    and hands it back. ``said`` is the provider's own status word. ``notes`` are what it says beside
    the outputs and people should see.
    """

    id: str
    status: PredictionStatus = PredictionStatus.RUNNING
    outputs: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    error: str | None = None
    error_code: int | None = None
    moderated: bool = False
    released: bool | None = True
    again: bool = True
    route: str = ""
    request_id: str | None = None
    said: str | None = None
    charged: Decimal | None = None
    notes: Notes = field(default_factory=dict)


@runtime_checkable
class Uploader(Protocol):
    """What a provider may be besides: it takes files of this machine, and not only URLs."""

    async def upload(self, path: Path) -> str:
        """Send the file at ``path`` and return a URL of it that submits may name; costs nothing.

        Raises NotAccepted where trying again may help, SubmitStopped, or Rejected.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """One prediction as the provider's own list of them shows it.

    ``created`` is in UTC, by the provider's clock. ``body`` is the request as the provider keeps
    it, parsed; None where it is not told or cannot be read. ``status`` is the provider's own word.
    """

    id: str
    created: datetime
    model: str
    body: Mapping[str, Any] | None
    status: str = ""


@runtime_checkable
class HasHistory(Protocol):
    """What a provider may be besides: it lists the account's predictions.

    So submits whose answer was lost are found again.
    """

    def history(
        self, since: datetime, until: datetime, *, models: Collection[str] = ()
    ) -> AsyncIterator[Sequence[Listed]]:
        """Pages of this account's predictions, newest first, until one is older than ``since``.

        Those made after ``until`` may be left out, and those of other models than ``models``.
        Raises HistoryUnavailable where the account has no such list, ProviderError otherwise: a
        reading that is not complete proves nothing.
        """

    def body_of(self, job: Job) -> Mapping[str, Any]:
        """The request body that ``submit`` sends for ``job``, as JSON has it."""

    def route_of(self, job: Job) -> str:
        """The ``route`` that a prediction of ``job`` has where its submit was not answered."""


def lists_ended_only(provider: object) -> bool:
    """Whether its history shows predictions only once they have ended, perhaps by another id.

    A provider may say so by its ``lists_ended_only``. What such a list does not show may still be
    worked on, so it never proves that nothing was bought; and what it shows may be one of ours that
    it does not show by its id.
    """
    return getattr(provider, "lists_ended_only", False) is True


@runtime_checkable
class HasKeys(Protocol):
    """What a provider may be besides: it buys once for one key, however often that is sent.

    So a submit whose answer was lost is sent again, and answered with what it bought the first
    time. ``submit`` takes the key as an argument that may be left out; every key is new.
    """

    @property
    def key_ttl_s(self) -> float | None:
        """For how many seconds after a submit its key is surely still known; None: for ever."""

    async def submit(self, job: Job, *, key: str | None = None) -> Prediction:
        """Buy one prediction, or answer with the one that was bought with ``key`` before.

        ``key`` is 32 hex digits. Raises as ``Provider.submit`` does; where the provider is still at
        work on the same key, NotAccepted, and it is sent again. What is refused when it is sent
        again proves nothing: the first may have been taken.
        """


class Cancelled(StrEnum):
    """What became of a prediction that was to be cancelled."""

    FREE = "free"  # it is not made, and costs nothing
    CHARGED = "charged"  # it is not made, and what was done of it is charged
    TOO_LATE = "too late"  # it goes on, or has ended
    UNKNOWN = "unknown"  # asked for, and what comes of it the provider does not say


@runtime_checkable
class HasCancel(Protocol):
    """What a provider may be besides: it stops predictions that were submitted."""

    async def cancel(self, prediction_id: str, *, route: str = "") -> Cancelled:
        """Ask for the end of a prediction; later polls tell what it came to, and what it costs.

        Asked again it answers much the same. Raises PredictionGone, PollFailed or KeyRefused.
        """


@runtime_checkable
class HasBills(Protocol):
    """What a provider may be besides: it says what each prediction was charged."""

    async def bills(self, ids: Collection[str]) -> Mapping[str, Decimal]:
        """USD charged by prediction id; of those it does not say (yet) there is none.

        Costs nothing. Raises KeyRefused, or ProviderError where no bill is to be had.
        """


@runtime_checkable
class HasAccountId(Protocol):
    """What a provider may be besides: it says which account its key belongs to."""

    async def account_id(self) -> str:
        """The provider's own id of the account, the same for each of its keys; costs nothing.

        Raises KeyRefused where the key is certainly no key of any, which stops the run, and any
        other ProviderError where the account cannot be told, which does not.
        """


@runtime_checkable
class HasCallbacks(Protocol):
    """What a provider may be besides: it calls back, signed, when a prediction has ended.

    Then polls only make up for deliveries that are lost.
    """

    @property
    def webhook_url(self) -> str | None:
        """Where its submits ask to be called back, which is no part of a job; None: nowhere."""

    @property
    def verifier(self) -> Verifier:
        """What tells its deliveries from forgeries."""


@runtime_checkable
class Provider(Protocol):
    """An API that is submitted to, polled, and answers URLs.

    What it can do besides is asked for where it is needed: Uploader, HasHistory, HasKeys,
    HasCancel, HasBills, HasAccountId and HasCallbacks here, HasQuotes, HasBalance and HasBill in
    pricing, HasCatalogue in catalog.

    Entering opens its connections; entered twice, the last exit closes them. It may have
    ``account``: an opaque word that tells accounts apart and is not the key (see ``account_of``).
    """

    @property
    def name(self) -> str:
        """One word; part of every job's key."""

    @property
    def origin(self) -> str:
        """Where it is: ``https://host`` or ``simulator``; a folder belongs to one origin."""

    @property
    def simulated(self) -> bool:
        """Whether its pictures are made up and its money is not real."""

    async def submit(self, job: Job) -> Prediction:
        """Buy one prediction; the answer may already be final.

        Raises NotAccepted, SubmitStopped, Rejected, or SubmitUnknown; sends at most one POST.
        """

    async def poll(self, prediction_id: str, *, route: str = "") -> Prediction:
        """Ask for a prediction once; costs nothing.

        Raises PredictionGone, PollFailed or KeyRefused.
        """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...


USUAL_RETENTION_S = 14 * 86_400.0
"""How long a provider keeps predictions and media that does not say otherwise, in seconds."""


def retention_of(provider: Provider) -> float:
    """How many seconds after its submit a prediction and its media are surely still kept.

    A provider may say so by its ``retention_s``.
    """
    return float(getattr(provider, "retention_s", USUAL_RETENTION_S))


def media_s_of(provider: Provider) -> float:
    """How many seconds after its end a prediction's media can surely be had.

    A provider may say so by its ``media_s``, where that is less than its retention. The shorter it
    is, the sooner they are fetched; it gives nothing up, which takes the retention and a refusal.
    """
    return float(getattr(provider, "media_s", retention_of(provider)))


def account_of(provider: Provider) -> str:
    """The provider's word for its account; empty where it has none."""
    account = getattr(provider, "account", "")
    return account if isinstance(account, str) else ""
