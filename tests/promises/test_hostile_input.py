"""Names, files, answers and addresses made to do harm: they do none, and are said to be wrong."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import Job, Pipeline, load_jobs
from asyncpipe._fs import safe_stem
from asyncpipe._text import printable
from asyncpipe.cli.app import run_command
from asyncpipe.errors import JobFileError, UsageError
from asyncpipe.jobfile.load import open_jobs
from asyncpipe.jobfile.problems import MOST_PROBLEMS
from asyncpipe.jobs.settings import Polling
from asyncpipe.ledger.folder import make_folders
from asyncpipe.testing import FakeProvider, run_virtual
from tests.support import ROOT
from tests.support.pipelines import FLUX
from tests.support.servers import EVIL, Evil, serving

TEMPLATE = f"jobs: [{{name: n, model: {FLUX}, prompt: a}}]\n"

FLUX = "black-forest-labs/flux-2-pro/text-to-image"
HOSTILE = [
    "../../etc/passwd",
    "..\\..\\windows\\system32",
    "/absolute/path",
    "C:\\boot.ini",
    "a\x00b",
    "\x1b[2J\x1b[1;31mred\x1b]0;title\x07",
    "\x9b31mC1",
    "bell\x07 back\x08\x08 return\rover",
    "line\nbreak\u2028and\u2029more\x85",
    "\u202etxt.exe",
    "\u2066isolated\u2069 \u200emarks\u200f",
    "👩\u200d🚀 rocket 🇨🇳",
    "CON",
    "nul.png",
    "COM1.tar.gz",
    "lpt¹",
    "...",
    " ",
    "-rf",
    "~",
    "$(touch x)`id`;|&",
    "<script>alert(1)</script>",
    "%2e%2e%2f%00",
    "Z\u0351\u0352\u0353" * 300,
    "字" * 5000,
    "\ufdd0\ufffe\U0010ffff",
    "﷽" * 300,
]
# What a terminal obeys: C0 but line break and tab, DEL, C1, and marks that turn the direction.
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def problems(folder: Path, text: str, name: str = "jobs.yaml") -> list[str]:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(JobFileError) as caught:
        load_jobs(path)
    return [problem.message for problem in caught.value.problems]


LONG = "9" * 400


@pytest.mark.parametrize(
    "field",
    ["width", "duration", "resolution", "retries", "deadline_s", "count", "name", "model", "type"],
)
def test_numbers_beyond_any_float_are_told(tmp_path: Path, field: str) -> None:
    """400 digits are valid JSON, and more than a float holds."""
    job = f'{{"model": "{FLUX}", "prompt": "p", "{field}": {LONG}}}'
    found = problems(tmp_path, job, "a.jsonl")
    assert found
    assert all(len(message) < 300 for message in found)


@pytest.mark.parametrize(
    "top",
    [
        f'"max_workers": {LONG}', f'"retries": {LONG}', f'"deadline_s": {LONG}',
        f'"polling": {{"initial_s": {LONG}}}', f'"polling": {{"factor": {LONG}}}',
        f'"prices": {{"m": {LONG}}}', f'"prices": {{"m": {{"per_image": {LONG}}}}}',
        f'"output_dir": {LONG}', f'"defaults": {{"params": {{"seed": {LONG}}}}}',
    ],
)  # fmt: skip
def test_huge_numbers_on_top_are_told(tmp_path: Path, top: str) -> None:
    """The same for everything beside the jobs."""
    text = f'{{{top}, "jobs": [{{"model": "{FLUX}", "prompt": "p"}}]}}'
    assert all(len(message) < 300 for message in problems(tmp_path, text, "a.json"))


def test_settings_made_by_hand_refuse_them_too() -> None:
    """``Polling(initial_s=10**400)`` is a usage error, not an OverflowError."""
    with pytest.raises(UsageError, match="initial_s"):
        Polling(initial_s=10**400)


@pytest.mark.parametrize("value", ["0x" + "f" * 450, "0b" + "1" * 450, "1_" * 200 + "1"])
def test_long_numbers_in_other_bases_are_told(tmp_path: Path, value: str) -> None:
    """YAML's hexadecimal integers may have more digits than Python will print."""
    text = f"jobs:\n- {{model: {FLUX}, prompt: p, resolution: {value}, width: {value}}}"
    assert len(problems(tmp_path, text)) == 2


@pytest.mark.parametrize(
    "root", ["!!foo bar", "007", "2026-01-01", "yes", "!!python/object:os.system [x]"]
)
def test_a_file_that_is_one_unclear_word_is_not_an_empty_run(tmp_path: Path, root: str) -> None:
    """It was read as a file of no jobs, and so as a success."""
    assert len(problems(tmp_path, root)) == 1


