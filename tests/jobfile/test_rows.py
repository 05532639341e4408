"""Job templates over rows: what is filled, what is counted as a mistake, and where it stands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncpipe.cli.app import run_command
from asyncpipe.errors import JobFileError
from asyncpipe.jobfile.file import JobFile
from asyncpipe.jobfile.from_json import iter_jsonl
from asyncpipe.jobfile.lazy import LazyRows, Seen
from asyncpipe.jobfile.load import load_jobs, open_jobs
from asyncpipe.jobfile.residue import unwrapped, wrong_with
from asyncpipe.jobs.job import Job
from tests.support.job_files import FLUX, VEO
from tests.support.rows import HEAD, TEMPLATE, load, named, problems

# -- tables as programs write them --------------------------------------------------------------

TWO = [("1", "白瓷杯, 橡木桌"), ("2", '第一行\n第二行 "引"')]
COMMAS = 'sku,text\r\n1,"白瓷杯, 橡木桌"\r\n2,"第一行\n第二行 ""引"""\r\n'
SEMICOLONS = COMMAS.replace("sku,text", "sku;text").replace('1,"', '1;"').replace('2,"', '2;"')
TABS = COMMAS.replace("sku,text", "sku\ttext").replace('1,"', '1\t"').replace('2,"', '2\t"')

READ = """read as GB18030 (GBK): '1{}"白瓷杯, 橡木桌"'"""


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("rows.csv", COMMAS.encode(), "rows.csv (UTF-8, commas)"),
        ("rows.csv", COMMAS.encode("utf-8-sig"), "rows.csv (UTF-8, commas)"),
        ("rows.csv", SEMICOLONS.encode("utf-8-sig"), "rows.csv (UTF-8, semicolons)"),
        ("rows.csv", f"sep=;\r\n{SEMICOLONS}".encode(), "rows.csv (UTF-8, semicolons)"),
        ("rows.tsv", TABS.encode(), "rows.tsv (UTF-8, tabs)"),
        (
            "rows.csv",
            COMMAS.encode("gb18030"),
            f"rows.csv ({READ.format(',')}, commas)",
        ),
        (
            "rows.csv",
            SEMICOLONS.encode("gbk"),
            f"rows.csv ({READ.format(';')}, semicolons)",
        ),
        ("rows.txt", TABS.encode("utf-16"), "rows.txt (UTF-16, tabs)"),
        ("rows.csv", TABS.encode("utf-16-be", "strict"), None),
        ("rows.csv", b"\xfe\xff" + TABS.encode("utf-16-be"), "rows.csv (UTF-16, tabs)"),
        ("rows.csv", COMMAS.replace("\r\n", "\n\n").encode(), "rows.csv (UTF-8, commas)"),
        ("rows.csv", f"{COMMAS},,\r\n,\r\n".encode(), "rows.csv (UTF-8, commas)"),
        ("rows.csv", COMMAS.replace("text", "text,,").encode(), "rows.csv (UTF-8, commas)"),
        ("rows.csv", b'sku , "text"\n1 , "a"\n', "rows.csv (UTF-8, commas)"),
    ],
)
def test_a_table_is_read_as_it_was_written(
    tmp_path: Path, name: str, content: bytes, told: str | None
) -> None:
    """Marks, delimiters, encodings, quoted line breaks, empty rows; and what was taken is said."""
    if told is None:
        assert problems(tmp_path, TEMPLATE, content, name)
        return
    file = load(tmp_path, TEMPLATE, content, name)
    assert file.made_of == told
    assert named(file) == ([("1", "a")] if b"1 ," in content else TWO)


def test_the_header_alone_decides_the_delimiter(tmp_path: Path) -> None:
    """One column, semicolons in its text; tabs and commas in cells of a semicolon table."""
    text = TEMPLATE.replace("{sku}", "{text}")
    file = load(tmp_path, text, "\r\ntext\na mug; on oak; soft light\n")
    assert named(file) == [("a mug; on oak; soft light",) * 2]
    file = load(tmp_path, TEMPLATE, 'sku;"te,x,t"\n1;a, b,\tc\n'.replace("te,x,t", "text"))
    assert named(file) == [("1", "a, b,\tc")]


