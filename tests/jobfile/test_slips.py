"""Slips in job files by people who meet asyncpipe for the first time, each told with its remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from asyncpipe.errors import JobFileError
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
