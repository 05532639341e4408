"""The simulator as fal: the odd ways of its queue, lists and storage, seen by a raw client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest

from asyncpipe.simulator.faults import Faults
from asyncpipe.simulator.profiles.fal.queue import ECHO
from tests.support.simulator_client import Client, Reply
from tests.support.simulator_client import run as beside

MODEL = "fal-ai/flux/dev"
KEY = {"Authorization": "Key id:secret"}
ADMIN = {"Authorization": "Key admin:secret"}


def run(steps: Callable[[Client], Awaitable[Any]], **settings: Any) -> Any:
    return beside(steps, profile="fal", **settings)


async def submit(client: Client, model: str = MODEL, **body: Any) -> Reply:
    return await client.ask("POST", f"/{model}", json={"prompt": "a mug", **body}, headers=KEY)


async def get(client: Client, path: str, key: dict[str, str] = KEY) -> Reply:
    return await client.ask("GET", path, headers=key)


async def result(client: Client, **body: Any) -> Reply:
    """The result of a new request."""
    sold = (await submit(client, **body)).json
    return await get(client, sold["response_url"])


async def listed(client: Client, query: str = "") -> list[dict[str, Any]]:
    path = f"/v1/models/requests/by-endpoint?endpoint_id={MODEL}&expand=payloads{query}"
    rows: list[dict[str, Any]] = (await get(client, path)).json["items"]
    return rows


def test_a_request_is_polled_at_its_app_and_not_at_its_endpoint() -> None:
    """202 while it runs, 200 when it has ended; its result says what is billed."""

    async def steps(client: Client) -> None:
        sold = (await submit(client)).json
        place = f"/fal-ai/flux/requests/{sold['request_id']}"
        assert sold["status_url"].endswith(f"{place}/status")
        told = await get(client, f"{place}/status")
        assert (told.status, told.json["status"]) == (200, "COMPLETED")
        assert (await get(client, f"/{MODEL}/requests/{sold['request_id']}")).status == 404
        ended = await get(client, place)
        assert ended.headers["x-fal-billable-units"] == "1"
        (image,) = ended.json["images"]
        assert (await client.get(image["url"])).body.startswith(b"\x89PNG")
        assert client.books.charged() == Decimal("0.025")

    run(steps)


def test_one_that_runs_has_no_result_yet() -> None:
    async def steps(client: Client) -> None:
        sold = (await submit(client)).json
        told = await get(client, sold["status_url"])
        assert (told.status, told.json["status"]) == (202, "IN_QUEUE")
        early = await get(client, sold["response_url"])
        assert (early.status, early.json["detail"]) == (400, "Request is still in progress")
        assert await listed(client) == []
        gone = await client.ask("PUT", sold["cancel_url"], headers=KEY)
        assert (gone.status, client.books.charged()) == (202, Decimal(0))
        again = await client.ask("PUT", sold["cancel_url"], headers=KEY)
        assert (again.status, again.json["status"]) == (400, "ALREADY_COMPLETED")
        assert (await get(client, sold["response_url"])).json["error_type"] == "client_cancelled"

    run(steps, generation_s=(3600.0, 3600.0))


@pytest.mark.parametrize(
    ("faults", "statuses", "kept"),
    [
        (Faults(failed=1.0), {500, 503, 504}, {0}),
        (Faults(moderated=1.0), {422}, {0}),
        (Faults(late_refusal=1.0), {422}, {0, 25_000}),
    ],
    ids=["failed", "moderated", "late_refusal"],
)
def test_a_failure_is_the_results_own_error(
    faults: Faults, statuses: set[int], kept: set[int]
) -> None:
    """COMPLETED, then 422 or 5xx; of the first nobody says whether it was charged."""

    async def steps(client: Client) -> None:
        answers, money = [], set()
        for n in range(12):
            before = client.books.charged()
            answers.append(await result(client, seed=n))
            money.add(int((client.books.charged() - before) * 1_000_000))
        assert {each.status for each in answers} <= statuses
        assert money == kept
        if statuses == {422}:
            assert max(len(each.body) for each in answers) > ECHO

    run(steps, faults=faults)


def test_nothing_asked_for_is_sold_and_refused_in_the_end() -> None:
    async def steps(client: Client) -> None:
        assert (await result(client, prompt="")).status == 422
        assert client.books.charged() == 0

    run(steps)


def test_without_money_submits_and_uploads_are_403_and_polls_go_on() -> None:
    async def steps(client: Client) -> None:
        sold = await submit(client)
        refused = await submit(client)
        assert refused.status == 403
        assert refused.json["detail"].startswith("User is locked. Reason: Exhausted balance")
        body = {"file_name": "a.png", "content_type": "image/png"}
        begin = await client.ask("POST", "/storage/upload/initiate", json=body, headers=KEY)
        assert begin.status == 403
        assert (await get(client, sold.json["status_url"])).status == 200
        assert (await get(client, sold.json["response_url"])).status == 200

    run(steps, balance_usd=Decimal("0.025"))


def test_the_door_leaves_no_trace_and_the_gateway_does() -> None:
    async def steps(client: Client) -> None:
        refused = await submit(client)
        assert (refused.status, b"nginx" in refused.body) == (503, True)
        assert "x-fal-request-id" not in refused.headers
        assert "x-fal-request-id" in (await get(client, "/v1/nothing")).headers

    run(steps, faults=Faults(overloaded=1.0))


def test_the_list_shows_what_has_ended_by_endpoint_and_page() -> None:
    """With payloads only when they are asked for."""

    async def steps(client: Client) -> None:
        for n in range(3):
            await submit(client, seed=n)
        await submit(client, "fal-ai/other/model")
        first = await listed(client, "&limit=2")
        assert [row["json_input"]["seed"] for row in first] == [2, 1]
        (last,) = await listed(client, "&limit=2&cursor=2")
        assert (last["endpoint_id"], last["status_code"]) == (MODEL, 200)
        path = f"/v1/models/requests/by-endpoint?endpoint_id={MODEL}"
        assert "json_input" not in (await get(client, path)).json["items"][0]
        for wrong in ("", f"?endpoint_id={MODEL}&limit=101", f"?endpoint_id={MODEL}&start=x"):
            reply = await get(client, f"/v1/models/requests/by-endpoint{wrong}")
            assert reply.status == 422

    run(steps)


def test_a_retried_request_is_listed_under_another_id() -> None:
    """By which it can be polled as well."""

    async def steps(client: Client) -> None:
        sold = (await submit(client)).json["request_id"]
        (row,) = await listed(client)
        assert row["request_id"] != sold
        place = f"/fal-ai/flux/requests/{row['request_id']}/status"
        assert (await get(client, place)).json["request_id"] == sold

    run(steps, faults=Faults(retried=1.0))


def test_bill_and_balance_are_told_to_admins() -> None:
    async def steps(client: Client) -> None:
        sold = (await submit(client)).json["request_id"]
        bill = f"/v1/models/billing-events?request_id={sold}&request_id=nobody"
        for path in (bill, "/v1/account/billing?expand=credits"):
            assert (await get(client, path)).status == 403
        (event,) = (await get(client, bill, ADMIN)).json["billing_events"]
        assert (event["request_id"], event["cost_total"]) == (sold, 0.025)
        left = (await get(client, "/v1/account/billing?expand=credits", ADMIN)).json
        assert left["credits"]["current_balance"] == 0.975

    run(steps, balance_usd=Decimal(1))


def test_prices_are_by_unit_and_calls_have_a_history() -> None:
    async def steps(client: Client) -> None:
        path = f"/v1/models/pricing?endpoint_id={MODEL}&endpoint_id=a/b"
        flux, other = (await get(client, path)).json["prices"]
        assert (flux["unit_price"], flux["unit"]) == (0.025, "megapixels")
        assert (other["unit_price"], other["unit"]) == (0.05, "images")
        body = {"estimate_type": "historical_api_price", "endpoints": {"a/b": {"call_quantity": 3}}}
        told = await client.ask("POST", "/v1/models/pricing/estimate", json=body, headers=KEY)
        assert told.json["total_cost"] == 0.15

    run(steps)


def test_a_file_is_put_without_the_key_and_served() -> None:
    async def steps(client: Client) -> None:
        body = {"file_name": "a.png", "content_type": "image/png"}
        told = await client.ask("POST", "/storage/upload/initiate", json=body, headers=KEY)
        place, url = told.json["upload_url"], told.json["file_url"]
        assert (await client.get(url)).status == 404
        headers = {"Content-Type": "image/png"}
        assert (await client.ask("PUT", place, data=b"PNG", headers=headers)).status == 200
        assert (await client.get(url)).body == b"PNG"
        assert client.books.media_credentials() == 0
        await client.ask("PUT", place, data=b"PNG", headers=KEY)
        assert client.books.media_credentials() == 1

    run(steps)
