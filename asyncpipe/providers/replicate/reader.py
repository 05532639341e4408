"""What an answer of Replicate means: pure, from status, headers and body to a prediction.

Whatever arrives becomes a Prediction or one of the provider errors. An answer to a submit that
neither names a prediction nor clearly refuses is unknown: it may have been bought.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from asyncpipe.errors import (
    BalanceExhausted,
    KeyRefused,
    PollFailed,
    PredictionGone,
    ProviderError,
    RateLimited,
    Rejected,
    SubmitUnknown,
)
from asyncpipe.http import header, retry_after_s
from asyncpipe.jobs import Notes
from asyncpipe.providers import Cancelled, Prediction, PredictionStatus
from asyncpipe.providers.replicate.outputs import raw_of, urls_of
from asyncpipe.providers.texts import (
    Fields,
    clean,
    page_text,
    read_json,
    speaks_of_moderation,
    storable,
)

_STATUSES = {
    "starting": PredictionStatus.RUNNING,
    "processing": PredictionStatus.RUNNING,
    "succeeded": PredictionStatus.COMPLETED,
    "failed": PredictionStatus.FAILED,
    "canceled": PredictionStatus.FAILED,
    "aborted": PredictionStatus.FAILED,
}

_CLEAR = frozenset(
    {400, 401, 402, 403, 404, 405, 406, 411, 412, 413, 414, 415, 416, 417, 421, 422, 423, 424}
    | {426, 428, 429, 431, 451}
)
"""Refusals of a request that was not taken. Not 408, 409, 410, 425, 499: what they end may have
begun."""

_NOT_TAKEN = frozenset({301, 307, 308})
"""Redirects before anything was done; 302 and 303 may be the answer to what was."""

_GONE = frozenset({404, 410})

LONGEST_WISH_S = 3600.0
"""The most that a wish to wait is believed, in seconds."""

_RESETS = re.compile(r"resets in ~?(\d{1,5})\s*s", re.IGNORECASE)

_MOST_FIELDS = 5

KEY_REFUSED = "Replicate refuses the key: check REPLICATE_API_TOKEN"

_BALANCE = "the account's credit at Replicate is used up: top it up"

_FIREWALL = "a firewall before the API turned the request away, by User-Agent, network or country"

_REDIRECTED = (
    "the API redirects, and the key is not sent on: correct the base URL (--base-url or "
    "REPLICATE_API_BASE_URL)"
)

REMOVED = (
    "Replicate has removed its output, as it does an hour after a prediction's end: it is paid for "
    "and cannot be had any more"
)

NO_FILE = "its output is no file"

_REJECTED = {
    404: "Replicate does not know this model, or it is not open to the account; one that is not "
    "official needs its version: owner/name:version",
    413: "the request is larger than the API takes: let it name files by URL",
    422: "Replicate does not take this input",
}

E = TypeVar("E", bound=ProviderError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """One answer: ``document`` is its JSON object, or None."""

    status: int
    headers: Mapping[str, str]
    document: Fields | None
    page: str

    @property
    def fields(self) -> Fields:
        """The JSON object; empty where there is none."""
        return self.document or {}

    @property
    def said(self) -> str:
        """What it says of an error, on one line."""
        return self.page if self.document is None else _words(self.document)

    @property
    def wish_s(self) -> float | None:
        """How long it asks to wait, in seconds: in the body, in a header, or in its words."""
        told = self.fields.get("retry_after")
        if isinstance(told, int | float) and not isinstance(told, bool) and told >= 0:
            return min(float(told), LONGEST_WISH_S)
        if (wish := retry_after_s(self.headers)) is not None:
            return wish
        reset = header(self.headers, "ratelimit-reset").strip()
        if header(self.headers, "ratelimit-remaining").strip() == "0" and reset.isdecimal():
            return min(float(reset[:9]), LONGEST_WISH_S)
        found = _RESETS.search(self.said)
        return min(float(found[1]), LONGEST_WISH_S) if found else None


def open_answer(status: int, headers: Mapping[str, str], body: bytes) -> Opened:
    """Open an answer, whatever its body is."""
    document = read_json(body)
    page = page_text(body) if document is None else ""
    return Opened(status=status, headers=headers, document=document, page=page)


def read_submit(status: int, headers: Mapping[str, str], body: bytes) -> Prediction:
    """Read the answer to a submit: a prediction that runs, or one that is final already.

    Raises RateLimited, SubmitStopped or Rejected where it was surely not bought, SubmitUnknown
    otherwise.
    """
    answer = open_answer(status, headers, body)
    # An error's ``status`` is a number: where there is an id with a word, that was bought.
    if id_of(answer.fields) and (200 <= status < 300 or word_of(answer.fields)):
        return _prediction(answer)
    raise _refusal(answer)


def read_poll(
    status: int, headers: Mapping[str, str], body: bytes, prediction_id: str
) -> Prediction:
    """Read the answer to a poll of ``prediction_id``.

    Raises KeyRefused, PredictionGone, or PollFailed for all that says nothing about it.
    """
    answer = open_answer(status, headers, body)
    if status == 200 and word_of(answer.fields):
        if id_of(answer.fields) in ("", prediction_id):
            return _prediction(answer, prediction_id)
        raise _made(PollFailed, answer, "the answer to a poll is of another prediction")
    raise poll_error(answer, "a poll")


def read_cancel(status: int, headers: Mapping[str, str], body: bytes) -> Cancelled:
    """Read the answer to a cancel; raises as ``read_poll`` does."""
    answer = open_answer(status, headers, body)
    if not (200 <= status < 300 and word_of(answer.fields)):
        raise poll_error(answer, "a cancel")
    told = _prediction(answer)
    if told.said in ("succeeded", "failed"):
        return Cancelled.TOO_LATE
    if told.status is not PredictionStatus.FAILED or told.released is None:
        return Cancelled.UNKNOWN
    return Cancelled.FREE if told.released else Cancelled.CHARGED


def read_upload(status: int, headers: Mapping[str, str], body: bytes) -> str:
    """Read the answer to an upload: the URL of the file, for submits.

    Raises SubmitStopped or Rejected where sending it again is useless, else RateLimited: a file
    buys nothing.
    """
    answer = open_answer(status, headers, body)
    urls = answer.fields.get("urls")
    url = urls.get("get") if isinstance(urls, dict) else None
    if 200 <= status < 300 and isinstance(url, str) and url.startswith(("http://", "https://")):
        return storable(url)
    refusal = _refusal(answer)
    if not isinstance(refusal, SubmitUnknown):
        raise refusal
    raise _waiting(RateLimited, answer, "the API did not take the upload")


def read_account(status: int, headers: Mapping[str, str], body: bytes) -> str:
    """Read which account the key belongs to; raises KeyRefused or ProviderError."""
    answer = open_answer(status, headers, body)
    name = answer.fields.get("username")
    if status == 200 and isinstance(name, str) and (told := clean(name, 200)):
        return told
    raise poll_error(answer, "a question for the account")


def id_of(fields: Fields) -> str:
    """A prediction's id; "" where there is none."""
    name = fields.get("id")
    return storable(name.strip()) if isinstance(name, str) and len(name) <= 512 else ""


