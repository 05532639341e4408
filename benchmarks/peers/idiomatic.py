"""Idiomatic aiohttp: what somebody writes in an afternoon. No ledger, no hash, no rename."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiofiles
import aiohttp

BODY = {"model": "black-forest-labs/flux-2-pro/text-to-image", "prompt": "a mug"}


async def run(base_url: str, folder: Path, jobs: int, in_flight: int) -> None:
    """Make ``jobs`` pictures, ``in_flight`` at once."""
    folder.mkdir(parents=True)
    semaphore = asyncio.Semaphore(in_flight)
    headers = {"Authorization": "Bearer k"}
    async with aiohttp.ClientSession(headers=headers) as api, aiohttp.ClientSession() as media:

        async def one(number: int) -> None:
            async with semaphore:
                body = {**BODY, "prompt": f"a mug {number}"}
                async with api.post(f"{base_url}/model/generateImage", json=body) as response:
                    prediction = (await response.json())["data"]["id"]
                answer: dict[str, list[str]] = {}
                while not answer.get("outputs"):
                    url = f"{base_url}/model/prediction/{prediction}"
                    async with api.get(url) as response:
                        answer = (await response.json())["data"]
                async with (
                    media.get(answer["outputs"][0]) as response,
                    aiofiles.open(folder / f"{number}.png", "wb") as file,
                ):
                    async for chunk in response.content.iter_chunked(64 * 1024):
                        await file.write(chunk)

        async with asyncio.TaskGroup() as tasks:
            for number in range(jobs):
                tasks.create_task(one(number), name=f"baseline {number}")
