"""The reader of Atlas Cloud's answers, on literal answers typed out from atlas-api.md."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

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
from asyncpipe.http.headers import retry_after_s
from asyncpipe.providers.atlas.fields import RAW_LENGTH, outputs
from asyncpipe.providers.atlas.reader import ARTICLE, read_poll, read_submit, read_upload
from asyncpipe.providers.base import Prediction, PredictionStatus

RUNNING, COMPLETED, FAILED = (
    PredictionStatus.RUNNING,
    PredictionStatus.COMPLETED,
    PredictionStatus.FAILED,
)
PNG = "https://atlas-media.oss-us-west-1.aliyuncs.com/images/a.png"
MP4 = "https://atlas-media.oss-us-west-1.aliyuncs.com/videos/b.mp4"
PIXELS = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(64))).decode()

RECORDED_SUBMIT = (
    '{"code":200,"message":"","data":{"id":"9f3c","model":"m","status":"processing",'
    '"outputs":null,"urls":{"get":"https://api.atlascloud.ai/api/v1/model/prediction/9f3c"},'
    '"has_nsfw_contents":null,"error":""}}'
)
CLOUDFLARE_1010 = (
    "<html><head><title>Access denied | api.atlascloud.ai used Cloudflare</title></head>"
    "<body>error code: 1010</body></html>"
)


def submit(text: str, status: int = 200, **headers: str) -> Prediction:
    return read_submit(status, headers, text.encode())


def poll(text: str, status: int = 200, **headers: str) -> Prediction:
    return read_poll(status, headers, text.encode())


def submit_error(text: str, status: int = 200, **headers: str) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        submit(text, status, **headers)
    return caught.value


def poll_error(text: str, status: int = 200, **headers: str) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        poll(text, status, **headers)
    return caught.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (RECORDED_SUBMIT, "9f3c"),
        ('{"code":200,"data":{"id":"9f3c"}}', "9f3c"),
        ('{"code":"200","data":{"id":"9f3c"}}', "9f3c"),
        ('{"code":0,"data":{"id":"9f3c"}}', "9f3c"),
        ('{"code":200,"data":{"id":"9f3c","status":"starting"}}', "9f3c"),
        ('{"code":200,"data":{"predictionId":"9f3c"}}', "9f3c"),
        ('{"code":200,"data":{"prediction_id":"9f3c"}}', "9f3c"),
        ('{"predictionId":"9f3c"}', "9f3c"),
        ('{"prediction_id":"9f3c"}', "9f3c"),
        ('{"id":"9f3c","status":"created"}', "9f3c"),
        ('{"code":200,"data":{"data":{"id":"9f3c"}}}', "9f3c"),
        ('{"code":200,"data":[{"id":"9f3c","status":"processing"}]}', "9f3c"),
        ('{"code":200,"data":[{"predictionId":"9f3c"}]}', "9f3c"),
        ('{"id":"envelope","code":200,"data":{"id":"9f3c","data":{"id":"inner"}}}', "9f3c"),
        ('{"code":200,"data":{"id":12345678901234567890}}', "12345678901234567890"),
        ('{"code":200,"data":{"id":"9f3c"},"request_id":"trace"}', "9f3c"),
        ('\ufeff{"code":200,"data":{"id":"9f3c"}}', "9f3c"),
        ('{"code":200,"data":{"id":"预测-1"}}', "预测-1"),
        # {"status": "success"} speaks of the request, not of the prediction.
        ('{"status":"success","data":{"id":"9f3c"}}', "9f3c"),
        # The answer may echo the job's own input.
        (f'{{"code":200,"data":{{"id":"9f3c","image_url":"{PNG}"}}}}', "9f3c"),
    ],
)
def test_a_submit_is_known_by_every_documented_id(text: str, expected: str) -> None:
    """Each id variant of §2 gives a running prediction on the canonical route."""
    answer = submit(text)
    assert (answer.id, answer.status, answer.route) == (expected, RUNNING, "")


@pytest.mark.parametrize(
    "text",
    [
        '{"request_id":"req-1"}',
        '{"request_id":"req-1","status":"processing"}',
        '{"code":200,"request_id":"req-1"}',
        '{"code":"200","message":"success","data":{"request_id":"req-1"}}',
    ],
)
def test_a_bare_request_id_is_the_articles_id(text: str) -> None:
    """Where code is absent or 200 and no other id exists, request_id is one, on its own route."""
    answer = submit(text)
    assert (answer.id, answer.route, answer.status) == ("req-1", ARTICLE, RUNNING)


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (401, '{"code":401,"msg":"unauthorized","request_id":"t","data":null}', KeyRefused),
        (401, "<html>nope</html>", KeyRefused),
        (200, '{"code":401,"msg":"unauthorized","request_id":"t","data":null}', KeyRefused),
        (402, '{"code":402,"msg":"insufficient balance","request_id":"t"}', BalanceExhausted),
        (200, '{"code":402,"msg":"insufficient balance","request_id":"t"}', BalanceExhausted),
        (200, '{"code":"402","msg":"insufficient balance"}', BalanceExhausted),
        (500, '{"code":402,"msg":"insufficient balance"}', BalanceExhausted),
        (402, "", BalanceExhausted),
        (403, '{"code":403,"msg":"forbidden","request_id":"t","data":null}', Rejected),
        (403, '{"error":{"type":"t","code":"c","message":"m","param":null}}', Rejected),
        (403, CLOUDFLARE_1010, KeyRefused),
        (403, "error code: 1010", KeyRefused),
        (403, '{"title":"Error 1010","status":403,"cloudflare_error":true}', KeyRefused),
        (400, '{"code":400,"msg":"Invalid request parameters","request_id":"t"}', Rejected),
        (200, '{"code":400,"msg":"Invalid request parameters","request_id":"t"}', Rejected),
        (404, '{"code":404,"msg":"model not found"}', Rejected),
        (413, "<html>Request Entity Too Large</html>", Rejected),
        (422, '{"detail":"duration must be 4, 6 or 8"}', Rejected),
        (451, '{"code":451,"msg":"region blocked"}', Rejected),
        (301, "", Rejected),
        (429, '{"code":429,"msg":"rate limited","request_id":"t","data":null}', RateLimited),
        (429, "<html>1015</html>", RateLimited),
        (200, '{"code":429,"msg":"rate limited"}', RateLimited),
        (503, '{"code":503,"msg":"overloaded","request_id":"t","data":null}', Overloaded),
        (200, '{"code":503,"msg":"overloaded","request_id":"t","data":null}', Overloaded),
        (503, "<html><h1>503 Service Unavailable</h1></html>", SubmitUnknown),
        (503, "", SubmitUnknown),
        (503, '{"message":"upstream connect error"}', SubmitUnknown),
        (503, '{"code":500,"msg":"internal"}', SubmitUnknown),
        (408, '{"code":408,"msg":"timeout"}', SubmitUnknown),
        (500, '{"code":500,"msg":"internal error","request_id":"t","data":null}', SubmitUnknown),
        (200, '{"code":500,"msg":"internal error","request_id":"t","data":null}', SubmitUnknown),
        (502, "<html>Bad Gateway</html>", SubmitUnknown),
        (504, '{"code":504,"msg":"sync wait exceeded","request_id":"t"}', SubmitUnknown),
        (504, '{"status":"timeout"}', SubmitUnknown),
        (520, "error code: 520", SubmitUnknown),
        (524, "<html>A timeout occurred</html>", SubmitUnknown),
        (200, "<html>Welcome to the hotel's network</html>", SubmitUnknown),
        (200, "", SubmitUnknown),
        (204, "", SubmitUnknown),
        (200, "[]", SubmitUnknown),
        (200, '"9f3c"', SubmitUnknown),
        (200, '{"code":200,"data":{"id":"9f', SubmitUnknown),
        (200, '{"code":200,"data":null}', SubmitUnknown),
        (200, '{"code":200,"data":{"id":null,"status":"processing"}}', SubmitUnknown),
        (200, '{"code":200,"data":{"id":true}}', SubmitUnknown),
        (200, '{"code":200,"data":[{"id":"a"},{"id":"b"}]}', SubmitUnknown),
        (200, '{"code":200,"data":[]}', SubmitUnknown),
        (200, '{"error":"upstream failed","request_id":"trace"}', SubmitUnknown),
        (200, '{"code":302,"msg":"moved"}', SubmitUnknown),
        (200, '{"code":-1,"msg":"unclear"}', SubmitUnknown),
    ],
)
def test_a_submit_that_is_not_taken_is_told_from_one_that_may_be(
    status: int, text: str, kind: type[ProviderError]
) -> None:
    """Each row of §6: surely not bought, refused for good, stop, or unknown; exactly that."""
    error = submit_error(text, status)
    assert type(error) is kind
    assert error.status == status


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 520, 524])
def test_an_unclear_answer_that_names_a_prediction_names_what_was_bought(status: int) -> None:
    """An id under data is worth more than a status code: polling it is free."""
    answer = submit('{"data":{"id":"9f3c","status":"processing"}}', status)
    assert (answer.id, answer.status) == ("9f3c", RUNNING)


@pytest.mark.parametrize("status", [200, 302, 400, 401, 402, 403, 409, 429, 499, 500, 502, 503])
@pytest.mark.parametrize(
    "fields",
    [
        '"data":{"id":"9f3c"}',
        '"data":{"predictionId":"9f3c","status":"processing"}',
        '"data":{"data":{"id":"9f3c"}}',
        '"prediction_id":"9f3c"',
        '"id":"9f3c","status":"queued"',
    ],
)
def test_a_refusal_that_names_a_prediction_names_what_was_bought(status: int, fields: str) -> None:
    """The id is never dropped, whatever is said beside it: asking for it is free."""
    code = 429 if status == 200 else status
    answer = submit(f'{{"code":{code},"msg":"slow down","request_id":"t",{fields}}}', status)
    assert (answer.id, answer.status) == ("9f3c", RUNNING)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (303, ""),
        (302, ""),
        (304, ""),
        (499, '{"code":499,"msg":"client closed request"}'),
        (499, '{"code":400,"msg":"bad"}'),
        (200, '{"code":499,"msg":"client closed request"}'),
        (409, '{"code":409,"msg":"conflict"}'),
        (460, ""),
        (444, ""),
        (425, "<html>Too Early</html>"),
        (502, '{"code":400,"msg":"bad"}'),
        (504, '{"code":404,"msg":"gone"}'),
        (502, '{"code":429,"msg":"slow"}'),
        (503, '{"code":402,"msg":"insufficient balance"}'),
        (520, '{"code":401,"msg":"unauthorized"}'),
        (504, '{"code":422,"msg":"bad"}'),
        (500, '{"status":"failed"}'),
        (200, '{"status":"failed"}'),
        (200, '{"data":{"status":"failed"}}'),
        (500, '{"code":500,"data":{"status":"timeout"}}'),
        (502, '{"data":{"status":"failed","error":"x"}}'),
    ],
)
def test_without_an_id_or_a_clear_refusal_nobody_knows(status: int, text: str) -> None:
    """What a gateway broke off, or a failure that names nothing, may have been bought."""
    assert type(submit_error(text, status)) is SubmitUnknown


def test_an_id_in_a_clear_refusal_is_not_a_prediction() -> None:
    """The id of an error, and the trace id of an error envelope, are never polled."""
    assert type(submit_error('{"code":400,"id":"err-1","msg":"bad"}', 400)) is Rejected
    assert type(submit_error('{"code":500,"request_id":"t","id":"x"}', 500)) is SubmitUnknown
    named = '{"code":500,"request_id":"t","status":"failed"}'
    assert type(submit_error(named, 500)) is SubmitUnknown


@pytest.mark.parametrize(
    ("status", "text", "code"),
    [
        (200, '{"code":200,"data":{"id":"p","status":"failed","error":"no","error_code":7}}', 7),
        (500, '{"code":500,"data":{"id":"p","status":"failed","error":"no","error_code":"7"}}', 7),
        (500, '{"id":"p","status":"failed","error":"no"}', None),
        (500, '{"status":"failed","error":"no"}', None),
        (400, '{"data":{"id":"p","status":"failed","error":"no"}}', None),
        (200, '{"code":500,"data":{"id":"p","status":"failed","error":"no"}}', None),
        (200, '{"status":"failed","error":"no"}', None),
        (200, '{"id":"p","status":"error","error":"no"}', None),
        (200, '{"data":{"data":{"status":"FAILED","error":{"message":"no"}}}}', None),
        (200, '{"data":{"status":"failed","error":{"msg":"no"}}}', None),
        (200, '{"data":{"status":"failed","error":{"error_message":"no","code":7}}}', 7),
        (200, '{"data":{"status":"failed","error":"","message":"no"}}', None),
        (200, '{"message":"no","data":{"status":"failed","error":null,"error_code":0}}', None),
    ],
)
def test_a_failed_body_is_a_failed_prediction_whatever_the_status_code(
    status: int, text: str, code: int | None
) -> None:
    """Body before status; failed is free, as documented; a submit must name what failed."""
    answers = [poll(text, status)]
    if '"id"' in text:
        answers.append(submit(text, status))
    else:
        assert type(submit_error(text, status)) is SubmitUnknown
    for answer in answers:
        assert (answer.status, answer.error, answer.error_code) == (FAILED, "no", code)
        assert answer.released
        assert not answer.moderated


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (401, '{"status":"error","message":"unauthorized"}'),
        (429, '{"status":"failed","message":"slow down"}'),
        (404, '{"status":"failed","message":"not found"}'),
        (401, '{"data":{"id":"p","status":"failed"}}'),
        (429, '{"data":{"id":"p","status":"failed"}}'),
        (502, '{"status":"failed","message":"upstream"}'),
        (503, '{"status":"error","message":"overloaded"}'),
        (504, '{"status":"timeout"}'),
        (504, '{"data":{"id":"p","status":"timeout"}}'),
        (500, '{"status":"error","message":"oops"}'),
        (200, '{"status":"error","message":"oops"}'),
        (200, '{"status":"error","data":{"id":"p"}}'),
    ],
)
def test_an_error_envelope_with_a_status_never_fails_a_paid_job(status: int, text: str) -> None:
    """What may be meant of the request does not count as the prediction's status."""
    poll_error(text, status)


