"""Runs in which everything goes wrong that can be made good."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path
from random import Random

from asyncpipe import AtlasCloud, Deadlines, Job, Manifest, Pipeline, Polling
from asyncpipe.jobs.settings import Limits
from asyncpipe.report.results import Result
from asyncpipe.simulator.books import BookedPrediction
from asyncpipe.simulator.faults import Faults
from asyncpipe.simulator.server import Simulator
from asyncpipe.simulator.settings import SimulatorSettings
from tests.support.clock import Clock

LONG = os.environ.get("ASYNCPIPE_CHAOS") == "long"
SEEDS = range(20 if LONG else 1)
MODELS = (
    "black-forest-labs/flux-2-pro/text-to-image",
    "google/imagen4-ultra/text-to-image",
    "bytedance/seedance-v1.5-pro/text-to-video",
    "google/veo3.1/text-to-video",
    "openai/sora-v2/text-to-video",
)


def every_fault(rng: Random, **others: float) -> Faults:
    """Every recoverable fault at 5 to 25 %, and ``others``."""
    chosen = {k.name: round(rng.uniform(0.05, 0.25), 3) for k in Faults.kinds() if k.recoverable}
    return Faults(**{**chosen, **others})


def all_sorts(count: int) -> list[Job]:
    """Jobs of five models, pictures and clips."""
    return [
        Job(name=f"产品 {n}", model=model, prompt=f"product {n}", params=fields)
        for n in range(count)
        for model in [MODELS[n % len(MODELS)]]
        for fields in [{"duration": 4} if model.endswith("video") else {}]
    ]


def run_simulated(
    folder: Path, settings: SimulatorSettings, jobs: list[Job], clock: Clock
) -> tuple[Manifest, Exception | None]:
    async def main() -> tuple[Manifest, Exception | None]:
        async with Simulator(settings) as simulator:
            provider = AtlasCloud("apikey-chaos", base_url=simulator.base_url, simulated=True)
            async with Pipeline(
                provider,
                folder,
                max_workers=64,
                polling=Polling(initial_s=0.05, maximum_s=0.5),
                deadlines=Deadlines(image=300, video=300),
                limits=Limits(window="fixed", downloads=32),
                recovery={"retries": 8},
            ) as pipeline:
                done = await pipeline.batch_generate(jobs)
                return done, pipeline.stopped

    return clock.run(main())


def on_disk(folder: Path, results: list[Result]) -> None:
    """Every asset stands once and whole, and nothing else stands there."""
    files = set()
    for result in results:
        for asset in result.assets:
            body = (folder / asset.name).read_bytes()
            assert (len(body), hashlib.sha256(body).hexdigest()) == (asset.size, asset.sha256)
            files.add(asset.name)
    found = [p for kind in ("images", "videos") for p in (folder / kind).iterdir()]
    assert {p.relative_to(folder).as_posix() for p in found} == files
    assert not list((folder / ".asyncpipe" / "parts").iterdir())


def bought(sold: list[BookedPrediction]) -> Counter[str]:
    """How many predictions per prompt were kept: what failed was given back."""
    return Counter(p.body["prompt"] for p in sold if p.outcome == "completed")
