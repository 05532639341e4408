"""What fal answers, literally, and what each answer comes down to: the tables of its wire."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import orjson
import pytest

from asyncpipe.errors import (
    BalanceExhausted,
    KeyRefused,
    NotAccepted,
    Overloaded,
    PollFailed,
    PredictionGone,
    ProviderError,
    RateLimited,
    Rejected,
    SubmitStopped,
    SubmitUnknown,
)
from asyncpipe.providers import Prediction, PredictionStatus
from asyncpipe.providers.fal.reader import (
    is_doubtful,
    read_result,
    read_status,
    read_submit,
    units_of,
)
from asyncpipe.providers.fal.routes import hosts_of

MODEL = "fal-ai/flux/dev"
ID = "764cabcf-b745-4b3e-ae38-1200304cf45b"
QUEUED = {
    "status": "IN_QUEUE",
    "request_id": ID,
    "response_url": f"https://queue.fal.run/fal-ai/flux/requests/{ID}",
    "status_url": f"https://queue.fal.run/fal-ai/flux/requests/{ID}/status",
    "cancel_url": f"https://queue.fal.run/fal-ai/flux/requests/{ID}/cancel",
    "queue_position": 0,
}
NGINX = b"<html><head><title>503 Service Temporarily Unavailable</title></head><hr>nginx</html>"
TRACED = {"x-fal-request-id": ID}
PICTURE = {
    "images": [
        {
            "url": "https://v3.fal.media/files/rabbit/aQE.png",
            "width": 1024,
            "height": 768,
            "content_type": "image/png",
        }
    ],
    "timings": {"inference": 1.22},
    "seed": 920212137,
    "has_nsfw_concepts": [False],
    "prompt": "a mug",
}
LOCKED = {
    "detail": "User is locked. Reason: Exhausted balance. Top up your balance at "
    "fal.ai/dashboard/billing."
}
ADMIN_LOCK = {"detail": "User is locked. Reason: Admin lock."}
BY_POLICY = {
    "detail": [
        {
            "loc": ["body", "prompt"],
            "msg": "The content could not be processed because it was flagged by a content checker",
            "type": "content_policy_violation",
            "url": "https://docs.fal.ai/errors#content_policy_violation",
            "ctx": {"extra_info": {"categories": ["violence"]}},
            "input": {"prompt": "a fight"},
        }
    ]
}
TOO_LARGE = {
    "detail": [
        {
            "loc": ["body", "image_url"],
            "msg": "Image dimensions are too large. Maximum dimensions are 1024x1024.",
            "type": "image_too_large",
            "input": "data:image/png;base64," + "A" * 100,
        }
    ]
}


def submit(
    status: int, body: Any, headers: Mapping[str, str] = TRACED, model: str = MODEL
) -> Prediction:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    hosts = hosts_of(None, simulated=False)
    return read_submit(status, headers, raw, model=model, hosts=hosts)


def result(
    status: int, body: Any, headers: Mapping[str, str] = TRACED, *, told: str = ""
) -> Prediction:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return read_result(status, headers, raw, told=told)


# -- submits ------------------------------------------------------------------------------------


def test_a_submit_is_queued() -> None:
    """Polled at what its route says: the app, which is not the endpoint."""
    assert submit(200, QUEUED) == Prediction(
        id=ID, route=MODEL, request_id=ID, said="IN_QUEUE", status=PredictionStatus.RUNNING
    )


def test_both_ids_of_a_submit_are_kept() -> None:
    """After retries of fal's own they differ: one is polled, the other is a trace."""
    found = submit(200, {**QUEUED, "gateway_request_id": "g-1", "queue_position": 3})
    assert (found.id, found.request_id, found.said) == (ID, "g-1", "IN_QUEUE, 3 before it")


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, {"detail": "No user found for Key ID and Secret"}, KeyRefused),
        (403, LOCKED, BalanceExhausted),
        (403, {"detail": "User is locked. Reason: TOP_UP"}, BalanceExhausted),
        (403, ADMIN_LOCK, SubmitStopped),
        (403, {"detail": "Forbidden"}, KeyRefused),
        (404, {"detail": "Application 'nothing' not found"}, Rejected),
        (422, TOO_LARGE, Rejected),
        (422, {"detail": "Invalid input"}, Rejected),
        (422, BY_POLICY, Rejected),
        (400, {"detail": "bad", "error_type": "bad_request"}, Rejected),
        (429, {"detail": "Reached concurrent requests limit"}, RateLimited),
        (503, {"detail": "no runner", "error_type": "runner_scheduling_failure"}, SubmitUnknown),
        (504, {"detail": "Request timed out", "error_type": "request_timeout"}, SubmitUnknown),
        (500, {"detail": "internal", "error_type": "internal_error"}, SubmitUnknown),
        (502, NGINX, SubmitUnknown),
        (408, {"detail": "timeout"}, SubmitUnknown),
        (409, {"detail": "conflict"}, SubmitUnknown),
        (200, {"status": "IN_QUEUE"}, SubmitUnknown),
        (200, b"<html>hello</html>", SubmitUnknown),
        (302, b"", SubmitUnknown),
        (307, b"", Rejected),
    ],
)
def test_what_comes_of_a_submit_that_is_refused(
    status: int, body: Any, kind: type[ProviderError]
) -> None:
    """Each of exactly the kind that says whether it was bought, and what helps."""
    with pytest.raises(ProviderError) as caught:
        submit(status, body)
    assert type(caught.value) is kind
    assert caught.value.status == status