@pytest.mark.parametrize(
    "word",
    [
        "completed", "succeeded", "success", "done", "complete",
        "Completed", "SUCCEEDED", " completed ",
    ],
)  # fmt: skip
@pytest.mark.parametrize("shape", ["data", "top"])
def test_every_word_for_success(word: str, shape: str) -> None:
    """Each success word of §3, in any case, on both wires."""
    body: dict[str, Any] = {"id": "p", "status": word, "outputs": [PNG]}
    answer = poll(json.dumps({"code": 200, "data": body} if shape == "data" else body))
    assert (answer.status, answer.outputs, answer.id) == (COMPLETED, (PNG,), "p")


@pytest.mark.parametrize("word", ["failed", "timeout", "error", "canceled", "cancelled", "Timeout"])
@pytest.mark.parametrize("shape", ["data", "top"])
def test_every_word_for_failure(word: str, shape: str) -> None:
    """Each failure word of §3, in any case, on both wires."""
    body = {"id": "p", "status": word}
    answer = poll(json.dumps({"code": 200, "data": body} if shape == "data" else body))
    assert (answer.status, answer.said, answer.error) == (FAILED, word.lower(), None)


@pytest.mark.parametrize(
    "word",
    [
        "processing", "created", "starting", "queued", "pending", "running", "in_progress",
        "submitted", "In-Progress", "PENDING", "moonwalking", "排队中",
    ],
)  # fmt: skip
@pytest.mark.parametrize("shape", ["data", "top"])
def test_every_other_word_means_running(word: str, shape: str) -> None:
    """A word nobody documented is waited for, and kept as said."""
    body = {"id": "p", "status": word, "outputs": None}
    answer = poll(json.dumps({"code": 200, "data": body} if shape == "data" else body))
    assert (answer.status, answer.outputs) == (RUNNING, ())
    assert poll(json.dumps({"code": 0, "data": body})).status is RUNNING
    assert answer.said == word.lower().replace("-", "_")


