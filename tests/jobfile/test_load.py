"""Job files: what they may say, what becomes of it, and what is said of mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from asyncpipe.errors import JobFileError, UsageError
from asyncpipe.jobfile.load import parse_jobs
from asyncpipe.jobfile.settings import RunSettings
from asyncpipe.jobs.job import Job, JobType
from asyncpipe.jobs.settings import Deadlines, Limits, Polling
from asyncpipe.pricing.rates import Rate
from tests.support.job_files import FLUX, ROW, VEO, load


def one_job(tmp_path: Path, *lines: str) -> Job:
    text = "\n    ".join([f"jobs:\n  - model: {FLUX}", "prompt: p", *lines])
    return load(tmp_path, text).rows[0].job


AS_YAML = f"""\
# a comment
output_dir: out
jobs:
  - name: 杯子
    model: {FLUX}
    prompt: 橡木桌上的白瓷杯

  - name: Clip
    model: {VEO}
    prompt: >
      Steam rises
    duration: 8
"""
AS_JSON = f"""\
{{"output_dir": "out",
 "jobs": [
  {{"name": "杯子", "model": "{FLUX}",
    "prompt": "橡木桌上的白瓷杯"}},

  {{"name": "Clip", "model": "{VEO}", "prompt": "Steam rises\\n", "duration": 8}}]
}}
"""
AS_JSONL = f"""\
{{"name": "杯子", "model": "{FLUX}", "prompt": "橡木桌上的白瓷杯"}}

{{"name": "Clip", "model": "{VEO}", "prompt": "Steam rises\\n", "duration": 8}}
"""
WRITTEN = {
    "yaml": AS_YAML,
    "yml": AS_YAML,
    "json": AS_JSON,
    "jsonl": AS_JSONL,
    "ndjson": AS_JSONL,
}


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("jobs.yaml", [4, 8]),
        ("jobs.YML", [4, 8]),
        ("jobs.json", [3, 6]),
        ("jobs.jsonl", [1, 3]),
        ("jobs.ndjson", [1, 3]),
    ],
)
def test_formats_give_the_same_jobs_and_their_lines(
    tmp_path: Path, name: str, lines: list[int], bom: str, ends: str
) -> None:
    """YAML, JSON and JSONL, with BOM or without, with any line ends."""
    text = WRITTEN[name.lower().partition(".")[2]]
    file = load(tmp_path, bom + text.replace("\n", ends), name)
    assert [row.line for row in file.rows] == lines
    assert [row.job for row in file.rows] == [
        Job(name="杯子", model=FLUX, prompt="橡木桌上的白瓷杯"),
        Job(name="Clip", model=VEO, prompt="Steam rises\n", params={"duration": 8}),
    ]
    assert file.path == tmp_path / name
    assert file.settings.output_dir == Path("out" if "output_dir" in text else "pipeline_output")


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.yaml", f"- {ROW}"), ("a.json", json.dumps([{"model": FLUX, "prompt": "p"}]))],
)
def test_a_plain_list_is_jobs(tmp_path: Path, name: str, text: str) -> None:
    """Without any top level the file is its jobs, with default settings."""
    file = load(tmp_path, text, name)
    assert file.settings == RunSettings()
    assert file.rows[0].job.kind is JobType.IMAGE


def test_json_says_all_of_unicode(tmp_path: Path) -> None:
    r"""\u escapes of emoji are one character; line separators may stand in a JSONL string."""
    line = f'{{"model": "{FLUX}", "prompt": "\\ud83d\\ude00 \u2028 x"}}'
    assert load(tmp_path, line, "a.jsonl").rows[0].job.prompt == "😀 \u2028 x"
    assert load(tmp_path, f"[{line}]", "a.json").rows[0].job.prompt == "😀 \u2028 x"


def test_yaml_without_its_c_library_reads_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyYAML may be installed without libyaml; only the speed differs."""
    with_c = load(tmp_path, AS_YAML)
    monkeypatch.delattr("yaml.CSafeLoader", raising=False)
    assert load(tmp_path, AS_YAML) == with_c


def test_anchors_aliases_and_merges_work(tmp_path: Path) -> None:
    """The job's own key wins over a merged one, the first merged over later ones."""
    text = f"""\
x-base: &base {{model: {FLUX}, prompt: base, width: 1}}
x-more: &more {{prompt: more, height: 2}}
jobs:
  - {{<<: *base, name: a, width: 9}}
  - {{<<: [*more, *base], name: b, params: &p {{seed: 1}}}}
  - {{<<: *base, name: c, params: *p}}
"""
    a, b, c = (row.job for row in load(tmp_path, text).rows)
    assert a.body == {"model": FLUX, "prompt": "base", "width": 9}
    assert b.body == {"model": FLUX, "prompt": "more", "width": 1, "height": 2, "seed": 1}
    assert c.params == {"width": 1, "seed": 1}


