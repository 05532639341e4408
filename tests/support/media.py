"""Downloads of one output from whatever a server answers."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from asyncpipe.media.downloader import SMALL, Downloader
from asyncpipe.media.source import StoredFile, Target
from asyncpipe.testing import PIXEL
from tests.support.servers import serving

PNG_WHOLE = base64.b64decode(PIXEL.partition(",")[2])
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
LARGE = b"\x00\x00\x00\x18ftypisom" + bytes(range(256)) * (3 * SMALL // 256)
TARGET = Target(stem="images/杯子", part="1_0.part", default_extension="png")
Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def offering(answer: Answer) -> AsyncIterator[str]:
    """One output, whatever is asked for; yields its signed URL."""
    async with serving(answer) as origin:
        yield f"{origin}/x/out?sig=secret"


def fetch(
    folder: Path, answer: Answer, seen: list[web.BaseRequest] | None = None, **options: Any
) -> StoredFile:
    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        if seen is not None:
            seen.append(request)
        return await answer(request)

    async def main() -> StoredFile:
        async with (
            offering(serve) as url,
            Downloader(folder, **({"stalled_s": 1.0} | options)) as downloader,
        ):
            return await downloader.fetch(url, TARGET)

    return asyncio.run(main())


def left(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob("*") if p.is_file() and "parts" not in p.parts]
