"""What a run does before its first submit: read, check and price every row, write it as pending.

    python -m benchmarks.parts.first_pass [--rows 1000000] [--kind csv|jsonl|template] [--again]

Each part runs in a process of its own, whose peak RSS is its own, too. Nothing is submitted.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MODEL = "black-forest-labs/flux-2-pro/text-to-image"
TEMPLATE = f"""\
output_dir: out
rows: rows.csv
defaults: {{model: {MODEL}, width: 1024, height: 1024}}
jobs:
  - name: "{{sku}}"
    prompt: "{{name}}, {{scene}}, e-commerce product photo"
    params: {{seed: "{{seed}}"}}
"""


def write_rows(folder: Path, kind: str, rows: int) -> Path:
    """Write a job file of ``rows`` jobs; return its path."""
    if kind == "jsonl":
        path = folder / "rows.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for n in range(rows):
                job = {"name": f"sku-{n:07d}", "model": MODEL, "prompt": f"陶瓷杯 {n}, 柔和侧光"}
                job |= {"params": {"seed": n}, "width": 1024, "height": 1024}  # type: ignore[dict-item]
                file.write(json.dumps(job, ensure_ascii=False) + "\n")
        return path
    head, tail = "sku,name,scene,seed", "{n:07d},陶瓷杯 {n},柔和侧光,{n}"
    if kind == "csv":
        head, tail = "name,model,prompt,params.seed", f"{{n:07d}},{MODEL},陶瓷杯 {{n}},{{n}}"
    with (folder / "rows.csv").open("w", encoding="utf-8") as file:
        file.write(f"{head}\n")
        for n in range(rows):
            file.write(f"sku-{tail.format(n=n)}\n")
    if kind == "csv":
        return folder / "rows.csv"
    (folder / "jobs.yaml").write_text(TEMPLATE, encoding="utf-8")
    return folder / "jobs.yaml"


async def first_pass(path: Path, folder: Path) -> dict[str, Any]:
    """Check and price ``path``, write it into a ledger; return seconds and peak RSS in MB."""
    from asyncpipe import Pipeline
    from asyncpipe.commands import Survey, prices_of, survey_rows
    from asyncpipe.jobfile.load import open_jobs
    from asyncpipe.providers import DEFAULT_PROVIDER
    from asyncpipe.testing import FakeProvider

    started, used = time.perf_counter(), time.process_time()
    file = open_jobs(path)
    survey = Survey(file, prices_of(file, None, provider=DEFAULT_PROVIDER))
    await survey_rows(survey, file.rows, lambda line: None)
    checked = time.perf_counter()
    pipeline = Pipeline(FakeProvider(), folder / "out")
    async with pipeline:
        pipeline.stop()
        opened = time.perf_counter()
        await pipeline._parts().intake.take_all(  # the pass alone, without what a run does after it
            file.jobs,
            job_file=str(path),
            retry_failed=False,
            resubmit_unknown=False,
        )
        written = time.perf_counter()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {
            "jobs": len(file.rows),
            "check_s": round(checked - started, 2),
            "write_s": round(written - opened, 2),
            "cpu_s": round(time.process_time() - used, 2),
            "peak_mb": round(peak, 1),
        }


def measure(path: Path, folder: Path) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.parts.first_pass",
        "--inside",
        str(path),
        str(folder),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Print and return what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kind", choices=["csv", "jsonl", "template"], default="template")
    parser.add_argument("--folder", type=Path, help="Where to work, e.g. below /dev/shm.")
    parser.add_argument("--profile", action="store_true", help="Profile it, in this process.")
    parser.add_argument("--inside", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inside:
        found = asyncio.run(first_pass(*options.inside))
        print(json.dumps(found))
        return found
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        path = write_rows(folder, options.kind, options.rows)
        if options.profile:
            profile = cProfile.Profile()
            found = profile.runcall(asyncio.run, first_pass(path, folder))
            profile.print_stats("tottime")
        else:
            found = measure(path, folder)
    print(json.dumps(found))
    return found


if __name__ == "__main__":
    main()
