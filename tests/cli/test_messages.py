"""Slips of people who meet asyncpipe for the first time: told in time, once, with the remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from asyncpipe.cli.app import run_command
from asyncpipe.cli.precheck import ALIKE, MOST, shortened
from asyncpipe.errors import JobFileError, Problem, UsageError
from asyncpipe.http.hosts import proxy_for
from asyncpipe.jobfile.load import load_jobs

MODEL = "black-forest-labs/flux-2-pro/text-to-image"
Said = Callable[[str], str]


@pytest.fixture
def said(tmp_path: Path) -> Said:
    """What is wrong with a job file beside a table of two rows; empty where nothing is."""
    (tmp_path / "rows.csv").write_text("货号,颜色\nA1,红\nA2,蓝\n", encoding="utf-8")

    def say(text: str) -> str:
        path = tmp_path / "jobs.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            assert list(load_jobs(path).jobs)
        except JobFileError as exc:
            return str(exc).replace(f"{tmp_path}", "")
        return ""

    return say


def templated(prompt: str, more: str = "") -> str:
    return (
        f'rows: rows.csv\njobs:\n  - name: "{{货号}}"\n    model: {MODEL}\n'
        f'    prompt: "{prompt}"\n{more}'
    )


@pytest.mark.parametrize("slip", ["｛颜色｝杯", "{颜色｝杯", "｛颜色}杯", "杯，｛ 颜色 ｝"])
def test_full_width_braces_buy_no_literal_placeholder(said: Said, slip: str) -> None:
    """A Chinese keyboard's braces around a column would be sent as they are, row after row."""
    assert "has full-width braces: write {颜色}" in said(templated(slip))
    assert ":5:" in said(templated(slip))


def test_full_width_braces_in_labels_and_params_are_told(said: Said) -> None:
    for more in ('    labels: {c: "｛颜色｝"}\n', '    params: {style: {c: "｛颜色｝"}}\n'):
        assert "full-width braces: write {颜色}" in said(templated("{颜色}杯", more))


def test_full_width_braces_around_anything_else_are_text(said: Said) -> None:
    assert said(templated("｛限量｝{颜色}杯，{颜色}｛新｝", '    params: {style: "｛x｝"}\n')) == ""


def test_an_unquoted_placeholder_is_told_to_need_quotes(said: Said) -> None:
    text = templated("x").replace('"x"', "{颜色}杯，白底")
    assert ":5: " in said(text)
    assert 'needs quotes around all of it: "{sku} ..."' in said(text)


def test_a_quote_that_is_not_closed_is_told_where_it_opens(said: Said) -> None:
    found = said(f'jobs:\n  - name: "杯\n    model: {MODEL}\n    prompt: 白底\n')
    assert ":2: " in found
    assert "a closing quote is missing" in found


def test_a_spreadsheet_as_rows_is_told_to_be_saved_as_csv(said: Said) -> None:
    found = said(templated("x").replace("rows.csv", "商品.xlsx"))
    assert "商品.xlsx: save it in Excel as CSV UTF-8" in found


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


@pytest.mark.parametrize("proxy", ["http://代理:7890", "http://127.0.0.1：7890", "http://h:7x"])
def test_a_proxy_without_an_address_is_told_before_anything(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a run waits ten minutes for "its address cannot be asked"."""
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(UsageError, match="set HTTPS_PROXY to one like") as caught:
        proxy_for("https://api.atlascloud.ai/api/v1")
    assert proxy not in str(caught.value)  # it may hold a password


@pytest.mark.parametrize("proxy", ["127.0.0.1:7890", "http://u:p%40@proxy.corp", "http://[::1]:9"])
def test_a_proxy_with_an_address_is_taken(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    assert (proxy_for("https://api.atlascloud.ai/api/v1") or "").endswith(proxy)


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
