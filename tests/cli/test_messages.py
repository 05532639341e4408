"""What people read: problems counted, options named, exit codes told."""

from __future__ import annotations

import pytest

from asyncpipe.cli.app import run_command
from asyncpipe.cli.problems import ALIKE, MOST, shortened
from asyncpipe.errors import Problem


def problem(row: int, message: str) -> Problem:
    return Problem(file="c.csv", line=row, job=f"job {row}", message=message)


def test_what_is_wrong_with_every_row_hides_nothing_else() -> None:
    many = [problem(n, "width: too large") for n in range(500)]
    lines = shortened([*many, problem(501, "prompt: empty")])
    assert len(lines) == ALIKE + 1
    assert lines[ALIKE - 1].endswith("width: too large (and the same 497 more times)")
    assert lines[-1] == "c.csv:501: job 501: prompt: empty"


def test_every_problem_is_shown_or_counted() -> None:
    lines = shortened([problem(n, f"image: no file {n}") for n in range(500)])
    assert len(lines) == MOST + 1
    assert lines[-1] == f"… and {500 - MOST} more like these"
    few = [problem(n, "width: too large") for n in range(MOST)]
    assert shortened(few) == [str(each) for each in few]


@pytest.mark.parametrize("amount", ["-1", "nan", "Infinity", "20美元", "1e12"])
def test_an_amount_that_is_none_is_told_by_its_option(
    amount: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["run", "jobs.yaml", "--simulate", "--max-cost", amount]) == 2
    said = capsys.readouterr().err
    assert "'--max-cost'" in said
    assert amount in said


def test_help_of_run_tells_its_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["run", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for code in ("0 all succeeded", "3 stopped early", "75 unknown or unfinished"):
        assert code in said
