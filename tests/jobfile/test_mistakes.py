"""What is said of mistakes in job files: where, which value, and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpipe.errors import UsageError
from asyncpipe.jobfile.formats import FORMATS
from asyncpipe.jobfile.load import load_jobs
from asyncpipe.jobfile.source import Unreadable
from tests.support.job_files import FLUX, ROW, load, problems


def one_problem(tmp_path: Path, *lines: str) -> str:
    """The only thing said of a job that has these lines besides model and prompt."""
    text = "\n    ".join(["jobs:\n  - name: 杯子", f"model: {FLUX}", "prompt: p", *lines])
    (found,) = problems(tmp_path, text)
    return found.partition("job '杯子': ")[2]


def test_every_problem_is_reported_at_once_in_the_files_order(tmp_path: Path) -> None:
    """File, line, job, field, value and remedy of each; sound jobs beside them do not help."""
    text = f"""\
max_worker: 3
retries: many
prices: {{a/b: {{per_image: 0.1, per_job: 1}}}}
jobs:
  - name: 杯子
    type: image
    model: {FLUX}
    wdith: 1024
  - model: some/thing
    prompt: p
    height: "1024"
    params:
      height: 5
      date: 2026-01-01
  - {ROW}
  - just text
"""
    assert problems(tmp_path, text) == [
        "jobs.yaml:1: max_worker: unknown key: did you mean 'max_workers'?",
        "jobs.yaml:2: retries: 'many' is text, not a number: write only the number, without a unit",
        "jobs.yaml:3: prices.a/b: has 2 keys; give exactly one of per_image, per_second, per_job, "
        "e.g. {per_image: 0.04}",
        "jobs.yaml:5: job '杯子': prompt: missing; write it on the job or in defaults",
        "jobs.yaml:8: job '杯子': wdith: unknown key: did you mean 'width'? "
        "Fields of the model's own go under params:",
        "jobs.yaml:9: job 2: type: missing, and model 'some/thing' does not tell what it makes; "
        "add type: image, video or audio",
        "jobs.yaml:11: job 2: height: '1024' is text: write it without quotes, 1024",
        "jobs.yaml:13: job 2: params.height: height stands on the job too: keep one",
        "jobs.yaml:14: job 2: params.date: YAML reads 2026-01-01 as a date: "
        'write "2026-01-01" in quotes',
        "jobs.yaml:16: job 4: a job is a mapping of key: value, with at least model and prompt",
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("width: 1024.5", "width: 1024.5 must be a whole number, at least 1"),
        ("width: 0", "width: 0 must be at least 1"),
        ("width: true", "width: true is not a number"),
        ("width:", "width: is empty: give it a number, or leave the key out"),
        ("height: [1]", "height: a list is not a number"),
        ("duration: 5s", "duration: '5s' is text, not a number: write only the number, with"),
        ("duration: .nan", "duration: nan is not a finite number"),
        ("duration: .inf", "duration: inf is not a finite number"),
        ("duration: 1:30", "duration: '1:30' is text, not a number"),
        ("duration: 010", "duration: 010 with its leading zero is another number to YAML: write"),
        ("duration: 089", "duration: 089 with its leading zero"),
        ("duration: 1e1", "duration: 1e1 is a number to some and text to others: write it out"),
        ("duration: -2", "duration: -2 must be seconds, greater than 0"),
        (
            "resolution: 1080",
            "resolution: 1080 is a number: write it as the model takes it, e.g. 1",
        ),
        ("type: Image", "type: 'Image' is not a type: write image, video or audio"),
        ("type: music", "type: 'music' is not a type: write image, video or audio"),
        ("type: no", "type: YAML reads the bare word no as yes or no"),
        ("retries: -1", "retries: -1 must be at least 0"),
        ("deadline_s: 0", "deadline_s: 0 must be greater than 0"),
        ("count: 0", "count: 0 must be from 1 to 10000"),
        ("count: 10001", "count: 10001 must be from 1 to 10000"),
        ("seed: 5", "seed: unknown key; known are name, type, model, prompt, width, height"),
        ("1: 5", '1: unknown key: a key must be text: write "1" in quotes'),
        ("params: 5", "params: is 5, not a mapping: write lines of key: value below it"),
        ("params: {a: {b: [1, .inf]}}", "params.a.b[1]: inf is not a finite number"),
        ("params: {on: 1}", 'params.on: a key must be text: write "on" in quotes'),
        ("params: {a: yes}", 'params.a: YAML reads the bare word yes as yes or no: write "yes"'),
        ("params: {a: 007}", "params.a: 007 with its leading zero"),
        ("params: {a: !x 1}", "params.a: the tag !x means nothing in a job file: leave it out"),
        ("params: {a: !!binary eA==}", "params.a: the tag !!binary means nothing in a job file"),
        ("params: {a: !!int x}", "params.a: 'x' is not int"),
        ("params: {a: 1, a: 2}", "params.a: stands twice, first on line 5: keep one"),
        ("params: {n: 99999999999999999999}", "params.n: 99999999999999999999 is too large"),
        ("params: {prompt: q}", "params.prompt: prompt stands on the job too: keep one"),
        ("prompt: q", "prompt: stands twice, first on line 4: keep one"),
    ],
)
def test_a_wrong_value_is_told_with_its_remedy(tmp_path: Path, line: str, said: str) -> None:
    """Whatever is wrong with a field: one problem, the field, the value, what to do."""
    assert one_problem(tmp_path, line).startswith(said)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("123", '123 is a number: put it in quotes, "123"'),
        ("1.50", '1.50 is a number: put it in quotes, "1.50"'),
        ("true", 'true is a truth value: put it in quotes, "true"'),
        ("no", 'YAML reads the bare word no as yes or no: write "no", or true or false'),
        ("2026-11-24", 'YAML reads 2026-11-24 as a date: write "2026-11-24" in quotes'),
        ("''", "is empty: give it some text, or leave the key out"),
        ("'  '", "is empty"),
        ("~", "is empty"),
        ("[a]", "is a list, not text: text with {, [, : or # in it needs quotes"),
    ],
)
@pytest.mark.parametrize("field", ["name", "model", "prompt"])
def test_text_must_be_text_with_something_in_it(
    tmp_path: Path, field: str, name: str, said: str
) -> None:
    """What YAML takes for something else is told with the quotes it needs, not converted."""
    fields = {"name": "n", "model": FLUX, "prompt": "p"} | {field: name}
    text = "jobs:\n  - " + "\n    ".join(f"{key}: {value}" for key, value in fields.items())
    (found,) = problems(tmp_path, text)
    assert f"{field}: {said}" in found


def test_a_model_id_has_no_spaces_and_a_prompt_has_an_end(tmp_path: Path) -> None:
    """A pasted space and a pasted file are told before they cost a submit."""
    assert "spaces in it" in problems(tmp_path, f"- {{model: '{FLUX} ', prompt: p}}")[0]
    long = "字" * 400_000
    (found,) = problems(tmp_path, f"- {{model: {FLUX}, prompt: {long}}}")
    assert "prompt: is 1200000 bytes long" in found
    assert len(found) < 200


def test_long_and_odd_names_are_fine(tmp_path: Path) -> None:
    """A name may be long and hold anything; file names are made safe elsewhere."""
    name = "产品/../😀:" * 10_000
    line = json.dumps({"name": name, "model": FLUX, "prompt": "p"})
    assert load(tmp_path, line, "a.jsonl").rows[0].job.name == name
    (found,) = problems(tmp_path, line.replace('"prompt"', '"promt"'), "a.jsonl")[:1]
    assert len(found) < 400


def test_the_same_job_twice_names_both_lines_and_count(tmp_path: Path) -> None:
    """Also where they are written differently; the same name for two jobs is allowed."""
    text = f"""\