@pytest.mark.parametrize(
    "text",
    [
        f"jobs:\n- {{model: {'m' * 200_000}, prompt: p}}",
        f"jobs:\n- model: {FLUX}\n  prompt: p\n  ? {'k' * 200_000}\n  : 1",
        f"? {'k' * 200_000}\n: 1",
        f"jobs:\n- *{'a' * 200_000}",
        f"!!{'t' * 200_000} 1",
        f"jobs:\n- {{model: {FLUX}, prompt: p, type: {'t' * 200_000}}}",
        "0" * 200_000,
    ],
)
def test_messages_never_repeat_the_file(tmp_path: Path, text: str) -> None:
    """What is long is cut where it is repeated."""
    found = problems(tmp_path, text)
    assert max(map(len, found)) <= 1001
    assert sum(map(len, found)) < 5000


def test_a_mistake_made_in_every_line_is_told_a_thousand_times_at_most(tmp_path: Path) -> None:
    """Two million wrong rows must not become hundreds of megabytes of messages."""
    assert len(problems(tmp_path, "- a\n" * 3000)) == MOST_PROBLEMS


MEASURE = """
import resource, sys, time
from asyncpipe import Job, Pipeline, load_jobs
from asyncpipe.cli.app import run_command
from asyncpipe.errors import JobFileError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.process_time()
try:
    load_jobs(sys.argv[1])
except JobFileError as exc:
    took_s = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    print((peak - before) * unit, took_s, len(str(exc)))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the resource module is POSIX's")
@pytest.mark.parametrize(
    ("start", "piece", "name"),
    [
        ("jobs: ", "x", "a.yaml"),
        ("jobs: ", "1:", "a.yaml"),
        ("", "7", "a.yaml"),
        ("", "[", "a.yaml"),
        ("", "- ", "a.yaml"),
        ("", "{a: ", "a.yaml"),
        ('"', "x", "a.json"),
        ("", "[", "a.json"),
        ("", '{"data":', "a.jsonl"),
    ],
)
def test_a_bomb_is_told_in_bounded_memory_and_time(
    tmp_path: Path, start: str, piece: str, name: str
) -> None:
    """50 MB of one thing: an error, within ten times its size and some seconds.

    ``1:1:1:…`` took 3 GB: YAML's pattern for numbers in sixties backtracks over all of it.
    """
    size = 50_000_000
    path = tmp_path / name
    path.write_text(start + piece * (size // len(piece)), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=250,
        check=True,
    )
    grown, took_s, length = done.stdout.split()
    assert int(grown) < 10 * size
    assert float(took_s) < 30
    assert int(length) < 2000


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "\ud800"},
        {"name": "\udfff"},
        {"params": {"seed": 2**70}},
        {"params": {"seed": float("nan")}},
        {"params": {"\ud800": 1}},
        {"params": {"x": nested(300)}},
        {"params": {"x": nested(100_000)}},
        {"params": {"x": {1: 2}}},
        {"params": {"x": object()}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_job_that_cannot_be_sent_or_stored_is_a_usage_error(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    """Half a character or 70 bits broke the ledger's writer instead, and with it the run."""
    provider = FakeProvider()

    async def main() -> None:
        async with Pipeline(provider, tmp_path, seed=1) as pipeline:
            job = Job(**{"model": FLUX, "prompt": "p", "name": "n", **fields})
            with pytest.raises(UsageError):
                await pipeline.generate(job)
            with pytest.raises(UsageError):
                await pipeline.batch_generate([job])
            good = await pipeline.batch_generate([Job(model=FLUX, prompt="p", name="good")])
            assert good.totals.successful == 1

    run_virtual(main())
    assert provider.sold == ["good"]


def test_hostile_names_become_files_inside_the_folder(tmp_path: Path) -> None:
    """All of them at once, a megabyte of name included: one file each, where it belongs."""
    names = [*HOSTILE, "名" * 300_000, "x" * 1_000_000]
    folder = tmp_path / "out"

    async def main() -> None:
        async with Pipeline(FakeProvider(), folder, seed=1, max_workers=8) as pipeline:
            jobs = [Job(name=name, model=FLUX, prompt="p") for name in names]
            manifest = await pipeline.batch_generate(jobs)
            assert manifest.totals.successful == len(names)

    run_virtual(main())
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    files = [path.name for path in (folder / "images").iterdir()]
    assert len({name.casefold() for name in files}) == len(names)
    for name in files:
        assert not OBEYED.search(name)
        assert name.split(".")[0].lower() not in ("con", "nul", "com1", "lpt¹")
        assert len(name.encode()) < 255
    rows = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["results"]
    assert {row["name"] for row in rows} == set(names)


