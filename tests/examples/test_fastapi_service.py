"""The service of fastapi_service.py under a crowd, ended by SIGTERM and kill -9 in between."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.chaos import LONG, bought
from tests.support.command_line import a_simulator, environment, server_books
from tests.support.crashes import killing

pytestmark = [killing, pytest.mark.timeout(600 if LONG else 180)]

JOBS = 2000 if LONG else 200
"""So many clients at once; 2,000 with ASYNCPIPE_CHAOS=long."""

MODEL = "black-forest-labs/flux-2-pro/text-to-image"


class Service:
    """The service as a process, which may be ended and started again on the same port."""

    def __init__(self, home: Path, api: str) -> None:
        self._home, self._api = home, api
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    def start(self) -> None:
        command = [sys.executable, "-m", "uvicorn", "tests.examples.fastapi_service:app"]
        command += ["--port", str(self.port), "--log-level", "warning", "--backlog", "4096"]
        command += ["--timeout-graceful-shutdown", "2"]
        self.starts += 1
        with (self._home / f"service{self.starts}.log").open("wb") as log:
            self.process = subprocess.Popen(
                command,
                env=environment(
                    ATLASCLOUD_API_KEY="apikey-service",
                    MEDIA_BASE_URL=self._api,
                    MEDIA_FOLDER=str(self._home / "media"),
                ),
                stdout=log,
                stderr=log,
            )

    async def started(self) -> None:
        """Start it, and wait until it answers."""
        self.start()
        async with aiohttp.ClientSession() as session:
            while True:
                assert self.process is not None
                assert self.process.poll() is None, self.log()
                try:
                    async with session.get(f"{self.url}/health") as answer:
                        assert answer.status == 200
                        return
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0)

    async def end(self, how: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return await asyncio.to_thread(self.process.wait, 60)

    def log(self) -> str:
        return (self._home / f"service{self.starts}.log").read_text("utf-8")


def client(limit: int = 0) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=limit))


def with_service(home: Path, main: Callable[[Service], Awaitable[None]], *options: object) -> None:
    async def run(url: str) -> None:
        service = Service(home, url)
        await service.started()
        try:
            await main(service)
        finally:
            if service.process is not None and service.process.poll() is None:
                await service.end(signal.SIGKILL)

    with a_simulator(home, *options) as url:
        asyncio.run(run(url))


class Crowd:
    """Customers who try again until they are told that their order is accepted."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.accepted = dict[int, str]()
        self.third, self.two_thirds = asyncio.Event(), asyncio.Event()
        self._back = [asyncio.Event(), asyncio.Event()]

    async def come(self) -> None:
        async with client() as session, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._end_it(), name="who ends it")
            for number in range(JOBS):
                tasks.create_task(self._order(session, number), name=f"customer {number}")

    async def _end_it(self) -> None:
        ends = ((self.third, signal.SIGTERM), (self.two_thirds, signal.SIGKILL))
        for (reached, how), back in zip(ends, self._back, strict=True):
            await reached.wait()
            await self._service.end(how)
            await self._service.started()
            back.set()

    async def _order(self, session: aiohttp.ClientSession, number: int) -> None:
        job = {"model": MODEL, "prompt": f"a mug {number}", "width": 64, "height": 64}
        headers = {"Idempotency-Key": f"order-{number}"}
        url = f"{self._service.url}/jobs"
        for _ in range(10):
            ended = int(self.two_thirds.is_set())
            try:
                async with session.post(url, json=job, headers=headers) as answer:
                    if answer.status == 202:
                        self.accepted[number] = (await answer.json())["job"]
                        break
                    # 500 is uvicorn's answer to what it cancels when it may wait no longer.
                    assert answer.status in (500, 503), await answer.text()
            except aiohttp.ClientConnectionError:
                pass
            await self._back[ended].wait()
        assert number in self.accepted
        if len(self.accepted) >= JOBS // 3:
            self.third.set()
        if len(self.accepted) >= 2 * JOBS // 3:
            self.two_thirds.set()

    async def results(self) -> list[dict[str, Any]]:
        """What became of every order that was accepted."""
        async with client(100) as session:
            return await asyncio.gather(
                *(self._result(session, address) for address in self.accepted.values())
            )

    async def _result(self, session: aiohttp.ClientSession, address: str) -> dict[str, Any]:
        while True:
            async with session.get(f"{self._service.url}{address}?wait_s=60") as answer:
                found: dict[str, Any] = await answer.json()
                if found["outcome"] != "pending":
                    return found


def test_every_accepted_job_is_done_once_whatever_ends_the_service(tmp_path: Path) -> None:
    """SIGTERM when a third is accepted, kill -9 at two thirds; who got no answer comes again."""

    async def main(service: Service) -> None:
        crowd = Crowd(service)
        await crowd.come()
        results = await crowd.results()
        assert Counter(each["outcome"] for each in results) == {"succeeded": JOBS}
        assert len({each["key"] for each in results}) == JOBS
        assert await service.end(signal.SIGTERM) in (0, -signal.SIGTERM), service.log()

    with_service(tmp_path, main, "--speed", 60)
    sold, _ = server_books(tmp_path)
    assert Counter(each.body["prompt"] for each in sold) == Counter(
        f"a mug {number}" for number in range(JOBS)
    )
    assert max(bought(sold).values()) == 1


def test_a_job_is_followed_and_its_file_downloaded(tmp_path: Path) -> None:
    """Server-sent events tell where it stands until it ends; what cannot be is told with a code."""

    async def main(service: Service) -> None:
        job = {"name": "杯", "model": MODEL, "prompt": "a mug", "width": 64, "height": 64}
        async with client() as session:
            async with session.post(f"{service.url}/jobs", json=job) as answer:
                accepted = await answer.json()
                assert (answer.status, accepted["name"]) == (202, "杯")
            address = f"{service.url}{accepted['job']}"
            async with session.get(f"{address}/events") as answer:
                assert answer.content_type == "text/event-stream"
                text = (await answer.read()).decode()
            states = [
                json.loads(line.removeprefix("data: "))["state"]
                for line in text.splitlines()
                if line.startswith("data: ")
            ]
            assert states[-1] == "succeeded"
            async with session.get(address) as answer:
                told = await answer.json()
                assert (told["outcome"], len(told["files"])) == ("succeeded", 1)
            async with session.get(f"{service.url}{told['files'][0]}") as answer:
                assert answer.content_type.startswith("image/")
                assert len(await answer.read()) == told["assets"][0]["size"]
            key = {"Idempotency-Key": "order-1"}
            for prompt, status in (("a mug", 202), ("another mug", 409)):
                body = {"model": MODEL, "prompt": prompt, "width": 64, "height": 64}
                async with session.post(f"{service.url}/jobs", json=body, headers=key) as answer:
                    assert answer.status == status, await answer.text()
            for wrong, status in (("get", 404), ("delete", 404)):
                async with session.request(wrong, f"{service.url}/jobs/none") as answer:
                    assert answer.status == status
            async with session.post(f"{service.url}/jobs", json={"prompt": "no model"}) as answer:
                assert answer.status == 422
                assert "model" in (await answer.json())["error"]

    with_service(tmp_path, main)