@pytest.mark.parametrize("status", [503, 504])
def test_fals_door_took_nothing(status: int) -> None:
    """By the test that fal's own client has: nginx says so, and the gateway left no trace."""
    with pytest.raises(Overloaded) as caught:
        submit(status, NGINX, {"Retry-After": "2"})
    assert isinstance(caught.value, NotAccepted)
    assert caught.value.retry_after_s == 2.0
    for headers, body in ((TRACED, NGINX), ({}, b"<title>upstream</title>"), ({}, b"")):
        with pytest.raises(SubmitUnknown):
            submit(status, body, headers)


def test_a_lock_says_its_own_words() -> None:
    with pytest.raises(SubmitStopped, match=r"locked the account.*support.*Admin lock") as caught:
        submit(403, ADMIN_LOCK)
    assert not isinstance(caught.value, KeyRefused | BalanceExhausted)


def test_a_refusal_names_the_field_and_repeats_no_input() -> None:
    with pytest.raises(Rejected) as caught:
        submit(422, TOO_LARGE)
    said = str(caught.value)
    assert "image_too_large: Image dimensions are too large" in said
    assert "(image_url)" in said
    assert "base64" not in said


def test_a_limit_may_say_how_long() -> None:
    with pytest.raises(RateLimited) as caught:
        submit(429, {"detail": "slow down"}, {"Retry-After": "7"})
    assert caught.value.retry_after_s == 7.0


# -- statuses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "document", "said"),
    [
        (202, {"status": "IN_QUEUE", "request_id": ID, "queue_position": 2}, "IN_QUEUE, 2 before"),
        (202, {"status": "IN_PROGRESS", "request_id": ID, "logs": []}, "IN_PROGRESS"),
        (200, {"status": "IN_PROGRESS"}, "IN_PROGRESS"),
        (200, {"status": "FAILED", "error": "boom"}, "FAILED"),
        (200, {"status": "CANCELED"}, "CANCELED"),
    ],
)
def test_a_request_that_runs(status: int, document: Any, said: str) -> None:
    """Words that were never seen live are polled on, and kept."""
    found = read_status(status, TRACED, orjson.dumps(document)).running
    assert found is not None
    assert found.status is PredictionStatus.RUNNING
    assert (found.said or "").startswith(said)
    assert ("status" in found.notes) == (said in ("FAILED", "CANCELED"))


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({"status": "COMPLETED", "metrics": {"inference_time": 3.7}}, ""),
        ({"status": "COMPLETED", "error": "boom", "error_type": "runner_server_error"}, "boom"),
        ({"status": "COMPLETED", "error_type": "runner_server_error"}, "runner_server_error"),
    ],
)
def test_a_request_that_has_ended(document: Any, error: str) -> None:
    found = read_status(200, TRACED, orjson.dumps(document))
    assert (found.running, found.error) == (None, error)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, {"detail": "Request not found"}, PredictionGone),
        (410, {"detail": "Gone"}, PredictionGone),
        (401, {"detail": "unauthorized"}, KeyRefused),
        (403, {"detail": "Forbidden"}, KeyRefused),
        (403, LOCKED, PollFailed),
        (403, ADMIN_LOCK, PollFailed),
        (429, {"detail": "slow down"}, PollFailed),
        (500, {"detail": "internal"}, PollFailed),
        (503, NGINX, PollFailed),
        (200, {"request_id": ID}, PollFailed),
        (200, b"null", PollFailed),
        (307, b"", PollFailed),
    ],
)
def test_a_status_that_says_nothing(status: int, body: Any, kind: type[ProviderError]) -> None:
    """It is polled again; only an account that is locked does not make the key a wrong one."""
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    with pytest.raises(ProviderError) as caught:
        read_status(status, {"Retry-After": "3"}, raw)
    assert type(caught.value) is kind
    if isinstance(caught.value, PollFailed):
        assert (caught.value.status, caught.value.retry_after_s) == (status, 3.0)


# -- results ------------------------------------------------------------------------------------


def test_a_result_is_delivered() -> None:
    found = result(200, PICTURE)
    assert found.status is PredictionStatus.COMPLETED
    assert found.outputs == ("https://v3.fal.media/files/rabbit/aQE.png",)
    assert (found.extras, found.notes, found.error, found.moderated) == ((), {}, None, False)