@pytest.mark.parametrize("name", ["con", "CON.x", "nul.tar.gz", "com9.a", "lpt¹.b.c", "aux."])
def test_no_stem_is_a_device_whatever_follows(name: str) -> None:
    """Windows looks no further than the first dot."""
    first = f"{safe_stem(name)}-abc123.png".split(".")[0].split("-")[0]
    assert first.endswith("_")


def test_an_output_folder_with_a_nul_is_a_usage_error() -> None:
    """A job file may say so."""
    with pytest.raises(UsageError, match="cannot be used"):
        make_folders(Path("a\0b"), ["images"])


def evil_file(folder: Path) -> Path:
    """A job file whose every field is hostile."""
    model = "evil\x1b[2J\x9b31m\u202e/text-to-image"
    jobs = [{"name": n, "model": model, "prompt": EVIL} for n in HOSTILE if n.strip()]
    document = {
        "output_dir": str(folder / "out\u202e\x9b31m"),
        "prices": {model: {"per_image": 0.04}},
        "deadline_s": 0.5,
        "polling": {"initial_s": 0.02, "maximum_s": 0.05},
        "max_workers": 8,
        "retries": 0,
        "jobs": jobs,
    }
    path = folder / "jobs\u202e\x9b.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


async def run_cli(*arguments: str, folder: Path, **variables: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "asyncpipe", *arguments,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 250)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def test_a_hostile_provider_and_job_file_print_nothing_a_terminal_obeys(tmp_path: Path) -> None:
    """The whole way: screen, log, manifest, files."""

    async def run(folder: Path, *options: str) -> None:
        async with serving(Evil()) as url:
            folder.mkdir()
            path = str(evil_file(folder))
            arguments = ["run", path, "--base-url", url, "--patience", "2", "--search-s", "0.1"]
            arguments += options
            key = "hostile-provider-gets-this-key"
            ended = await run_cli(*arguments, folder=folder, ATLASCLOUD_API_KEY=key)
        harmless(folder, options, *ended)

    async def main() -> None:
        # All at once: what takes long is waiting between tries.
        options = {"a": ["--verbose"], "b": ["--json"], "c": []}
        await asyncio.gather(*(run(tmp_path / name, *some) for name, some in options.items()))

    asyncio.run(main())


def harmless(home: Path, options: tuple[str, ...], code: int, out: str, err: str) -> None:
    assert code in (1, 75)
    assert not OBEYED.findall(out + err)
    assert "Traceback" not in err
    assert max(map(len, err.splitlines())) < 5000
    (folder,) = (path for path in home.iterdir() if path.is_dir())
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    if "--json" in options:
        assert json.loads(out) == manifest
    assert manifest["total_jobs"] == len(HOSTILE) - 1
    errors = [row["error"] for row in manifest["results"] if row["error"]]
    assert len(errors) > 10
    assert max(map(len, errors)) < 700
    assert not any(OBEYED.search(row["request_id"] or "") for row in manifest["results"])
    assert not list((folder / "images").iterdir())


@pytest.mark.parametrize("command", ["validate", "estimate"])
def test_checking_a_hostile_file_prints_nothing_a_terminal_obeys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Also where nothing is run."""
    assert run_command([command, str(evil_file(tmp_path))]) == 0
    shown = capsys.readouterr()
    assert not OBEYED.findall(shown.out + shown.err)
    assert "evil" in shown.out


def test_mistakes_in_a_hostile_file_print_nothing_a_terminal_obeys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Keys, values and names that messages repeat."""
    job = {EVIL: EVIL, "name": EVIL, "model": EVIL, "type": EVIL, "width": EVIL}
    path = tmp_path / "jobs.json"
    path.write_text(json.dumps({EVIL: 1, "prices": {EVIL: EVIL}, "jobs": [job]}), encoding="utf-8")
    assert run_command(["validate", str(path)]) == 2
    shown = capsys.readouterr()
    assert not OBEYED.findall(shown.out + shown.err)
    assert len(shown.err.splitlines()) < 30


def test_a_bug_of_ours_prints_nothing_a_terminal_obeys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its message may repeat what the file says, with and without --verbose."""

    def broken(path: Path) -> None:
        raise RuntimeError(EVIL)

    for module in ("validate", "run"):
        monkeypatch.setattr(f"asyncpipe.cli.{module}.open_jobs", broken)
    assert run_command(["validate", "x.yaml"]) == 1
    assert run_command(["run", "x.yaml", "--verbose"]) == 1
    shown = capsys.readouterr().err
    assert shown.count("a bug of ours: RuntimeError") == 2
    assert shown.count("Traceback") == 1
    assert not OBEYED.findall(shown)


def test_a_simulated_run_into_an_impossible_folder_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The simulator's books are made first; that was a bug of ours there."""
    path = tmp_path / "jobs.json"
    path.write_text(json.dumps([{"model": FLUX, "prompt": "p"}]), encoding="utf-8")
    assert run_command(["run", str(path), "--simulate", "-o", str(path / "below a file")]) == 2
    assert "cannot be used" in capsys.readouterr().err