def test_the_body_holds_what_the_job_says_and_nothing_invented(tmp_path: Path) -> None:
    """No default size or duration; numbers stay as they were written."""
    job = one_job(tmp_path, "width: 2048", "duration: 7.5", "resolution: 1080p")
    assert job.body == {
        "model": FLUX,
        "prompt": "p",
        "width": 2048,
        "duration": 7.5,
        "resolution": "1080p",
    }
    assert type(job.params["width"]) is int
    assert list(job.body) == ["model", "prompt", "width", "duration", "resolution"]


def test_params_may_hold_whatever_json_can_say(tmp_path: Path) -> None:
    """Nested values are copied, null and booleans are values, 16:9 is text and not 969."""
    job = one_job(
        tmp_path, "params: {seed: 7, a: [1, {b: null}], c: true, ratio: 16:9, 标签: [甲, 乙]}"
    )
    assert job.params == {
        "seed": 7,
        "a": [1, {"b": None}],
        "c": True,
        "ratio": "16:9",
        "标签": ["甲", "乙"],
    }
    assert type(job.params["a"]) is list
    assert type(job.params["a"][1]) is dict


def test_defaults_fill_in_by_type_and_the_job_wins(tmp_path: Path) -> None:
    """Common, then by type, then the job; params and sizes merge one level deep, name by name."""
    text = f"""\
defaults:
  prompt: from defaults
  retries: 5
  params: {{seed: 1, style: a, nested: {{x: 1}}}}
  image: {{model: {FLUX}, width: 512, params: {{style: b}}}}
  video: {{model: {VEO}, duration: 8, deadline_s: 60}}
jobs:
  - {{type: image, params: {{width: 64, nested: {{y: 2}}}}}}
  - {{type: video, prompt: own, retries: 0, duration: 4}}
"""
    image, video = (row.job for row in load(tmp_path, text).rows)
    assert image.model == FLUX
    assert image.prompt == "from defaults"
    assert image.params == {"seed": 1, "style": "b", "nested": {"y": 2}, "width": 64}
    assert (image.retries, image.deadline_s) == (5, None)
    assert (video.model, video.prompt, video.retries, video.deadline_s) == (VEO, "own", 0, 60.0)
    assert video.params["duration"] == 4


@pytest.mark.parametrize(
    ("defaults", "job", "kind"),
    [
        ("{}", f"{{model: {VEO}}}", "video"),
        ("{}", f"{{model: {VEO}, type: image}}", "image"),
        ("{type: image}", f"{{model: {VEO}}}", "video"),
        (f"{{model: {VEO}}}", "{}", "video"),
        (f"{{model: {VEO}, type: image}}", "{}", "image"),
        ("{type: video}", "{model: some/thing}", "video"),
    ],
)
def test_the_type_is_the_nearest_that_says_it(
    tmp_path: Path, defaults: str, job: str, kind: str
) -> None:
    """The job's type, its model id, the defaults' type, their model id: the first one known."""
    text = f"defaults: {defaults}\njobs: [{{<<: {job}, prompt: p}}]"
    assert load(tmp_path, text).rows[0].job.kind == kind


def test_count_makes_equal_jobs_with_names_and_identities_of_their_own(tmp_path: Path) -> None:
    """Occurrences 1 to n; named ones become name-1 to name-n; a count of 1 changes nothing."""
    text = f"""\
- {{model: {FLUX}, prompt: p, name: 杯, count: 3}}
- {{model: {FLUX}, prompt: p, count: 2}}
- {{model: {FLUX}, prompt: p, name: one, count: 1}}
"""
    file = load(tmp_path, text)
    found = [(row.line, row.job.name, row.job.occurrence) for row in file.rows]
    assert found == [
        (1, "杯-1", 1),
        (1, "杯-2", 2),
        (1, "杯-3", 3),
        (2, None, 1),
        (2, None, 2),
        (3, "one", 1),
    ]
    assert len({row.job.key("atlas") for row in file.rows}) == 6
    assert file.rows[0].job.body == {"model": FLUX, "prompt": "p"}


