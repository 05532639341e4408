"""What a run finds wrong with models and fields before it spends anything."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from asyncpipe import AtlasCloud, Job, load_jobs
from asyncpipe.commands.precheck import CatalogueCheck, RowCheck
from asyncpipe.errors import JobFileError, ProviderError
from asyncpipe.jobfile.lazy import JobRow
from asyncpipe.providers.catalog.models import CatalogModel, look_up
from tests.support import CONFIGS
from tests.support.catalog import MODELS, VEO, check
from tests.support.command_line import asyncpipe, books, manifest, write_jobs
from tests.support.servers import serving

LIVE = ("--simulate", "--simulate-catalog", "live", "--simulate-speed", "200")
WEEKLY = """\
{0}:13: job '产品主图': model: 'google/imagen4-ultra/text-to-image' is not in the provider's \
catalogue: did you mean 'google/imagen4-ultra'?
{0}:13: job '产品主图': width: the model has no such field; its own are aspect_ratio, \
negative_prompt, seed, enable_base64_output
{0}:13: job '产品主图': height: the model has no such field; its own are aspect_ratio, \
negative_prompt, seed, enable_base64_output
{0}:23: job '社交媒体视频': resolution: '1080p' is not what the model takes: '480p', '720p'
"""
VEO_ROW = "model: google/veo3.1/text-to-video, duration: 5"


def test_problems_come_once_and_with_their_lines() -> None:
    """A model once, at its first job; a fault once for a row's copies; none of what is paid."""

    def row(line: int, name: str, model: str = VEO, **params: Any) -> JobRow:
        job = Job(model=model, prompt="mug", name=name, params=params)
        return JobRow(job=job, line=line)

    rows = [
        row(3, "a-1", duration=5),
        row(3, "a-2", duration=5),
        row(7, "b", duration=9, loras=1),
        row(9, "c", model="x/y/text-to-image"),
        row(11, "d", model="x/y/text-to-image"),
    ]
    found = look_up([each.job.model for each in rows], MODELS)
    check_rows = RowCheck("jobs.yaml", lambda job: job.name != "b")
    check_rows.learn(found, {VEO: check()})
    for each in rows:
        check_rows.look(each)
    fault, unknown = check_rows.problems()
    assert str(unknown).startswith("jobs.yaml:9: job 'c': model: 'x/y/text-to-image' is not in")
    assert str(fault) == (
        "jobs.yaml:3: job 'a-1': duration: 5 is not what the model takes: 4, 6, 8"
    )
    assert [*check_rows.unlisted[VEO]] == ["params.loras"]


def jobs(*rows: str) -> str:
    return "output_dir: out\njobs:\n" + "".join(f"  - {{prompt: mug, {row}}}\n" for row in rows)


