"""Faults of the submit: what arrives, and what the books say was sold."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest

from asyncpipe.errors import UsageError
from asyncpipe.simulator.faults import Faults
from asyncpipe.simulator.settings import SimulatorSettings
from tests.support.clock import until
from tests.support.simulator_client import FLUX, KEY, PNG, SEEDANCE, Client, Reply, drain, run


def test_rate_limited_wishes_nothing_seconds_or_a_date() -> None:
    """All three kinds of 429, none of which sells; the wish is a few seconds at most."""

    async def steps(client: Client) -> None:
        kinds = set()
        for _ in range(30):
            reply = await client.submit()
            assert (reply.status, reply.json["code"]) == (429, 429)
            wish = reply.headers.get("Retry-After")
            if wish is None:
                kinds.add("none")
            elif wish.isdigit():
                assert 1 <= int(wish) <= 2
                kinds.add("seconds")
            else:
                assert -1 <= parsedate_to_datetime(wish).timestamp() - time.time() <= 3
                kinds.add("date")
        assert kinds == {"none", "seconds", "date"}
        assert client.books.predictions() == []

    run(steps, faults=Faults(rate_limited=1.0))


@pytest.mark.parametrize(
    ("fault", "status", "content_type", "said"),
    [
        ("overloaded", {503}, "application/json", b'"code": 503'),
        ("no_balance", {200, 402}, "application/json", b'"code": 402'),
        ("firewall", {403}, "text/html", b"error code: 1010"),
        ("refused", {400}, "application/json", b'"code": 400'),
    ],
)
def test_refusals_sell_nothing(
    fault: str, status: set[int], content_type: str, said: bytes
) -> None:
    """Every status there is of each, in its envelope, and empty books."""

    async def steps(client: Client) -> None:
        replies = [await client.submit() for _ in range(12)]
        assert {reply.status for reply in replies} == status
        assert all(reply.headers["Content-Type"].startswith(content_type) for reply in replies)
        assert all(said in reply.body for reply in replies)
        assert client.books.predictions() == []
        assert client.books.submits() == 12

    run(steps, faults=Faults(**{fault: 1.0}))


def test_a_server_error_after_the_sale_is_a_lost_answer() -> None:
    """Pages with 500 or 502; each of them was sold."""

    async def steps(client: Client) -> None:
        replies = [await client.submit() for _ in range(12)]
        assert {reply.status for reply in replies} == {500, 502}
        assert all(reply.body.startswith(b"<!DOCTYPE html>") for reply in replies)
        assert client.books.charged() == 12 * Decimal("0.04")

    run(steps, faults=Faults(server_error_submit=1.0))


def test_a_nameless_answer_is_good_and_says_no_id() -> None:
    """HTTP 200, code 200, sold, and no key that could be an id."""

    async def steps(client: Client) -> None:
        reply = await client.submit()
        assert (reply.status, reply.json["code"]) == (200, 200)
        assert set(reply.data) == {"status", "outputs"}
        assert client.books.predictions()[0].id.encode() not in reply.body

    run(steps, faults=Faults(nameless=1.0))


def test_a_hung_submit_is_sold_and_never_answered() -> None:
    """The client has to go; neither it nor the simulator's end is held up by that."""

    async def steps(client: Client) -> None:
        with pytest.raises(TimeoutError):
            async with client.session.post(
                f"{client.simulator.base_url}/model/generateImage",
                json={"model": FLUX, "prompt": "mug"},
                headers=KEY,
                timeout=aiohttp.ClientTimeout(total=0.3),
            ):
                pass
        assert len(client.books.predictions()) == 1

    started = time.monotonic()
    run(steps, faults=Faults(hung_submit=1.0), hang_s=0.01)
    assert 0.3 <= time.monotonic() - started < 10


def test_a_hung_submit_is_let_go_with_its_client() -> None:
    """Nothing of it is left in a simulator that serves on."""

    async def steps(client: Client) -> None:
        before = len(asyncio.all_tasks())
        submits = [asyncio.create_task(client.submit()) for _ in range(3)]
        await until(lambda: len(client.books.predictions()) == 3)
        assert len(asyncio.all_tasks()) > before + 3
        for submit in submits:
            submit.cancel()
        await until(lambda: len(asyncio.all_tasks()) == before)

    run(steps, faults=Faults(hung_submit=1.0))