def test_what_is_printed_keeps_the_joiners_of_emoji_and_persian() -> None:
    """They are formatting to Unicode, and part of the word to readers."""
    assert printable("👩\u200d🚀 می\u200cخواهم") == "👩\u200d🚀 می\u200cخواهم"
    assert printable("a\u202eb\u200fc") == "a�b�c"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
@pytest.mark.parametrize("name", ["jobs.yaml", "jobs.csv", "jobs.jsonl", "rows.csv"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    """Nobody may ever write into it; and what came of it could not be read a second time."""
    os.mkfifo(tmp_path / name)
    if name == "rows.csv":
        (tmp_path / "jobs.yaml").write_text("rows: rows.csv\n" + TEMPLATE)
        name = "jobs.yaml"
    with pytest.raises((UsageError, JobFileError), match="is a pipe or a device"):
        open_jobs(tmp_path / name)


def test_a_matrix_of_a_milliard_is_refused_at_once(tmp_path: Path) -> None:
    """Checking it would take hours."""
    axis = list(range(1000))
    text = f"matrix: {{a: {axis}, b: {axis}, c: {axis}}}\n"
    (tmp_path / "jobs.yaml").write_text(text + TEMPLATE)
    with pytest.raises(JobFileError, match="makes 1000000000 combinations"):
        open_jobs(tmp_path / "jobs.yaml")


def test_a_template_that_swells_is_refused_before_it_is_made(tmp_path: Path) -> None:
    """Two small files, and a prompt of 2.5 GB: it took the memory before it was refused."""
    (tmp_path / "rows.csv").write_text("a\n" + "y" * 100_000 + "\n")
    many = "{a}" * 25_000
    text = f"rows: rows.csv\njobs: [{{name: n, model: {FLUX}, prompt: '{many}'}}]\n"
    (tmp_path / "jobs.yaml").write_text(text)
    with pytest.raises(JobFileError, match="becomes 2500000000 characters"):
        len(open_jobs(tmp_path / "jobs.yaml").rows)


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_line_without_end_is_not_read_to_its_end(tmp_path: Path, ending: str) -> None:
    """A file of one line would be taken into memory whole."""
    cell = "x" * 100_000
    line = ",".join([cell] * 200) if ending == "csv" else f'{{"name": "{cell * 200}"}}'
    (tmp_path / f"jobs.{ending}").write_text(f"model,prompt\n{line}\n" if ending == "csv" else line)
    with pytest.raises(JobFileError, match="a line of more than 16777216 characters"):
        len(open_jobs(tmp_path / f"jobs.{ending}").rows)


def test_a_table_of_a_million_columns_is_refused(tmp_path: Path) -> None:
    """Comparing each with each takes minutes."""
    (tmp_path / "rows.csv").write_text(",".join(f"c{n}" for n in range(20_000)) + "\n")
    (tmp_path / "jobs.yaml").write_text("rows: rows.csv\n" + TEMPLATE)
    with pytest.raises(JobFileError, match="names 20000 columns"):
        open_jobs(tmp_path / "jobs.yaml")


def test_two_columns_that_are_one_label_are_told(tmp_path: Path) -> None:
    """The second took the place of the first, and nobody heard."""
    (tmp_path / "jobs.csv").write_text(f"model,prompt,sku,labels.sku\n{FLUX},a,1,2\n")
    with pytest.raises(JobFileError, match="are one label"):
        open_jobs(tmp_path / "jobs.csv")


@pytest.mark.parametrize("how", ["csv", "jsonl", "rows"])
def test_a_file_that_changes_while_it_is_read_is_told(tmp_path: Path, how: str) -> None:
    """Else its new rows would pass for those of the digest, and the old file for unchanged."""
    path = tmp_path / f"jobs.{how}"
    if how == "jsonl":
        path.write_text(f'{{"name": "a", "model": "{FLUX}", "prompt": "a"}}\n')
    else:
        path = tmp_path / "jobs.csv"
        path.write_text(f"name,model,prompt\na,{FLUX},a\n")
    opened_first = path
    if how == "rows":
        opened_first = tmp_path / "jobs.yaml"
        opened_first.write_text(
            f"rows: jobs.csv\njobs: [{{name: n, model: {FLUX}, prompt: '{{name}}'}}]"
        )
    file = open_jobs(opened_first)
    assert len(list(file.jobs)) == 1
    path.write_text(path.read_text().replace("a", "b", 1))
    os.utime(path, ns=(1, 1))
    with pytest.raises(JobFileError, match="has changed since it was looked through"):
        list(file.jobs)
