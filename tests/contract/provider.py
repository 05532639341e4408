"""What every provider must do: one suite, run over each world that there is.

A world is a provider with something at its other end, in which one thing may go wrong.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from asyncpipe.errors import (
    BalanceExhausted,
    KeyRefused,
    NotAccepted,
    ProviderError,
    RateLimited,
    Rejected,
    SubmitUnknown,
)
from asyncpipe.jobs import Job
from asyncpipe.providers import PredictionStatus, Provider
from asyncpipe.providers.atlas import AtlasCloud
from asyncpipe.providers.fal import Fal
from asyncpipe.providers.replicate import Replicate
from asyncpipe.simulator import Faults, Simulator, SimulatorSettings
from asyncpipe.testing import FakeAccount, FakeProvider, Script
from tests.contract.toy import Toy
from tests.support.keyed_api import KeyedApi
from tests.support.servers import PNG, listening, serving

MODEL = "demo/text-to-image"
KEY = "apikey-0123456789abcdef"


class Trouble(Enum):
    """What goes wrong, and what it comes down to where the submit raises."""

    NONE = None
    NOBODY_THERE = NotAccepted
    LIMITED = RateLimited
    KEY = KeyRefused
    MONEY = BalanceExhausted
    REFUSED = Rejected
    LOST = SubmitUnknown
    FAILED = PredictionStatus.FAILED
    NOT_SAID = ""  # failed, and not whether it is charged


SUBMITS = [each for each in Trouble if isinstance(each.value, type)]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A provider in a world: ``submits`` counts the submits that arrived there."""

    provider: Provider
    submits: Callable[[], int]


World = Callable[[Trouble, Path], AbstractAsyncContextManager[Place]]


def job(name: str = "mug", **params: Any) -> Job:
    return Job(name=name, model=MODEL, prompt="a mug", params=params)


@asynccontextmanager
async def nowhere() -> AsyncIterator[str]:
    """An address at which nobody listens any more."""

    async def nobody(*_: object) -> None:
        raise AssertionError

    async with listening(nobody) as port:
        pass
    yield f"http://127.0.0.1:{port}"


_FAULTS = {
    Trouble.LIMITED: "rate_limited=1",
    Trouble.REFUSED: "refused=1",
    Trouble.MONEY: "no_balance=1",
    Trouble.LOST: "dropped=1",
    Trouble.FAILED: "failed=1",
    Trouble.NOT_SAID: "late_refusal=1",
}


Make = Callable[..., Provider]


@asynccontextmanager
async def _simulated(
    make: Make, trouble: Trouble, folder: Path, *, faults: str | None = None, **settings: Any
) -> AsyncIterator[Place]:
    """A provider, with the simulator at its other end."""
    if trouble is Trouble.NOBODY_THERE:
        async with nowhere() as url:
            yield Place(provider=make(KEY, base_url=url, simulated=True), submits=lambda: 0)
        return
    told = SimulatorSettings(
        speed=2000.0,
        faults=Faults.parse(faults or _FAULTS.get(trouble, "")),
        api_key="another" if trouble is Trouble.KEY else KEY,
        books=folder / "books.sqlite3",
        **settings,
    )
    async with Simulator(told) as simulator:
        provider = make(KEY, base_url=simulator.base_url, simulated=True)
        yield Place(provider=provider, submits=lambda: len(simulator.books.predictions()))


@asynccontextmanager
async def simulated(trouble: Trouble, folder: Path) -> AsyncIterator[Place]:
    """Atlas Cloud, simulated."""
    async with _simulated(AtlasCloud, trouble, folder) as place:
        yield place


@asynccontextmanager
async def fal(trouble: Trouble, folder: Path) -> AsyncIterator[Place]:
    """fal, simulated."""
    async with _simulated(Fal, trouble, folder, profile="fal") as place:
        yield place


@asynccontextmanager
async def replicate(trouble: Trouble, folder: Path) -> AsyncIterator[Place]:
    """Replicate, simulated: of one that failed nobody says whether it is charged."""
    struck = {Trouble.FAILED: "aborted=1", Trouble.NOT_SAID: "failed=1"}
    async with _simulated(
        Replicate, trouble, folder, profile="replicate", faults=struck.get(trouble)
    ) as place:
        yield place


