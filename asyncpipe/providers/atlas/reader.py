"""What an answer of Atlas Cloud means: pure, from status, headers and body to a prediction.

The body speaks before the status code: failed generations arrive as HTTP 200, and finished ones
as HTTP 500. Whatever arrives becomes a Prediction or one of the provider errors, never another
exception. An answer to a submit that neither names a prediction nor clearly refuses is unknown:
it may have been bought.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

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
from asyncpipe.http import header, retry_after_s
from asyncpipe.jobs import Notes
from asyncpipe.providers import Prediction, PredictionStatus
from asyncpipe.providers.atlas import fields
from asyncpipe.providers.atlas.answer import ApiAnswer, open_answer, trace_id
from asyncpipe.providers.texts import clean, parse

ARTICLE = "article"
"""The route of a prediction known by a bare ``request_id``: the article's wire."""

TEXTS = "texts"
"""The route of an audio prediction: an output may be the text itself, of speech or a song, where
another model's would be a URL. Only the job tells which it is, so the prediction is marked."""

_RUNNING = frozenset(
    {"processing", "created", "starting", "queued", "pending", "running", "in_progress"}
    | {"submitted", "in_queue", "waiting", "accepted", "scheduled", "started", "active"}
    | {"not_started", "处理中", "生成中", "排队中"}
)

_USUAL_TOP = frozenset({"code", "message", "data"})

_USUAL = frozenset(
    {"id", "model", "status", "outputs", "urls", "error", "has_nsfw_contents", "metrics"}
    | {"created_at", "completed_at", "executionTime", "timings", "latency_ms", "price"}
)

_COMPLETED = frozenset(
    {"completed", "succeeded", "success", "succeed", "successful", "done", "complete"}
    | {"finished", "finish", "成功", "完成", "已完成"}
)

_FAILED = frozenset(
    {"failed", "error", "timeout", "canceled", "cancelled", "fail", "failure", "errored"}
    | {"timed_out", "timedout", "time_out", "失败", "超时", "已取消"}
)
"""Documented, or another spelling of what is: the money of these is returned."""

_OWN = frozenset({"failed", "timeout", "canceled", "cancelled"})
"""Those that no answer has as its own word on the request."""

_ENDED = frozenset(
    {"expired", "rejected", "aborted", "blocked", "denied", "refused", "terminated", "killed"}
    | {"stopped", "invalid", "moderated", "content_moderated", "request_moderated"}
)
"""Words of other APIs: ended without outputs. What they cost here nobody has written down, so that
nothing is bought again for one of them."""

_CLEAR = frozenset(
    {400, 401, 402, 403, 404, 405, 406, 411, 412, 413, 414, 415, 416, 417, 421, 422, 423, 424}
    | {426, 428, 429, 431, 451}
)
"""Refusals of a request that was not taken. Not 408, 409, 410, 425, 499: what they end may have
begun."""

_NOT_TAKEN = frozenset({301, 307, 308})
"""Redirects before anything was done; 302 and 303 may be the answer to what was."""

_ABOUT_THE_REQUEST = frozenset({401, 402, 403, 404, 408, 410, 429, 451})

_MARKS = ("id", "predictionId", "prediction_id", "outputs", "output", "error_code")

_SURE_IDS = ("predictionId", "prediction_id")

KEY_REFUSED = "the API refuses the key, or the base URL is wrong: it answers 401 to both"

_FIREWALL = (
    "a firewall before the API turned the request away; "
    "Cloudflare does so by User-Agent, network or country"
)

_UNSAFE = "its content-safety filter flags it as not safe (NSFW)"

_BALANCE = "the account's balance or plan is used up: top it up"

_REJECTED = {
    404: "the API does not know this model, or it is not open to the account",
    413: "the request is larger than the API takes",
    451: "the API does not serve this region",
}

E = TypeVar("E", bound=ProviderError)

W = TypeVar("W", RateLimited, Overloaded, PollFailed)


def read_submit(
    status: int, headers: Mapping[str, str], body: bytes, *, texts: bool = False
) -> Prediction:
    """Read the answer to a submit: a prediction that runs, or one that is final already.

    ``texts``: an output that is no URL is text. Without it such an output is none.

    Raises NotAccepted, SubmitStopped or Rejected where it was surely not bought, SubmitUnknown
    otherwise.
    """
    if (usual := read_usual(status, headers, body, bare=True)) is not None:
        return usual
    answer = open_answer(status, headers, body)
    final = _verdict(answer)
    if final is PredictionStatus.COMPLETED:
        return _prediction(answer, final, texts=texts)
    found = _prediction(answer, final or PredictionStatus.RUNNING)
    # A failure without an id may be meant of the request, whatever was taken; 1039 cannot.
    sure = bool(found.id) or found.error_code == fields.MODERATED
    if sure and (final or answer.code == 200 or _names_it_anyway(answer)):
        return found
    raise _refusal(answer)


