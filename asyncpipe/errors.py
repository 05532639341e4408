"""What can go wrong, split by what the caller can do about it.

::

    AsyncpipeError
    ├── UsageError              the input, option or environment is wrong: correct it (exit 2)
    │   ├── JobFileError        .problems lists every one, with file, line and remedy
    │   └── TooExpensive        the job would cost more than its own max_cost
    ├── ProviderError           the API, or the way to it; .status and .request_id where known
    │   ├── NotAccepted         surely nothing was bought: wait, then submit again
    │   │   ├── NotSent         no connection was made
    │   │   ├── RateLimited     429; .retry_after_s where the provider says
    │   │   └── Overloaded      503 in the API's own words
    │   ├── SubmitStopped       surely nothing was bought, and nothing more can be: stop the run
    │   │   ├── CannotConnect   the way to the API is set up wrongly; a UsageError as well (exit 2)
    │   │   ├── KeyRefused      401, or a 403 that is not the API's
    │   │   └── BalanceExhausted  402
    │   ├── Rejected            this request is refused for good: never send it unchanged
    │   ├── SubmitUnknown       sent, and no answer: it may have been bought
    │   ├── PredictionGone      the provider does not know the prediction (yet, or any more)
    │   ├── PollFailed          the poll failed, not the prediction: poll again
    │   └── HistoryUnavailable  the API does not list the account's predictions
    ├── DownloadError           the media could not be fetched or is not what it should be
    │   ├── MediaGone           the URL answers 403, 404 or 410
    │   └── TooLarge            the media is larger than allowed; another try in this run is useless
    ├── DiskError               the disk does not take what is written: stop
    ├── LedgerError             the ledger cannot be read or written
    ├── BudgetReached           the job does not fit into max_cost, or into its label's or day's
    ├── IdempotencyConflict     the idempotency key stands for another job already
    ├── BalanceTooLow           the account has less than min_balance
    ├── WebhookRefused          a delivery is not what it says: answer .status
    │   └── WebhookKeysAway     503: it cannot be checked now, have it delivered again
    └── FolderInUse             another run holds the output folder

A job that fails is a result, never one of these; ``IllegalTransition`` is a bug of ours.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TypeVar

_NUMBER = re.compile(r"[0-9a-f]*\d[0-9a-f]*")


def without_numbers(reason: str) -> str:
    """What one reason looks like whenever it is said: trace ids, sizes and times in it differ."""
    return _NUMBER.sub("#", reason.lower())


def storable(text: object) -> str:
    """Text as every ledger takes it: no half characters and no NUL; never raises."""
    try:
        said = text if isinstance(text, str) else str(text)
        if not said.isascii():
            said = said.encode("utf-8", "replace").decode("utf-8")
    except Exception:  # of an object that cannot say what it is
        return type(text).__name__
    return said.replace("\0", "\ufffd")


LONGEST_WISH_S = 86_400.0
"""Nobody is waited for longer than that, in seconds, whatever an answer asks for."""


def _wish(retry_after_s: float | None) -> float | None:
    """A wish to wait that can be followed; None for nonsense, which must not stop a whole run."""
    told: object = retry_after_s
    if isinstance(told, bool) or not isinstance(told, int | float) or not math.isfinite(told):
        return None
    return min(float(told), LONGEST_WISH_S) if told >= 0 else None


class AsyncpipeError(Exception):
    """Base class of everything asyncpipe raises on purpose."""


ErrorT = TypeVar("ErrorT", bound=AsyncpipeError)


def own_copy(error: ErrorT) -> ErrorT:
    """A copy of an error for one more who is told of it, with its attributes and its cause.

    One object raised to a thousand callers would carry the tracebacks of all of them.
    """
    copy = type(error).__new__(type(error), *error.args)
    copy.args = error.args
    for name, value in vars(error).items():
        vars(copy)[name] = [*value] if name == "__notes__" else value
    copy.__cause__, copy.__suppress_context__ = error.__cause__, error.__suppress_context__
    return copy


class UsageError(AsyncpipeError):
    """The input, an option or the environment is wrong; nothing was spent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One thing wrong with a job file.

    ``line`` counts from 1 (None: the file as a whole); ``job`` is the job's name or ``job N``;
    ``message`` says what is wrong, with the value, and what to do.
    """

    message: str
    file: str | None = None
    line: int | None = None
    job: str | None = None

    def __str__(self) -> str:
        where = [f"{self.file}:{self.line}" if self.line else self.file] if self.file else []
        if self.job:
            where.append(f"job {self.job!r}" if not self.job.startswith("job ") else self.job)
        return ": ".join([*filter(None, where), self.message])


class JobFileError(UsageError):
    """A job file has problems; all of them, or the first thousand, are in ``problems``."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in problems))