_ERRORS: Mapping[Trouble, ProviderError] = {
    each: each.value("as the script says") for each in SUBMITS
}


@asynccontextmanager
async def keyed(trouble: Trouble, folder: Path) -> AsyncIterator[Place]:
    """A made-up API with keys of submits, simulated."""
    async with _simulated(KeyedApi, trouble, folder, profile="keyed") as place:
        yield place


@asynccontextmanager
async def scripted(trouble: Trouble, folder: Path) -> AsyncIterator[Place]:
    """FakeProvider, which has nothing at its other end."""
    failed = trouble in (Trouble.FAILED, Trouble.NOT_SAID)
    script = Script(
        submits=[_ERRORS[trouble]] if trouble in _ERRORS else [],
        generation_s=0.02,
        end=PredictionStatus.FAILED if failed else PredictionStatus.COMPLETED,
        error="no luck" if failed else None,
        released=None if trouble is Trouble.NOT_SAID else True,
    )
    provider = FakeProvider(default=script)
    yield Place(provider=provider, submits=lambda: len(provider.sold))


@asynccontextmanager
async def with_account(trouble: Trouble, folder: Path) -> AsyncIterator[Place]:
    """FakeAccount: one that quotes, and whose money ends."""
    async with scripted(trouble, folder) as place:
        assert isinstance(place.provider, FakeProvider)
        rich = FakeAccount(prices={MODEL: Decimal("0.04")}, default=place.provider.default)
        yield Place(provider=rich, submits=lambda: len(rich.sold))


class Kitchen:
    """The toy's other end."""

    def __init__(self, trouble: Trouble) -> None:
        self.trouble, self.works, self.origin = trouble, 0, ""

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path.startswith("/dishes/"):
            return web.Response(body=PNG, content_type="image/png")
        if request.headers.get("X-Toy-Token") != KEY:
            return self.problem(401)
        if request.method == "POST" and request.path == "/v2/works":
            return await self.order(request)
        ref = request.path.removeprefix("/v2/works/")
        if ref not in {f"w{n}" for n in range(1, self.works + 1)}:
            return self.problem(404)
        return self.answer(200, work=self.work(ref))

    async def order(self, request: web.BaseRequest) -> web.StreamResponse:
        assert set(orjson.loads(await request.read())) == {"recipe", "wish", "extra"}
        status = {Trouble.LIMITED: 429, Trouble.MONEY: 402, Trouble.REFUSED: 422}
        if self.trouble in status:
            return self.problem(status[self.trouble])
        self.works += 1
        if self.trouble is Trouble.LOST:
            assert request.transport is not None
            request.transport.close()
        return self.answer(202, work={"ref": f"w{self.works}", "phase": "cooking"})

    def work(self, ref: str) -> dict[str, Any]:
        if self.trouble in (Trouble.FAILED, Trouble.NOT_SAID):
            refund = "yes" if self.trouble is Trouble.FAILED else None
            return {"ref": ref, "phase": "burnt", "why": "too hot", "refund": refund}
        return {
            "ref": ref,
            "phase": "served",
            "dishes": [{"href": f"{self.origin}/dishes/{ref}.png"}],
        }

    def problem(self, status: int) -> web.Response:
        return self.answer(status, problem={"kind": str(status)})

    def answer(self, status: int, **document: Any) -> web.Response:
        return web.Response(status=status, body=orjson.dumps(document))


@asynccontextmanager
async def toy(trouble: Trouble, folder: Path) -> AsyncIterator[Place]:
    """A provider that asyncpipe has never heard of."""
    if trouble is Trouble.NOBODY_THERE:
        async with nowhere() as url:
            yield Place(provider=Toy(KEY, url), submits=lambda: 0)
        return
    kitchen = Kitchen(trouble)
    async with serving(kitchen) as kitchen.origin:
        key = "another" if trouble is Trouble.KEY else KEY
        yield Place(provider=Toy(key, kitchen.origin), submits=lambda: kitchen.works)


WORLDS: list[World] = [simulated, scripted, with_account, toy, fal, replicate, keyed]
