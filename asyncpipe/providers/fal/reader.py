"""What fal's answers to submits and polls come down to: pure.

fal never says that a request failed: it says COMPLETED, and the result is answered with the model's
own error (providers' notes A1). So a poll reads two answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar

from asyncpipe.errors import (
    BalanceExhausted,
    KeyRefused,
    Overloaded,
    PollFailed,
    PredictionGone,
    ProviderError,
    RateLimited,
    Rejected,
    SubmitStopped,
    SubmitUnknown,
)
from asyncpipe.http import header, retry_after_s
from asyncpipe.providers.base import Prediction, PredictionStatus
from asyncpipe.providers.fal.answer import FalAnswer, open_answer
from asyncpipe.providers.fal.outputs import extras, outputs, unsafe
from asyncpipe.providers.fal.routes import Hosts, told_route
from asyncpipe.providers.texts import clean, speaks_of_moderation, storable

KEY_REFUSED = "fal refuses the key"

_BALANCE = "the account at fal has no money left: top it up"

_LOCKED = "fal has locked the account, and neither key nor money helps: ask fal's support"

_NO_MONEY = re.compile(r"exhausted balance|top[ _-]?up|insufficient (balance|credit|fund)", re.I)

_LOCK = re.compile(r"\b(user|account) is locked|admin lock", re.I)

_UNREADY = re.compile(r"still in progress|not (yet )?(completed|finished|ready)", re.I)

_REFUSED = frozenset({400, 403, 404, 405, 406, 411, 412, 413, 414, 415, 416, 417, 421, 422, 426})
"""Refusals of a request that was not taken. Not 408, 409, 410, 425, 499: what they end may have
begun."""

_NOT_TAKEN = frozenset({301, 307, 308})

_INGRESS = frozenset({503, 504})

_MODERATED = "content_policy_violation"

_RUNNING = frozenset({"IN_QUEUE", "IN_PROGRESS"})

_ID_LENGTH = 512

E = TypeVar("E", bound=ProviderError)

W = TypeVar("W", RateLimited, Overloaded, PollFailed)


def read_submit(
    status: int, headers: Mapping[str, str], body: bytes, *, model: str, hosts: Hosts
) -> Prediction:
    """Read the answer to a submit.

    Raises NotAccepted, SubmitStopped or Rejected where it was surely not bought, SubmitUnknown
    otherwise.
    """
    answer = open_answer(status, headers, body)
    if 200 <= status < 300:
        document = answer.document or {}
        name = document.get("request_id")
        if not isinstance(name, str) or not 0 < len(name := name.strip()) <= _ID_LENGTH:
            raise _made(SubmitUnknown, answer, "the answer to a submit names no request: " + _MAYBE)
        name = storable(name)
        trace = document.get("gateway_request_id")
        own = clean(trace, 200) if isinstance(trace, str) else ""
        return Prediction(
            id=name,
            route=told_route(model, name, document.get("response_url"), hosts),
            request_id=own or answer.request_id,
            said=_said(document),
        )
    raise refusal(answer)


_MAYBE = "it may have been taken"


def refusal(answer: FalAnswer) -> ProviderError:
    """What an answer that refuses a submit, or an upload, comes down to."""
    status = answer.status
    if (stopped := _stopped(answer)) is not None:
        return stopped
    if status == 429:
        return _waiting(RateLimited, answer, "fal limits the rate of submits")
    if status in _INGRESS and answer.ingress:
        return _waiting(Overloaded, answer, "fal's door did not let a submit in")
    if status in _NOT_TAKEN:
        return _made(Rejected, answer, "fal redirects a submit, and the key is not sent on")
    if status in _REFUSED:
        missing = "fal does not know the model" if status == 404 else "fal refuses the request"
        return _made(Rejected, answer, missing)
    return _made(SubmitUnknown, answer, f"fal broke off a submit: {_MAYBE}")


def _stopped(answer: FalAnswer) -> SubmitStopped | None:
    if answer.status == 401:
        return _made(KeyRefused, answer, KEY_REFUSED)
    if answer.status not in (402, 403):
        return None
    said = answer.said
    if answer.status == 402 or _NO_MONEY.search(said):
        return _made(BalanceExhausted, answer, _BALANCE)
    if _LOCK.search(said):
        return _made(SubmitStopped, answer, _LOCKED)
    return _made(KeyRefused, answer, KEY_REFUSED)


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusAnswer:
    """What a status says: ``running`` while there is no result, and what it says of an error."""

    running: Prediction | None
    error: str = ""


def read_status(status: int, headers: Mapping[str, str], body: bytes) -> StatusAnswer:
    """Read the answer to a question for a status: 202 while it runs, 200 when it has ended.

    Raises KeyRefused, PredictionGone, or PollFailed for everything that says nothing about it.
    """
    answer = open_answer(status, headers, body)
    document = answer.document or {}
    word = document.get("status")
    if not 200 <= status < 300 or not isinstance(word, str):
        raise _poll_error(answer)
    if word == "COMPLETED":
        error = document.get("error")
        words = clean(error) if isinstance(error, str) else ""
        return StatusAnswer(running=None, error=words or answer.error_type)
    known = word in _RUNNING
    told = Prediction(
        id="",
        request_id=answer.request_id,
        said=_said(document),
        error=None if known else answer.said or None,
        notes={} if known else {"status": clean(word, 40).lower()},
    )
    return StatusAnswer(running=told)


def read_result(
    status: int, headers: Mapping[str, str], body: bytes, *, told: str = ""
) -> Prediction:
    """Read the answer to a question for the result of a request that has ended.

    ``told`` is what its status says of an error. Raises as ``read_status`` does.
    """
    answer = open_answer(status, headers, body)
    if 200 <= status < 300:
        if answer.document is None:
            raise _waiting(PollFailed, answer, "the result of a request is not JSON")
        return _delivered(answer, told)
    if not _is_the_models(answer, told):
        raise _poll_error(answer)
    said = answer.said if answer.document is not None else ""
    words = said or told or f"fal answers {status}"
    refused = any(each.type == _MODERATED for each in answer.details)
    return Prediction(
        id="",
        status=PredictionStatus.FAILED,
        error=clean(f"{words} ({status})"),
        moderated=refused or (status < 500 and speaks_of_moderation(said)),
        # Documented: errors of the server are not charged, and one of the input may be.
        released=True if status >= 500 else None,
        request_id=answer.request_id,
        said="COMPLETED",
    )


def is_doubtful(status: int, headers: Mapping[str, str], body: bytes, *, told: str = "") -> bool:
    """Whether an error of the result may be some gateway's: then it is worth being asked again."""
    if status < 500 or told:
        return False
    answer = open_answer(status, headers, body)
    return not (answer.error_type or answer.typed)