def read_upload(status: int, headers: Mapping[str, str], body: bytes) -> str:
    """Read the answer to an upload: the URL of the file, for submits.

    Raises SubmitStopped or Rejected where sending it again is useless, else NotAccepted: a file
    buys nothing.
    """
    answer = open_answer(status, headers, body)
    if answer.code == 200 and (url := fields.upload_url(answer.layers)):
        return url
    refusal = _refusal(answer)
    if not isinstance(refusal, SubmitUnknown):
        raise refusal
    raise _waiting(RateLimited, answer, "the API did not take the upload")


def read_poll(
    status: int, headers: Mapping[str, str], body: bytes, *, texts: bool = False
) -> Prediction:
    """Read the answer to a poll; its ``id`` may be "". ``texts`` is as for a submit.

    Raises KeyRefused, PredictionGone (404, 410, and 400, which the API answers to ids it does not
    know yet), or PollFailed for everything that says nothing about the prediction.
    """
    if (usual := read_usual(status, headers, body)) is not None:
        return usual
    answer = open_answer(status, headers, body)
    verdict = _verdict(answer)
    if verdict is None:
        raise _poll_error(answer)
    return _prediction(answer, verdict, texts=texts)


def read_usual(
    status: int, headers: Mapping[str, str], body: bytes, *, bare: bool = False
) -> Prediction | None:
    """Read the documented answer that nearly all are, in one step; None for every other.

    ``bare``: an id alone is one as well, as the answer to a submit may be. All that is below reads
    it the same (a test compares them) and takes five times as long.
    """
    # Only text is taken from it, so what becomes of a long number does no harm.
    document = parse(body) if status == 200 else None
    if not isinstance(document, dict) or not _USUAL_TOP.issuperset(document):
        return None
    inner = document.get("data")
    if document.get("code") != 200 or not isinstance(inner, dict) or not _USUAL.issuperset(inner):
        return None
    name, word, urls = inner.get("id"), inner.get("status"), inner.get("outputs")
    if not isinstance(name, str) or not fields.PLAIN_ID.fullmatch(name) or _says_more(inner):
        return None
    verdict = PredictionStatus.RUNNING
    outputs: tuple[str, ...] = ()
    if word == "completed" and isinstance(urls, list) and len(urls) == 1:
        verdict, outputs = PredictionStatus.COMPLETED, (urls[0],)
        if not fields.is_plain_url(urls[0]):
            return None
    elif not (isinstance(word, str) and word in _RUNNING) and not (bare and len(inner) == 1):
        return None
    charged = fields.amount(inner.get("price")) if outputs else None
    trace = header(headers, "X-Request-ID")
    return Prediction(
        id=name,
        status=verdict,
        outputs=outputs,
        request_id=(trace and clean(trace, 200)) or None,
        said=word,
        charged=charged,
    )


def _says_more(inner: Mapping[str, Any]) -> bool:
    return bool(inner.get("error") or fields.unsafe((inner,)))


def _verdict(answer: ApiAnswer) -> PredictionStatus | None:
    """What the body says of the prediction; None if it says nothing, or nothing to rely on."""
    word, of_prediction = _word(answer)
    if answer.code != 200:
        return _verdict_in_error(answer, word, of_prediction)
    if word == "failed" or (of_prediction and _is_failure(word)):
        return PredictionStatus.FAILED
    if word in _COMPLETED and of_prediction:
        return PredictionStatus.COMPLETED
    if word in _RUNNING:
        return PredictionStatus.RUNNING
    # No status, one that nobody knows, or one that may be meant of the request: {"status":
    # "success", "data": {…}}. Finished is evident from outputs then, unless they may be previews;
    # but a lone image_url may echo the job's input.
    previews = word is not None and of_prediction and word.endswith("ing")
    finished = not previews and fields.outputs(answer.layers, singles=word in _COMPLETED)
    if finished and not _is_failure(word):
        return PredictionStatus.COMPLETED
    unknown = word is not None and of_prediction and not _is_failure(word)
    return PredictionStatus.RUNNING if unknown else None


def _is_failure(word: str | None) -> bool:
    return word in _FAILED or word in _ENDED


def _is_known(word: str | None) -> bool:
    return word is None or word in _RUNNING or word in _COMPLETED or _is_failure(word)


