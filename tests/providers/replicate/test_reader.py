"""What Replicate's answers mean, literally as its documents and recordings have them."""

from __future__ import annotations

import json
from typing import Any

import pytest

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
from asyncpipe.providers import Cancelled, Prediction, PredictionStatus
from asyncpipe.providers.replicate.models import read_model
from asyncpipe.providers.replicate.reader import (
    NO_FILE,
    REMOVED,
    read_account,
    read_cancel,
    read_poll,
    read_submit,
    read_upload,
)

ID = "rrr4z55ocneqzikepnug6xezpe"
DELIVERED = "https://replicate.delivery/pbxt/abc/out-0.png"

PREDICTION = {
    "id": ID,
    "model": "black-forest-labs/flux-schnell",
    "version": "hidden",
    "input": {"prompt": "a mug"},
    "logs": "",
    "output": None,
    "data_removed": False,
    "error": None,
    "source": "api",
    "status": "starting",
    "created_at": "2026-01-14T10:15:30.123Z",
    "urls": {
        "cancel": f"https://api.replicate.com/v1/predictions/{ID}/cancel",
        "get": f"https://api.replicate.com/v1/predictions/{ID}",
        "stream": f"https://stream.replicate.com/v1/files/{ID}",
        "web": f"https://replicate.com/p/{ID}",
    },
}


def submitted(status: int, document: Any, **headers: str) -> Prediction:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return read_submit(status, headers, body)


def refused(status: int, document: Any, **headers: str) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        submitted(status, document, **headers)
    return caught.value


def polled(**fields: Any) -> Prediction:
    return read_poll(200, {}, json.dumps({**PREDICTION, **fields}).encode(), ID)


# -- submits ------------------------------------------------------------------------------------


def test_a_submit_that_was_taken_names_its_prediction() -> None:
    taken = submitted(201, PREDICTION)
    assert (taken.id, taken.status, taken.said) == (ID, PredictionStatus.RUNNING, "starting")
    assert not taken.outputs


def test_an_answer_may_be_final_already() -> None:
    done = submitted(201, {**PREDICTION, "status": "succeeded", "output": [DELIVERED]})
    assert (done.status, done.outputs) == (PredictionStatus.COMPLETED, (DELIVERED,))


@pytest.mark.parametrize(
    ("status", "document", "error", "words"),
    [
        (
            401,
            {
                "title": "Unauthenticated",
                "detail": "You did not pass an authentication token",
                "status": 401,
            },
            KeyRefused,
            "You did not pass an authentication token",
        ),
        (
            402,
            {
                "title": "Insufficient credit",
                "detail": "You have insufficient credit to run this model.",
                "status": 402,
            },
            BalanceExhausted,
            "insufficient credit",
        ),
        (
            404,
            {"detail": "The requested resource could not be found.", "status": 404},
            Rejected,
            "owner/name:version",
        ),
        (
            422,
            {
                "title": "Input validation failed",
                "detail": "- input.width: Must be less than or equal to 1440\n",
                "status": 422,
                "invalid_fields": [
                    {
                        "type": "number_lte",
                        "field": "input.width",
                        "description": "Must be less than or equal to 1440",
                    }
                ],
            },
            Rejected,
            "input.width number_lte",
        ),
        (400, {"detail": "Malformed request"}, Rejected, "Malformed request"),
        (403, b"<title>error code: 1010</title>", KeyRefused, "firewall"),
        (403, {"cloudflare_error": True, "title": "x", "status": 403}, KeyRefused, "firewall"),
        (
            403,
            {"title": "Forbidden", "detail": "Only its owner runs it", "status": 403},
            Rejected,
            "Only its owner",
        ),
        (307, b"", Rejected, "correct the base URL"),
        (500, {"title": "Internal Server Error", "status": 500}, SubmitUnknown, "may have taken"),
        (502, b"<html><title>502 Bad Gateway</title></html>", SubmitUnknown, "502 Bad Gateway"),
        (503, {"title": "Service Unavailable", "status": 503}, SubmitUnknown, "may have taken"),
        (504, b"", SubmitUnknown, "may have taken"),
        (408, b"", SubmitUnknown, "may have taken"),
        (409, {"detail": "conflict"}, SubmitUnknown, "may have taken"),
        (302, b"", SubmitUnknown, "may have taken"),
        (201, {"status": "starting"}, SubmitUnknown, "names no prediction"),
        (201, b"OK", SubmitUnknown, "is not the API's JSON"),
        (201, b"", SubmitUnknown, "is not the API's JSON"),
    ],
)
def test_a_submit_that_is_not_taken_says_what_to_do(
    status: int, document: Any, error: type[ProviderError], words: str
) -> None:
    """By the table of errors; of every 5xx nobody knows what it sent on, 503 as well."""
    found = refused(status, document)
    assert type(found) is error
    assert words in str(found)
    assert found.status == status