def test_a_status_that_speaks_of_the_request_does_not_finish_a_prediction() -> None:
    """An outer success around an unfinished prediction is no success; the inner word counts."""
    answer = poll('{"status":"success","data":{"id":"p","status":"processing"}}')
    assert answer.status is RUNNING
    assert type(poll_error('{"status":"success","data":{"id":"p"}}')) is PollFailed
    assert type(poll_error('{"status":"ok","data":{"id":"p"}}')) is PollFailed
    assert poll(f'{{"status":"ok","data":{{"outputs":["{PNG}"]}}}}').outputs == (PNG,)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (f'"outputs":["{PNG}"]', (PNG,)),
        (f'"outputs":["{MP4}","{PNG}","{MP4}"]', (MP4, PNG)),
        (f'"outputs":[{{"url":"{PNG}"}}]', (PNG,)),
        (f'"outputs":[{{"uri":"{PNG}"}}]', (PNG,)),
        (f'"outputs":[{{"download_url":"{PNG}"}}]', (PNG,)),
        (f'"outputs":[{{"image":"{PNG}"}}]', (PNG,)),
        (f'"outputs":[{{"video":"{MP4}"}}]', (MP4,)),
        (f'"outputs":[{{"output":"{PNG}"}}]', (PNG,)),
        (f'"outputs":[{{"image":{{"url":"{PNG}"}}}}]', (PNG,)),
        ('"outputs":["data:image/png;base64,AAAA"]', ("data:image/png;base64,AAAA",)),
        ('"outputs":["DATA:image/png;base64,AAAA"]', ("data:image/png;base64,AAAA",)),
        ('"outputs":["data:image/PNG;charset=utf-8; BASE64,AAAA"]',
         ("data:image/png;charset=utf-8;base64,AAAA",)),
        ('"outputs":["HTTPS://H/A.png"]', ("https://H/A.png",)),
        (f'"outputs":["{PIXELS}"]', (f"data:application/octet-stream;base64,{PIXELS}",)),
        (
            f'"outputs":["{PIXELS.rstrip("=").replace("+", "-").replace("/", "_")}"]',
            (f"data:application/octet-stream;base64,{PIXELS}",),
        ),
        ('"outputs":[{"text":"你好 & bye"}]',
         ("data:text/plain;charset=utf-8,%E4%BD%A0%E5%A5%BD%20%26%20bye",)),
        (f'"outputs":"{PNG}"', (PNG,)),
        (f'"outputs":null,"output":"{PNG}"', (PNG,)),
        (f'"output":["{PNG}","{MP4}"]', (PNG, MP4)),
        (f'"output":{{"image_url":"{PNG}"}}', (PNG,)),
        (f'"output":{{"video_url":"{MP4}"}}', (MP4,)),
        (f'"output":{{"url":"{MP4}"}}', (MP4,)),
        (f'"images":[{{"url":"{PNG}"}}]', (PNG,)),
        (f'"image_url":"{PNG}"', (PNG,)),
        (f'"video_url":"{MP4}"', (MP4,)),
        (f'"output_url":"{MP4}"', (MP4,)),
        (f'"outputs":["{MP4}"],"image_url":"{PNG}"', (MP4,)),
        ('"outputs":[]', ()),
        ('"outputs":null', ()),
        ('"outputs":[null,7,true,{},[],"","not a url","/etc/passwd","file:///etc/passwd"]', ()),
    ],
)  # fmt: skip
@pytest.mark.parametrize("shape", ["data", "nested", "top"])
def test_every_place_of_outputs(fields: str, expected: tuple[str, ...], shape: str) -> None:
    """Each output variant of §3, under data, deeper, and on top; no outputs is still completed."""
    body = f'{{"status":"completed",{fields}}}'
    text = {"data": f'{{"data":{body}}}', "nested": f'{{"data":{{"data":{body}}}}}', "top": body}
    answer = poll(text[shape])
    assert (answer.status, answer.outputs) == (COMPLETED, expected)


