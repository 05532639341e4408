"""What is sent to fal: where, with which key, how often; against a small server on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from asyncpipe import Job, JobType
from asyncpipe.errors import (
    BalanceExhausted,
    KeyRefused,
    NotAccepted,
    PollFailed,
    PredictionGone,
    ProviderError,
    Rejected,
    UsageError,
)
from asyncpipe.providers import (
    Cancelled,
    HasBills,
    HasCancel,
    HasHistory,
    Prediction,
    PredictionStatus,
    Provider,
    Uploader,
    connect,
    has_key,
    lists_ended_only,
)
from asyncpipe.providers.fal import Fal
from tests.support.servers import PNG, Api, noting

KEY = "11111111-2222-3333-4444-555555555555:0123456789abcdef0123456789abcdef"
JOB = Job(model="fal-ai/flux/dev", prompt="a mug", type=JobType.IMAGE, params={"seed": 7})


class Desk:
    """fal's answers, by method and path; what is not there is answered 404."""

    def __init__(self, **answers: Any) -> None:
        self.answers: dict[str, list[web.Response]] = {}

    def on(self, what: str, document: Any = None, status: int = 200, **headers: Any) -> Desk:
        body = document if isinstance(document, bytes) else orjson.dumps(document)
        response = lambda: web.Response(status=status, body=body, headers=headers)  # noqa: E731
        self.answers.setdefault(what, []).append(response)  # type: ignore[arg-type]
        return self

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        left = self.answers.get(f"{request.method} {request.path}", [])
        if not left:
            return web.json_response({"detail": "not found"}, status=404)
        made: Any = left.pop(0) if len(left) > 1 else left[0]
        response: web.StreamResponse = made()
        return response


def asked(desk: Desk, ask: Callable[[Fal, Api], Awaitable[Any]], key: str = KEY) -> tuple[Any, Api]:
    async def main() -> tuple[Any, Api]:
        async with noting(desk) as api, Fal(key, base_url=api.url) as provider:
            return await ask(provider, api), api

    return asyncio.run(main())


STATUS = "GET /fal-ai/flux/requests/r-1/status"
RESULT = "GET /fal-ai/flux/requests/r-1"
PRICES = "GET /v1/models/pricing"
PRICE = {"prices": [{"endpoint_id": JOB.model, "unit_price": 0.025, "unit": "images"}]}
PICTURE = {"images": [{"url": "https://v3.fal.media/a.png", "content_type": "image/png"}]}


def test_a_submit_is_one_post_of_the_flat_input_with_the_key() -> None:
    """And of headers nothing that would make it one that nobody finds again."""
    desk = Desk().on("POST /fal-ai/flux/dev", {"request_id": "r-1", "status": "IN_QUEUE"})
    found, api = asked(desk, lambda provider, api: provider.submit(JOB))
    assert (found.id, found.route) == ("r-1", JOB.model)
    assert api.lines == ["POST /fal-ai/flux/dev"]
    assert orjson.loads(api.bodies[0]) == {"prompt": "a mug", "seed": 7}
    assert api.requests[0].headers["Authorization"] == f"Key {KEY}"
    assert not [name for name in api.requests[0].headers if name.lower().startswith("x-")]


def poll(provider: Fal, api: Api) -> Awaitable[Prediction]:
    return provider.poll("r-1", route=JOB.model)


def test_a_request_that_runs_is_asked_for_once() -> None:
    found, api = asked(Desk().on(STATUS, {"status": "IN_PROGRESS"}, 202), poll)
    assert (found.id, found.route, found.status) == ("r-1", JOB.model, PredictionStatus.RUNNING)
    assert len(api.lines) == 1


def test_one_that_has_ended_is_asked_for_its_result() -> None:
    """What it cost is so many units at the price of one; that is asked for once."""
    desk = Desk().on(STATUS, {"status": "COMPLETED"}).on(PRICES, PRICE)
    desk.on(RESULT, PICTURE, 200, **{"x-fal-billable-units": "2"})

    async def twice(provider: Fal, api: Api) -> list[Prediction]:
        return [await poll(provider, api) for _ in range(2)]

    found, api = asked(desk, twice)
    for each in found:
        assert (each.status, each.id) == (PredictionStatus.COMPLETED, "r-1")
        assert (each.outputs, each.charged) == (("https://v3.fal.media/a.png",), Decimal("0.05"))
    assert len([line for line in api.lines if "pricing" in line]) == 1


def test_without_a_price_nothing_is_said_of_the_cost() -> None:
    desk = Desk().on(STATUS, {"status": "COMPLETED"})
    desk.on(RESULT, PICTURE, 200, **{"x-fal-billable-units": "2"})
    found, _ = asked(desk, poll)
    assert (found.status, found.charged) == (PredictionStatus.COMPLETED, None)