def word_of(fields: Fields) -> str:
    """A prediction's status as its answer spells it; "" where it is none."""
    word = fields.get("status")
    return clean(word, 40).lower() if isinstance(word, str) else ""


def _prediction(answer: Opened, prediction_id: str = "") -> Prediction:
    fields, word = answer.fields, word_of(answer.fields)
    status = _STATUSES.get(word, PredictionStatus.RUNNING)
    done, failed = (
        status is PredictionStatus.COMPLETED,
        status is PredictionStatus.FAILED,
    )
    output = fields.get("output")
    urls = urls_of(output) if done else ()
    error = _words_of(fields.get("error"))
    notes: Notes = {}
    if word and word not in _STATUSES:
        notes["status"] = word
    if raw := raw_of(output) if (done and not urls) or (failed and urls_of(output)) else "":
        notes["raw"] = raw
    released = _released(word, fields) if failed else True
    if done and not urls:
        error = error or (NO_FILE if raw else "")
        if not raw and fields.get("data_removed") is True:
            # It was made and paid for; no later answer will have it again.
            status, error, released = PredictionStatus.FAILED, REMOVED, False
    return Prediction(
        id=prediction_id or id_of(fields),
        status=status,
        outputs=urls,
        error=error or (_ENDED.get(word) if failed else None) or None,
        moderated=failed and speaks_of_moderation(error),
        released=released,
        said=word or None,
        notes=notes,
    )