def test_the_top_level_becomes_settings(tmp_path: Path) -> None:
    """Everything said is there; prices are exactly the decimals that were written."""
    text = f"""\
output_dir: 输出
max_workers: 7
window: fixed
limits: {{requests_per_second: 2.5, models: {{a/b: 4}}}}
retries: 0
deadline_s: {{video: 900}}
polling: {{initial_s: 2, factor: 1}}
prices:
  a/b: {{per_second: 0.022}}
  c/d: {{per_job: 1}}
jobs: [{ROW}]
"""
    settings = load(tmp_path, text).settings
    assert settings == RunSettings(
        output_dir=Path("输出"),
        max_workers=7,
        window="fixed",
        limits=Limits(requests_per_second=2.5, models={"a/b": 4}),
        retries=0,
        deadlines=Deadlines(image=300, video=900),
        polling=Polling(initial_s=2, factor=1, maximum_s=30),
        prices={"a/b": Rate(per_second=Decimal("0.022")), "c/d": Rate(per_job=Decimal(1))},
    )
    both = load(tmp_path, f"deadline_s: 60\njobs: [{ROW}]").settings.deadlines
    assert (both.of(JobType.IMAGE), both.of(JobType.VIDEO)) == (60, 60)


@pytest.mark.parametrize(
    ("said", "polling"),
    [
        ("{}", Polling(policy="learned")),
        ("{policy: learned}", Polling(policy="learned")),
        ("{policy: learned, maximum_s: 10}", Polling(policy="learned", maximum_s=10)),
        ("{initial_s: 5}", Polling(policy="backoff")),
        ("{policy: backoff}", Polling(policy="backoff")),
        ("{policy: fixed, initial_s: 60}", Polling(policy="fixed", initial_s=60)),
    ],
)
def test_a_policy_of_polling_is_named_or_meant(tmp_path: Path, said: str, polling: Polling) -> None:
    """Values without a policy mean the article's backoff, also where they say its own numbers."""
    assert load(tmp_path, f"polling: {said}\njobs: [{ROW}]").settings.polling == polling


def test_the_articles_python_list_works_as_printed() -> None:
    """Dicts with a job file's keys; a Job among them stays as it is."""
    own = Job(model=VEO, prompt="own")
    jobs = parse_jobs(
        [
            {
                "name": "产品展示 Seedance",
                "type": "video",
                "model": "bytedance/seedance-v1.5-pro/text-to-video",
                "prompt": "流畅的产品揭示动画",
                "duration": 10,
            },
            own,
            {"model": FLUX, "prompt": "p", "type": JobType.IMAGE, "params": {"t": (1, 2)}},
        ]
    )
    assert jobs[0].body == {
        "model": "bytedance/seedance-v1.5-pro/text-to-video",
        "prompt": "流畅的产品揭示动画",
        "duration": 10,
    }
    assert jobs[1] is own
    assert jobs[2].params == {"t": [1, 2]}


def test_mistakes_in_dicts_are_told_without_a_file() -> None:
    """By name or position, all at once."""
    rows: list[Any] = [
        {"name": "杯子", "model": FLUX, "promt": "x"},
        {"model": FLUX, "prompt": "p", "params": {"x": object(), 5: 1}},
        Job(model=FLUX, prompt="p", params={"x": float("nan")}),
        ["no"],
        {"model": FLUX, "prompt": "p"},
        {"model": FLUX, "prompt": "p"},
        {"model": FLUX, "prompt": "q", 5: 1},
    ]
    with pytest.raises(JobFileError) as caught:
        parse_jobs(rows)
    found = [str(problem) for problem in caught.value.problems]
    assert found[0].startswith("job '杯子': promt: unknown key: did you mean 'prompt'?")
    assert found[1] == "job '杯子': prompt: missing; write it on the job"
    assert found[2].startswith("job 2: params.x: <object object at")
    assert found[3] == "job 2: params: the key 5 is not text: put it in quotes"
    assert found[4].startswith("job 3: a field of the job cannot be sent as JSON")
    assert found[5].startswith("job 4: a job is a mapping")
    assert found[6] == "job 6: the same job as job 5: to make several of one, use count:"
    assert found[7].startswith("job 7: 5: unknown key; known are name, type, model")


def test_settings_name_the_field_that_is_wrong() -> None:
    """Out of range, not a number, not finite: a usage error that begins with the field."""
    with pytest.raises(UsageError, match=r"^polling\.initial_s: 0"):
        Polling(initial_s=0)
    with pytest.raises(UsageError, match=r"^polling\.factor: nan"):
        Polling(factor=float("nan"))
    with pytest.raises(UsageError, match=r"^deadline_s\.image: True"):
        Deadlines(image=True)
    with pytest.raises(UsageError, match=r"^max_workers: 0"):
        RunSettings(max_workers=0)
    with pytest.raises(UsageError, match=r"^retries: True"):
        RunSettings(retries=True)


def test_importing_reads_no_heavy_library() -> None:
    """`asyncpipe --help` and users of dicts do not wait for YAML."""
    code = "import sys, asyncpipe.jobfile; print({'yaml', 'pydantic', 'aiohttp'} & {*sys.modules})"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "set()"
