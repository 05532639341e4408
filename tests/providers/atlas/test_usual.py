"""The short way to read an answer says what the long way says, whenever it says anything."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from asyncpipe.errors import ProviderError
from asyncpipe.providers.atlas import reader as atlas_reader
from asyncpipe.providers.atlas.reader import read_poll, read_submit, read_usual
from asyncpipe.providers.base import Prediction, PredictionStatus

RECORDED = (
    b'{"code":200,"message":"","data":{"id":"9f3c","model":"m/x","status":"processing",'
    b'"outputs":null,"urls":{"get":"https://api.atlascloud.ai/api/v1/model/prediction/9f3c"},'
    b'"has_nsfw_contents":null,"error":""}}'
)
COMPLETED = (
    b'{"code":200,"message":"","data":{"id":"9f3c","model":"m/x","status":"completed",'
    b'"outputs":["https://media.example/images/a.png"],"urls":{"get":"x"},'
    b'"has_nsfw_contents":[false],"error":"","metrics":{"predict_time":9.5}}}'
)
BARE = b'{"code":200,"message":"","data":{"id":"9f3c"}}'

words = st.sampled_from(
    ["processing", "created", "completed", "failed", "error", "Completed", "success", "", "new", 1]
)
urls = st.sampled_from(
    ["https://h/a.png", "HTTPS://h/a.png", " https://h/a", "data:image/png;base64,AA", "x", "杯", 3]
)
names = st.sampled_from(["9f3c", "a.b_c-1", "..", "", "杯", " a", "a/b", 7, 10**30, None])
changes: dict[str, st.SearchStrategy[Any]] = {
    "code": st.sampled_from(["200", 0, 500, 1039, True, None]),
    "message": st.sampled_from(["success", "bad"]),
    "status": words,
    "id": names,
    "request_id": names,
    "outputs": st.lists(urls, max_size=1),
    "data": st.none(),
    "data.id": names,
    "data.predictionId": names,
    "data.status": words,
    "data.outputs": st.one_of(
        st.none(), st.lists(urls, min_size=1, max_size=1), st.lists(urls, max_size=3)
    ),
    "data.output": urls,
    "data.price": st.sampled_from([0.04, "0.04", -1, "nan", None, 0, True]),
    "data.completed_at": st.just("2026-11-27T10:00:00Z"),
    "data.error": st.sampled_from(["", "broken", {"message": "no"}, None]),
    "data.error_code": st.sampled_from([0, 1039]),
    "data.request_id": names,
    "data.data": st.fixed_dictionaries({}, optional={"id": names, "status": words}),
}


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A documented answer with at most two things about it changed."""
    document: dict[str, Any] = orjson.loads(draw(st.sampled_from([RECORDED, COMPLETED, BARE])))
    for name in draw(st.lists(st.sampled_from([*changes, *["data.outputs"] * 8]), max_size=2)):
        where, _, key = name.rpartition(".")
        place = document["data"] if where else document
        if isinstance(place, dict):
            place[key] = draw(changes[name])
    return document


def said(read: Any, status: int, headers: CIMultiDict[str], body: bytes) -> Any:
    try:
        return read(status, headers, body)
    except ProviderError as exc:
        return type(exc), str(exc)


@settings(max_examples=600, deadline=None)
@given(document=documents(), status=st.sampled_from([200, 200, 200, 201, 404, 500]), trace=names)
def test_both_ways_agree(document: Any, status: int, trace: object) -> None:
    """Whatever arrives: the answer is the same with the short way taken out."""
    try:
        body = orjson.dumps(document)
    except TypeError:  # an integer beyond what orjson writes
        body = repr(document).replace("'", '"').replace("None", "null").encode()
    headers = CIMultiDict({"x-request-id": str(trace)})
    for read in (read_submit, read_poll):
        short = said(read, status, headers, body)
        with patch.object(atlas_reader, "read_usual", return_value=None):
            assert short == said(read, status, headers, body)


@pytest.mark.parametrize(
    ("body", "status", "outputs"),
    [
        (RECORDED, PredictionStatus.RUNNING, ()),
        (COMPLETED, PredictionStatus.COMPLETED, ("https://media.example/images/a.png",)),
    ],
)
def test_what_is_documented_goes_the_short_way(
    body: bytes, status: PredictionStatus, outputs: tuple[str, ...]
) -> None:
    """Else it would be there for nothing."""
    headers = CIMultiDict({"X-Request-Id": "t-1"})
    usual = read_usual(200, headers, body)
    assert usual is not None
    assert usual == Prediction(
        id="9f3c", status=status, outputs=outputs, request_id="t-1", said=usual.said
    )
    assert read_submit(200, headers, body) == read_poll(200, headers, body) == usual


def test_an_id_alone_is_an_answer_to_a_submit_and_none_to_a_poll() -> None:
    """A poll that names no status says nothing of the prediction."""
    bought = read_usual(200, CIMultiDict(), BARE, bare=True)
    assert bought == read_submit(200, CIMultiDict(), BARE) == Prediction(id="9f3c")
    assert read_usual(200, CIMultiDict(), BARE) is None
