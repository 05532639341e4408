"""Pictures and clips over HTTP: submit, look, follow, download.

    ATLASCLOUD_API_KEY=... uvicorn fastapi_service:app --timeout-graceful-shutdown 10

One process for a folder; with MEDIA_LEDGER=postgresql://… as many as you like (``--workers 4``). A
job that was accepted (202) is done, whatever becomes of the process: what SIGTERM, or kill -9,
left open is taken up at the next start. The same ``Idempotency-Key`` is the same job.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Annotated, Any, TypedDict

from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse

from asyncpipe import AsyncpipeError, Handle, Pipeline, SpendingLimits, UsageError, connect
from asyncpipe.errors import BudgetReached, IdempotencyConflict


class State(TypedDict):
    """What requests find in ``request.state``."""

    pipeline: Pipeline


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[State]:
    """Keep one pipeline for as long as the service lives."""
    async with Pipeline(
        connect("atlas", base_url=os.environ.get("MEDIA_BASE_URL")),
        os.environ.get("MEDIA_FOLDER", "media"),
        ledger=os.environ.get("MEDIA_LEDGER"),
        spending=SpendingLimits(max_cost=Decimal(os.environ.get("MEDIA_MAX_COST", "1000"))),
    ) as pipeline:
        yield {"pipeline": pipeline}


app = FastAPI(lifespan=lifespan)

STATUS_OF = ((IdempotencyConflict, 409), (BudgetReached, 402), (UsageError, 422))


@app.exception_handler(AsyncpipeError)
async def tell(_: Request, exc: AsyncpipeError) -> JSONResponse:
    """Answer what was refused with its reason; what may pass with 503."""
    status = next((code for kind, code in STATUS_OF if isinstance(exc, kind)), 503)
    return JSONResponse({"error": str(exc)}, status)


@app.post("/jobs", status_code=202)
async def submit(
    request: Request, job: dict[str, Any], idempotency_key: Annotated[str | None, Header()] = None
) -> dict[str, str]:
    """Accept a job: ``{"model": …, "prompt": …}`` and the model's own fields."""
    if idempotency_key is not None:
        job["idempotency_key"] = idempotency_key
    handle = await request.state.pipeline.submit(job)
    return {"name": handle.name, "job": f"/jobs/{handle.key}"}


@app.get("/jobs/{key}")
async def look(request: Request, key: str, wait_s: float = 0) -> dict[str, Any]:
    """How a job stands; with ``wait_s`` when it has ended, or after so many seconds."""
    handle = await handle_of(request, key)
    try:
        result = await handle.wait(min(wait_s, 60))
    except TimeoutError:
        result = await handle.status()
    files = [f"/jobs/{key}/files/{number}" for number in range(len(result.assets))]
    return {**result.to_dict(), "files": files}


@app.get("/jobs/{key}/events")
async def follow(request: Request, key: str) -> StreamingResponse:
    """Server-sent events: where the job stands, then what happens, until it ends."""
    handle = await handle_of(request, key)

    async def lines() -> AsyncIterator[str]:
        async for update in handle.events():
            yield f"event: {update.name}\ndata: {json.dumps(update.to_dict())}\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")


@app.get("/jobs/{key}/files/{number}")
async def download(request: Request, key: str, number: int) -> FileResponse:
    """One of the job's files."""
    result = await (await handle_of(request, key)).status()
    if not 0 <= number < len(result.assets):
        raise HTTPException(404, f"{result.name} has {len(result.assets)} files")
    asset = result.assets[number]
    return FileResponse(asset.path, media_type=asset.media_type)


@app.delete("/jobs/{key}")
async def cancel(request: Request, key: str) -> dict[str, bool]:
    """Take a job back: false where it was sent before and goes on."""
    return {"withdrawn": await (await handle_of(request, key)).cancel()}


@app.get("/health")
async def health(request: Request) -> JSONResponse:
    """200 while jobs are done, or waited for; 503 when somebody has to look."""
    health = request.state.pipeline.health()
    return JSONResponse(health.to_dict(), 200 if health.status in ("ok", "waiting") else 503)


async def handle_of(request: Request, key: str) -> Handle:
    """The job of that key, or 404."""
    handle = await request.state.pipeline.get(key=key)
    if handle is None:
        raise HTTPException(404, f"there is no job {key}")
    return handle  # type: ignore[no-any-return]