@pytest.mark.parametrize(
    ("document", "headers", "wish_s"),
    [
        ({"detail": "Request was throttled. Your rate limit resets in ~30s."}, {}, 30.0),
        (
            {
                "detail": "Request was throttled. Your rate limit for creating predictions is "
                "reduced to 6 requests per minute with a burst of 1 requests while you have less "
                "than $5.0 in credit. Your rate limit resets in ~9s.",
                "status": 429,
                "retry_after": 9,
            },
            {},
            9.0,
        ),
        ({"retry_after": 9}, {"Retry-After": "4"}, 9.0),
        ({"detail": "x"}, {"Retry-After": "4"}, 4.0),
        ({"detail": "x"}, {"ratelimit-remaining": "0", "ratelimit-reset": "7"}, 7.0),
        ({"detail": "x"}, {"ratelimit-remaining": "599", "ratelimit-reset": "1"}, None),
        ({"detail": "x"}, {"ratelimit-remaining": "0", "ratelimit-reset": "soon"}, None),
        ({"retry_after": True}, {}, None),
        ({"retry_after": -1}, {}, None),
        ({"retry_after": 10**30}, {}, 3600.0),
        (b"", {}, None),
    ],
)
def test_a_limit_says_how_long_in_its_body_its_headers_or_its_words(
    document: Any, headers: dict[str, str], wish_s: float | None
) -> None:
    found = refused(429, document, **headers)
    assert isinstance(found, RateLimited)
    assert found.retry_after_s == wish_s


def test_what_names_a_prediction_was_bought_whatever_its_status_line_says() -> None:
    assert submitted(422, PREDICTION).id == ID
    assert submitted(500, {**PREDICTION, "status": "failed", "error": "no"}).id == ID


# -- statuses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "status", "released"),
    [
        ("starting", PredictionStatus.RUNNING, True),
        ("processing", PredictionStatus.RUNNING, True),
        ("failed", PredictionStatus.FAILED, None),
        ("aborted", PredictionStatus.FAILED, True),
        ("canceled", PredictionStatus.FAILED, None),
    ],
)
def test_each_status_comes_down_to_one_of_ours(
    word: str, status: PredictionStatus, released: bool | None
) -> None:
    """Whether a failed one is charged Replicate does not promise; aborted ones never began."""
    found = polled(status=word)
    assert (found.status, found.released, found.said) == (status, released, word)
    assert bool(found.error) is (word in ("aborted", "canceled"))


def test_the_time_that_a_canceled_one_ran_is_charged() -> None:
    ran = polled(status="canceled", started_at="2026-01-14T10:15:31Z")
    assert (ran.released, ran.error) == (False, "it was canceled at Replicate")
    assert polled(status="canceled", metrics={"predict_time": 1.5}).released is False
    assert polled(status="canceled", metrics={"predict_time": 0}).released is None


def test_a_word_that_is_not_known_is_polled_on_and_told() -> None:
    found = polled(status="queued_elsewhere")
    assert found.status is PredictionStatus.RUNNING
    assert (found.said, found.notes) == ("queued_elsewhere", {"status": "queued_elsewhere"})


@pytest.mark.parametrize(
    ("error", "moderated"),
    [
        ("NSFW content detected. Try running it again, or try a different prompt.", True),
        (
            "The input or output was flagged as sensitive. Please try again with different "
            "inputs. (E005)",
            True,
        ),
        ("CUDA out of memory", False),
    ],
)
def test_a_failure_says_why_and_whether_moderation_refused_it(error: str, moderated: bool) -> None:
    found = polled(status="failed", error=error, output=[DELIVERED])
    assert (found.error, found.moderated, found.released) == (error, moderated, None)
    assert (found.outputs, found.notes) == ((), {"raw": DELIVERED})


# -- outputs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "outputs"),
    [
        (DELIVERED, (DELIVERED,)),
        ([DELIVERED, f"{DELIVERED}?n=1"], (DELIVERED, f"{DELIVERED}?n=1")),
        ([DELIVERED, DELIVERED], (DELIVERED,)),
        ({"image": DELIVERED, "seed": 7}, (DELIVERED,)),
        ({"files": [{"mask": DELIVERED}], "text": "a mug"}, (DELIVERED,)),
        ("data:image/png;base64,AAAA", ("data:image/png;base64,AAAA",)),
        ("https://pbxt.replicate.delivery/x.mp4 \n", ("https://pbxt.replicate.delivery/x.mp4",)),
    ],
)
def test_an_output_has_any_shape(output: Any, outputs: tuple[str, ...]) -> None:
    found = polled(status="succeeded", output=output)
    assert (found.status, found.outputs) == (PredictionStatus.COMPLETED, outputs)
    assert found.error is None


def test_an_output_of_words_is_no_file_and_is_kept() -> None:
    """Pieces of text are joined; a URL within them is nothing to fetch."""
    found = polled(status="succeeded", output=["see ", "it at https://a.b/c", " now"])
    assert (found.status, found.outputs) == (PredictionStatus.COMPLETED, ())
    assert (found.error, found.notes) == (NO_FILE, {"raw": "see it at https://a.b/c now"})
    assert polled(status="succeeded", output={"words": 3}).notes == {"raw": '{"words": 3}'}