def units_of(headers: Mapping[str, str]) -> Decimal | None:
    """How many units a result says are billed; None where it does not."""
    text = header(headers, "x-fal-billable-units").strip()
    if not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,12})?", text):
        return None
    return Decimal(text)


def _delivered(answer: FalAnswer, told: str) -> Prediction:
    document = answer.document or {}
    found, flags = outputs(document), unsafe(document)
    error = told or ("" if found else answer.said)
    notes: dict[str, object] = {"nsfw": list(flags)} if flags else {}
    if told and found:
        notes["error"] = told
    return Prediction(
        id="",
        status=PredictionStatus.COMPLETED,
        outputs=found,
        extras=extras(document, found) if found else (),
        error=None if found else error or None,
        moderated=bool(flags) and not found,
        request_id=answer.request_id,
        said="COMPLETED",
        notes=notes,
    )


def _is_the_models(answer: FalAnswer, told: str) -> bool:
    """Whether an error is the request's own, and not of this question for it."""
    status = answer.status
    if status >= 500:
        return answer.speaks or bool(told)
    if answer.typed:
        return status >= 400
    if status in (401, 403, 404, 408, 410, 429) or _UNREADY.search(answer.said):
        return False
    return status >= 400 and (answer.speaks or bool(told))


def _poll_error(answer: FalAnswer) -> ProviderError:
    status = answer.status
    if status == 401:
        return _made(KeyRefused, answer, KEY_REFUSED)
    if status == 403 and not (_NO_MONEY.search(answer.said) or _LOCK.search(answer.said)):
        return _made(KeyRefused, answer, KEY_REFUSED)
    if status in (404, 410):
        return _made(PredictionGone, answer, "fal does not know the request")
    if 200 <= status < 300:
        what = "names no status" if answer.document is not None else "is not fal's JSON"
        return _waiting(PollFailed, answer, f"the answer to a poll {what}")
    return _waiting(PollFailed, answer, "fal could not answer a poll")


def _said(document: Mapping[str, object]) -> str | None:
    """The status word, and how many requests are before this one."""
    word, position = document.get("status"), document.get("queue_position")
    if not isinstance(word, str):
        return None
    word = clean(word, 40)
    before = isinstance(position, int) and not isinstance(position, bool) and position > 0
    return f"{word}, {position} before it" if before else word


def _made(kind: type[E], answer: FalAnswer, text: str) -> E:
    shown = f"{answer.status}: {answer.said}" if answer.said else str(answer.status)
    return kind(clean(f"{text} ({shown})"), status=answer.status, request_id=answer.request_id)


def _waiting(kind: type[W], answer: FalAnswer, text: str) -> W:
    error = _made(kind, answer, text)
    error.retry_after_s = retry_after_s(answer.headers)
    return error