_ENDED = {
    "canceled": "it was canceled at Replicate",
    "aborted": "its deadline at Replicate passed before it began",
}


def _released(word: str, fields: Fields) -> bool | None:
    """Whether the money of one that failed is returned; None where nobody says.

    Of a canceled one the time that it ran is charged; of one that failed usually nothing is, and
    Replicate does not promise it.
    """
    if word == "aborted":
        return True
    return False if word == "canceled" and _ran(fields) else None


def _ran(fields: Fields) -> bool:
    metrics = fields.get("metrics")
    time_s = metrics.get("predict_time") if isinstance(metrics, dict) else None
    return bool(fields.get("started_at") or time_s)


def _refusal(answer: Opened) -> ProviderError:
    """What an answer to a submit that names no prediction comes down to."""
    status = answer.status
    if status in _NOT_TAKEN:
        return _made(Rejected, answer, _REDIRECTED)
    if status not in _CLEAR:
        return _made(SubmitUnknown, answer, _unclear(answer))
    if status == 429:
        return _waiting(RateLimited, answer, "Replicate limits the rate of submits")
    return _stopped(answer) or _made(
        Rejected, answer, _REJECTED.get(status, "Replicate refuses the request")
    )


def _stopped(answer: Opened) -> ProviderError | None:
    if answer.status == 401:
        return _made(KeyRefused, answer, KEY_REFUSED)
    if answer.status == 402:
        return _made(BalanceExhausted, answer, _BALANCE)
    if answer.status == 403 and (answer.document is None or "cloudflare_error" in answer.fields):
        return _made(KeyRefused, answer, _FIREWALL)
    return None


def poll_error(answer: Opened, what: str) -> ProviderError:
    """What an answer that says nothing of ``what`` was asked for comes down to."""
    if answer.status == 401:
        return _made(KeyRefused, answer, KEY_REFUSED)
    if answer.status in _GONE:
        return _made(PredictionGone, answer, "Replicate does not know the prediction")
    if answer.status == 200:
        kind = "names no status" if answer.document is not None else "is not the API's JSON"
        return _waiting(PollFailed, answer, f"the answer to {what} {kind}")
    return _waiting(PollFailed, answer, f"the API could not answer {what}")


def _unclear(answer: Opened) -> str:
    if not 200 <= answer.status < 300:
        return "the API broke off a submit: it may have taken it"
    what = "names no prediction" if answer.document is not None else "is not the API's JSON"
    return f"the answer to a submit {what}: it may have been taken"


def _made(kind: type[E], answer: Opened, text: str) -> E:
    said = f": {answer.said}" if answer.said else ""
    request_id = clean(header(answer.headers, "X-Request-ID"), 200) or None
    return kind(
        clean(f"{text} ({answer.status}{said})"), status=answer.status, request_id=request_id
    )


W = TypeVar("W", RateLimited, PollFailed)


def _waiting(kind: type[W], answer: Opened, text: str) -> W:
    error = _made(kind, answer, text)
    error.retry_after_s = answer.wish_s
    return error


def _words(document: Fields) -> str:
    """An error's own words: ``detail``, else ``title``, and the fields that are wrong."""
    told = next(
        (text for name in ("detail", "title") if (text := _words_of(document.get(name)))), ""
    )
    wrong = document.get("invalid_fields")
    fields = wrong[:_MOST_FIELDS] if isinstance(wrong, list) else []
    named = "; ".join(filter(None, map(_words_of, fields)))
    return clean(f"{told} ({named})" if told and named else told or named)


def _words_of(value: Any) -> str:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        parts = [_words_of(value.get(name)) for name in ("field", "type", "description", "detail")]
        return clean(" ".join(filter(None, parts)))
    return ""