def test_lines_are_counted_as_editors_count_them(tmp_path: Path) -> None:
    """A cell with line breaks, blank lines, sep=: the line where a row begins."""
    rows = 'sep=,\nsku,text\n1,"a\nb"\n\n2,c\n'
    file = load(tmp_path, TEMPLATE, rows)
    assert [row.line for row in file.rows] == [3, 6]
    assert all(row.file == str(tmp_path / "rows.csv") for row in file.rows)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "rows.csv:1: the table is empty"),
        (",,\n1,2,3\n", "rows.csv:1: the table is empty"),
        ("sku,,text\n", "rows.csv:1: column 2 has no name"),
        ("sku,text,sku\n", "rows.csv:1: the columns 1 and 3 are both called 'sku': rename one"),
        ("sku,{text}\n", "rows.csv:1: column 2, '{text}': a name has no braces"),
        ("sku,text\n", "jobs.yaml: rows.csv (UTF-8, commas): there is no row in it"),
        ("sku,text\n1,a\n3,b,c\n", "rows.csv:3: the row has 3 cells, the header 2, and 'c' is"),
        ('sku,text\n1,a\n2,"b\n3,c\n', "rows.csv:3: a cell that begins in this row has no closing"),
        ('sku,text\n1,"a"b\n', 'rows.csv:2: a quote inside a quoted cell is written twice, ""'),
        (
            "sku,text\n1,a\n2,\n",
            "rows.csv:3: job 'sku 2': prompt: the cell of column 'text' is emp",
        ),
        ("sku,text\n1,a\n1,a\n", "rows.csv:3: job '1': the same job as on line 2: to make several"),
        (b"sku,text\n1,Cr\xe8me br\xfbl\xe9e\n", "rows.csv:2: neither UTF-8 nor GB18030: save"),
        (
            "sku,text\n1,白瓷杯橡木桌\n2,".encode() + b"\xe7\n",
            "rows.csv:3: UTF-8 up to here, and then not: a character is damaged",
        ),
        (b"sku,text\n1,\xff\xff\n", "rows.csv:2: neither UTF-8 nor GB18030"),
        (b"\xff\xfes\x00k", "rows.csv: not valid UTF-16: save it as UTF-8"),
    ],
)
def test_a_broken_table_is_told_with_its_line(
    tmp_path: Path, content: str | bytes, said: str
) -> None:
    """Nothing is guessed: garbled prompts cost money, too."""
    found = problems(tmp_path, TEMPLATE, content)
    assert found[0].startswith(said)


def test_every_mistake_is_told_at_once_and_not_without_end(tmp_path: Path) -> None:
    """Each with its line in the table; a thousand are enough."""
    text = HEAD + 'jobs:\n- {name: "{sku}", prompt: "{text}", width: "{w}", count: "{n}"}\n'
    rows = "sku,text,w,n\n1,a,wide,1\n2,,1,1\n3,c,0,1\n4,d,5,1,x\n5,e,1.5,0\n"
    assert problems(tmp_path, text, rows) == [
        "rows.csv:2: job 'sku 1': width: 'wide' is text, not a number: "
        "write only the number, without a unit",
        "rows.csv:3: job 'sku 2': prompt: the cell of column 'text' is empty: fill it in",
        "rows.csv:4: job 'sku 3': width: 0 must be at least 1",
        "rows.csv:5: the row has 5 cells, the header 4, and 'x' is beyond it: correct it (cells "
        "are separated by commas; one with such a sign in it needs quotes)",
        "rows.csv:6: job 'sku 5': count: 0 must be from 1 to 10000",
        "rows.csv:6: job 'sku 5': width: 1.5 must be a whole number, at least 1",
    ]
    many = "sku,text,w,n\n" + "1,a,wide,1\n" * 5000
    assert len(problems(tmp_path, text, many)) == 1000


# -- placeholders -------------------------------------------------------------------------------


