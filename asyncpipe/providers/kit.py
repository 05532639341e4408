"""For those who write a provider: what its module begins with, and what its answers come down to.

``asyncpipe.http.HttpClient``, which ``ApiProvider`` asks through, knows whether a submit was sent:
``post`` raises NotSent (a NotAccepted) where surely nothing left this machine, and SubmitUnknown
where it may have been taken; ``get`` and ``ask`` raise PollFailed. Whatever is answered comes back
as an HttpAnswer, and ``refused_submit`` and ``failed_poll`` make the usual error of it. The rule
for all else: what may have been bought is SubmitUnknown, and never sent again by itself.
"""

from __future__ import annotations

from asyncpipe.errors import (
    BalanceExhausted,
    KeyRefused,
    Overloaded,
    PollFailed,
    PredictionGone,
    ProviderError,
    RateLimited,
    Rejected,
    SubmitUnknown,
)
from asyncpipe.http import FilePart, HttpAnswer, HttpClient, Timeouts, header, retry_after_s
from asyncpipe.providers import Cancelled, Listed, Prediction, PredictionStatus
from asyncpipe.providers.address import base_of, segment
from asyncpipe.providers.client import ApiProvider
from asyncpipe.providers.key import holds_key, read_key
from asyncpipe.providers.texts import clean, read_json

__all__ = [
    "ApiProvider",
    "Cancelled",
    "FilePart",
    "HttpAnswer",
    "HttpClient",
    "Listed",
    "Prediction",
    "PredictionStatus",
    "Timeouts",
    "base_of",
    "clean",
    "failed_poll",
    "header",
    "holds_key",
    "read_json",
    "read_key",
    "refused_submit",
    "retry_after_s",
    "segment",
]


def refused_submit(answer: HttpAnswer, said: str) -> ProviderError:
    """The error of a submit that names no prediction, by its status; ``said`` is the API's reason.

    A 503 counts as a refusal only where the body is JSON, as an API's own is; whatever is not
    surely refused is SubmitUnknown.
    """
    status, text = answer.status, f"the API answers {answer.status}: {clean(said)}"
    if status == 429:
        return RateLimited(text, status=status, retry_after_s=retry_after_s(answer.headers))
    if status == 503 and read_json(answer.body) is not None:
        return Overloaded(text, status=status, retry_after_s=retry_after_s(answer.headers))
    kinds: dict[int, type[ProviderError]] = {
        401: KeyRefused,
        402: BalanceExhausted,
        403: KeyRefused,
        408: SubmitUnknown,
        409: SubmitUnknown,
    }
    usual = Rejected if 400 <= status < 500 else SubmitUnknown
    return kinds.get(status, usual)(text, status=status)


def failed_poll(answer: HttpAnswer, said: str) -> ProviderError:
    """The error of a poll that tells no prediction, by its status; ``said`` is the API's reason."""
    status, text = answer.status, f"the API answers {answer.status}: {clean(said)}"
    if status in (404, 410):
        return PredictionGone(text, status=status)
    if status in (401, 403):
        return KeyRefused(text, status=status)
    return PollFailed(text, status=status, retry_after_s=retry_after_s(answer.headers))