def test_a_flagged_picture_is_delivered_and_says_so() -> None:
    """It is black, or blurred, and paid for."""
    found = result(200, {**PICTURE, "has_nsfw_concepts": [True]})
    assert found.status is PredictionStatus.COMPLETED
    assert found.outputs
    assert found.notes == {"nsfw": [True]}


def typed(kind: str) -> dict[str, Any]:
    return {"detail": [{"loc": ["body"], "msg": "it went wrong", "type": kind}]}


@pytest.mark.parametrize(
    ("status", "body", "released", "moderated"),
    [
        # An error of the input may be charged: nobody knows.
        (422, TOO_LARGE, None, False),
        (422, {"detail": "Invalid input"}, None, False),
        (422, BY_POLICY, None, True),
        (422, {"detail": "blocked by the safety filter"}, None, True),
        (400, {"detail": "bad", "error_type": "bad_request"}, None, False),
        (404, typed("file_not_found"), None, False),
        (499, {"detail": "cancelled", "error_type": "client_cancelled"}, None, False),
        # One of the server is not.
        (500, typed("internal_server_error"), True, False),
        (500, {"detail": "broken", "error_type": "runner_server_error"}, True, False),
        (502, {"detail": "broken", "error_type": "runner_incomplete_response"}, True, False),
        (503, {"detail": "no runner", "error_type": "runner_scheduling_failure"}, True, False),
        (503, {"detail": "gone", "error_type": "runner_disconnected"}, True, False),
        (504, typed("generation_timeout"), True, False),
        (504, {"detail": "late", "error_type": "startup_timeout"}, True, False),
        (500, {"detail": "Internal Server Error"}, True, False),
    ],
)
def test_completed_and_answered_an_error_has_failed(
    status: int, body: Any, released: bool | None, moderated: bool
) -> None:
    """The model's own error is the result."""
    found = result(status, body)
    assert found.status is PredictionStatus.FAILED
    assert (found.released, found.moderated, found.outputs) == (released, moderated, ())
    assert found.error
    assert found.error.endswith(f"({status})")
    assert found.charged is None


def test_what_the_status_told_of_an_error_counts_where_the_result_has_no_words() -> None:
    found = result(500, b"", told="the runner died")
    assert (found.status, found.released) == (PredictionStatus.FAILED, True)
    assert found.error == "the runner died (500)"


def test_the_type_of_an_error_may_stand_in_a_header() -> None:
    found = result(504, b"late", {"X-Fal-Error-Type": "request_timeout"})
    assert (found.status, found.released) == (PredictionStatus.FAILED, True)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, {"detail": "unauthorized"}, KeyRefused),
        (403, LOCKED, PollFailed),
        (404, {"detail": "Request not found"}, PredictionGone),
        (400, {"detail": "Request is still in progress"}, PollFailed),
        (408, {"detail": "timeout"}, PollFailed),
        (429, {"detail": "slow down"}, PollFailed),
        (413, b"<html>too large</html>", PollFailed),
        (500, b"Internal Server Error", PollFailed),
        (502, NGINX, PollFailed),
        (504, b"", PollFailed),
        (200, b"", PollFailed),
        (200, b"[1]", PollFailed),
    ],
)
def test_a_gateways_error_is_not_the_models(
    status: int, body: Any, kind: type[ProviderError]
) -> None:
    """What says nothing of the request must not end it: it is paid for."""
    with pytest.raises(ProviderError) as caught:
        result(status, body, {})
    assert type(caught.value) is kind


def test_an_error_of_the_server_without_fals_mark_is_asked_for_again() -> None:
    """Some gateway may say the same."""

    def doubtful(status: int, body: Any, headers: Mapping[str, str], told: str = "") -> bool:
        return is_doubtful(status, headers, orjson.dumps(body), told=told)

    plain = {"detail": "Internal Server Error"}
    assert doubtful(500, plain, {})
    assert not doubtful(500, plain, {}, told="the runner died")
    assert not doubtful(500, plain, {"X-Fal-Error-Type": "internal_error"})
    assert not doubtful(500, typed("internal_server_error"), {})
    assert not doubtful(422, {"detail": "Invalid input"}, {})
    assert not doubtful(200, PICTURE, {})


def test_an_error_that_echoes_five_megabytes_is_one_line() -> None:
    echo = {"detail": [{**TOO_LARGE["detail"][0], "input": "A" * 5_000_000}] * 2}
    found = result(422, echo)
    assert found.error is not None
    assert len(found.error) <= 300
    assert "AAAA" not in found.error


@pytest.mark.parametrize(
    ("text", "units"),
    [("3.008", Decimal("3.008")), ("1", Decimal(1)), ("", None), ("many", None), ("-1", None)],
)
def test_a_result_tells_what_is_billed(text: str, units: Decimal | None) -> None:
    assert units_of({"X-Fal-Billable-Units": text}) == units
