"""Tables as spreadsheets leave them: errors, formulas, ragged rows, lone quotes, odd numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncpipe.cli.app import run_command
from tests.support.job_files import FLUX
from tests.support.job_files import load as load_file
from tests.support.rows import TEMPLATE, load, named, problems


@pytest.mark.parametrize(
    "cell",
    [
        *("#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NUM!", "#SPILL!", "#ERROR!", "####"),
        *("Err:502", "#WERT!", "#N/D", "nan", "NaN", "NULL", "null", "None", "<NA>", "undefined"),
        *("4.00638E+12", "4,00638E+12", "1E+05", "-1.5E-07"),
        *("=A1&B1", "=VLOOKUP(A2;B:C;2)", "=-5", "=SUM(A1)"),
    ],
)
def test_what_a_spreadsheet_left_is_not_bought(tmp_path: Path, cell: str) -> None:
    """Told with the line, as text, as a name and in a table of jobs; columns unused may hold it."""
    quoted = f'"{cell}"'
    (found,) = problems(tmp_path, TEMPLATE, f"sku,text\n1,杯子\n2,{quoted}\n")
    assert found.startswith("rows.csv:3: job 'sku 2': prompt: column 'text': ")
    assert cell in found
    rows = f"model,prompt,name\n{FLUX},a mug,{quoted}\n"
    (tmp_path / "jobs.csv").write_text(rows, encoding="utf-8")
    assert run_command(["validate", str(tmp_path / "jobs.csv")]) == 2
    file = load(tmp_path, TEMPLATE, f"sku,text,note\n1,杯子,{quoted}\n")
    assert file.jobs[0].labels["note"] == cell


@pytest.mark.parametrize(
    "cell", ["#1 mug", "#WOW", "Nan", "none", "RE-100", "2E5", "E+", "=)", "'quoted'", "=> mug"]
)
def test_what_somebody_may_mean_is_taken(tmp_path: Path, cell: str) -> None:
    """Hash signs, names and article numbers."""
    assert named(load(tmp_path, TEMPLATE, f'sku,text\n1,"{cell}"\n')) == [("1", cell)]


@pytest.mark.parametrize(
    ("raw", "meant"),
    [
        ('="00123"', "00123"),
        ('"=""杯子 ""A"""', None),
        ('"=""00123"""', "00123"),
        ("'0042", "0042"),
    ],
)
def test_text_that_a_spreadsheet_may_not_count_with_is_unwrapped(
    tmp_path: Path, raw: str, meant: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """And validate says so."""
    rows = f"sku,text\n{raw},a mug\n"
    if meant is None:
        assert "is a formula" in problems(tmp_path, TEMPLATE, rows)[0]
        return
    assert named(load(tmp_path, TEMPLATE, rows)) == [(meant, "a mug")]
    assert run_command(["validate", str(tmp_path / "jobs.yaml")]) == 0
    assert f"are read as {meant} (first on line 2)" in capsys.readouterr().out


@pytest.mark.parametrize("tail", ["", ",", ",,", ",,,,"])
def test_blank_cells_may_lack_at_the_end_or_be_too_many(tmp_path: Path, tail: str) -> None:
    """Only content beyond the header is a fault."""
    file = load(tmp_path, TEMPLATE, f"sku,text,note\n1,白瓷杯,new\n2,杯子{tail}\n")
    assert named(file) == [("1", "白瓷杯"), ("2", "杯子")]
    found = problems(tmp_path, TEMPLATE, f"sku,text,note\n1,杯子\n2,b,,x\n3,c{tail}\n")
    assert [each.split(":")[1] for each in found] == ["3"]
    assert "'x' is beyond it" in found[0]


@pytest.mark.parametrize(
    ("lines", "rows"),
    [
        ('1\t"Best" mug\n2\tblue mug 5"\n', [("1", '"Best" mug'), ("2", 'blue mug 5"')]),
        ('1\t"Best mug\n2\t5" mug\n', [("1", '"Best mug'), ("2", '5" mug')]),
        ('1\t"5\n2\tmug"\n', [("1", '"5'), ("2", 'mug"')]),
        ('1\t"a" and "b"\n', [("1", '"a" and "b"')]),
        ('1\t"白瓷杯"\n', [("1", "白瓷杯")]),
        ('1\t"say ""hi"""\n', [("1", 'say "hi"')]),
        ('1\t"第一行\n第二行"\n2\tb\n', [("1", "第一行\n第二行"), ("2", "b")]),
        ('"1"\t"a\tb"\n', [("1", "a\tb")]),
        ('"\tmug\n2\t"\n', [('"', "mug"), ("2", '"')]),
    ],
)
def test_quotes_in_tables_with_tabs_are_text_where_they_quote_nothing(
    tmp_path: Path, lines: str, rows: list[tuple[str, str]]
) -> None:
    """As Sheets writes them; as Excel writes them, they are taken off."""
    assert named(load(tmp_path, TEMPLATE, f"sku\ttext\n{lines}", "rows.tsv")) == rows


@pytest.mark.parametrize(
    "number",
    ["90.750", "1.10", "+5", "1_000", "0x1F", "0b11", ".5", "1.", "-0", "1.0e+3", "True", ".inf"],
)
@pytest.mark.parametrize("where", ["rows: [{{sku: {0}}}]", "matrix: {{sku: [{0}]}}"])
def test_a_number_keeps_its_spelling_or_is_told(tmp_path: Path, number: str, where: str) -> None:
    """In text it would be another one; the message has it as the file spells it."""
    head = where.format(number)
    text = f'{head}\njobs:\n- {{name: "{{sku}}", model: {FLUX}, prompt: 杯子}}\n'
    (found,) = problems(tmp_path, text, "")
    assert f"name: column 'sku': {number} would become " in found
    assert "Spelled" not in found
    assert f'put it in quotes, "{number}"' in found


def test_numbers_as_numbers_and_labels_have_no_need_of_a_spelling(tmp_path: Path) -> None:
    """A field that takes numbers takes them, and the label of a column is as it was written."""
    text = (
        "rows: [{n: a, w: 512, g: 7.50}]\n"
        f'jobs:\n- {{name: "{{n}}", model: {FLUX}, prompt: p, params: {{g: "{{g}}"}}}}\n'
    )
    (job,) = load(tmp_path, text, "").jobs
    assert (job.params["g"], job.labels["g"]) == (7.5, "7.50")


@pytest.mark.parametrize("name", ["rows.jsonl", "jobs.json"])
def test_json_numbers_keep_their_spelling_too(tmp_path: Path, name: str) -> None:
    """In JSON Lines of rows, and in a JSON job file with rows of its own."""
    if name == "rows.jsonl":
        found = problems(tmp_path, TEMPLATE, '{"sku": 1.10, "text": "a"}\n', name)
    else:
        whole = f"""{{"rows": [{{"sku": 1.10, "text": "a"}}], "defaults": {{"model": "{FLUX}"}},
            "jobs": [{{"name": "{{sku}}", "prompt": "{{text}}"}}]}}"""
        with pytest.raises(Exception, match="column") as caught:
            load_file(tmp_path, whole, "jobs.json")
        found = [str(caught.value)]
    assert "column 'sku': 1.10 would become 1.1 in text" in found[0]