def test_placeholders_become_what_their_field_takes(tmp_path: Path) -> None:
    """Numbers where the field is one; in params what the cell looks like; text where told so."""
    text = """\
rows: rows.csv
jobs:
- name: "{sku}"
  model: "{maker}/x/text-to-video"
  prompt: "{{literal}} {sku}: {text}!"
  duration: "{seconds}"
  resolution: "{lines}"
  width: "{ w }"
  retries: "{r}"
  deadline_s: "{d}"
  params:
    seed: "{seed}"
    ean: "{ean}"
    id: "{seed:text}"
    loud: "{loud}"
    zip: "{zip}"
    look: "warm {sku}"
    nested: {deep: ["{seed}", "{sku}-{seed}", {plain: 1}], braces: "{{}}"}
  labels: {both: "{sku} {seed}"}
"""
    rows = (
        "sku,maker,text,seconds,lines,w,r,d,seed,ean,loud,zip\n"
        "007,acme,a,8,1080,640,1,90.5,42,6901234567892000,TRUE,01067\n"
    )
    (job,) = load(tmp_path, text, rows).jobs
    assert (job.name, job.model, job.prompt) == ("007", "acme/x/text-to-video", "{literal} 007: a!")
    assert (job.retries, job.deadline_s) == (1, 90.5)
    assert job.params == {
        "duration": 8,
        "resolution": "1080",
        "width": 640,
        "seed": 42,
        "ean": "6901234567892000",
        "id": "42",
        "loud": True,
        "zip": "01067",
        "look": "warm 007",
        "nested": {"deep": [42, "007-42", {"plain": 1}], "braces": "{}"},
    }
    assert job.labels["both"] == "007 42"
    assert job.labels["ean"] == "6901234567892000"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('prompt: "{txt}"', "jobs.yaml:4: job 1: prompt: {txt} is no column: did you mean 'text'?"),
        ('prompt: "{1}"', "jobs.yaml:4: job 1: prompt: {1} is no column; there are sku, text. To"),
        ('prompt: "a { b"', "jobs.yaml:4: job 1: prompt: a lone { in 'a { b': write {{ to mean it"),
        ('prompt: "a } b"', "jobs.yaml:4: job 1: prompt: a lone } in 'a } b': write }} to mean it"),
        ("prompt: same", "jobs.yaml:4: job 1: uses no column, so each row would make the same"),
        ('name: "{sku}"', "jobs.yaml:4: job 1: prompt: missing; write it on the job or in defaul"),
        ('prompt: "{sku}"\n  wdith: 5', "jobs.yaml:5: job 1: wdith: unknown key: did you mean 'w"),
        ('prompt: "{sku}"\n  wdith: "{sku}"', "jobs.yaml:5: job 1: wdith: unknown key: did you"),
        ('prompt: "{sku}"\n  params: {a: ["{x y}"]}', "jobs.yaml:5: job 1: params.a: {x y} is no"),
        ('prompt: "{sku}"\n  labels: {a: "{b}"}', "jobs.yaml:5: job 1: labels.a: {b} is no colu"),
        ('prompt: "{sku}"\n  params: "{sku}"', "jobs.yaml:5: job 1: params: is '{sku}', not a ma"),
        ('prompt: "{sku}"\n  width: 5.5', "jobs.yaml:5: job 1: width: 5.5 must be a whole numbe"),
    ],
)
def test_a_wrong_template_is_told_once_with_its_own_line(
    tmp_path: Path, lines: str, said: str
) -> None:
    """Not once for every row: before any row is read."""
    (found,) = problems(tmp_path, f"{HEAD}jobs:\n- {lines}\n", "sku,text\n1,a\n2,b\n")
    assert found.startswith(said)


def test_without_rows_braces_are_braces(tmp_path: Path) -> None:
    """What people wrote before there were rows means what it meant."""
    path = tmp_path / "jobs.yaml"
    path.write_text(f'jobs: [{{model: {FLUX}, prompt: "a {{b}} {{{{c}}}}"}}]')
    assert load_jobs(path).jobs[0].prompt == "a {b} {{c}}"