jobs:
  - {{name: a, model: {FLUX}, prompt: p, params: {{width: 5}}}}
  - {{name: a, model: {FLUX}, prompt: q}}
  - {{prompt: p, width: 5, model: {FLUX}, name: a, type: image, retries: 4}}
  - {{name: b, model: {FLUX}, prompt: p, count: 2}}
  - {{name: b, model: {FLUX}, prompt: p, count: 3}}
"""
    assert problems(tmp_path, text) == [
        "jobs.yaml:4: job 'a': the same job as job 1 on line 2: to make several of one, use count:",
        "jobs.yaml:6: job 'b': the same job as job 4 on line 5: to make several of one, use count:",
    ]


def test_a_wrong_default_is_reported_once_not_per_job(tmp_path: Path) -> None:
    """Jobs are not said to lack what stands, wrong, in defaults."""
    text = f"defaults:\n  prompt: 5\n  video: {{widht: 1}}\njobs:\n  - {{model: {FLUX}}}\n"
    assert problems(tmp_path, text) == [
        'jobs.yaml:2: defaults.prompt: 5 is a number: put it in quotes, "5"',
        "jobs.yaml:3: defaults.video.widht: unknown key: did you mean 'width'? "
        "Fields of the model's own go under params:",
    ]


@pytest.mark.parametrize(
    ("top", "said"),
    [
        ("max_workers: 0", "max_workers: 0 must be at least 1"),
        ("output_dir: 5", 'output_dir: 5 is a number: put it in quotes, "5"'),
        ("output_dir: ''", "output_dir: is empty"),
        ("deadline_s: {vidoe: 5}", "deadline_s.vidoe: unknown key: did you mean 'video'?"),
        ("deadline_s: {video: 0}", "deadline_s.video: 0 must be greater than 0"),
        ("deadline_s: -1", "deadline_s: -1 must be greater than 0"),
        ("polling: 5", "polling: is 5, not a mapping"),
        ("ambiguous: seek", "ambiguous: 'seek' must be one of hold, find, find-resubmit, resubmit"),
        ("window: fix", "window: 'fix' must be learned or fixed"),
        ("window: 3", "window: 3 is a number: put it in quotes"),
        ("limits: 5", "limits: is 5, not a mapping"),
        (
            "limits: {request_per_second: 5}",
            "limits.request_per_second: unknown key: did you mean 'requests_per_second'?",
        ),
        (
            "limits: {requests_per_second: 0}",
            "limits.requests_per_second: 0 must be greater than 0",
        ),
        ("limits: {models: {m/x: 0}}", "limits.models.m/x: 0 must be at least 1"),
        ("polling: {policy: often}", "polling.policy: 'often' must be one of learned, backoff"),
        ("polling: {policy: learned, initial_s: 5}", "polling.initial_s: learned does not go by"),
        ("polling: {policy: fixed, factor: 1.5}", "polling.factor: fixed does not go by it"),
        ("polling: {initial_s: 60}", "polling.maximum_s: 30 is less than initial_s (60): raise it"),
        ("polling: {factor: 0.5}", "polling.factor: 0.5 must be a number, at least 1"),
        ("polling: {initial: 5}", "polling.initial: unknown key: did you mean 'initial_s'?"),
        ("prices: {a/b: 0.05}", "prices.a/b: 0.05 is no rate; give exactly one of per_image, per"),
        ("prices: {a/b: {}}", "prices.a/b: has 0 keys; give exactly one of"),
        ("prices: {a/b: {per_image: -1}}", "prices.a/b.per_image: -1 is less than 0"),
        ("prices: {a/b: {per_image: .nan}}", "prices.a/b.per_image: nan is not a finite number"),
        (
            "prices: {a/b: {per_img: 1}}",
            "prices.a/b.per_img: unknown key: did you mean 'per_image'",
        ),
        ("max_cost: -5", "max_cost: -5 is less than 0"),
        ("defaults: {name: a}", "defaults.name: unknown key"),
        ("defaults: {count: 2}", "defaults.count: unknown key"),
        ("defaults: {image: {type: video}}", "defaults.image.type: unknown key"),
        ("defaults: 5", "defaults: is 5, not a mapping"),
        ("retries: 1\nretries: 2", "retries: stands twice, first on line 1: keep one"),
    ],
)
def test_a_wrong_top_level_is_told_with_its_remedy(tmp_path: Path, top: str, said: str) -> None:
    """What is not built yet does not exist, and nothing else does."""
    (found,) = problems(tmp_path, f"{top}\njobs: [{ROW}]")
    assert found.partition(": ")[2].startswith(said)


@pytest.mark.parametrize("name", ["a.yaml", "a.json", "a.jsonl"])
@pytest.mark.parametrize("text", ["", "\ufeff", " \n\n"])
def test_an_empty_file_is_shown_what_a_job_file_is(tmp_path: Path, name: str, text: str) -> None:
    """Nothing, a BOM, blank lines: the message holds an example that loads."""
    (found,) = problems(tmp_path, text, name)
    said, _, example = found.partition("a job file looks like this:\n")
    assert said == f"{name}: the file is empty; "
    assert len(load(tmp_path, example).rows) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("jobs: []", "a.yaml:1: jobs: the list is empty"),
        ("jobs:", "a.yaml:1: jobs: the list is empty"),
        ("[]", "a.yaml: the file is empty"),
        ("output_dir: x", "a.yaml: there is no jobs: in it"),
        ("jobs: {a: 1}", "a.yaml:1: jobs: must be a list, each job beginning with a dash"),
        ("just text", "a.yaml: jobs: must be a list"),
    ],
)
def test_a_file_without_jobs_is_a_mistake(tmp_path: Path, text: str, said: str) -> None:
    """A run of nothing is never what was meant."""
    assert problems(tmp_path, text, "a.yaml")[0].startswith(said)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("jobs:\n\t- name: a", 2, "the line is indented with a tab: use spaces"),
        ("jobs:\n  - name: a\n\t  type: image", 3, "the line is indented with a tab: use spaces"),
        ("jobs:\n  - name: a\n    prompt: x: y", 3, 'text with ": " in it needs quotes'),
        ("jobs:\n  - name：杯\n    type: image", 2, "full-width colon"),
        ("jobs:\n  - name: 杯\n    prompt：字\n", 3, "full-width colon"),
        ("jobs:\n  - name:a\n    type: image", 2, "a key needs a colon and a space after it"),
        ("jobs:\n  - prompt: @home", 2, "needs quotes"),
        ("jobs:\n  - prompt: 'open", 2, "a closing quote is missing"),
        ("jobs: [{a: 1}", 1, "check the indentation, quotes and brackets"),
        ("jobs:\n  - *nobody", 2, "*nobody stands for nothing"),
        ("a: &a [*a]", 1, "*a stands for nothing: no &a ends before it"),
        ("a: 1\n---\nb: 2", 2, "a second YAML document begins: keep one, without ---"),
        ("a: b\x07", 1, "the character U+0007 may not stand in a YAML file: delete it"),
        ("a:\n  <<: 5", 2, "<<: takes a mapping"),
        ("? [a]\n: 1", 1, "a key must be text"),
        ("[" * 100_000, 1, "nested more than 64 deep"),
    ],
)
def test_broken_yaml_is_told_with_line_and_remedy(
    tmp_path: Path, text: str, line: int, said: str
) -> None:
    """The parser's words, the line, and what people who wrote this usually meant."""
    (found,) = problems(tmp_path, text, "a.yaml")
    assert said in found
    assert found.startswith(f"a.yaml:{line}: ")


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('[\n {"a": 1},\n]', 3, "is there a comma too many?"),
        ("[\n {'a': 1}]", 2, "JSON text stands in double quotes"),
        ('[\n {"a": "x\ny"}]', 2, "a line break inside text is written \\n"),
        ('{"a": 1}\n{"b": 2}', 2, "for one job a line name the file .jsonl"),
        ('{"jobs": [{"a": 1}', 1, "Expecting ',' delimiter"),
        ('{"jobs" []}', 1, "Expecting ':' delimiter"),
        ("{jobs: []}", 1, "Expecting property name enclosed in double quotes"),
        ("nope", 1, "Expecting value"),
        ("[" * 100_000, None, "nested more than 64 deep"),
        ('{"a": %s}' % ("1" * 5000), None, "not usable JSON"),
    ],
)
def test_broken_json_is_told_with_line_and_remedy(
    tmp_path: Path, text: str, line: int | None, said: str
) -> None:
    """The decoder's words, the line, and what people who wrote this usually meant."""
    (found,) = problems(tmp_path, text, "a.json")
    assert found.startswith(f"a.json:{line}: " if line else "a.json: ")
    assert said in found


