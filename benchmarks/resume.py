"""A folder with very many jobs: how long until something new is submitted."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.bulk import make_ledger
from benchmarks.line import Line, line
from benchmarks.machine import MB, scratch
from benchmarks.rounds import Scale, told

COMMAND = "python -m benchmarks resume"


def measure(scale: Scale) -> Iterator[Line]:
    """Yield the lines of this part; one round, and a minute to make the folder."""
    new = partial(line, part="resume", command=COMMAND)
    with scratch() as folder:
        make_ledger(folder / "out", scale.rows, scale.rows * 999 // 1000)
        one = told("resuming", folder / "out")
    name = f"resume of {scale.rows:,} jobs, 99.9 % done"
    yield new([one["first_submit_s"]], what=f"{name}: first new submit", unit="s",
              must=10, aim=2, less=True)  # fmt: skip
    yield new([one["whole_s"]], what=f"{name}: all of it, manifest written", unit="s", less=True)
    yield new([(one["peak"] - one["base"]) / MB], what=f"{name}: peak RSS over base",
              unit="MB", less=True)  # fmt: skip
    with scratch() as folder:
        found = told("firstpass", "--rows", scale.rows, "--folder", folder)
    yield new([found["check_s"] + found["write_s"]], unit="s", must=90, aim=45, less=True,
              what=f"first pass over {scale.rows:,} rows, checked and written")  # fmt: skip