def test_a_failure_is_the_results_error() -> None:
    desk = Desk().on(STATUS, {"status": "COMPLETED"})
    desk.on(RESULT, {"detail": [{"type": "image_too_large", "msg": "no"}]}, 422)
    found, api = asked(desk, poll)
    assert (found.status, found.released) == (PredictionStatus.FAILED, None)
    assert len(api.lines) == 2


def test_an_unmarked_error_of_the_server_is_believed_when_it_is_said_twice() -> None:
    plain = {"detail": "Internal Server Error"}
    desk = Desk().on(STATUS, {"status": "COMPLETED"}).on(RESULT, plain, 500)
    found, api = asked(desk, poll)
    assert (found.status, found.released) == (PredictionStatus.FAILED, True)
    assert len(api.lines) == 3
    desk = Desk().on(STATUS, {"status": "COMPLETED"}).on(RESULT, plain, 500).on(RESULT, PICTURE)
    found, _ = asked(desk, poll)
    assert found.status is PredictionStatus.COMPLETED
    desk = Desk().on(STATUS, {"status": "COMPLETED"}).on(RESULT, plain, 500).on(RESULT, plain, 502)
    with pytest.raises(PollFailed, match="500, then 502"):
        asked(desk, poll)


def test_large_errors_are_read_beside_the_loop() -> None:
    """A refusal echoes its input."""
    echo = {"detail": [{"type": "image_too_large", "msg": "no", "input": "A" * 5_000_000}]}
    desk = Desk().on(STATUS, {"status": "COMPLETED"}).on(RESULT, echo, 422)
    found, _ = asked(desk, poll)
    assert found.error == "image_too_large: no (422)"


@pytest.mark.parametrize(
    ("status", "document", "comes_to"),
    [
        (202, {"status": "CANCELLATION_REQUESTED"}, Cancelled.UNKNOWN),
        (400, {"status": "ALREADY_COMPLETED"}, Cancelled.TOO_LATE),
        (404, {"status": "NOT_FOUND"}, PredictionGone),
        (401, {"detail": "no"}, KeyRefused),
        (500, {"detail": "no"}, PollFailed),
    ],
)
def test_a_cancellation(status: int, document: Any, comes_to: Any) -> None:
    desk = Desk().on("PUT /fal-ai/flux/requests/r-1/cancel", document, status)

    async def cancel(provider: Fal, api: Api) -> Cancelled:
        return await provider.cancel("r-1", route=JOB.model)

    if isinstance(comes_to, Cancelled):
        assert asked(desk, cancel)[0] is comes_to
    else:
        with pytest.raises(comes_to):
            asked(desk, cancel)


# -- money --------------------------------------------------------------------------------------


def test_a_quote_is_the_price_of_what_is_asked_for() -> None:
    desk = Desk().on(PRICES, PRICE)
    found, api = asked(desk, lambda provider, api: provider.quote(JOB))
    assert (found.amount, found.estimated) == (Decimal("0.025"), True)
    assert api.lines == ["GET /v1/models/pricing?endpoint_id=fal-ai%2Fflux%2Fdev"]


def test_what_cannot_be_reckoned_is_estimated_by_what_calls_have_cost() -> None:
    unit = {"prices": [{**PRICE["prices"][0], "unit": "compute seconds"}]}
    desk = Desk().on(PRICES, unit)
    desk.on("POST /v1/models/pricing/estimate", {"total_cost": 0.07, "currency": "USD"})
    found, api = asked(desk, lambda provider, api: provider.quote(JOB))
    assert found.amount == Decimal("0.07")
    assert orjson.loads(api.bodies[1]) == {
        "estimate_type": "historical_api_price",
        "endpoints": {JOB.model: {"call_quantity": 1}},
    }


def test_a_model_without_a_price_is_refused_a_quote() -> None:
    with pytest.raises(Rejected, match="lists no price"):
        asked(Desk().on(PRICES, {"prices": []}), lambda provider, api: provider.quote(JOB))


def test_the_bill_and_the_balance_are_for_admin_keys() -> None:
    """Said plainly, with what to do."""
    for ask in (
        lambda provider, api: provider.bills(["r-1"]),
        lambda provider, api: provider.balance(),
    ):
        desk = Desk()
        desk.on("GET /v1/models/billing-events", {"detail": "Forbidden"}, 403)
        desk.on("GET /v1/account/billing", {"detail": "Forbidden"}, 403)
        with pytest.raises(ProviderError, match="ADMIN keys only") as caught:
            asked(desk, ask)
        assert type(caught.value) is ProviderError


def test_the_bill_is_read_page_after_page() -> None:
    rows = [{"request_id": "r-1", "cost_total": 0.01}]
    desk = Desk()
    desk.on("GET /v1/models/billing-events", {"billing_events": rows, "next_cursor": "2"})
    desk.on("GET /v1/models/billing-events", {"billing_events": rows})
    found, api = asked(desk, lambda provider, api: provider.bills(["r-1", "r-2"]))
    assert found == {"r-1": Decimal("0.02")}
    assert "request_id=r-1&request_id=r-2" in api.lines[0]
    assert api.lines[1].endswith("&cursor=2")