def test_a_submit_may_answer_what_is_final_already() -> None:
    """Sync mode: the answer to the submit carries the outputs, with or without an id."""
    answer = submit(f'{{"code":200,"data":{{"id":"p","status":"completed","outputs":["{PNG}"]}}}}')
    assert (answer.id, answer.status, answer.outputs) == ("p", COMPLETED, (PNG,))
    assert submit(f'{{"status":"completed","outputs":["{PNG}"]}}').id == ""
    assert submit(f'{{"data":{{"id":"p","outputs":["{PNG}"]}}}}').status is COMPLETED


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{"code":200,"data":{"id":"p"}}', PollFailed),
        ('{"code":200,"data":{"id":"p","status":""}}', PollFailed),
        ('{"code":200,"data":{"id":"p","status":null}}', PollFailed),
        ('{"code":200,"data":{"id":"p","status":3}}', PollFailed),
        ('{"code":200,"data":null}', PollFailed),
        ("<html>Just a moment...</html>", PollFailed),
        ("", PollFailed),
        ("{", PollFailed),
        ('{"code":500,"msg":"internal"}', PollFailed),
        ('{"code":404,"msg":"not found"}', PredictionGone),
        ('{"code":401,"msg":"unauthorized"}', KeyRefused),
    ],
)
def test_a_poll_that_says_nothing_is_a_failed_poll(text: str, kind: type[ProviderError]) -> None:
    """A missing status is an error and not in progress, and it never fails the job."""
    assert type(poll_error(text)) is kind


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, PredictionGone), (404, PredictionGone), (410, PredictionGone), (401, KeyRefused),
        (402, PollFailed), (403, PollFailed), (405, PollFailed), (408, PollFailed),
        (422, PollFailed), (429, PollFailed), (451, PollFailed), (500, PollFailed),
        (502, PollFailed), (503, PollFailed), (504, PollFailed), (520, PollFailed),
        (524, PollFailed), (302, PollFailed), (100, PollFailed), (999, PollFailed),
    ],
)  # fmt: skip
def test_the_status_of_a_refused_poll(status: int, kind: type[ProviderError]) -> None:
    """404, 410 and 400 mean gone, 401 the key; everything else is polled again."""
    for text in ("<html>x</html>", f'{{"code":{status},"msg":"x","request_id":"t","data":null}}'):
        error = poll_error(text, status)
        assert (type(error), error.status) == (kind, status)
    limited = poll_error('{"code":429,"msg":"slow down","request_id":"t","data":null}', 200)
    assert (type(limited), limited.status) == (PollFailed, 429)


def test_outputs_without_a_status_are_finished() -> None:
    """Finished is evident from a list of outputs; an image_url alone may be the job's input."""
    assert poll(f'{{"code":200,"data":{{"id":"p","outputs":["{PNG}"]}}}}').status is COMPLETED
    assert type(poll_error(f'{{"data":{{"id":"p","image_url":"{PNG}"}}}}')) is PollFailed


@pytest.mark.parametrize(
    "fields",
    [
        '"error":"input refused","error_code":1039',
        '"error":"input refused","error_code":"1039"',
        '"error":{"message":"x","code":1039}',
        '"error":"Your prompt violates our Content Policy"',
        '"error":"content_policy_violation"',
        '"error":"flagged by moderation"',
        '"error":"rejected due to copyright restrictions"',
        '"error":"内容审核未通过"',
        '"error":"包含敏感词"',
    ],
)
def test_moderation_is_told_by_code_or_words(fields: str) -> None:
    """A refusal by moderation is marked, so that it is never sent again unchanged."""
    answer = poll(f'{{"data":{{"status":"failed",{fields}}}}}')
    assert (answer.status, answer.moderated) == (FAILED, True)
    assert submit('{"code":1039,"msg":"refused"}').moderated


@pytest.mark.parametrize("text", ["out of memory", "upstream timeout", "内部错误", ""])
def test_other_failures_are_not_moderation(text: str) -> None:
    """An ordinary failure may be tried again."""
    assert not poll(json.dumps({"data": {"status": "failed", "error": text}})).moderated


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"Retry-After": "999999999"}, 3600.0),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "nan"}, None),
        (
            {
                "Retry-After": "Tue, 24 Nov 2026 10:00:30 GMT",
                "Date": "Tue, 24 Nov 2026 10:00:00 GMT",
            },
            30.0,
        ),
        ({"Retry-After": "Tue, 24 Nov 1998 10:00:30 GMT"}, 0.0),
        ({"Retry-After": "Tue, 99 Nov 2026 10:00:30 GMT"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], expected: float | None) -> None:
    """Seconds and HTTP dates are honoured, nonsense is not; nobody waits over an hour."""
    assert retry_after_s(headers) == expected


def test_retry_after_reaches_the_errors() -> None:
    """429 and 503 on submit, and any failed poll, carry the provider's wish."""
    limited = read_limited('{"code":429,"msg":"slow"}', 429)
    overloaded = read_limited('{"code":503,"msg":"busy"}', 503)
    with pytest.raises(PollFailed) as caught:
        read_poll(429, {"Retry-After": "9"}, b"")
    failed = caught.value
    assert (limited.retry_after_s, overloaded.retry_after_s, failed.retry_after_s) == (9, 9, 9)


def read_limited(text: str, status: int) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        read_submit(status, {"Retry-After": "9"}, text.encode())
    return caught.value


def test_the_trace_id_comes_from_the_header_or_the_body() -> None:
    """X-Request-ID counts, however it is cased; then the envelope's request_id."""
    envelope = '{"code":401,"msg":"unauthorized","request_id":"from-body","data":null}'
    assert submit_error(envelope, 401).request_id == "from-body"
    with pytest.raises(KeyRefused) as caught:
        read_poll(401, {"x-request-id": "from-header"}, envelope.encode())
    assert caught.value.request_id == "from-header"
    assert read_submit(200, {"X-Request-ID": "t-1"}, RECORDED_SUBMIT.encode()).request_id == "t-1"
    assert submit(RECORDED_SUBMIT).request_id is None


