"""The history of an account: pages, filters, and every way it can be wrong."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from asyncpipe.errors import UsageError
from asyncpipe.simulator.faults import Faults
from asyncpipe.simulator.settings import SimulatorSettings
from tests.support.simulator_client import BODY, FLUX, KEY, SEEDANCE, Client, run


async def listed(client: Client, query: str = "", key: str = "k") -> list[dict[str, Any]]:
    """The rows of one page."""
    reply = await client.ask(
        "GET", f"/model/history?no=1&size=50{query}", headers={"Authorization": f"Bearer {key}"}
    )
    assert reply.status == 200, reply.body
    rows: list[dict[str, Any]] = reply.data["items"]
    return rows


async def until_listed(client: Client, count: int) -> list[dict[str, Any]]:
    """The rows, as soon as there are so many; each question is a round trip, so nothing spins."""
    async with asyncio.timeout(30):
        while len(rows := await listed(client)) < count:
            pass
    return rows


def test_a_row_tells_id_time_body_and_what_became_of_it() -> None:
    """A prediction whose answer was cut is listed like any other."""

    async def steps(client: Client) -> None:
        with pytest.raises(Exception, match="disconnected"):
            await client.submit(prompt="白瓷杯", seed=7)
        (sold,) = client.books.predictions()
        (row,) = await listed(client)
        assert row["ID"] == sold.id
        assert row["createdAt"] == int(sold.created_at)
        assert row["model"] == FLUX
        assert json.loads(row["requestBody"]) == {**BODY, "prompt": "白瓷杯", "seed": 7}
        assert row["status"] == row["result"]["status"] == "completed"
        assert row["result"]["outputs"]

    run(steps, faults=Faults(dropped=1.0))


def test_pages_are_newest_first_and_hold_fifty_at_most() -> None:
    """Beyond the last page there is an empty one."""

    async def steps(client: Client) -> None:
        bought = [await client.buy(seed=n) for n in range(53)][::-1]
        pages = []
        for number in (1, 2, 3):
            reply = await client.ask("GET", f"/model/history?no={number}&size=99", headers=KEY)
            assert (reply.data["pageNo"], reply.data["pageSize"]) == (number, 50)
            assert reply.data["total"] == 53
            pages.append([row["ID"] for row in reply.data["items"]])
        assert pages == [bought[:50], bought[50:], []]

    run(steps)


def test_filters_and_what_is_none() -> None:
    """By prediction, model and status; anything else is refused."""

    async def steps(client: Client) -> None:
        image, video = await client.buy(), await client.buy(model=SEEDANCE)
        assert [row["ID"] for row in await listed(client, f"&sessionID={image}")] == [image]
        assert [row["ID"] for row in await listed(client, f"&model={SEEDANCE}")] == [video]
        assert len(await listed(client, "&status=completed")) == 2
        assert await listed(client, "&status=processing") == []
        for query in ("no=0&size=5", "no=x&size=5", "no=1&size=-1", "no=1&size=5&status=lost"):
            assert (await client.ask("GET", f"/model/history?{query}", headers=KEY)).status == 400
        assert (await client.ask("GET", "/model/history?no=1&size=5")).status == 401

    run(steps)


def test_an_account_sees_its_own_predictions_only() -> None:
    """Two keys of one account see the same; another account polls 404."""

    async def steps(client: Client) -> None:
        mine = await client.buy()
        assert [row["ID"] for row in await listed(client, key="k")] == [mine]
        assert [row["ID"] for row in await listed(client, key="rotated")] == [mine]
        assert await listed(client, key="hers") == []
        theirs = {"Authorization": "Bearer hers"}
        reply = await client.ask("GET", f"/model/prediction/{mine}", headers=theirs)
        assert reply.status == 404
        assert (await client.poll(mine, tail="/")).status == 200
        public = client.simulator.base_url.replace("/api/v1", "/public/v1/balance")
        balance = (await client.ask("GET", public, headers=theirs)).json
        assert balance["account"]["id"] == "acct-hers"

    run(steps, accounts={"hers": "acct-hers"})


def test_without_a_history_the_answer_is_404() -> None:
    """As from an API that has none."""

    async def steps(client: Client) -> None:
        assert (await client.ask("GET", "/model/history?no=1", headers=KEY)).status == 404

    run(steps, faults=Faults(no_history=1.0))


def test_errors_come_three_in_a_row_at_most() -> None:
    """Then a page is told."""

    async def steps(client: Client) -> None:
        asked = [await client.ask("GET", "/model/history", headers=KEY) for _ in range(4)]
        assert [reply.status == 200 for reply in asked] == [False, False, False, True]

    run(steps, faults=Faults(history_error=1.0))


def test_some_are_listed_late_and_later_ones_before_them() -> None:
    """A gap in the list is filled when the lag is over."""

    async def steps(client: Client) -> None:
        bought = [await client.buy(seed=n) for n in range(8)]
        first = {row["ID"] for row in await listed(client)}
        assert first < set(bought)
        last_hidden = max(n for n, each in enumerate(bought) if each not in first)
        assert any(bought.index(each) > last_hidden for each in first) or last_hidden == 7
        assert len(await until_listed(client, len(bought))) == len(bought)

    run(steps, faults=Faults(history_lag=0.5), history_lag_s=0.5, seed=2)


def test_a_late_sale_is_made_after_the_connection_closed() -> None:
    """Nothing is sold while the client still waits, and one prediction later on."""

    async def steps(client: Client) -> None:
        with pytest.raises(Exception, match="disconnected"):
            await client.submit()
        assert client.books.predictions() == []
        rows = await until_listed(client, 1)
        assert [row["ID"] for row in rows] == [client.books.predictions()[0].id]

    run(steps, faults=Faults(late_sale=1.0), history_lag_s=0.2)


def test_bodies_with_defaults_foreign_ones_and_claimed_ids() -> None:
    """What was sent is still in the first, not in the second; the third names another's id."""

    async def defaults(client: Client) -> None:
        await client.buy(seed=7)
        (row,) = await listed(client)
        body = json.loads(row["requestBody"])
        assert {name: body[name] for name in BODY} == BODY
        assert body["seed"] == 7
        assert len(body) > len(BODY) + 1

    async def foreign(client: Client) -> None:
        await client.buy()
        (row,) = await listed(client)
        assert json.loads(row["requestBody"])["prompt"] != BODY["prompt"]

    async def taken(client: Client) -> None:
        first, _ = await client.buy(), await client.buy()
        assert [row["ID"] for row in await listed(client)] == [first, first]

    run(defaults, faults=Faults(history_defaults=1.0))
    run(foreign, faults=Faults(history_foreign=1.0))
    run(taken, faults=Faults(history_taken=1.0))


def test_fields_are_missing() -> None:
    """Over many rows, each of id, time, body and something that was sent."""

    async def steps(client: Client) -> None:
        for seed in range(30):
            await client.buy(seed=seed)
        lacking = set()
        for row in await listed(client):
            lacking |= {"ID", "createdAt", "requestBody"} - row.keys()
            if "requestBody" in row and len(json.loads(row["requestBody"])) < len(BODY) + 1:
                lacking.add("a field")
        assert lacking == {"ID", "createdAt", "requestBody", "a field"}

    run(steps, faults=Faults(history_missing=1.0))


def test_a_lag_is_no_negative_time() -> None:
    """Said when the simulator is made."""
    with pytest.raises(UsageError, match="history_lag_s"):
        SimulatorSettings(history_lag_s=-1)