# -- files --------------------------------------------------------------------------------------


def photo(folder: Path) -> Path:
    path = folder / "geheim.jpg"
    path.write_bytes(PNG)
    return path


def test_a_file_goes_where_fal_says_and_no_key_with_it(tmp_path: Path) -> None:
    path = photo(tmp_path)
    desk = Desk().on("PUT /bucket/1", b"")

    async def upload(provider: Fal, api: Api) -> str:
        told = {"upload_url": f"{api.url}/bucket/1?sig=a%2Fb", "file_url": "https://v3.fal.media/1"}
        desk.on("POST /storage/upload/initiate", told)
        return await provider.upload(path)

    url, api = asked(desk, upload)
    assert url == "https://v3.fal.media/1"
    assert [line.partition("?")[0] for line in api.lines] == [
        "POST /storage/upload/initiate",
        "PUT /bucket/1",
    ]
    assert orjson.loads(api.bodies[0]) == {"file_name": "input.png", "content_type": "image/png"}
    assert api.lines[1].endswith("?sig=a%2Fb")
    begin, put = api.requests
    assert begin.headers["Authorization"] == f"Key {KEY}"
    assert KEY not in str(put.headers)
    assert "Authorization" not in put.headers
    assert (put.headers["Content-Type"], api.bodies[1]) == ("image/png", PNG)


@pytest.mark.parametrize(
    ("status", "told", "kind"),
    [
        (403, {"detail": "User is locked. Reason: Exhausted balance."}, BalanceExhausted),
        (401, {"detail": "no"}, KeyRefused),
        (500, {"detail": "no"}, NotAccepted),
        (200, {"file_url": "https://v3.fal.media/1"}, NotAccepted),
        (200, {"upload_url": "http://v3.fal.media/1", "file_url": "https://x.example/1"}, Rejected),
        (200, {"upload_url": "https://10.0.0.1/1", "file_url": "https://x.example/1"}, Rejected),
        (200, {"upload_url": "https://metadata.local/", "file_url": "https://x/1"}, Rejected),
        (200, {"upload_url": "file:///etc/x", "file_url": "https://x.example/1"}, Rejected),
    ],
)
def test_an_upload_that_does_not_begin(
    tmp_path: Path, status: int, told: Any, kind: type[ProviderError]
) -> None:
    """No file is sent into the user's own network, or in the clear."""
    path = photo(tmp_path)
    desk = Desk().on("POST /storage/upload/initiate", told, status)
    with pytest.raises(ProviderError) as caught:
        asked(desk, lambda provider, api: provider.upload(path))
    assert type(caught.value) is kind


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="cannot be read"):
        asked(Desk(), lambda provider, api: provider.upload(tmp_path / "none.png"))


# -- the key ------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FAL_KEY", "FAL_KEY_ID", "FAL_KEY_SECRET"):
        monkeypatch.delenv(name, raising=False)


def test_the_key_is_where_fals_own_clients_look_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole, or in two halves; one half alone is an error that names the other."""
    assert not has_key("fal")
    with pytest.raises(UsageError, match="set FAL_KEY"):
        connect("fal")
    monkeypatch.setenv("FAL_KEY_ID", "id")
    assert not has_key("fal")
    with pytest.raises(UsageError, match="FAL_KEY_ID is set and FAL_KEY_SECRET is not"):
        connect("fal")
    monkeypatch.setenv("FAL_KEY_SECRET", "secret")
    assert has_key("fal")
    halves, whole = connect("fal"), Fal("id:secret")
    assert getattr(halves, "account", None) == whole.account
    monkeypatch.setenv("FAL_KEY", "another:one")
    assert getattr(connect("fal"), "account", None) == Fal("another:one").account


def test_the_key_is_never_shown() -> None:
    """Not where an answer repeats it, either."""
    desk = Desk().on("POST /fal-ai/flux/dev", {"detail": f"no user for {KEY}"}, 401)
    with pytest.raises(KeyRefused) as caught:
        asked(desk, lambda provider, api: provider.submit(JOB))
    assert KEY not in str(caught.value)
    assert KEY not in repr(Fal(KEY))


def test_what_fal_can_do() -> None:
    provider = Fal(KEY)
    assert isinstance(provider, Provider)
    for capability in (Uploader, HasHistory, HasBills, HasCancel):
        assert isinstance(provider, capability)
    assert lists_ended_only(provider)
    assert (provider.name, provider.origin) == ("fal", "https://queue.fal.run")
    assert provider.body_of(JOB) == {"model": JOB.model, "prompt": "a mug", "seed": 7}
    assert provider.route_of(JOB) == JOB.model
