"""The schema that editors get says what the checks say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema_rs import Draft7Validator

from asyncpipe.cli.app import run_command
from asyncpipe.errors import JobFileError
from asyncpipe.jobfile.load import load_jobs
from asyncpipe.jobfile.models import DefaultsIn, JobIn, SettingsIn, TypedDefaultsIn
from asyncpipe.jobfile.schema import job_file_schema
from asyncpipe.jobs import BODY_FIELDS, DIRECT_FIELDS
from tests.support import CONFIGS

FILES = sorted(CONFIGS.glob("*.yaml"))
FLUX = "black-forest-labs/flux-2-pro/text-to-image"
ROW = f"{{model: {FLUX}, prompt: p}}"


def faults(value: Any) -> list[str]:
    return [error.message for error in Draft7Validator(job_file_schema()).iter_errors(value)]


def test_the_schema_is_one_and_knows_every_key() -> None:
    """Valid itself; whatever key is added to the models is in it, and what jobs have."""
    schema = job_file_schema()
    Draft7Validator(schema)  # raises for one that is none
    assert set(schema["properties"]) == set(SettingsIn.__annotations__)
    for model in (JobIn, DefaultsIn, TypedDefaultsIn):
        keys = set(schema["definitions"][model.__name__]["properties"])
        assert keys == set(model.__annotations__)
        assert keys >= {"model", "prompt", "params", *BODY_FIELDS}
    assert set(JobIn.__annotations__) >= {*DIRECT_FIELDS, "name", "type", "count"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_shipped_job_file_fits_it(path: Path) -> None:
    """What loads is not underlined."""
    assert faults(yaml.safe_load(path.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    "text",
    [
        f"max_worker: 3\njobs: [{ROW}]",
        f"max_workers: 0\njobs: [{ROW}]",
        f"retries: many\njobs: [{ROW}]",
        f"deadline_s: {{vidoe: 5}}\njobs: [{ROW}]",
        f"polling: {{initial: 5}}\njobs: [{ROW}]",
        f"prices: {{a/b: 0.05}}\njobs: [{ROW}]",
        f"prices: {{a/b: {{per_image: 1, per_job: 2}}}}\njobs: [{ROW}]",
        f"defaults: {{name: a}}\njobs: [{ROW}]",
        f"defaults: {{image: {{type: video}}}}\njobs: [{ROW}]",
        f"matrix: {{seed: 5}}\njobs: [{ROW}]",
        "rows: []\njobs: [{model: '{model}', prompt: p}]",
        "jobs: []",
        "output_dir: x",
        "[]",
        f"jobs: [{{model: {FLUX}, prompt: p, wdith: 5}}]",
        f"jobs: [{{model: {FLUX}, prompt: p, width: '1024'}}]",
        f"jobs: [{{model: {FLUX}, prompt: p, width: 0}}]",
        f"jobs: [{{model: {FLUX}, prompt: p, count: 20000}}]",
        f"jobs: [{{model: {FLUX}, prompt: p, duration: 5s}}]",
        f"jobs: [{{model: {FLUX}, prompt: p, type: audiobook}}]",
        f"jobs: [{{model: {FLUX}, prompt: p, labels: {{price: 5}}}}]",
        f"jobs: [{{model: '{FLUX} ', prompt: p}}]",
        f"jobs: [{{model: {FLUX}, prompt: 5}}]",
    ],
)
def test_typical_mistakes_are_refused_by_both(tmp_path: Path, text: str) -> None:
    """The editor says so while it is typed, the program before anything is spent."""
    assert faults(yaml.safe_load(text))
    path = tmp_path / "jobs.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(JobFileError):
        load_jobs(path)


def test_placeholders_fit_it() -> None:
    """Numbers may be placeholders; the program looks whether there are rows."""
    job = {"model": "{model}", "prompt": "{p}", "width": "{w}", "count": "{n}"}
    assert faults({"rows": "a.csv", "defaults": {"duration": "{s}"}, "jobs": [job]}) == []


def test_init_writes_the_schema_beside_the_file_and_links_it(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """It works offline; another program's file of that name is left alone."""
    assert run_command(["init", str(tmp_path / "jobs.yaml")]) == 0
    first = (tmp_path / "jobs.yaml").read_text("utf-8").splitlines()[0]
    link = first.partition("$schema=")[2]
    capsysbinary.readouterr()
    assert run_command(["schema"]) == 0
    assert (tmp_path / link).read_bytes() == capsysbinary.readouterr().out
    assert json.loads((tmp_path / link).read_bytes()) == job_file_schema()
    assert len(load_jobs(tmp_path / "jobs.yaml").rows) == 3
    (tmp_path / link).write_text("mine")
    assert run_command(["init", str(tmp_path / "jobs.yaml"), "--force", "--lang", "zh"]) == 0
    assert (tmp_path / link).read_text() == "mine"
    assert "$schema" not in (tmp_path / "jobs.yaml").read_text("utf-8")