def test_messages_say_what_to_do() -> None:
    """Region, redirect, key and firewall errors name their remedy, and the API's own words."""
    assert "region" in str(submit_error("", 451))
    moved = submit_error("", 301, Location="https://new.example.com/api?k=secret")
    assert "new.example.com" in str(moved)
    assert "ATLASCLOUD_BASE_URL" in str(moved)
    assert "secret" not in str(moved)
    assert "User-Agent" in str(submit_error(CLOUDFLARE_1010, 403))
    assert "Access denied" in str(submit_error(CLOUDFLARE_1010, 403))
    refused = submit_error('{"code":401,"msg":"unauthorized"}', 401)
    assert "unauthorized" in str(refused)
    assert "base URL" in str(refused)


def test_messages_are_one_clean_line() -> None:
    """Escapes, control characters and keys are taken out, and nothing is longer than 300."""
    dirty = (
        "\x1b[31mbad\x1b[0m\r\nline\x00 \x1b]0;title\x07apikey-SECRET Bearer abc.def \u202e" * 40
    )
    error = submit_error(json.dumps({"code": 400, "msg": dirty}), 400)
    answer = poll(json.dumps({"data": {"status": "failed", "error": dirty}}))
    for text in (str(error), answer.error or ""):
        assert text.isprintable()
        assert len(text) <= 300
        assert "SECRET" not in text
        assert "abc.def" not in text
        assert "bad line" in text


def test_messages_hold_no_media() -> None:
    """What an API repeats of an input that came as a data URI says nothing to anybody."""
    said = f"cannot read data:image/png;base64,{'iVBORw0KGgo' * 90}== of the request"
    answer = poll(json.dumps({"data": {"status": "failed", "error": said}}))
    assert answer.error == "cannot read data:image/png;base64,… of the request"
    refused = submit_error(json.dumps({"code": 400, "msg": said}), 400)
    assert "iVBOR" not in str(refused)


def test_bad_bytes_do_not_lose_a_bought_prediction() -> None:
    """Half a surrogate pair, a stray byte, NaN: the id is still read, and can be stored."""
    assert submit('{"code":200,"data":{"id":"p","error":"\\ud800","x":NaN}}').id == "p"
    assert read_submit(200, {}, b'{"data":{"id":"p","note":"\xff\xfe"}}').id == "p"
    submit('{"data":{"id":"\\ud800x"}}').id.encode()
    for output in poll('{"data":{"status":"done","outputs":["http://h/\\udfff"]}}').outputs:
        output.encode()


WORDS = st.sampled_from([
    "code", "data", "id", "status", "outputs", "output", "error", "error_code", "message", "msg",
    "request_id", "predictionId", "url", "image_url", "text", "images", "success", "failed",
    "completed", "processing", "200", "401", "1039", "503",
])  # fmt: skip
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | WORDS
    | st.sampled_from(["https://h/a.png", "HTTP://h/a", "data:,x", "DATA:,x", PIXELS])
    | st.sampled_from(["file:///x", "javascript:x", "\x1b[2J", "\u202e", "9" * 600, "x" * 3000]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=6),
    max_leaves=25,
)
BODIES = VALUES.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=80)
HEADERS = st.dictionaries(
    st.sampled_from(["Retry-After", "retry-after", "Date", "Location", "X-Request-ID"])
    | st.text(max_size=8),
    st.text(max_size=30)
    | st.sampled_from(
        ["1e9", "-0", "\u0661", "Mon, 01 Jan 0001 00:00:00 GMT", "//[", "http://[::"]
    ),
)
DEEP = b'{"data":' * 100_000 + b"1" + b"}" * 100_000
DEEP_OUTPUTS = b'{"status":"done","outputs":' + b"[" * 500 + b"]" * 500 + b"}"


@settings(deadline=None)
@given(
    status=st.integers(-1, 1000) | st.sampled_from([200, 400, 401, 403, 429, 500, 503]),
    headers=HEADERS,
    body=BODIES,
)
@example(status=200, headers={}, body=DEEP)
@example(status=200, headers={}, body=DEEP_OUTPUTS)
@example(status=200, headers={}, body=b'{"code":' + b"9" * 5000 + b"}")
@example(status=200, headers={}, body=b'{"code":1e999,"data":{"id":1e999,"status":"done"}}')
@example(status=302, headers={"Location": "http://[::"}, body=b"")
def test_whatever_arrives_is_typed(status: int, headers: dict[str, str], body: bytes) -> None:
    """Any status, headers and bytes give a prediction that can be stored, or a provider error."""
    known = (NotAccepted, SubmitStopped, Rejected, SubmitUnknown)
    bought = outcome(read_submit, known, (status, headers, body))
    polled = outcome(read_poll, (PredictionGone, PollFailed, KeyRefused), (status, headers, body))
    for found in (bought, polled):
        if isinstance(found, ProviderError):
            assert str(found).replace("\u200c", "").replace("\u200d", "").isprintable()
            assert len(str(found)) <= 300
        else:
            check_storable(found)
    if isinstance(bought, Prediction):
        assert bought.id or bought.status is not RUNNING


def outcome(
    read: Callable[..., Prediction],
    errors: tuple[type[ProviderError], ...],
    answer: tuple[int, dict[str, str], bytes],
) -> Prediction | ProviderError:
    try:
        return read(*answer)
    except errors as exc:
        return exc


def test_outputs_nested_without_end_are_left_alone() -> None:
    """What nests deeper than any documented answer is not an output, and costs no stack."""
    nested: Any = PNG
    for _ in range(5000):
        nested = [nested]
    assert outputs(({"outputs": nested},)) == ()
    assert outputs(({"outputs": [[PNG]]},)) == (PNG,)


def check_storable(answer: Prediction) -> None:
    for text in (answer.id, answer.error, answer.said, answer.request_id, *answer.outputs):
        (text or "").encode()
    # In lower case: the ledger and the downloader look for "data:" as it stands.
    assert all(url.startswith(("http:", "https:", "data:")) for url in answer.outputs)
    assert len(answer.id) <= 512
    assert len(answer.request_id or "") <= 200
    assert len(answer.error or "") <= 300
    assert len(answer.said or "") <= 40
    assert answer.error_code is None or abs(answer.error_code) < 10**9


