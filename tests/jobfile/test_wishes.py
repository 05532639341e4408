"""What job files wish for jobs and budgets: read, and told by line where it is none."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema_rs import Draft7Validator

from asyncpipe import load_jobs
from asyncpipe.errors import JobFileError
from asyncpipe.jobfile import job_file_schema

FLUX = "black-forest-labs/flux-2-pro/text-to-image"
ROW = f"{{model: {FLUX}, prompt: p}}"
FILE = f"""
budgets: {{"label:campaign=spring": 20, day: 0.5}}
wait_for_day: true
defaults: {{priority: 1, image: {{max_cost: 0.05}}}}
jobs:
  - {{name: a, model: {FLUX}, prompt: p, priority: -2, max_cost: 0.1, store: false}}
  - {{name: b, model: {FLUX}, prompt: p}}
"""


def faults(value: Any) -> list[str]:
    return [error.message for error in Draft7Validator(job_file_schema()).iter_errors(value)]


def write(folder: Path, text: str, name: str = "jobs.yaml") -> Path:
    (folder / name).write_text(text, "utf-8")
    return folder / name


def test_wishes_are_read(tmp_path: Path) -> None:
    """Of the job, by its type, of all; amounts exactly as they are written."""
    file = load_jobs(write(tmp_path, FILE))
    a, b = file.jobs
    assert (a.priority, a.max_cost, a.store) == (-2, Decimal("0.1"), False)
    assert (b.priority, b.max_cost, b.store) == (1, Decimal("0.05"), True)
    settings = file.settings
    assert settings.budgets == {"label:campaign=spring": Decimal(20), "day": Decimal("0.5")}
    assert settings.wait_for_day


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("budgets: {week: 3}", "jobs.yaml:1: budgets.week: 'week' is neither day nor label:"),
        ("budgets: {day: -3}", "jobs.yaml:1: budgets.day: -3 is less than 0"),
        ("budgets: 20", "jobs.yaml:1: budgets: is 20, not a mapping"),
        ("wait_for_day: later", "jobs.yaml:1: wait_for_day: 'later' is neither true nor false"),
        ("defaults: {priority: high}", "priority: 'high' is text, not a number"),
        ("defaults: {priority: 10000000}", "priority: 10000000 must be from -1000000 to 1000000"),
        ("defaults: {max_cost: -1}", "max_cost: -1 is less than 0"),
        ("defaults: {store: perhaps}", "store: 'perhaps' is neither true nor false"),
        ("defaults: {idempotency_key: k}", "idempotency_key: unknown key"),
    ],
)
def test_what_is_none_is_told_by_its_line(tmp_path: Path, line: str, said: str) -> None:
    """With the value; editors underline the same."""
    with pytest.raises(JobFileError) as caught:
        load_jobs(write(tmp_path, f"{line}\njobs: [{ROW}]\n"))
    assert said in str(caught.value)
    assert "jobs.yaml:1" in str(caught.value)
    assert faults(yaml.safe_load(f"{line}\njobs: [{ROW}]\n"))


def test_columns_of_a_table_say_them_but_a_store_is_a_shop(tmp_path: Path) -> None:
    """Which is kept as a label, as before."""
    table = f"name,model,prompt,priority,max_cost,store\na,{FLUX},p,7,0.25,Paris\nb,{FLUX},p,,,\n"
    a, b = load_jobs(write(tmp_path, table, "jobs.csv")).jobs
    assert (a.priority, a.max_cost, a.labels) == (7, Decimal("0.25"), {"store": "Paris"})
    assert (b.priority, b.max_cost, b.labels) == (0, None, {})


def test_editors_are_told_of_them() -> None:
    """Each key says what it does."""
    assert "budgets" in job_file_schema()["properties"]
    assert not faults({"budgets": {"day": 3, "label:a=b": 1}, "jobs": [{"prompt": "p"}]})