def test_an_output_that_is_not_there_yet_is_waited_for() -> None:
    found = polled(status="succeeded", output=None)
    assert (found.status, found.outputs, found.error) == (PredictionStatus.COMPLETED, (), None)


def test_an_output_that_was_removed_is_paid_for_and_gone() -> None:
    """An hour after the end: no later poll has it again."""
    found = polled(status="succeeded", output=None, input={}, logs="", data_removed=True)
    assert (found.status, found.released, found.error) == (PredictionStatus.FAILED, False, REMOVED)


def test_previews_of_one_that_runs_are_no_outputs() -> None:
    assert polled(status="processing", output=[DELIVERED]).outputs == ()


# -- polls --------------------------------------------------------------------------------------


def test_a_poll_keeps_its_id_and_is_of_no_other() -> None:
    assert polled().id == ID
    assert polled(id=None).id == ID
    with pytest.raises(PollFailed, match="another prediction"):
        polled(id="another")


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, b'{"title":"Unauthenticated","detail":"no","status":401}', KeyRefused),
        (404, b'{"detail":"Not found.","status":404}', PredictionGone),
        (410, b"", PredictionGone),
        (402, b'{"title":"Insufficient credit","status":402}', PollFailed),
        (429, b'{"detail":"x","retry_after":3}', PollFailed),
        (500, b'{"id":"x","status":"failed"}', PollFailed),
        (502, b"<title>502</title>", PollFailed),
        (200, b"null", PollFailed),
        (200, b'{"id":"x"}', PollFailed),
        (200, b'{"id":', PollFailed),
        (200, b"\xff\xfe\x00{", PollFailed),
    ],
)
def test_a_poll_that_tells_nothing_says_nothing_of_the_prediction(
    status: int, body: bytes, error: type[ProviderError]
) -> None:
    with pytest.raises(error) as caught:
        read_poll(status, {}, body, ID)
    if isinstance(caught.value, PollFailed):
        assert caught.value.retry_after_s == (3.0 if status == 429 else None)


# -- the rest -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"status": "canceled"}, Cancelled.UNKNOWN),
        ({"status": "canceled", "started_at": "2026-01-14T10:15:31Z"}, Cancelled.CHARGED),
        ({"status": "aborted"}, Cancelled.FREE),
        ({"status": "processing"}, Cancelled.UNKNOWN),
        ({"status": "succeeded", "output": DELIVERED}, Cancelled.TOO_LATE),
        ({"status": "succeeded", "output": None, "data_removed": True}, Cancelled.TOO_LATE),
        ({"status": "failed"}, Cancelled.TOO_LATE),
    ],
)
def test_what_a_cancel_came_to(fields: dict[str, Any], told: Cancelled) -> None:
    assert read_cancel(200, {}, json.dumps({**PREDICTION, **fields}).encode()) is told


def test_a_cancel_of_what_is_not_known() -> None:
    with pytest.raises(PredictionGone):
        read_cancel(404, {}, b'{"detail":"Not found.","status":404}')


def test_a_file_is_named_by_its_url() -> None:
    url = "https://api.replicate.com/v1/files/cneqzikepnug6xezperrr4z55o"
    assert read_upload(201, {}, json.dumps({"id": "c", "urls": {"get": url}}).encode()) == url
    with pytest.raises(RateLimited):
        read_upload(500, {}, b"")
    with pytest.raises(Rejected):
        read_upload(413, {}, b"")
    with pytest.raises(KeyRefused):
        read_upload(401, {}, b"{}")


def test_an_account_is_told_by_its_name() -> None:
    body = b'{"type":"organization","username":"acme","name":"Acme","github_url":null}'
    assert read_account(200, {}, body) == "acme"
    with pytest.raises(PollFailed):
        read_account(200, {}, b'{"username":""}')


@pytest.mark.parametrize(
    ("model", "path", "told"),
    [
        ("google/veo-3.1", "/models/google/veo-3.1/predictions", ""),
        ("a/b:" + "0f" * 32, "/predictions", "a/b:" + "0f" * 32),
        ("0f" * 32, "/predictions", "0f" * 32),
        ("deployments/acme/mugs", "/deployments/acme/mugs/predictions", ""),
    ],
)
def test_each_form_of_a_model_has_its_path(model: str, path: str, told: str) -> None:
    named = read_model(model)
    assert (named.path, named.told) == (path, told)


@pytest.mark.parametrize("model", ["mug", "a/b/c", "../b", "a/..", "a/b:", "a/b?c", "a b/c", "/b"])
def test_what_is_no_model_is_said_and_never_sent(model: str) -> None:
    with pytest.raises(Rejected, match="owner/name"):
        read_model(model)