def test_defaults_are_templates_too_and_several_templates_take_turns(tmp_path: Path) -> None:
    """Each row makes a job of every template; the type is told by each job's own model."""
    text = f"""\
rows: rows.csv
defaults:
  prompt: "{{text}}"
  image: {{model: {FLUX}, width: "{{w}}"}}
  video: {{duration: 8}}
jobs:
- {{type: image, name: "{{sku}} still"}}
- {{model: {VEO}, name: "{{sku}} clip", count: 2}}
"""
    file = load(tmp_path, text, "sku,text,w,price\nA,mug,512,9\nB,cup,256,8\n")
    assert [job.name for job in file.jobs] == [
        *("A still", "A clip-1", "A clip-2", "B still", "B clip-1", "B clip-2"),
    ]
    still, clip = file.jobs[3], file.jobs[5]
    assert still.body == {"model": FLUX, "prompt": "cup", "width": 256}
    assert clip.body == {"model": VEO, "prompt": "cup", "duration": 8}
    assert file.unused == ("price",)
    assert clip.labels == {"sku": "B", "text": "cup", "w": "256", "price": "8"}


def test_rows_of_json_lines_and_lists_keep_their_types(tmp_path: Path) -> None:
    """A number is one already; a list may be a whole value, and no part of a text."""
    text = HEAD + 'jobs:\n- {prompt: "{p}", params: {seed: "{seed}", loras: "{l}"}}\n'
    rows = '{"p": "a", "seed": 1.5, "l": ["x"]}\n\n{"l": [], "seed": 7, "p": "b"}\n'
    one, two = load(tmp_path, text, rows, "rows.jsonl").rows
    assert (one.job.params, one.line) == ({"seed": 1.5, "loras": ["x"]}, 1)
    assert (two.job.params, two.line) == ({"seed": 7, "loras": []}, 3)
    assert one.job.labels == {"p": "a", "seed": "1.5", "l": '["x"]'}
    bad = f'{rows}{{"p": "c", "seed": 1}}\n[]\n{{"p": ["x"], "seed": 1, "l": 1, "m": 2}}\noops\n'
    bad += '{"p": ["x"], "seed": null, "l": {"a": 1e999}}\n'
    found = [
        p.replace("job \"p ['x']\": ", "") for p in problems(tmp_path, text, bad, "rows.jsonl")
    ]
    assert found == [
        "rows.jsonl:4: the row has no 'l': give every row the same",
        "rows.jsonl:5: a row is a mapping of column: value",
        "rows.jsonl:6: 'm' is no column: the first row has p, seed, l; give every row the same",
        "rows.jsonl:7: not valid JSON (Expecting value)",
        "rows.jsonl:8: prompt: column 'p': a list cannot stand in text",
        "rows.jsonl:8: params.seed: the cell of column 'seed' is empty: fill it in",
        "rows.jsonl:8: params.loras.a: inf is not a finite number",
    ]
    inline = text.replace("rows: rows.csv", "rows:\n- {p: a, seed: 1, l: [1]}\n- {p: b, l: 2}")
    path = tmp_path / "inline.yaml"
    path.write_text(inline)
    with pytest.raises(JobFileError, match=r"inline\.yaml:3: the row has no 'seed'"):
        load_jobs(path)