@pytest.mark.parametrize(
    ("cost", "charged"),
    [
        ('{"value":"0.060000","currency":"usd"}', Decimal("0.06")),
        ('{"value":"1","currency":"USD"}', Decimal(1)),
        ('{"value":"0.06","currency":"cny"}', None),
        ('{"value":0.06,"currency":"usd"}', None),
        ('{"value":"-1","currency":"usd"}', None),
        ('{"value":"1e5","currency":"usd"}', None),
        ('{"value":"NaN","currency":"usd"}', None),
        ('{"value":"0.06"}', None),
        ("0.06", None),
        ('"0.06"', None),
        ("null", None),
    ],
)
def test_a_cost_is_believed_only_in_the_form_that_names_its_currency(
    cost: str, charged: Decimal | None
) -> None:
    """A bare number might be anything, and would be charged as the truth."""
    text = f'{{"code":200,"data":{{"id":"9f3c","status":"completed","outputs":["{PNG}"],"cost":'
    assert poll(f"{text}{cost}}}}}").charged == charged
    assert poll(f'{text}null,"metrics":{{"cost":{cost},"price":7}}}}}}').charged is None


@pytest.mark.parametrize(
    ("price", "charged"),
    [
        ("0.06", Decimal("0.06")),
        ('"0.06"', Decimal("0.06")),
        ('" 0.060000 "', Decimal("0.06")),
        ("6e-2", Decimal("0.06")),
        ("1", Decimal(1)),
        ("0", Decimal(0)),
        ("-0.06", None),
        ('"-1"', None),
        ('"NaN"', None),
        ('"Infinity"', None),
        ("1e999", None),
        ('"1e999999"', None),
        ("true", None),
        ('""', None),
        ("null", None),
        ('"0.06 USD"', None),
        ('"\u0661"', None),
        ('{"value":1}', None),
    ],
)
def test_a_price_is_what_a_completed_prediction_cost(price: str, charged: Decimal | None) -> None:
    """A number or text, finite and not negative; of one that runs or failed it is none."""

    def told(status: str, outputs: str) -> Decimal | None:
        fields = f'"id":"9f3c","status":"{status}","outputs":{outputs},"price":{price}'
        return poll(f'{{"code":200,"data":{{{fields}}}}}').charged

    assert told("completed", f'["{PNG}"]') == charged
    assert told("Completed", f'[{{"url":"{PNG}"}}]') == charged
    assert told("processing", "null") is None
    assert told("failed", "null") is None
    assert told("timeout", "null") is None


def test_a_failed_prediction_costs_nothing_whatever_it_cost_before() -> None:
    """Its money is returned, by the documentation."""
    text = (
        '{"code":200,"data":{"id":"9f3c","status":"failed","error":"x",'
        '"price":0.06,"cost":{"value":"0.060000","currency":"usd"}}}'
    )
    assert (poll(text).charged, poll(text).released) == (None, True)


@pytest.mark.parametrize(
    "body",
    [
        {
            "code": 200,
            "message": "success",
            "data": {
                "type": "image",
                "download_url": "https://u.example/a.png",
                "filename": "0b5c.png",
                "size": 12345,
            },
        },
        {"code": "200", "data": {"url": "https://u.example/a.png"}},
        {"download_url": "https://u.example/a.png"},
        {"url": "https://u.example/a.png"},
        {"file_url": "https://u.example/a.png"},
    ],
)
def test_every_answer_to_an_upload_is_understood(body: dict[str, Any]) -> None:
    """data.download_url, data.url, download_url, url, file_url."""
    assert read_upload(200, {}, json.dumps(body).encode()) == "https://u.example/a.png"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, b'{"code":429,"msg":"rate limit exceeded"}', RateLimited),
        (503, b"<html>", NotAccepted),
        (502, b"", NotAccepted),
        (200, b'{"code":200,"data":{}}', NotAccepted),
        (200, b'{"code":200,"data":{"url":"ftp://x/a"}}', NotAccepted),
        (200, b"not json", NotAccepted),
        (401, b'{"code":401,"msg":"unauthorized"}', KeyRefused),
        (200, b'{"code":402,"msg":"insufficient balance"}', BalanceExhausted),
        (413, b'{"code":413,"msg":"too large"}', Rejected),
        (400, b'{"code":400,"msg":"unsupported file"}', Rejected),
        (307, b"", Rejected),
    ],
)
def test_a_refused_upload_is_tried_again_only_where_that_helps(
    status: int, body: bytes, kind: type[ProviderError]
) -> None:
    """Nothing is bought by a file, so nothing about it is ever unknown."""
    with pytest.raises(kind):
        read_upload(status, {"Retry-After": "2"}, body)


@pytest.mark.parametrize("word", ["succeed", "SUCCEED", "finished", "Successful", "成功"])
def test_the_words_of_other_apis_for_success(word: str) -> None:
    """Known in any case, so that nobody is told of them, and previews beside "processing" wait."""
    body = {"id": "p", "status": word, "outputs": [PNG]}
    answer = poll(json.dumps({"code": 200, "data": body}))
    assert (answer.status, answer.outputs, answer.notes) == (COMPLETED, (PNG,), {})
    empty = poll(json.dumps({"code": 200, "data": {**body, "outputs": None}}))
    assert (empty.status, empty.outputs) == (COMPLETED, ())


@pytest.mark.parametrize(
    ("word", "again"),
    [
        ("fail", True), ("FAIL", True), ("failure", True), ("timed_out", True),
        ("Timed Out", True), ("timedout", True), ("失败", True),
        ("expired", False), ("rejected", False), ("aborted", False), ("Aborted", False),
        ("blocked", False), ("terminated", False),
    ],
)  # fmt: skip
def test_the_words_of_other_apis_for_failure(word: str, again: bool) -> None:
    """A spelling of what is documented may be bought again; of the others nobody knows the cost."""
    body = {"id": "p", "status": word, "outputs": None, "error": "upstream says no"}
    answer = poll(json.dumps({"code": 200, "data": body}))
    assert (answer.status, answer.error, answer.again) == (FAILED, "upstream says no", again)
    assert answer.notes == {}
    top = poll(json.dumps(body))
    assert (top.status, top.again) == (FAILED, again)


@pytest.mark.parametrize("word", ["rejected", "expired", "fail", "aborted"])
def test_such_a_word_about_the_request_fails_no_prediction(word: str) -> None:
    """On top, around something else or alone, it may be meant of the request."""
    assert type(poll_error(f'{{"status":"{word}","message":"no"}}')) is PollFailed
    assert type(submit_error(f'{{"status":"{word}","message":"no"}}')) is SubmitUnknown
    assert type(poll_error(f'{{"status":"{word}","data":{{"id":"p"}}}}')) is PollFailed
    assert type(submit_error(f'{{"status":"{word}","message":"no"}}', 500)) is SubmitUnknown


