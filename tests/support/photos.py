"""Photos in a folder, jobs that take them in, and runs over both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from asyncpipe import Job, Pipeline
from asyncpipe.media.local import LocalFiles
from asyncpipe.simulator.server import Simulator
from asyncpipe.testing import run_virtual
from tests.support.pipelines import a_pipeline
from tests.support.simulator_client import beside_simulator
from tests.support.tables import tables

FLUX = "black-forest-labs/flux-2-pro/text-to-image"
PNG = b"\x89PNG\r\n\x1a\n"


def photo(folder: Path, name: str, *, mark: str = "") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(PNG + (mark or name).encode() + bytes(2000))
    return path


def job(name: str, image: object, **fields: Any) -> Job:
    return Job(
        name=name, model=FLUX, prompt=f"on an oak table {name}", params={"image": image}, **fields
    )


def pipeline(provider: Any, folder: Path, **options: Any) -> Pipeline:
    options = {"max_workers": 8, "min_free_bytes": 0, "seed": 1, **options}
    return a_pipeline(provider, folder / "out", **options)


def batch(provider: Any, folder: Path, jobs: list[Job], **options: Any) -> Counter[str]:
    """Run ``jobs`` with files of ``folder``; how many ended how."""
    retry_failed = options.pop("retry_failed", False)
    files = LocalFiles(folder)

    async def main() -> Counter[str]:
        async with pipeline(provider, folder, **options) as running:
            manifest = await running.batch_generate(
                [files.attach(each) for each in jobs], retry_failed=retry_failed
            )
            return Counter(result.outcome.value for result in manifest)

    return run_virtual(main())


def errors(folder: Path) -> list[str]:
    with tables(folder / "out") as connection:
        rows = connection.execute("SELECT error FROM attempts WHERE error IS NOT NULL")
        return [row[0] for row in rows]


def simulated(tmp_path: Path, steps: Callable[[Simulator], Awaitable[Any]], **settings: Any) -> Any:
    told = {"generation_s": (0.0, 0.1), "body_bytes": 3000, "books": tmp_path / "books"}
    return beside_simulator(steps, loop=run_virtual, **{**told, **settings})
