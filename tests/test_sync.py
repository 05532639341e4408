"""Without await: in scripts, in threads, in a view of Django; and never inside a loop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent

import pytest

from asyncpipe import Outcome, Pipeline, Polling, sync
from asyncpipe.errors import FolderInUse, UsageError
from asyncpipe.jobs import JobState
from asyncpipe.testing import FakeProvider, Script
from tests.support.batches import FLUX, jobs

SOON = Polling(initial_s=0.01, factor=1.0, maximum_s=0.01)


def a_pipeline(folder: Path, provider: FakeProvider | None = None) -> Pipeline:
    provider = provider or FakeProvider(default=Script(generation_s=0.0))
    return Pipeline(provider, folder, polling=SOON, storage={"min_free_bytes": 0})


def test_a_script_runs_a_batch_and_looks_at_it(tmp_path: Path) -> None:
    """The same call again buys nothing."""
    provider = FakeProvider(default=Script(generation_s=0.0))
    file = tmp_path / "jobs.json"
    file.write_text(json.dumps([{"name": "mug", "model": FLUX, "prompt": "a mug"}]))
    assert sync.run(a_pipeline(tmp_path / "out", provider), file).totals.successful == 1
    assert sync.run(a_pipeline(tmp_path / "out", provider), file).totals.successful == 1
    result = sync.generate(a_pipeline(tmp_path / "out", provider), {"model": FLUX, "prompt": "b"})
    assert result.outcome is Outcome.SUCCEEDED
    assert len(provider.sold) == 2
    assert sync.status(tmp_path / "out").jobs[JobState.SUCCEEDED] == 2
    assert sync.verify(tmp_path / "out").checked == 2
    assert len(sync.export(tmp_path / "out")) == 2
    assert sync.export(tmp_path / "out", tmp_path / "rows.csv") == 2
    assert sync.estimate(file).jobs == sync.validate(jobs(1)).jobs == 1


def test_inside_a_loop_every_call_is_refused(tmp_path: Path) -> None:
    """It would hold up everybody else there."""

    async def main() -> None:
        for call in (
            lambda: sync.status(tmp_path),
            lambda: sync.export(tmp_path),
            lambda: sync.run(a_pipeline(tmp_path), []),
            lambda: sync.generate(a_pipeline(tmp_path), jobs(1)[0]),
            lambda: sync.BlockingPipeline(a_pipeline(tmp_path)).generate(jobs(1)[0]),
        ):
            with pytest.raises(UsageError, match="this thread runs an event loop"):
                call()

    asyncio.run(main())
    assert not (tmp_path / ".asyncpipe").exists()


def test_many_threads_share_one_pipeline(tmp_path: Path) -> None:
    """Each gets its own job's result, and one that is named is bought once."""
    provider = FakeProvider(default=Script(generation_s=0.0))
    with sync.BlockingPipeline(lambda: a_pipeline(tmp_path, provider)) as pipeline:
        with ThreadPoolExecutor(8) as threads:
            results = [*threads.map(pipeline.generate, [*jobs(10), *jobs(10)])]
        assert [result.name for result in results] == [job.name for job in jobs(10)] * 2
        assert len(provider.sold) == 10
        assert {each.name for each in pipeline.stream(jobs(3))} == {job.name for job in jobs(3)}
        assert pipeline.run(jobs(11)).totals.successful == 11
        assert pipeline.call(lambda opened: opened.collect()).totals.successful == 11
        with pytest.raises(FolderInUse):
            sync.run(a_pipeline(tmp_path), [])
    assert pipeline.generate(jobs(1)[0]).outcome is Outcome.SUCCEEDED  # opens it again
    pipeline.close()
    pipeline.close()


def test_who_waits_too_long_is_told_and_the_job_goes_on(tmp_path: Path) -> None:
    """Asked for again by its name it is not bought again."""
    provider = FakeProvider(default=Script(generation_s=0.5))
    with sync.BlockingPipeline(a_pipeline(tmp_path, provider)) as pipeline:
        with pytest.raises(TimeoutError):
            pipeline.generate(jobs(1)[0], timeout_s=0.2)
        assert pipeline.generate(jobs(1)[0]).outcome is Outcome.SUCCEEDED
    assert provider.sold == ["杯子 0"]