def test_a_huge_answer_is_larger_than_anybody_should_read() -> None:
    """More than 64 MiB without a Content-Length, which then break off; sold."""

    read: list[bytes] = []

    async def steps(client: Client) -> None:
        url, body = (
            f"{client.simulator.base_url}/model/generateImage",
            {"model": FLUX, "prompt": "x"},
        )
        async with client.session.post(url, json=body, headers=KEY) as response:
            assert (response.status, response.content_length) == (200, None)
            with pytest.raises(aiohttp.ClientError):
                await drain(response, read)
        assert len(client.books.predictions()) == 1

    run(steps, faults=Faults(huge_answer=1.0))
    assert read[0].startswith(b'{"code":200,')
    assert sum(map(len, read)) > 64 * 1024 * 1024


def test_the_code_may_be_text() -> None:
    """On submit and on polls."""

    async def steps(client: Client) -> None:
        reply = await client.submit()
        assert reply.json["code"] == "200"
        assert (await client.poll(reply.data["id"])).json["code"] == "200"

    run(steps, faults=Faults(text_code=1.0))


def id_place(answer: dict[str, Any], prediction: str) -> str:
    """Where in an answer the id is, as a path."""
    for name, value in answer.items():
        if value == prediction:
            return name
        if isinstance(value, dict) and (inner := id_place(value, prediction)):
            return f"{name}.{inner}"
    return ""


@pytest.mark.parametrize("instant", [0.0, 1.0])
def test_ids_stand_in_every_place(instant: float) -> None:
    """Five places; each id is the one in the books, also where the answer is final already."""

    async def steps(client: Client) -> None:
        places = set()
        for _ in range(40):
            reply = await client.submit()
            places.add(id_place(reply.json, client.books.predictions()[-1].id))
            assert (b"/media/" in reply.body) == bool(instant)
        assert places == {
            "predictionId",
            "id",
            "data.predictionId",
            "data.prediction_id",
            "data.data.id",
        }

    run(steps, faults=Faults(odd_id=1.0, instant=instant))


def test_an_instant_answer_is_final_and_its_output_is_there() -> None:
    """Completed with outputs at once, though predictions take long here."""

    async def steps(client: Client) -> None:
        reply = await client.submit()
        assert (reply.data["status"], len(reply.data["outputs"])) == ("completed", 1)
        assert (await client.get(reply.data["outputs"][0])).body.startswith(PNG)
        assert (await client.poll(reply.data["id"])).data["status"] == "completed"

    run(steps, faults=Faults(instant=1.0), generation_s=(9e3, 9e3))


def test_after_an_instant_answer_polls_take_nothing_back() -> None:
    """Neither not found nor empty: a client may need its first poll for a fresh URL."""

    async def steps(client: Client) -> None:
        reply = await client.submit()
        polled = await client.poll(reply.data["id"])
        assert (polled.status, polled.data["outputs"]) == (200, reply.data["outputs"])

    run(steps, faults=Faults(instant=1.0, not_found_first=1.0, empty_first=1.0))


def test_an_instant_answer_on_the_articles_wire_and_of_a_failure() -> None:
    """request_id beside status and output; failed is as final, and its money returned."""

    async def completed(client: Client) -> None:
        answer = (await client.submit(model=SEEDANCE, duration=1)).json
        assert answer["request_id"] == client.books.predictions()[0].id
        assert (answer["status"], answer["output"]["video_url"][-4:]) == ("completed", ".mp4")

    async def failed(client: Client) -> None:
        assert (await client.submit()).data["status"] == "failed"
        assert client.books.charged() == 0

    run(completed, faults=Faults(instant=1.0), wire="article")
    run(failed, faults=Faults(instant=1.0, failed=1.0))


async def balance(client: Client) -> str:
    url = client.simulator.base_url.replace("/api/v1", "/public/v1/balance")
    reply = await client.ask("GET", url, headers=KEY)
    available: dict[str, str] = reply.json["available"]
    assert (reply.status, available["currency"]) == (200, "usd")
    return available["value"]


def test_the_balance_falls_and_submits_beyond_it_are_refused() -> None:
    """0.10 buys two at 0.04; the third is answered 402 and not sold."""

    async def steps(client: Client) -> list[int]:
        before = await balance(client)
        replies = [await client.submit() for _ in range(3)]
        assert (before, await balance(client)) == ("0.100000", "0.020000")
        assert replies[2].json["code"] == 402
        assert client.books.charged() == Decimal("0.08")
        return [reply.status for reply in replies]

    assert run(steps, balance_usd=Decimal("0.10")) == [200, 200, 402]