def test_json_keys_that_stand_twice_are_told(tmp_path: Path) -> None:
    """Keeping the last in silence would send what nobody meant; NaN is no JSON either."""
    row = f'{{"model": "{FLUX}", "prompt": "p", "prompt": "q"}}'
    nan = f'{{"model": "{FLUX}", "prompt": "p", "params": {{"x": NaN}}}}'
    top = f'{{"retries": 1,\n"retries": 2,\n"jobs": [\n{row},\n{nan}]}}'
    assert problems(tmp_path, top, "a.json") == [
        "a.json:1: retries: stands twice: keep one",
        "a.json:4: job 1: prompt: stands twice: keep one",
        "a.json:5: job 2: params.x: NaN is not a number JSON has: write a number, or leave it out",
    ]


def test_every_broken_line_of_jsonl_is_told(tmp_path: Path) -> None:
    """One bad line does not hide the next."""
    good = f'{{"model": "{FLUX}", "prompt": "p"}}'
    found = problems(tmp_path, f"{good}\n{{oops\n\n[1]\n{good},\n", "a.jsonl")
    assert [problem.split(":")[1] for problem in found] == ["2", "4", "5"]
    assert "one job a line, without commas between" in found[2]


def test_half_a_character_is_told(tmp_path: Path) -> None:
    """A lone surrogate cannot be sent; better here than in the middle of a run."""
    line = f'{{"model": "{FLUX}", "prompt": "\\ud800", "params": {{"x": "\\ud800"}}}}'
    found = problems(tmp_path, line, "a.jsonl")
    assert all("holds half a character (U+D800)" in problem for problem in found)
    assert len(found) == 2


