"""The list of an account's predictions: literal answers, and what a list with a hole proves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from asyncpipe.errors import HistoryUnavailable, PollFailed, ProviderError
from asyncpipe.http import HttpAnswer
from asyncpipe.jobs import Job, JobType
from asyncpipe.providers import HasHistory, Listed
from asyncpipe.providers.atlas.history import pages, read_history
from asyncpipe.simulator import Simulator
from asyncpipe.simulator.faults import Faults
from asyncpipe.testing import run_virtual
from tests.support.atlas import JOB, atlas
from tests.support.simulator_client import beside_simulator

AT = datetime(2026, 11, 27, 10, 0, tzinfo=UTC)
SECONDS = int(AT.timestamp())
ROW = {
    "ID": "9f3c",
    "createdAt": SECONDS,
    "model": "google/imagen4-ultra",
    "requestBody": '{"prompt": "一只猫", "model": "google/imagen4-ultra", "seed": 7}',
    "result": {"id": "9f3c", "status": "completed", "outputs": ["https://m.example/1.png"]},
    "status": "completed",
}
LISTED = Listed(
    id="9f3c",
    created=AT,
    model="google/imagen4-ultra",
    body={"model": "google/imagen4-ultra", "prompt": "一只猫", "seed": 7},
    status="completed",
)


def answer(*rows: Any, **more: Any) -> bytes:
    data = {"items": list(rows), "pageNo": 1, "pageSize": 50, "total": len(rows), **more}
    return json.dumps({"code": 200, "message": "", "data": data}).encode()


def read(*rows: Any) -> tuple[Listed, ...]:
    return read_history(200, {}, answer(*rows)).listed


def without(name: str, **more: Any) -> dict[str, Any]:
    return {**{key: value for key, value in ROW.items() if key != name}, **more}


def test_the_documented_row() -> None:
    page = read_history(200, {}, answer(ROW))
    assert (page.listed, page.rows, page.total, page.holes) == ((LISTED,), 1, 1, 0)


@pytest.mark.parametrize("code", [200, "200", 0])
def test_envelopes_that_are_good(code: Any) -> None:
    body = json.dumps({"code": code, "data": {"items": [ROW], "total": 1}}).encode()
    assert read_history(200, {}, body).listed == (LISTED,)


@pytest.mark.parametrize("items", [[], None])
def test_an_account_that_bought_nothing(items: Any) -> None:
    body = json.dumps({"code": 200, "data": {"items": items, "total": 0}}).encode()
    assert read_history(200, {}, body).rows == 0


@pytest.mark.parametrize(
    "told",
    [
        SECONDS,
        float(SECONDS),
        str(SECONDS),
        SECONDS * 1000,
        f"{SECONDS * 1000}",
        "2026-11-27T10:00:00Z",
        "2026-11-27T18:00:00+08:00",
    ],
)
def test_times(told: Any) -> None:
    """Seconds as documented; milliseconds and ISO 8601 are nothing else."""
    assert read({**ROW, "createdAt": told}) == (LISTED,)


@pytest.mark.parametrize(
    "told", [0, -1, None, True, "soon", "2026-11-27T10:00:00", 1e300, [], "9" * 99]
)
def test_what_is_no_time(told: Any) -> None:
    page = read_history(200, {}, answer({**ROW, "createdAt": told}))
    assert (page.listed, page.holes) == ((), 1)


def test_what_a_row_lacks_may_stand_in_its_result() -> None:
    """The id and the time; without either the row is a hole."""
    assert read(without("ID")) == (LISTED,)
    inside = {**ROW["result"], "created_at": "2026-11-27T10:00:00Z"}  # type: ignore[dict-item]
    assert read(without("createdAt", result=inside)) == (LISTED,)
    assert read_history(200, {}, answer(without("ID", result=None))).holes == 1
    assert read_history(200, {}, answer("a row?", None)).holes == 2


@pytest.mark.parametrize("body", [None, "", "{", "[1]", '"x"', 7, "[" * 100_000])
def test_a_body_that_cannot_be_read_is_none(body: Any) -> None:
    (listed,) = read({**ROW, "requestBody": body})
    assert listed.body is None


def test_a_body_may_come_as_an_object() -> None:
    assert read({**ROW, "requestBody": json.loads(str(ROW["requestBody"]))}) == (LISTED,)


@pytest.mark.parametrize("code", [401, 403, 404])
@pytest.mark.parametrize("http", [True, False])
def test_no_list_for_this_key(code: int, http: bool) -> None:
    """As a status line or in the body alone."""
    body = json.dumps({"code": code, "msg": "no", "data": None}).encode()
    with pytest.raises(HistoryUnavailable, match=f"{code}"):
        read_history(code if http else 200, {}, body)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b""),
        (429, b'{"code":429,"msg":"slow down"}'),
        (200, b"<html>"),
        (200, b'{"code":200,"data":{}}'),
        (200, b'{"code":200,"data":{"items":{}}}'),
        (200, b'{"code":500,"data":{"items":[]}}'),
    ],
)
def test_what_is_no_page(status: int, body: bytes) -> None:
    with pytest.raises(PollFailed):
        read_history(status, {}, body)


class Lister:
    """Shows what is on each page, and counts the questions."""

    def __init__(self, *shown: bytes | tuple[int, bytes]) -> None:
        self.shown = list(shown)
        self.asked: list[str] = []

    async def ask_history(self, query: str) -> HttpAnswer:
        self.asked.append(query)
        page = self.shown.pop(0) if self.shown else answer(total=None)
        status, body = page if isinstance(page, tuple) else (200, page)
        return HttpAnswer(status=status, headers={}, body=body)


def reading(api: Lister, since: datetime = AT - timedelta(hours=1)) -> list[str]:
    """The ids of all pages."""

    async def main() -> list[str]:
        return [each.id async for page in pages(api, since) for each in page]

    return run_virtual(main())


def row(name: str, minutes_ago: float) -> dict[str, Any]:
    return {**ROW, "ID": name, "createdAt": SECONDS - int(60 * minutes_ago)}


def test_a_reading_ends_with_a_page_that_is_old_enough() -> None:
    """What is older still is not asked for."""
    api = Lister(
        answer(row("c", 1), row("b", 2), total=9), answer(row("a", 50), row("z", 61), total=9)
    )
    assert reading(api) == ["c", "b", "a", "z"]
    assert api.asked == ["no=1&size=50", "no=2&size=50"]


def test_a_reading_ends_where_the_list_does() -> None:
    """By its total, or without one by an empty page."""
    assert reading(Lister(answer(row("b", 1)), b"not asked for")) == ["b"]
    assert reading(Lister(answer(row("b", 1), total=None), answer(total=None))) == ["b"]


def test_what_is_bought_meanwhile_pushes_rows_to_the_next_page() -> None:
    """A row that is shown twice is told once."""
    api = Lister(
        answer(row("c", 1), row("b", 2), total=3), answer(row("b", 2), row("a", 3), total=4)
    )
    assert reading(api) == ["c", "b", "a"]


@pytest.mark.parametrize("status", [401, 403])
def test_one_refusal_of_the_list_is_asked_once_more(status: int) -> None:
    """On any page: a gateway's slip must not end the search of a whole run; twice, it is true."""
    slip = (status, b"{}")
    first, second = answer(row("b", 1), total=2), answer(row("a", 2), total=2)
    assert reading(Lister(slip, first, slip, second)) == ["b", "a"]
    with pytest.raises(HistoryUnavailable):
        reading(Lister(first, slip, slip, second))
    api = Lister((404, b"{}"), first)
    with pytest.raises(HistoryUnavailable):
        reading(api)
    assert len(api.asked) == 1