@pytest.mark.parametrize("word", ["finalised", "Delivered", "partially_completed", "已生成"])
def test_outputs_beside_a_word_that_is_not_known_are_fetched(word: str) -> None:
    """They are what was paid for; the word is kept, to be told of once."""
    body = {"id": "p", "status": word, "outputs": [PNG], "price": "0.04"}
    answer = poll(json.dumps({"code": 200, "data": body}))
    assert (answer.status, answer.outputs) == (COMPLETED, (PNG,))
    assert answer.notes == {"status": word.lower()}
    assert answer.charged == Decimal("0.04")


@pytest.mark.parametrize("word", ["processing", "Rendering", "upscaling", "running"])
def test_previews_are_not_the_end(word: str) -> None:
    """Outputs beside a word that says that something goes on may be looked at, and that is all."""
    body = {"id": "p", "status": word, "outputs": [PNG], "price": "0.04"}
    answer = poll(json.dumps({"code": 200, "data": body}))
    assert (answer.status, answer.outputs, answer.charged) == (RUNNING, (), None)


def test_an_error_beside_a_word_that_is_not_known_is_kept() -> None:
    """It still runs as far as anybody knows; what it ends as, the deadline decides."""
    answer = poll('{"code":200,"data":{"id":"p","status":"borked","error":"no worker"}}')
    assert (answer.status, answer.error, answer.notes) == (
        RUNNING,
        "no worker",
        {"status": "borked"},
    )
    known = poll(
        '{"code":200,"data":{"id":"p","status":"queued","error":"no worker","outputs":[]}}'
    )
    assert (known.status, known.error, known.notes) == (RUNNING, "no worker", {})


@pytest.mark.parametrize("word", ["failed", "Failed", "canceled", "CANCELLED", "error", "timeout"])
@pytest.mark.parametrize("http", [200, 500, 502, 503])
def test_a_failure_in_an_error_envelope(word: str, http: int) -> None:
    """Task failures come as 5xx as well; the outer message is often the clearer one."""
    data = {"id": "p", "status": word, "error": "E77"}
    answer = poll(json.dumps({"code": 500, "message": "the prompt is empty", "data": data}), http)
    assert (answer.status, answer.id) == (FAILED, "p")
    assert answer.error == "the prompt is empty: E77"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ('{"message":"m","code":"c"}', "m"),
        ('{"msg":"m"}', "m"),
        ('{"error":"m"}', "m"),
        ('{"error":{"detail":"m"}}', "m"),
        ('{"detail":[{"loc":["x"],"msg":"m"}]}', "m"),
        ('{"reason":"m"}', "m"),
        ('["","m"]', "m"),
        ('{"code":"SafetyFilter"}', "SafetyFilter"),
    ],
)
def test_an_error_may_be_an_object(error: str, said: str) -> None:
    """Its words are found wherever an object or a list has them."""
    assert poll(f'{{"data":{{"id":"p","status":"failed","error":{error}}}}}').error == said
    outer = f'{{"code":500,"message":"","data":{{"id":"p","status":"error","error":{error}}}}}'
    assert poll(outer, 500).error == said


@pytest.mark.parametrize(
    ("status", "moderated"), [("completed", True), ("failed", True), ("processing", False)]
)
@pytest.mark.parametrize("flags", ["[true]", "true", "[false,true]", '["true"]'])
def test_no_output_and_a_flag_is_a_safety_block(status: str, moderated: bool, flags: str) -> None:
    """Nothing to show, and it is said why: it is never sent again unchanged."""
    answer = poll(
        f'{{"code":200,"data":{{"id":"p","status":"{status}","outputs":[],"error":"",'
        f'"has_nsfw_contents":{flags}}}}}'
    )
    assert answer.moderated is moderated
    assert ("NSFW" in (answer.error or "")) is moderated


def test_what_is_said_beside_outputs_is_kept() -> None:
    """Flags, and an error that is none of the whole."""
    answer = poll(
        f'{{"code":200,"data":{{"id":"p","status":"completed","outputs":["{PNG}"],'
        '"has_nsfw_contents":[true],"error":"1 of 2 was blocked by the safety filter"}}'
    )
    assert (answer.status, answer.error, answer.moderated) == (COMPLETED, None, False)
    assert answer.notes == {"nsfw": [True], "error": "1 of 2 was blocked by the safety filter"}
    calm = f'{{"code":200,"message":"Task done","data":{{"status":"done","outputs":["{PNG}"]}}}}'
    assert poll(calm).notes == {}


@pytest.mark.parametrize(
    ("fields", "error", "moderated"),
    [
        ('"error":"all outputs were filtered: raiMediaFilteredCount 1"', "filtered", True),
        ('"error":"no worker"', "no worker", False),
        ('"error":"no worker","has_nsfw_contents":[true]', "no worker", True),
        ('"message":"blocked by the content policy"', "policy", True),
        ('"message":"Task completed"', None, False),
    ],
)
def test_why_there_are_no_outputs(fields: str, error: str | None, moderated: bool) -> None:
    """The filter's words are the reason; a message that only says it is done is none."""
    answer = poll(f'{{"data":{{"id":"p","status":"completed","outputs":null,{fields}}}}}')
    assert (answer.status, answer.moderated) == (COMPLETED, moderated)
    assert (answer.error is None) if error is None else (error in (answer.error or ""))


def completed(fields: str, *, texts: bool = False) -> Prediction:
    body = f'{{"code":200,"data":{{"id":"p","status":"completed",{fields}}}}}'
    return read_poll(200, {}, body.encode(), texts=texts)


@pytest.mark.parametrize(
    ("outputs", "raw"),
    [
        ('["/m/plain/1.png"]', "/m/plain/1.png"),
        ('["//media.example/1.png"]', "//media.example/1.png"),
        ('"media.example/1.png"', "media.example/1.png"),
        ('["a.png","b.png"]', '["a.png", "b.png"]'),
        ('[{"path":"/1.png"}]', '[{"path": "/1.png"}]'),
        ('["gs://bucket/图.png"]', "gs://bucket/图.png"),
        ('["\\udfff"]', "?"),
    ],
)
def test_outputs_that_cannot_be_read_are_kept_as_they_came(outputs: str, raw: str) -> None:
    """Somebody paid for them, and may be able to make sense of them."""
    answer = completed(f'"outputs":{outputs}')
    assert (answer.status, answer.outputs) == (COMPLETED, ())
    assert answer.notes == {"raw": raw}
    mixed = completed(f'"outputs":["{PNG}",null,"",{outputs}]')
    assert mixed.outputs == (PNG,)
    assert "raw" in mixed.notes