def test_what_keeps_it_from_opening_is_raised_at_every_call(tmp_path: Path) -> None:
    """Until the reason has gone."""
    with sync.BlockingPipeline(a_pipeline(tmp_path)):
        second = sync.BlockingPipeline(a_pipeline(tmp_path))
        for _ in range(2):
            with pytest.raises(FolderInUse):
                second.generate(jobs(1)[0])
    assert second.generate(jobs(1)[0]).outcome is Outcome.SUCCEEDED
    second.close()


SCRIPT = """
import signal, sys
from asyncpipe import Pipeline, Polling, sync
from asyncpipe.testing import FakeProvider, Script

signal.signal(signal.SIGINT, signal.default_int_handler)  # as a shell's own, not ignored

def heard(event, job):
    if type(event).__name__ == "Submitted":
        print("submitted", flush=True)

provider = FakeProvider(default=Script(generation_s=float(sys.argv[3])))
pipeline = Pipeline(provider, sys.argv[1], storage={{"min_free_bytes": 0}}, on_event=heard)
job = {{"name": "mug", "model": "{model}", "prompt": "a mug"}}
if sys.argv[2] == "run":
    sync.run(pipeline, [job])
else:
    sync.BlockingPipeline(pipeline).generate(job, timeout_s=float(sys.argv[4]))
"""


def a_script(*words: str) -> subprocess.Popen[str]:
    text = dedent(SCRIPT).format(model=FLUX)
    return subprocess.Popen(
        [sys.executable, "-c", text, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGINT")
@pytest.mark.parametrize("way", ["run", "keep"])
def test_ctrl_c_ends_a_script_and_loses_nothing(tmp_path: Path, way: str) -> None:
    """What was submitted is in the ledger with its id, and the folder is free."""
    script = a_script(str(tmp_path / "out"), way, "1000", "900")
    assert script.stdout is not None
    assert script.stdout.readline() == "submitted\n"
    script.send_signal(signal.SIGINT)
    _, errors = script.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert "Exception ignored" not in errors
    told = sync.status(tmp_path / "out")
    assert (told.jobs[JobState.SUBMITTED], told.holder) == (1, None)
    assert (tmp_path / "out" / "manifest.json").exists()


def test_a_pipeline_that_is_left_open_closes_with_the_process(tmp_path: Path) -> None:
    """Also when an error ends it."""
    script = a_script(str(tmp_path / "out"), "keep", "1000", "0.2")
    _, errors = script.communicate(timeout=30)
    assert "TimeoutError" in errors
    assert sync.status(tmp_path / "out").holder is None
    assert (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_each_process_that_is_forked_opens_its_own(tmp_path: Path) -> None:
    """A server may make it before it forks; what one opened is not another's."""
    script = dedent("""
        import os, sys
        from asyncpipe import sync
        from tests.test_sync import FLUX, Path, a_pipeline

        def make():
            return a_pipeline(Path(sys.argv[1], str(os.getpid())))

        pipeline = sync.BlockingPipeline(make)
        job = {"name": "mug", "model": FLUX, "prompt": "a mug"}
        pipeline.generate(job)
        children = [pid for pid in (os.fork(), ) if pid]
        print(pipeline.generate(job).outcome, flush=True)
        if children:
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]))
    """)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "succeeded\n" * 2), done.stderr
    assert len(list(tmp_path.glob("*/manifest.json"))) == 2


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[sync.BlockingPipeline]:
    pipeline = sync.BlockingPipeline(lambda: a_pipeline(tmp_path / "out"))
    yield pipeline
    pipeline.close()


def test_a_view_of_django_answers_many_requests_at_once(kept: sync.BlockingPipeline) -> None:
    """As its test client asks, from the threads of a server."""
    django = pytest.importorskip("django")
    from django.conf import settings

    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["testserver"], ROOT_URLCONF=__name__)
        django.setup()
    from django.http import HttpRequest, JsonResponse
    from django.test import RequestFactory

    def picture(request: HttpRequest) -> JsonResponse:
        result = kept.generate({"name": request.GET["name"], "model": FLUX, "prompt": "a mug"})
        return JsonResponse({"ok": result.outcome is Outcome.SUCCEEDED, "name": result.name})

    def ask(n: int) -> dict[str, object]:
        answer: dict[str, object] = json.loads(
            picture(RequestFactory().get("/picture", {"name": f"mug {n % 5}"})).content
        )
        return answer

    with ThreadPoolExecutor(10) as threads:
        answers = [*threads.map(ask, range(20))]
    assert answers == [{"ok": True, "name": f"mug {n % 5}"} for n in range(20)]
    assert kept.call(lambda pipeline: pipeline.collect()).totals.successful == 5