def test_a_matrix_makes_every_combination(tmp_path: Path) -> None:
    """Models x prompts x seeds, the last changing first; with rows, for each of them."""
    path = tmp_path / "jobs.yaml"
    path.write_text(f"""\
matrix:
  model: [{FLUX}, {VEO}]
  prompt: [a mug, a cup]
  seed: [1, 2, 3]
jobs:
- {{model: "{{model}}", prompt: "{{prompt}}", params: {{seed: "{{seed}}"}}}}
""")
    file = load_jobs(path)
    bodies = [job.body for job in file.jobs]
    assert len(bodies) == len({json.dumps(body) for body in bodies}) == 12
    assert bodies[1] == {"model": FLUX, "prompt": "a mug", "seed": 2}
    assert bodies[-1] == {"model": VEO, "prompt": "a cup", "seed": 3}
    assert file.made_of == "2 model x 2 prompt x 3 seed"
    text = HEAD + 'matrix: {seed: [1, 2]}\njobs:\n- {name: "{sku}-{seed}", prompt: "{text}"}\n'
    crossed = load(tmp_path, text, "sku,text\nA,a\nB,b\n")
    assert [job.name for job in crossed.jobs] == ["A-1", "A-2", "B-1", "B-2"]
    twice = problems(tmp_path, text.replace("-{seed}", ""), "sku,text\nA,a\nB,b\n")
    assert twice[0].startswith("rows.csv:2: job 'A': makes the same job twice: let its name")


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        ("5", "jobs.yaml:3: matrix: is 5; write lines of name: [value, value] below it"),
        ("{seed: 5}", "jobs.yaml:3: matrix.seed: is 5: write a list of values, [1, 2, 3]"),
        ("{seed: []}", "jobs.yaml:3: matrix.seed: is a list: write a list of values"),
        ("{seed: [1, 1]}", "jobs.yaml:3: matrix.seed: 1 stands in it twice: delete one"),
        ("{seed: [1, ~]}", "jobs.yaml:3: matrix.seed: one of its values is empty"),
        ("{seed: [yes]}", "jobs.yaml:3: matrix.seed: YAML reads the bare word yes"),
        ("{sku: [1]}", "jobs.yaml:3: matrix.sku: is a column of the rows, too: rename one"),
    ],
)
def test_a_wrong_matrix_is_told(tmp_path: Path, matrix: str, said: str) -> None:
    """With its line and what to write."""
    text = f'{HEAD}matrix: {matrix}\njobs: [{{prompt: "{{text}}", name: "{{sku}}"}}]\n'
    assert problems(tmp_path, text, "sku,text\n1,a\n")[0].startswith(said)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("nowhere.csv", "jobs.yaml:1: rows: there is no file"),
        ("rows.xlsx", "jobs.yaml:1: rows: rows.xlsx: save it in Excel as CSV UTF-8"),
        ("5", "jobs.yaml:1: rows: 5 is neither; name a file (.csv"),
        ("[]", "jobs.yaml:1: rows: begins with no row"),
        ("[5]", "jobs.yaml:1: rows: begins with no row"),
        (".", "jobs.yaml:1: rows: "),
    ],
)
def test_rows_that_are_nowhere_are_told(tmp_path: Path, rows: str, said: str) -> None:
    """The path is relative to the job file."""
    text = HEAD.replace("rows.csv", rows) + "jobs: [{prompt: '{a}'}]\nmax_workers: many\n"
    (tmp_path / "jobs.yaml").write_text(text)
    with pytest.raises(JobFileError) as caught:
        load_jobs(tmp_path / "jobs.yaml")
    found = [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems]
    assert found[0].startswith(said)
    assert found[1].startswith("jobs.yaml:4: max_workers: 'many' is text")


# -- tables and lines that are job files --------------------------------------------------------


def test_a_table_is_a_job_file_of_its_own(tmp_path: Path) -> None:
    """Columns are fields, params.NAME the model's own, others labels; empty cells say nothing."""
    path = tmp_path / "jobs.csv"
    path.write_text(
        "name,model,prompt,duration,params.seed,price,labels.seed\n"
        f"杯子,{VEO},a mug,8,7,19.90,x\n,{FLUX},a cup,,,,\n",
        encoding="utf-8-sig",
    )
    file = load_jobs(path)
    assert list(file.jobs) == [
        Job(
            name="杯子",
            model=VEO,
            prompt="a mug",
            params={"duration": 8, "seed": 7},
            labels={"price": "19.90", "seed": "x"},
        ),
        Job(model=FLUX, prompt="a cup"),
    ]
    assert file.jobs[0].labels == {"price": "19.90", "seed": "x"}
    assert file.kept == ("price",)
    assert [row.line for row in file.rows] == [2, 3]


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("model,prompt,seed", "column 'seed': to send it, call it params.seed; to only keep it wi"),
        ("model,prompt,Width", "column 'Width': to send it, call it width; to only keep it"),
        ("model,prompt,duratoin", "column 'duratoin': did you mean 'duration'? To keep it as it"),
        ("model,promt", "column 'promt': did you mean 'prompt'?"),
        ("model,sku", "no column prompt: a table of jobs needs model and prompt"),
        ("sku,price", "no column model: a table of jobs needs model and prompt"),
    ],
)
def test_columns_that_look_meant_for_the_job_are_asked_about(
    tmp_path: Path, head: str, said: str
) -> None:
    """A seed that is never sent, or a duration that is not, costs money."""
    path = tmp_path / "jobs.csv"
    path.write_text(f"{head}\n{','.join('1' * len(head.split(',')))}\n")
    with pytest.raises(JobFileError) as caught:
        load_jobs(path)
    assert str(caught.value.problems[0]).startswith(f"{path}:1: {said}")