def test_the_money_of_failed_predictions_can_be_spent_again() -> None:
    """With 0.04 any number of predictions that fail; without a setting there is plenty."""

    async def failing(client: Client) -> None:
        assert [(await client.submit()).status for _ in range(3)] == [200] * 3
        assert await balance(client) == "0.040000"

    async def plenty(client: Client) -> None:
        await client.submit()
        assert await balance(client) == "999999.960000"

    run(failing, balance_usd=Decimal("0.04"), faults=Faults(failed=1.0))
    run(plenty)


def test_the_catalogue_needs_no_key_and_has_the_prices() -> None:
    """Five models; string code, decimal strings in USD."""

    async def steps(client: Client) -> None:
        reply = await client.ask("GET", "/models")
        assert (reply.status, reply.json["code"]) == (200, "200")
        rows = {row["model"]: row for row in reply.json["data"]}
        assert len(rows) == 5
        assert (rows[FLUX]["type"], rows[SEEDANCE]["type"]) == ("Image", "Video")
        prices = {model: row["price"]["actual"]["base_price"] for model, row in rows.items()}
        assert (prices[FLUX], prices[SEEDANCE]) == ("0.04", "0.022")

    run(steps)


@pytest.mark.parametrize(
    "fields",
    [{}, {"num_images": 3}, {"model": SEEDANCE, "duration": 7}, {"model": "some/other"}],
)
def test_a_quote_is_what_is_charged_then(fields: dict[str, Any]) -> None:
    """No key needed, nothing sold; the same number as the submit's."""

    async def steps(client: Client) -> None:
        body = {"model": FLUX, "prompt": "mug", **fields}
        reply = await client.ask("POST", "/model/calculate", json=body)
        assert client.books.submits() == 0
        await client.submit(**fields)
        assert (reply.data["currency"], reply.data["discount"]) == ("usd", "100")
        assert Decimal(str(reply.data["price"])) == client.books.charged()

    run(steps)


def test_what_money_questions_are_refused() -> None:
    """Keys that do not fit, paths that are none, bodies without a model."""

    async def steps(client: Client) -> None:
        other = {"Authorization": "Bearer other"}
        public = client.simulator.base_url.replace("/api/v1", "/public/v1")
        refused: list[Reply] = [
            await client.ask("GET", f"{public}/balance"),
            await client.ask("GET", f"{public}/nothing", headers=KEY),
        ]
        for reply in refused:
            assert (reply.status, reply.json["error"]["code"]) == (401, "unauthorized")
        calculate = "/model/calculate"
        body = {"model": FLUX}
        reply = await client.ask("POST", calculate, headers=other, json=body)
        assert (reply.status, reply.json["code"]) == (401, 401)
        assert (await client.ask("POST", calculate, json=[])).status == 400

    run(steps, api_key="k")


@pytest.mark.parametrize("amount", ["-1", "nan", "inf"])
def test_a_balance_is_an_amount(amount: str) -> None:
    with pytest.raises(UsageError, match="balance_usd"):
        SimulatorSettings(balance_usd=Decimal(amount))


def test_beyond_its_limits_the_simulator_says_429_without_a_hint() -> None:
    """Per model in flight, and over all submits and polls of a second; nothing is sold then."""

    async def in_flight(client: Client) -> None:
        replies = [await client.submit() for _ in range(3)]
        assert [reply.status for reply in replies] == [200, 200, 429]
        assert "Retry-After" not in replies[2].headers
        assert (await client.submit(model=SEEDANCE, duration=5)).status == 200
        assert len(client.books.predictions()) == 3

    run(in_flight, in_flight=2, generation_s=(600.0, 600.0))

    async def rate(client: Client) -> None:
        sold = await client.buy()
        assert [(await client.poll(sold)).status for _ in range(4)] == [200, 200, 429, 429]
        assert (await client.submit()).status == 429
        assert len(client.books.predictions()) == 1
        await asyncio.sleep(1.05)
        assert (await client.poll(sold)).status == 200

    run(rate, requests_per_second=3)
    wrong: list[dict[str, Any]] = [{"in_flight": 0}, {"requests_per_second": 0.0}]
    for settings in wrong:
        with pytest.raises(UsageError, match="must be above 0"):
            SimulatorSettings(**settings)