def _verdict_in_error(
    answer: ApiAnswer, word: str | None, of_prediction: bool
) -> PredictionStatus | None:
    """What an error answer says of the prediction: only what cannot be meant of the request.

    HTTP 500 with a ``failed`` body is a failed prediction, and so is any 5xx that has such a word
    under ``data``; 504 with ``timeout`` is a gateway.
    """
    if answer.code == fields.MODERATED:
        return PredictionStatus.FAILED
    if answer.code in _ABOUT_THE_REQUEST or 300 <= answer.status < 400:
        return None
    if word == "failed" and (of_prediction or answer.status == 500):
        return PredictionStatus.FAILED
    if answer.code >= 500 and answer.status != 504 and answer.inner and _is_failure(word):
        return PredictionStatus.FAILED
    if word in _COMPLETED and of_prediction and fields.outputs(answer.layers):
        return PredictionStatus.COMPLETED
    return None


def _word(answer: ApiAnswer) -> tuple[str | None, bool]:
    """The status word in one spelling, and whether it is surely the prediction's own."""
    for layer in answer.inner:
        if word := _spelled(layer):
            return word, True
    top = answer.layers[-1]
    word = _spelled(top)
    # On the article's wire the status stands on top, where error envelopes may have one as well.
    named = any(top.get(mark) for mark in _MARKS)
    plain = answer.code == 200 and (word in _OWN or not _is_failure(word))
    return word, not answer.inner and (named or plain)


def _spelled(layer: fields.Fields) -> str | None:
    word = layer.get("status")
    if not isinstance(word, str):
        return None
    if word.isalpha() and len(word) <= 40:
        return word.lower()
    return re.sub(r"[\s-]+", "_", clean(word, 40).lower()) or None


def _prediction(answer: ApiAnswer, status: PredictionStatus, *, texts: bool = False) -> Prediction:
    named = fields.prediction_id(answer.layers)
    bare = "" if named else _bare_request_id(answer)
    failed = status is PredictionStatus.FAILED
    done = status is PredictionStatus.COMPLETED
    code = _error_code(answer) if failed else None
    outputs = fields.outputs(answer.layers, texts=texts) if done else ()
    word, flags = _word(answer)[0], fields.unsafe(answer.layers)
    error = _error(answer, status, outputs=bool(outputs), flagged=bool(flags))
    refused = fields.is_moderation(f"{word} {error}", code) or bool(flags)
    return Prediction(
        id=named or bare,
        status=status,
        outputs=outputs,
        extras=fields.extras(answer.layers, outputs) if outputs else (),
        error=None if outputs else error or None,
        error_code=code,
        moderated=refused and (failed or (done and not outputs)),
        # Documented (§5): the money of failed and timed-out predictions is returned.
        released=True,
        again=word not in _ENDED,
        route=ARTICLE if bare else "",
        request_id=answer.request_id,
        said=word,
        # Not of a failed one: its money is returned, whatever it cost before.
        charged=fields.cost(answer.layers) if done else None,
        notes=_notes(
            nsfw=list(flags),
            error=error if outputs else "",
            raw=_raw(answer, status, texts=texts),
            status="" if _is_known(word) else word,
        ),
    )


def _error(answer: ApiAnswer, status: PredictionStatus, *, outputs: bool, flagged: bool) -> str:
    """What is said of a failure, or of trouble.

    Of no outputs a mere message is the reason where it speaks of a filter: else it may be of their
    being late.
    """
    if status is PredictionStatus.FAILED:
        words = fields.failure_text(answer.layers, enveloped=answer.code != 200)
    else:
        words = fields.trouble_text(answer.layers)
    if words or outputs or status is PredictionStatus.RUNNING:
        return words
    if fields.is_moderation(answer.said, None):
        return answer.said
    return _UNSAFE if flagged else ""


def _raw(answer: ApiAnswer, status: PredictionStatus, *, texts: bool) -> str:
    """What stands where outputs are, as it came, where nobody will fetch it."""
    if status is PredictionStatus.COMPLETED:
        return fields.unread(answer.layers, texts=texts)
    failed = status is PredictionStatus.FAILED
    return fields.outputs_of_failure(answer.layers) if failed else ""


def _notes(**said: Any) -> Notes:
    """What is said besides and should not be lost; hardly ever anything."""
    return {name: value for name, value in said.items() if value}


def _error_code(answer: ApiAnswer) -> int | None:
    code = fields.error_code(answer.layers)
    return fields.MODERATED if code is None and answer.code == fields.MODERATED else code