def test_the_articles_file_is_refused_with_a_remedy_for_each_field(tmp_path: Path) -> None:
    """Exit 2, everything at once, and not one request to buy."""
    weekly = CONFIGS / "weekly.yaml"
    done = asyncpipe("run", weekly, *LIVE, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == WEEKLY.format(weekly)
    assert books(tmp_path / "weekly_content").submits() == 0


def test_a_legal_file_runs_to_its_end_against_todays_catalogue(tmp_path: Path) -> None:
    """One picture, charged what today's price is."""
    done = asyncpipe("run", CONFIGS / "live.yaml", *LIVE, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "live_output"
    assert manifest(folder)["total_cost"] == 0.04
    assert books(folder).charged() == Decimal("0.04")


def test_unknown_models_can_be_allowed(tmp_path: Path) -> None:
    """Then the provider decides; fields of models that are known are still checked."""
    unknown = "model: some/new/text-to-image"
    prices = "prices: {some/new/text-to-image: {per_image: 0.01}}\n"
    file = write_jobs(tmp_path / "jobs.yaml", prices + jobs(unknown))
    done = asyncpipe("run", file, *LIVE, "--allow-unknown-models", cwd=tmp_path)
    assert done.returncode == 1
    assert "model not found" in done.stderr
    assert books(tmp_path / "out").submits() == 1
    bad = "model: google/veo3.1/text-to-video, duration: 5"
    file = write_jobs(tmp_path / "jobs.yaml", prices + jobs(unknown, bad))
    done = asyncpipe("run", file, *LIVE, "--allow-unknown-models", cwd=tmp_path)
    assert done.returncode == 2
    assert "duration: 5 is not what the model takes: 4, 6, 8" in done.stderr
    assert "some/new" not in done.stderr


def test_what_is_paid_for_is_finished_whatever_the_catalogue_says(tmp_path: Path) -> None:
    """A model that left the catalogue must not keep its bought jobs from their folder."""
    weekly = CONFIGS / "weekly.yaml"
    fast = ("--simulate", "--simulate-speed", "400")
    assert asyncpipe("run", weekly, *fast, cwd=tmp_path).returncode == 0
    bought = books(tmp_path / "weekly_content").submits()
    done = asyncpipe("run", weekly, *LIVE, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    more = weekly.read_text("utf-8") + (
        "\n  - {name: more, type: image, model: google/imagen4-ultra/text-to-image, prompt: x}\n"
    )
    done = asyncpipe("run", write_jobs(tmp_path / "more.yaml", more), *LIVE, cwd=tmp_path)
    assert done.returncode == 2
    assert "job 'more'" in done.stderr
    assert "产品主图" not in done.stderr
    assert books(tmp_path / "weekly_content").submits() == bought


class Api:
    """An API that has a catalogue, or has not; ``schema`` is what it answers for one."""

    def __init__(self, *, status: int = 200, schema: Any = None) -> None:
        self.status, self.schema, self.paths = status, schema, list[str]()

    async def answer(self, request: web.BaseRequest) -> web.Response:
        self.paths.append(request.path)
        if request.path == "/schema":
            status = 200 if self.schema else 404
            return web.json_response(self.schema, status=status)
        row = {
            "model": "google/veo3.1/text-to-video",
            "schema": f"http://{request.host}/schema",
        }
        return web.json_response({"code": self.status, "data": [row]}, status=self.status)

    def check(self, file: Path) -> list[str]:
        """Check a job file against this API and return what was said."""
        said: list[str] = []

        async def main() -> None:
            async with serving(self.answer) as origin:
                jobs, provider = load_jobs(file), AtlasCloud("apikey-x", base_url=origin)
                check = CatalogueCheck(
                    jobs, provider, lambda _: True, allow_unknown=False, echo=said.append
                )
                for row in jobs.rows:
                    await check.look(row)
                if problems := check.problems():
                    raise JobFileError(problems)

        asyncio.run(main())
        return said


class Unreachable:
    """A provider whose catalogue cannot be had, or can."""

    name, origin = "atlas", "http://127.0.0.1:9"

    def __init__(self, *, down: bool) -> None:
        self.down = down

    async def __aenter__(self) -> Unreachable:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None

    async def catalog(self) -> tuple[CatalogModel, ...]:
        if self.down:
            raise ProviderError("no route")
        return (CatalogModel(id="google/veo3.1/text-to-video", type="video", name="Veo"),)


@pytest.mark.parametrize("down", [True, False])
def test_what_could_not_be_checked_is_looked_at_again_next_time(
    tmp_path: Path, *, down: bool
) -> None:
    """Without a catalogue the look does not count: the pass is not skipped next time."""
    file = load_jobs(write_jobs(tmp_path / "jobs.yaml", jobs(VEO_ROW)))
    provider: Any = Unreachable(down=down)
    wanted, said = lambda job: True, lambda line: None
    check = CatalogueCheck(file, provider, wanted, allow_unknown=False, echo=said)

    async def main() -> None:
        for row in file.rows:
            await check.look(row)

    asyncio.run(main())
    assert check.checked is not down


@pytest.mark.parametrize("status", [404, 503])
def test_without_a_catalogue_the_run_goes_on(tmp_path: Path, status: int) -> None:
    """One line says so; what is built in refuses nothing, not even what it does not know."""
    file = write_jobs(tmp_path / "jobs.yaml", jobs("model: a/b/text-to-image", VEO_ROW))
    api = Api(status=status)
    (line,) = api.check(file)
    assert line.startswith("models and fields are not checked, the catalogue cannot be had: it ")
    assert api.paths == ["/api/v1/models"]


def test_without_a_schema_only_fields_go_unchecked(tmp_path: Path) -> None:
    """One line names the models; unknown ids are refused all the same."""
    file = write_jobs(tmp_path / "jobs.yaml", jobs(VEO_ROW))
    assert Api().check(file) == [
        "fields are not checked, no schema is to be had: google/veo3.1/text-to-video"
    ]
    file = write_jobs(tmp_path / "jobs.yaml", jobs(VEO_ROW, "model: a/b/text-to-image"))
    with pytest.raises(JobFileError, match="'a/b/text-to-image' is not in the provider's"):
        Api().check(file)


def test_fields_a_schema_does_not_list_are_said_once(tmp_path: Path) -> None:
    """An open schema: a note, no refusal; one request for it, however many jobs."""
    schema: Any = {"components": {"schemas": {"Input": {"properties": {"duration": {}}}}}}
    file = write_jobs(tmp_path / "jobs.yaml", jobs(*[f"{VEO_ROW}, width: {n}" for n in (8, 9)]))
    api = Api(schema=schema)
    assert api.check(file) == [
        "google/veo3.1/text-to-video: its schema does not list width: may be ignored or refused"
    ]
    assert api.paths == ["/api/v1/models", "/schema"]