def test_rows_are_read_anew_and_checked_each_time(tmp_path: Path) -> None:
    """Nothing is kept; a file that went bad in between is noticed while it is read."""
    file = load(tmp_path, TEMPLATE, "sku,text\n1,a\n2,b\n3,c\n")
    assert isinstance(file.rows, LazyRows)
    assert (len(file.rows), file.rows[-1].job.name, len(file.jobs)) == (3, "3", 3)
    assert [row.job.name for row in file.rows[1:]] == ["2", "3"]
    assert [job.name for job in file.jobs[::-1]] == ["3", "2", "1"]
    with pytest.raises(IndexError):
        file.rows[3]
    (tmp_path / "rows.csv").write_text("sku,text\n1,a\n2,b,x\n3,c\n")
    jobs = iter(file.jobs)
    assert next(jobs).name == "1"
    with pytest.raises(JobFileError, match=r"rows\.csv:3: the row has 3 cells"):
        next(jobs)


def test_a_digest_tells_files_and_settings_apart(tmp_path: Path) -> None:
    """The job file, its rows and whatever else decides what is made."""
    rows = "sku,text\n1,a\n"
    first = load(tmp_path, TEMPLATE, rows).digest("x")
    assert load(tmp_path, TEMPLATE, rows).digest("x") == first
    others = {
        load(tmp_path, TEMPLATE, rows).digest("y"),
        load(tmp_path, TEMPLATE, rows + "2,b\n").digest("x"),
        load(tmp_path, f"{TEMPLATE}# x\n", rows).digest("x"),
    }
    assert len(others | {first}) == 4
    (tmp_path / "a.jsonl").write_text(f'{{"model": "{FLUX}", "prompt": "p"}}\n')
    assert open_jobs(tmp_path / "a.jsonl").digest() != open_jobs(tmp_path / "jobs.yaml").digest()


def test_validate_shows_what_is_made_of_which_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first jobs as they will be sent, what they cost, and columns nobody uses."""
    rows = "sku,text,price\n1,白瓷杯在橡木桌上,9\n2,杯子,8\n"
    load(tmp_path, TEMPLATE, rows.encode("gb18030"))
    assert run_command(["validate", str(tmp_path / "jobs.yaml")]) == 0
    out = capsys.readouterr().out
    assert "2 jobs, no problems; 0.08 USD in all" in out
    assert "rows: rows.csv (read as GB18030 (GBK): '1,白瓷杯在橡木桌上,9', commas)" in out
    assert "columns used: sku, text" in out
    assert "columns no template names (kept as labels): price" in out
    assert "白瓷杯在橡木桌上" in out


def test_a_late_mistake_spends_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Row 3001 of 3001 is wrong: the folder is not even made."""
    rows = "sku,text\n" + "".join(f"{n},mug {n}\n" for n in range(3000))
    with pytest.raises(JobFileError):
        load(tmp_path, TEMPLATE, f"{rows}x,\n")
    folder = tmp_path / "out"
    command = ["run", str(tmp_path / "jobs.yaml"), "--simulate", "-o", str(folder)]
    assert run_command(command) == 2
    assert "rows.csv:3002: job 'sku x': prompt: the cell" in capsys.readouterr().err
    assert not folder.exists()


# -- properties ---------------------------------------------------------------------------------

_SIGNS = st.sampled_from([*"\"',;\t\n\r {}#=ab1.é字😀\x00\ufeff", "sku", "text", "{sku}", '""'])
_TEXT = st.lists(_SIGNS, max_size=40).map("".join)


