"""The whole way over real sockets, against small servers that share nothing with the simulator.

Each answers in its own dialect of atlas-api's tables; the engine must not notice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import AtlasCloud, Job, Manifest, Pipeline, Polling, Result
from tests.support.servers import PNG, Foreign, Shape, serving

MODEL = "black-forest-labs/flux-2-pro/text-to-image"


def canonical(poll: int, url: str) -> Any:
    done = {"status": "completed", "outputs": [url], "metrics": {"predict_time": 9.5}}
    return {"code": 200, "data": done if poll > 2 else {"status": "processing", "outputs": None}}


def article(poll: int, url: str) -> Any:
    if poll > 2:
        return {"status": "completed", "output": {"image_url": url}}
    return {"status": "processing"}


def shouting(poll: int, url: str) -> Any:
    words = {1: "QUEUED", 2: "Starting"}
    outputs = [{"url": url}] if poll > 2 else []
    return {"code": "200", "data": {"status": words.get(poll, "Succeeded"), "outputs": outputs}}


CANONICAL = "/api/v1/model/prediction/{id}"
ARTICLE = "/api/v1/model/prediction/{id}/get"

DIALECTS: dict[str, tuple[Callable[[str], Any], Shape, str]] = {
    "documented": (lambda i: {"code": 200, "data": {"id": i}}, canonical, CANONICAL),
    "article": (lambda i: {"request_id": i}, article, ARTICLE),
    "request_id, canonical polls": (lambda i: {"request_id": i}, canonical, CANONICAL),
    "predictionId, shouting": (lambda i: {"predictionId": i}, shouting, CANONICAL),
    "nested, string code": (
        lambda i: {"code": "200", "data": {"data": {"id": i, "status": "created"}}},
        shouting,
        CANONICAL,
    ),
    "with a get url": (
        lambda i: {
            "code": 200,
            "message": "",
            "data": {
                "id": i,
                "status": "processing",
                "outputs": None,
                "urls": {"get": f"https://api.atlascloud.ai/api/v1/model/prediction/{i}"},
                "has_nsfw_contents": None,
                "error": "",
            },
        },
        canonical,
        CANONICAL,
    ),
}


def run(server: Foreign, folder: Path, jobs: list[Job]) -> tuple[Manifest, list[Result]]:
    async def main() -> tuple[Manifest, list[Result]]:
        async with serving(server) as base_url:
            provider = AtlasCloud("apikey-x", base_url=base_url)
            polling = Polling(initial_s=0.01, maximum_s=0.02)
            async with Pipeline(provider, folder, polling=polling) as pipeline:
                manifest = await pipeline.batch_generate(jobs)
                return manifest, list(manifest)

    return asyncio.run(main())


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_is_understood(tmp_path: Path, dialect: str) -> None:
    """Each job is bought once, its body is what the job says, and its media stand."""
    server = Foreign(*DIALECTS[dialect])
    jobs = [Job(name=f"图 {n}", model=MODEL, prompt="杯子", params={"width": 8}) for n in range(4)]
    manifest, results = run(server, tmp_path, jobs)
    assert manifest.totals.successful == 4, [result.error for result in results]
    assert server.bodies == [{"model": MODEL, "prompt": "杯子", "width": 8}] * 4
    assert all((tmp_path / r.assets[0].path).read_bytes() == PNG for r in results)
    assert server.authorized_media == 0
    if dialect == "request_id, canonical polls":
        assert server.wrong_paths <= 2 * 3, "the path that works is remembered"


def test_a_job_of_another_type_goes_to_its_endpoint(tmp_path: Path) -> None:
    """Video jobs are submitted to generateVideo."""
    server = Foreign(*DIALECTS["documented"])
    clip = Job(name="clip", model="google/veo3.1/text-to-video", prompt="x", params={"duration": 8})
    run(server, tmp_path, [clip])
    assert server.paths[:2] == ["/api/v1/model/calculate", "/api/v1/model/generateVideo"]
    assert (tmp_path / "videos" / "clip.png").exists()