def test_alias_bombs_do_no_harm(tmp_path: Path) -> None:
    """Nobody's bomb is never expanded, a job's is refused, and << copies within bounds."""
    levels = "\n".join(
        f"x-{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" if n else "x-0: &l0 [lol]"
        for n in range(12)
    )
    assert load(tmp_path, f"{levels}\njobs: [{ROW}]").rows
    bomb = f"{levels}\njobs: [{{model: {FLUX}, prompt: p, params: {{a: *l11}}}}]"
    (found,) = problems(tmp_path, bomb)
    assert "params: more than 10000 values" in found
    (named,) = problems(tmp_path, f"{levels}\njobs: [{{model: {FLUX}, prompt: *l11}}]")
    assert "prompt: is a list" in named
    keys = ", ".join(f"k{n}: 1" for n in range(2000))
    merges = "\n".join("  - {<<: *big}" for _ in range(600))
    (merged,) = problems(tmp_path, f"x-big: &big {{{keys}}}\njobs:\n{merges}\n")
    assert "<<: copies more than 1000000 keys" in merged


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("- 杯子".encode("gb18030"), "jobs.yaml:1: not UTF-8: it may be GB18030 (GBK)"),
        ("- 杯子".encode("utf-16"), "jobs.yaml:1: not UTF-8: this is UTF-16; save it as UTF-8"),
        (b"a: 1\nb: \xff\xff", "jobs.yaml:2: not UTF-8: save it as UTF-8"),
    ],
)
def test_other_encodings_are_named(tmp_path: Path, content: bytes, said: str) -> None:
    """Guessing would send garbled prompts that cost money."""
    assert problems(tmp_path, content)[0].startswith(said)


def test_a_path_that_cannot_be_read_is_a_usage_error(tmp_path: Path) -> None:
    """Missing, a folder, an unknown ending: what to do instead."""
    with pytest.raises(UsageError, match=r"there is no job file .* `asyncpipe init`"):
        load_jobs(tmp_path / "missing.yaml")
    with pytest.raises(UsageError, match="is a folder"):
        load_jobs(tmp_path)
    with pytest.raises(UsageError, match=r"give it one of \.yaml, \.yml, \.json, \.jsonl"):
        load(tmp_path, "jobs: []", "jobs.txt")


_SIGNS = st.sampled_from(
    [*"{}[],:-#&*!|>'\"%@`~?<=\\/\n\t .0123eE+_aé字😀\u2028\x07", "jobs", "<<: ", "- "]
)


@pytest.mark.parametrize("read", [FORMATS[".yaml"], FORMATS[".json"]])
@given(text=st.lists(_SIGNS, max_size=40).map("".join))
def test_no_text_breaks_a_reader(read: Callable[[str], Any], text: str) -> None:
    """Whatever stands in a file: values, or Unreadable with a message; never a traceback."""
    with suppress(Unreadable):
        read(text)