class TooExpensive(UsageError):
    """The job would cost more than its own ``max_cost``: nothing was reserved."""


class ProviderError(AsyncpipeError):
    """The API refused, failed, or could not be reached.

    ``status`` is the HTTP status, ``request_id`` the provider's trace id; None where unknown.
    """

    def __init__(
        self, message: str, *, status: int | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(storable(message))
        self.status: int | None = status
        self.request_id: str | None = None if request_id is None else storable(request_id)


class NotAccepted(ProviderError):
    """The submit surely bought nothing; submit again after a wait."""


class NotSent(NotAccepted):
    """No connection to the API could be made."""


class RateLimited(NotAccepted):
    """The API answered 429; ``retry_after_s`` is its wish in seconds, or None."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = 429,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, status=status, request_id=request_id)
        self.retry_after_s: float | None = _wish(retry_after_s)


class Overloaded(RateLimited):
    """The API answered 503 in its own envelope."""


class SubmitStopped(ProviderError):
    """The submit bought nothing, and no other submit will: stop submitting."""


class CannotConnect(SubmitStopped, UsageError):
    """The way to the API is set up wrongly: its certificate is not trusted, or a proxy refuses us.

    Raised before the API's first answer only; later the same is trouble that may pass.
    """


class KeyRefused(SubmitStopped):
    """The API does not accept the key (or the base URL is wrong: it answers 401 to both)."""


class BalanceExhausted(SubmitStopped):
    """The account has no money left (402)."""


class Rejected(ProviderError):
    """The API refuses this request for good; sending it unchanged again is useless."""


class SubmitUnknown(ProviderError):
    """The submit was sent and its answer was lost: the provider may have taken it."""


class PredictionGone(ProviderError):
    """The API does not know the prediction: too early, expired, or never there."""


class PollFailed(ProviderError):
    """The poll failed, which says nothing about the prediction; ``retry_after_s`` or None."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, status=status, request_id=request_id)
        self.retry_after_s: float | None = _wish(retry_after_s)


class HistoryUnavailable(ProviderError):
    """The API does not list the account's predictions: lost submits cannot be looked for."""


class DownloadError(AsyncpipeError):
    """The media could not be fetched whole, or is not what it should be.

    ``have`` bytes of it are kept, of ``total`` (None: not known), for the next try to go on from;
    ``retry_after_s`` is its server's wish in seconds, or None. ``refused``: its server does
    not take the URL (any more), or there is none; another URL may do.
    """

    def __init__(
        self,
        message: str,
        *,
        have: int = 0,
        total: int | None = None,
        retry_after_s: float | None = None,
        refused: bool = False,
    ) -> None:
        super().__init__(message)
        self.retry_after_s: float | None = _wish(retry_after_s)
        self.have = have
        self.total = total
        self.refused = refused


class MediaGone(DownloadError):
    """The media's URL answers 403, 404 or 410."""

    def __init__(self, message: str) -> None:
        super().__init__(message, refused=True)


class TooLarge(DownloadError):
    """The media is larger than what is allowed; nothing of it is kept."""


class DiskError(AsyncpipeError):
    """The disk does not take what is written (full, read-only, broken …): stop."""


class LedgerError(AsyncpipeError):
    """The ledger cannot be read or written."""


class BudgetReached(AsyncpipeError):
    """The job was not submitted: with it the folder would cost more than its budget.

    Or all jobs that have a label of its, or those of the day: ``budget`` names that one, as in
    ``budgets``; None: it is the folder's.
    """

    def __init__(self, message: str, *, budget: str | None = None) -> None:
        super().__init__(message)
        self.budget = budget


class IdempotencyConflict(AsyncpipeError):
    """The idempotency key stands for another job already: nothing was bought."""


class BalanceTooLow(AsyncpipeError):
    """Nothing was submitted: the account has less than ``min_balance``."""


class ClaimLost(AsyncpipeError):
    """Another worker has the job by now; what was found out of it is written down for that one."""


class FolderInUse(AsyncpipeError):
    """Another run holds the output folder."""


class WebhookRefused(AsyncpipeError):
    """A webhook is not taken; nothing of what it says is in the message.

    ``word`` is why (malformed, too large, stale, forged, replayed, keys away), ``status`` the HTTP
    status to answer.
    """

    def __init__(self, message: str, word: str, status: int) -> None:
        super().__init__(message)
        self.word: str = word
        self.status: int = status


class WebhookKeysAway(WebhookRefused):
    """The keys to check a webhook with cannot be had: answer 503, so that it is sent again."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "keys away", 503)


class IllegalTransition(RuntimeError):
    """A job was to move between states the table does not connect: a bug, please report it."""
