"""The user's own words about a job: kept everywhere, sent nowhere."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import orjson
import pytest

from asyncpipe import Job, Pipeline, load_jobs
from asyncpipe.errors import JobFileError
from asyncpipe.ledger.queries import job_from_spec, job_to_spec
from asyncpipe.report.export import BOM, COLUMNS, export_file
from asyncpipe.testing import FakeProvider, run_virtual

FLUX = "black-forest-labs/flux-2-pro/text-to-image"


def test_labels_reach_manifest_and_export(tmp_path: Path) -> None:
    """One column per label; names like our own columns and formulas do no harm."""
    jobs = [
        Job(
            name="a", model=FLUX, prompt="p", labels={"price": "19.90", "name": "=1+1", "仓": "北"}
        ),
        Job(name="b", model=FLUX, prompt="p", labels={"price": "5", "=SUM(A1)": "x"}),
        Job(name="c", model=FLUX, prompt="p"),
    ]

    async def main() -> None:
        async with Pipeline(FakeProvider(), tmp_path, seed=1) as pipeline:
            await pipeline.batch_generate(jobs)

    run_virtual(main())
    results = {
        r["name"]: r for r in json.loads((tmp_path / "manifest.json").read_bytes())["results"]
    }
    assert [results[name]["labels"] for name in "abc"] == [dict(job.labels) for job in jobs]
    assert export_file(tmp_path, tmp_path / "r.csv", "csv") == 3
    text = (tmp_path / "r.csv").read_bytes().removeprefix(BOM).decode()
    head, a, b, c = csv.reader(io.StringIO(text))
    assert head == [*COLUMNS, "label_price", "label_name", "label_仓", "label_=SUM(A1)"]
    assert (a[-4:], b[-4:], c[-4:]) == (
        ["19.90", "'=1+1", "北", ""],
        ["5", "", "", "x"],
        ["", "", "", ""],
    )
    assert len(set(head)) == len(head)
    assert export_file(tmp_path, tmp_path / "r.jsonl", "jsonl") == 3
    lines = (tmp_path / "r.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["labels"] for line in lines] == [dict(job.labels) for job in jobs]


def test_labels_are_no_part_of_a_job_and_old_specs_have_none() -> None:
    """Another price on the label is not another job to pay for; nor is it sent."""
    plain, labelled = (Job(model=FLUX, prompt="p", labels=x) for x in ({}, {"price": "1"}))
    assert plain.key("atlas") == labelled.key("atlas")
    assert "labels" not in labelled.body
    spec = orjson.loads(orjson.dumps(job_to_spec(labelled)))
    assert job_from_spec(spec) == labelled
    assert "labels" not in job_to_spec(plain)


def test_labels_in_a_job_file(tmp_path: Path) -> None:
    """On defaults and jobs, merged one level deep, the job's winning; text only."""
    path = tmp_path / "jobs.yaml"
    path.write_text(
        f"defaults: {{model: {FLUX}, labels: {{shop: north, price: '1'}}}}\n"
        "jobs:\n- {prompt: p, labels: {price: '2', 颜色: 红}}\n- {prompt: q}\n",
        encoding="utf-8",
    )
    first, second = load_jobs(path).jobs
    assert first.labels == {"shop": "north", "price": "2", "颜色": "红"}
    assert second.labels == {"shop": "north", "price": "1"}
    path.write_text(f"jobs:\n- {{model: {FLUX}, prompt: p, labels: {{price: 2, x: }}}}\n")
    with pytest.raises(JobFileError) as caught:
        load_jobs(path)
    said = [problem.message for problem in caught.value.problems]
    assert said[0] == 'labels.price: 2 is a number: put it in quotes, "2"'
    assert said[1].startswith("labels.x: is empty")
