"""A plain client for tests of the simulator: raw aiohttp, nothing of ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, MutableSequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from asyncpipe.simulator.server import Simulator
from asyncpipe.simulator.settings import SimulatorSettings

FLUX = "black-forest-labs/flux-2-pro/text-to-image"
SEEDANCE = "bytedance/seedance-v1.5-pro/text-to-video"
BODY = {"model": FLUX, "prompt": "橡木桌上的白瓷杯", "width": 64, "height": 64}
KEY = {"Authorization": "Bearer k"}
PNG = b"\x89PNG"


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer, read whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def data(self) -> dict[str, Any]:
        data: dict[str, Any] = self.json["data"]
        return data


class Client:
    """Ask one simulator, every request on a connection of its own."""

    def __init__(self, simulator: Simulator, session: aiohttp.ClientSession) -> None:
        self.simulator = simulator
        self.books = simulator.books
        self.session = session

    async def ask(self, method: str, url: str, **options: Any) -> Reply:
        url = url if url.startswith("http") else self.simulator.base_url + url
        async with self.session.request(method, url, **options) as response:
            return Reply(
                status=response.status,
                headers=dict(response.headers),
                body=await response.read(),
            )

    async def submit(self, **fields: Any) -> Reply:
        kind = "generateVideo" if "video" in str(fields.get("model")) else "generateImage"
        return await self.ask("POST", f"/model/{kind}", json={**BODY, **fields}, headers=KEY)

    async def buy(self, **fields: Any) -> str:
        """Submit, and take the id from the books: answers may have it anywhere."""
        await self.submit(**fields)
        return self.books.predictions()[-1].id

    async def poll(self, prediction: str, *, tail: str = "") -> Reply:
        return await self.ask("GET", f"/model/prediction/{prediction}{tail}", headers=KEY)

    async def raw_poll(self, prediction: str) -> bytes:
        """Poll over a bare socket: aiohttp would ask again when a connection breaks."""
        url = urlsplit(f"{self.simulator.base_url}/model/prediction/{prediction}")
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        try:
            head = f"GET {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: close\r\n"
            writer.write(f"{head}Authorization: Bearer k\r\n\r\n".encode())
            return await reader.read()
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def output(self, **fields: Any) -> str:
        """The first output's URL of a new prediction."""
        return str((await self.poll(await self.buy(**fields))).data["outputs"][0])

    async def get(self, url: str, **options: Any) -> Reply:
        """Download without credentials and without following redirects."""
        return await self.ask("GET", url, allow_redirects=False, **options)


async def drain(response: aiohttp.ClientResponse, into: MutableSequence[bytes]) -> None:
    """Read a body to its end, keeping what came before it broke off."""
    async for chunk in response.content.iter_any():
        into.append(chunk)


def beside_simulator(
    steps: Callable[[Simulator], Awaitable[Any]],
    *,
    loop: Callable[[Coroutine[Any, Any, Any]], Any] = asyncio.run,
    **settings: Any,
) -> Any:
    """Do ``steps`` beside a simulator on a free port, in real time or in ``loop``'s."""

    async def main() -> Any:
        async with Simulator(SimulatorSettings(**settings)) as simulator:
            return await steps(simulator)

    return loop(main())


def run(steps: Callable[[Client], Awaitable[Any]], **settings: Any) -> Any:
    """Run ``steps`` against a simulator whose predictions are ready at once."""

    async def ask(simulator: Simulator) -> Any:
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:
            return await steps(Client(simulator, session))

    return beside_simulator(ask, **{"generation_s": (0.0, 0.0), **settings})
