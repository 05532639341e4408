"""fal's list of requests: literal answers, pages, and what makes a reading none."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest

from asyncpipe.errors import HistoryUnavailable, PollFailed, ProviderError
from asyncpipe.http import HttpAnswer
from asyncpipe.providers import Listed
from asyncpipe.providers.fal.history import pages, read_history
from asyncpipe.testing import run_virtual

AT = datetime(2026, 11, 27, 10, 0, tzinfo=UTC)
ROW = {
    "request_id": "r-1",
    "endpoint_id": "fal-ai/flux/dev",
    "started_at": "2026-11-27T10:00:05Z",
    "sent_at": "2026-11-27T10:00:00Z",
    "ended_at": "2026-11-27T10:00:08Z",
    "status_code": 200,
    "duration": 3.1,
    "json_input": {"prompt": "一只猫", "seed": 7},
    "json_output": {"images": []},
}
LISTED = Listed(
    id="r-1",
    created=AT,
    model="fal-ai/flux/dev",
    body={"prompt": "一只猫", "seed": 7},
    status="200",
)


def read(*rows: Any, **more: Any) -> tuple[Listed, ...]:
    return read_history(200, {}, orjson.dumps({"items": list(rows), **more})).listed


def test_the_documented_row() -> None:
    assert read(ROW, next_cursor=None, has_more=False) == (LISTED,)


@pytest.mark.parametrize("body", [None, 7, "no JSON", ["prompt"]])
def test_a_row_without_its_input_shows_none(body: Any) -> None:
    """It is kept: nothing is matched to it, and nothing is left out."""
    assert read({**ROW, "json_input": body})[0].body is None


def test_a_row_may_have_its_input_as_text_and_its_time_without_a_zone() -> None:
    row = {**ROW, "json_input": '{"prompt": "一只猫", "seed": 7}', "sent_at": "2026-11-27 10:00:00"}
    assert read(row) == (LISTED,)


@pytest.mark.parametrize(
    "row",
    [
        {**ROW, "request_id": ""},
        {**ROW, "request_id": None},
        {**ROW, "sent_at": "soon", "started_at": None, "ended_at": None},
        "odd",
    ],
)
def test_a_row_that_cannot_be_read_makes_the_reading_none(row: Any) -> None:
    with pytest.raises(ProviderError, match="proves nothing"):
        read(ROW, row)


@pytest.mark.parametrize("status", [401, 403, 404, 405, 501])
def test_no_list_for_this_key(status: int) -> None:
    with pytest.raises(HistoryUnavailable, match="does not list"):
        read_history(status, {}, b'{"detail": "no"}')


@pytest.mark.parametrize(("status", "body"), [(200, b"{}"), (200, b"x"), (429, b""), (503, b"{}")])
def test_no_page(status: int, body: bytes) -> None:
    with pytest.raises(PollFailed) as caught:
        read_history(status, {"Retry-After": "2"}, body)
    assert caught.value.retry_after_s == 2.0


class List:
    """Answers ``answers`` one after the other, and notes what was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked = list(answers), list[dict[str, list[str]]]()

    async def ask_api(self, path: str, *, what: str) -> HttpAnswer:
        self.asked.append(parse_qs(urlsplit(path).query))
        told = self.answers.pop(0)
        status, body = told if isinstance(told, tuple) else (200, told)
        return HttpAnswer(status=status, headers={}, body=orjson.dumps(body))


def found(api: List, *models: str) -> list[str]:
    async def main() -> list[str]:
        return [each.id async for page in pages(api, AT, models) for each in page]

    return run_virtual(main())


def test_all_pages_of_all_models_are_read() -> None:
    """Fifty models at a time; a page that fails is asked for again."""
    api = List(
        {"items": [ROW], "next_cursor": "two", "has_more": True},
        (503, {"detail": "busy"}),
        {"items": [{**ROW, "request_id": "r-2"}], "next_cursor": None, "has_more": False},
        {"items": []},
    )
    assert found(api, *(f"fal-ai/m{n}" for n in range(51))) == ["r-1", "r-2"]
    first, again, second, last = api.asked
    assert len(first["endpoint_id"]) == 50
    assert (first["expand"], first["limit"]) == (["payloads"], ["100"])
    assert first["start"] == ["2026-11-27T10:00:00Z"]
    assert "end" not in first
    assert "cursor" not in first
    assert again == second == {**first, "cursor": ["two"]}
    assert (len(last["endpoint_id"]), "cursor" in last) == (1, False)


def test_without_a_model_nothing_is_asked() -> None:
    assert found(List()) == []


@pytest.mark.parametrize(
    "answers",
    [
        [{"items": [], "has_more": True}],
        [{"items": [], "next_cursor": "x"}, {"items": [], "next_cursor": "x"}] * 2,
    ],
    ids=["no cursor", "in circles"],
)
def test_a_list_that_contradicts_itself_proves_nothing(answers: list[Any]) -> None:
    with pytest.raises(ProviderError):
        found(List(*answers), "a/b")


def test_so_far_back_the_list_goes() -> None:
    """Asked for more it would answer an error."""
    api = List({"items": []})

    async def main() -> None:
        async for _ in pages(api, datetime(2020, 1, 1, tzinfo=UTC), ["a/b"]):
            pass

    run_virtual(main())
    start = datetime.fromisoformat(api.asked[0]["start"][0])
    assert 88 < (datetime.now(UTC) - start).days <= 90