def outcome(folder: Path, rows: bytes, name: str = "rows.csv") -> JobFile | JobFileError:
    """The file, or its problems, each of which names a file."""
    try:
        return load(folder, TEMPLATE, rows, name)
    except JobFileError as exc:
        error = exc
    assert all(problem.file for problem in error.problems)
    return error


_LOOSE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@_LOOSE
@given(text=_TEXT, encoding=st.sampled_from(["utf-8", "utf-16", "gb18030"]), head=st.booleans())
def test_no_table_raises_anything_else(
    tmp_path: Path, text: str, encoding: str, *, head: bool
) -> None:
    """Whatever stands in a table: jobs, or a JobFileError whose problems name a file."""
    content = f"sku,text\n{text}" if head else text
    found = outcome(tmp_path, content.encode(encoding))
    if isinstance(found, JobFile):
        assert len(list(found.jobs)) == len(found.rows) > 0


@_LOOSE
@given(content=st.binary(max_size=60))
def test_no_bytes_raise_anything_else(tmp_path: Path, content: bytes) -> None:
    """Nor do bytes that no text is, in any streamed format."""
    for name in ("rows.csv", "rows.tsv", "rows.jsonl"):
        outcome(tmp_path, b"sku,text\n1," + content, name)


@_LOOSE
@given(
    cells=st.lists(st.lists(st.text(min_size=1), min_size=2, max_size=2), min_size=1, max_size=5),
    delimiter=st.sampled_from(",;\t"),
)
def test_what_a_spreadsheet_writes_comes_back(
    tmp_path: Path, cells: list[list[str]], delimiter: str
) -> None:
    """Every cell, its outer blanks and a spreadsheet's errors apart, whatever is in it."""
    import csv
    import io

    kept = [[cell.strip() for cell in row] for row in cells]
    kept = [row for row in kept if all(row) and "\x00" not in "".join(row)]
    kept = [row for row in kept if row == [*map(unwrapped, row)] and not any(map(wrong_with, row))]
    if delimiter == "\t":  # a cell with a line break and a tab is taken for several rows
        kept = [row for row in kept if not any(re.search("[\r\n]", c) and "\t" in c for c in row)]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([["sku", "text"], *kept])
    found = outcome(tmp_path, text.getvalue().encode("utf-8", "surrogatepass"))
    if isinstance(found, JobFile):
        assert named(found) == [(name, prompt) for name, prompt in kept]
    else:
        assert not kept or "the same job" in str(found) or "UTF-8" in str(found)


_JSON: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@_LOOSE
@given(value=_JSON, ascii_only=st.booleans(), spaces=st.booleans())
def test_the_quick_reading_of_a_line_is_the_careful_one(
    tmp_path: Path, value: Any, *, ascii_only: bool, spaces: bool
) -> None:
    """What orjson is trusted with comes out as json has it, types included."""
    separators = (" , ", " : ") if spaces else (",", ":")
    line = json.dumps({"v": value}, ensure_ascii=ascii_only, separators=separators)
    path = tmp_path / "a.jsonl"
    path.write_bytes(f"{line}\n".encode("utf-8", "surrogatepass"))
    ((read, number),) = iter_jsonl(path)
    assert number == 1
    assert repr(read) == repr(json.loads(line)) or "\\ud" in line.lower()


def test_keys_that_stand_twice_are_never_read_quickly(tmp_path: Path) -> None:
    """However they are written, and whatever text beside them looks like a key."""
    path = tmp_path / "a.jsonl"
    for line in ('{"a": 1, "a": 2}', '{"b": {"a":1,"a" :2}, "c": "\\"x\\":"}', '[{"a":1,"a":2}]'):
        path.write_text(f"{line}\n")
        ((value, _),) = iter_jsonl(path)
        assert "stands twice" in repr(value)


@given(keys=st.lists(st.integers(0, 2**64 - 1), max_size=3000))
def test_seen_knows_what_it_has_seen(keys: list[int]) -> None:
    """Like a set of 64 bits, through every growth."""
    seen, known = Seen(), set[int]()
    for key in keys:
        value = key or 1
        assert seen.add(key) is (value in known)
        known.add(value)
