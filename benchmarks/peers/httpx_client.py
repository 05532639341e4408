"""The idiomatic script once more, with httpx in aiohttp's place."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiofiles
import httpx

from benchmarks.peers.idiomatic import BODY


async def run(base_url: str, folder: Path, jobs: int, in_flight: int) -> None:
    """Make ``jobs`` pictures, ``in_flight`` at once."""
    folder.mkdir(parents=True)
    semaphore = asyncio.Semaphore(in_flight)
    headers = {"Authorization": "Bearer k"}
    limits = httpx.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
    async with (
        httpx.AsyncClient(headers=headers, timeout=60, limits=limits) as api,
        httpx.AsyncClient(timeout=60, limits=limits) as media,
    ):

        async def one(number: int) -> None:
            async with semaphore:
                body = {**BODY, "prompt": f"a mug {number}"}
                response = await api.post(f"{base_url}/model/generateImage", json=body)
                prediction = response.json()["data"]["id"]
                answer: dict[str, list[str]] = {}
                while not answer.get("outputs"):
                    response = await api.get(f"{base_url}/model/prediction/{prediction}")
                    answer = response.json()["data"]
                async with (
                    media.stream("GET", answer["outputs"][0]) as response,
                    aiofiles.open(folder / f"{number}.png", "wb") as file,
                ):
                    async for chunk in response.aiter_bytes(64 * 1024):
                        await file.write(chunk)

        async with asyncio.TaskGroup() as tasks:
            for number in range(jobs):
                tasks.create_task(one(number), name=f"httpx {number}")