def _bare_request_id(answer: ApiAnswer) -> str:
    """The article's id. Error envelopes carry a trace id of the same name; that is none."""
    failing = _word(answer)[0] is None and any(layer.get("error") for layer in answer.layers)
    if answer.code != 200 or failing:
        return ""
    return next((found for layer in answer.layers if (found := trace_id(layer))), "")


def _names_it_anyway(answer: ApiAnswer) -> bool:
    """Whether an answer that is none names a prediction: then that was bought, whatever it says.

    An ``id`` on top may be an error's own; beside a status word it is not.
    """
    if fields.prediction_id((*answer.inner, {})):
        return True
    top = answer.layers[-1]
    told = _word(answer)[0] not in (None, "error")
    return bool(fields.identifier(top, _SURE_IDS) or (told and fields.identifier(top)))


def _refusal(answer: ApiAnswer) -> ProviderError:
    """What an answer to a submit that names no prediction comes down to (design.md §3)."""
    code = answer.code
    if code == 503 and _is_overload(answer):
        return _waiting(Overloaded, answer, "the API is overloaded")
    if answer.status in _NOT_TAKEN:
        return _made(Rejected, answer, _redirect_text(answer))
    # Of a gateway that broke off, whatever it repeats in its body, nobody knows what it sent on.
    if code not in _CLEAR or not (answer.status in _CLEAR or answer.status in (200, 201, 202, 500)):
        return _made(SubmitUnknown, answer, _unclear_text(answer))
    if (stopped := _stopped(answer)) is not None:
        return stopped
    if code == 429:
        return _waiting(RateLimited, answer, "the API limits the rate of submits")
    return _made(Rejected, answer, _REJECTED.get(code, "the API refuses the request"))


def _stopped(answer: ApiAnswer) -> ProviderError | None:
    if answer.code == 401:
        return _made(KeyRefused, answer, KEY_REFUSED)
    if answer.code == 402:
        return _made(BalanceExhausted, answer, _BALANCE)
    if answer.code == 403 and not _is_envelope(answer):
        return _made(KeyRefused, answer, _FIREWALL)
    return None


def _poll_error(answer: ApiAnswer) -> ProviderError:
    code = answer.code
    if code == 401:
        return _made(KeyRefused, answer, KEY_REFUSED)
    if code in (400, 404, 410):
        return _made(PredictionGone, answer, "the API does not know the prediction")
    if 300 <= answer.status < 400:
        return _waiting(PollFailed, answer, _redirect_text(answer))
    if code == 200:
        what = "names no status" if answer.document is not None else "is not the API's JSON"
        return _waiting(PollFailed, answer, f"the answer to a poll {what}")
    failed = _waiting(PollFailed, answer, "the API could not answer a poll")
    if code == 429:
        failed.status = 429  # also where it stands in the body alone: flow slows down for it
    return failed


def _made(kind: type[E], answer: ApiAnswer, text: str) -> E:
    shown = str(answer.status)
    if answer.code not in (answer.status, 200):
        shown += f", code {answer.code}"
    if answer.said:
        shown += f": {answer.said}"
    return kind(clean(f"{text} ({shown})"), status=answer.status, request_id=answer.request_id)


def _waiting(kind: type[W], answer: ApiAnswer, text: str) -> W:
    error = _made(kind, answer, text)
    error.retry_after_s = retry_after_s(answer.headers)
    return error


def _is_envelope(answer: ApiAnswer) -> bool:
    """Whether a refusal is the API's own and not of a firewall, which may speak JSON as well."""
    words = ("code", "msg", "error", "message")  # Cloudflare's JSON has title, status and detail
    return any(word in (answer.document or {}) for word in words)


def _is_overload(answer: ApiAnswer) -> bool:
    """Whether a 503 is the API's word that nothing was taken; a proxy's 503 tells nothing."""
    return answer.document is not None and fields.number(answer.document.get("code")) == 503


def _redirect_text(answer: ApiAnswer) -> str:
    try:
        host = urlsplit(header(answer.headers, "Location")).hostname or "another path"
    except ValueError:
        host = "an address that cannot be read"
    return (
        f"the API redirects to {host}, and the key is not sent on: "
        "correct the base URL (--base-url or ATLASCLOUD_BASE_URL)"
    )


def _unclear_text(answer: ApiAnswer) -> str:
    if answer.code != 200:
        return "the API broke off a submit: it may have taken it"
    what = "names no prediction" if answer.document is not None else "is not the API's JSON"
    return f"the answer to a submit {what}: it may have been taken"