def test_outputs_of_a_failed_prediction_are_kept_as_they_came() -> None:
    """They are not paid for, and not fetched; nor is the failure less of one."""
    body = {"id": "p", "status": "failed", "error": "1 of 2 failed", "outputs": [PNG]}
    answer = poll(json.dumps({"code": 200, "data": body}))
    assert (answer.status, answer.outputs) == (FAILED, ())
    assert answer.notes == {"raw": json.dumps([PNG])}


def test_of_what_nobody_fetches_the_beginning_is_kept() -> None:
    """20 MB of a medium in an answer must not fill ledger and reports."""
    unread = completed(json.dumps({"outputs": ["//host/a.png?" + "a" * 100_000]})[1:-1])
    body = {"id": "p", "status": "failed", "outputs": [f"{PNG}?{'b' * 100_000}"]}
    failed = poll(json.dumps({"code": 200, "data": body}))
    assert [len(answer.notes["raw"]) for answer in (unread, failed)] == [RAW_LENGTH] * 2


@pytest.mark.parametrize("outputs", ["null", "[]", '""', "[null]", f'["{PNG}",null,"",7]'])
def test_nothing_is_kept_where_nothing_is_wrong(outputs: str) -> None:
    """Gaps in a list of outputs are gaps."""
    assert completed(f'"outputs":{outputs}').notes == {}


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (json.dumps(json.dumps([PNG])), (PNG,)),
        (json.dumps(json.dumps({"url": PNG})), (PNG,)),
        (json.dumps([json.dumps([PNG, MP4])]), (PNG, MP4)),
        (json.dumps(json.dumps({"images": [{"url": PNG}]})), (PNG,)),
        (json.dumps([json.dumps({"audio_url": MP4})]), (MP4,)),
    ],
)
def test_outputs_in_a_text_that_is_json(outputs: str, expected: tuple[str, ...]) -> None:
    """A list within a string is a list."""
    answer = completed(f'"outputs":{outputs}')
    assert (answer.outputs, answer.notes) == (expected, {})


def test_a_text_is_no_list_of_outputs_because_it_begins_with_a_bracket() -> None:
    """What somebody said is what they said."""
    answer = completed('"outputs":["[laughs] well"]', texts=True)
    assert answer.outputs == ("data:text/plain;charset=utf-8,%5Blaughs%5D%20well",)
    assert answer.notes == {}


@pytest.mark.parametrize("key", ["url", "download_url", "audio_url", "video_url", "audio", "file"])
def test_outputs_that_are_objects(key: str) -> None:
    """Whatever the address is called, and whatever stands beside it."""
    answer = completed(f'"outputs":[{{"type":"audio","{key}":"{MP4}","seed":7}}]')
    assert (answer.outputs, answer.extras, answer.notes) == ((MP4,), (), {})


@pytest.mark.parametrize("field", ["stt_result", "lyrics_result"])
@pytest.mark.parametrize("texts", [True, False])
def test_a_text_may_be_the_result(field: str, texts: bool) -> None:
    """Of speech recognition and lyrics the text is the content; an input beside it is none."""
    wav = "https://u.example/in.wav"
    answer = completed(f'"outputs":[],"{field}":"La la 啦","audio_url":"{wav}"', texts=texts)
    assert answer.outputs == ("data:text/plain;charset=utf-8,La%20la%20%E5%95%A6",)
    assert answer.extras == (wav,), "it may be a song"
    whole = completed(f'"{field}":{{"text":"La","segments":[1]}}', texts=texts)
    assert whole.outputs == ("data:text/plain;charset=utf-8,La",)
    assert len(whole.extras) == 1, "and the whole, which has the times"
    beside = completed(f'"outputs":["{MP4}"],"{field}":"La la"', texts=texts)
    assert beside.outputs == (MP4,)
    assert beside.extras == ("data:text/plain;charset=utf-8,La%20la",)
    same = completed(f'"outputs":["La la"],"{field}":"La la"', texts=True)
    assert (len(same.outputs), same.extras) == (1, ())


@pytest.mark.parametrize("field", ["video_url", "image_url", "output_url"])
def test_a_text_beside_a_lone_medium_is_not_the_output(field: str) -> None:
    """A clip with words to it: taken for the output, they would be no medium for ever."""
    answer = completed(f'"{field}":"{MP4}","lyrics_result":"La la"')
    assert answer.outputs == (MP4,)
    assert answer.extras == ("data:text/plain;charset=utf-8,La%20la",)


@pytest.mark.parametrize(
    ("fields", "extras"),
    [
        (f'"thumbnail":"{PNG}"', (PNG,)),
        (f'"thumbnail":{{"url":"{PNG}"}}', (PNG,)),
        (f'"files":[{{"url":"{PNG}","name":"a"}},"{MP4}"]', (PNG,)),
        (f'"layers":["{PNG}"]', (PNG,)),
        ('"thumbnail":null,"files":[],"layers":null', ()),
        ('"thumbnail":"/relative.png","duration":12.5', ()),
    ],
)
def test_files_beside_the_outputs_are_kept_apart(fields: str, extras: tuple[str, ...]) -> None:
    """Covers, layers and files are more than was asked for; what is an output is none of them."""
    answer = completed(f'"outputs":["{MP4}"],{fields}')
    assert (answer.outputs, answer.extras, answer.notes) == ((MP4,), extras, {})
    member = completed(f'"outputs":[{{"video_url":"{MP4}","thumbnail_url":"{PNG}"}}]')
    assert (member.outputs, member.extras) == ((MP4,), (PNG,))


def test_no_answer_makes_a_hundred_files_of_one_picture() -> None:
    """Nobody asked for them."""
    files = [f"https://host/layer-{n}.png" for n in range(100)]
    answer = completed(f'"outputs":["{MP4}"],"layers":{json.dumps(files)}')
    assert answer.extras == tuple(files[:20])


def test_where_there_are_no_outputs_files_are_what_was_made() -> None:
    """A model in three dimensions; a cover alone is none."""
    assert completed(f'"outputs":null,"files":["{PNG}"]').outputs == (PNG,)
    assert completed(f'"outputs":null,"thumbnail":"{PNG}"').outputs == ()