def test_a_busy_api_is_asked_again() -> None:
    assert reading(Lister((429, b"{}"), (502, b"<html>"), answer(row("a", 1)))) == ["a"]


HOLES: dict[str, Callable[[], Lister]] = {
    "shows": lambda: Lister(answer(row("a", 1), total=2), answer(total=2)),
    "shrank": lambda: Lister(answer(row("a", 1), total=5), answer(row("b", 2), total=4)),
    "circles": lambda: Lister(answer(row("a", 1), total=9), answer(row("a", 1), total=9)),
    "newest first": lambda: Lister(answer(row("a", 30), row("b", 1))),
    "no prediction or no time": lambda: Lister(answer(row("a", 1), {"status": "completed"})),
    "502": lambda: Lister(*[(502, b"<html>")] * 9),
}


@pytest.mark.parametrize("why", HOLES)
def test_a_list_with_a_hole_is_said_to_prove_nothing(why: str) -> None:
    """Every way in which a prediction might be there and not be shown."""
    with pytest.raises(ProviderError, match=why):
        reading(HOLES[why]())


def test_rows_of_one_minute_may_stand_in_any_order() -> None:
    assert reading(Lister(answer(row("a", 2), row("b", 1)))) == ["a", "b"]


def test_a_body_is_what_a_submit_sends() -> None:
    """As JSON has it: no tuples, no numbers for names."""
    provider = atlas("http://127.0.0.1:1")
    assert isinstance(provider, HasHistory)
    params = {"size": (1, 2), "seed": 7, "deep": {"a": 1.0}}
    job = Job(model="m", prompt="白瓷杯", type=JobType.IMAGE, params=params)
    assert provider.body_of(job) == {
        "model": "m",
        "prompt": "白瓷杯",
        "size": [1, 2],
        "seed": 7,
        "deep": {"a": 1.0},
    }


@pytest.mark.parametrize("wire", ["canonical", "article"])
def test_what_the_simulator_sold_is_listed_and_polled(wire: str) -> None:
    """The whole way, errors and late ones included; a route found in no answer works."""

    async def steps(simulator: Simulator) -> None:
        async with atlas(simulator.base_url.removesuffix("/api/v1")) as provider:
            for _ in range(3):
                await provider.submit(JOB)
            sold = simulator.books.predictions()
            since = datetime.now(UTC) - timedelta(minutes=1)
            found = [each async for page in provider.history(since, AT) for each in page]
            assert [each.id for each in found] == [each.id for each in reversed(sold)]
            assert all(each.body == provider.body_of(JOB) for each in found)
            assert abs(found[0].created - datetime.now(UTC)) < timedelta(seconds=60)
            for kind in (JobType.IMAGE, JobType.AUDIO)[: 1 if wire == "article" else 2]:
                route = provider.route_of(Job(model="m", prompt="p", type=kind))
                told = await provider.poll(found[0].id, route=route)
                assert told.id == found[0].id

    faults = Faults(history_error=0.5)
    beside_simulator(steps, loop=asyncio.run, wire=wire, faults=faults, seed=3)


def test_a_simulator_without_a_list() -> None:
    async def steps(simulator: Simulator) -> None:
        async with atlas(simulator.base_url.removesuffix("/api/v1")) as provider:
            with pytest.raises(HistoryUnavailable):
                async for _ in provider.history(AT, AT):
                    pass

    beside_simulator(steps, faults=Faults(no_history=1.0))
