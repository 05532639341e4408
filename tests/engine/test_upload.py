"""Uploads of local files: once each, tried again where that helps, and never paid for."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import anyio
import pytest

from asyncpipe import AtlasCloud, Job, JobFileError, Polling
from asyncpipe.engine.upload import FRESH, Uploads, is_fresh, speaks_of_input
from asyncpipe.errors import KeyRefused, NotAccepted, ProviderError, RateLimited, Rejected
from asyncpipe.ledger.database import SqliteLedger
from asyncpipe.media.local import LocalFiles
from asyncpipe.providers.base import PredictionStatus
from asyncpipe.simulator.faults import Faults
from asyncpipe.simulator.server import Simulator
from asyncpipe.testing import FakeProvider, Script, run_virtual
from tests.support.photos import FLUX, PNG, batch, job, photo, pipeline, simulated
from tests.support.tables import ledger_of, tables

KEY = "apikey-a-secret-that-must-not-travel"


def test_a_url_is_used_while_it_is_young() -> None:
    """Nor is one from the future: the clock was wrong when it was kept, or is now."""
    at = datetime(2026, 11, 25, tzinfo=UTC)
    assert is_fresh(at - FRESH, at)
    assert not is_fresh(at - FRESH - timedelta(seconds=1), at)
    assert not is_fresh(at + timedelta(seconds=1), at)


@pytest.mark.parametrize(
    ("error", "speaks"),
    [
        ("failed to download the input image: 404 Not Found", True),
        ("Invalid image_url: cannot fetch", True),
        ("无法下载输入图片", True),
        ("图片链接已过期", True),
        ("the model failed to generate: internal error", False),
        ("input refused: it violates the content policy", False),
        ("insufficient balance", False),
        (None, False),
    ],
)
def test_an_error_that_speaks_of_the_input_is_known(error: str | None, speaks: bool) -> None:
    """Then its file is uploaded anew before the next attempt."""
    assert speaks_of_input(error) is speaks


def test_one_file_is_sent_once_and_others_wait_for_it(tmp_path: Path) -> None:
    """Three photos, twelve jobs, all at once; the request has the URL where the path stood."""
    for n in range(3):
        photo(tmp_path, f"{n}.png")
    provider = FakeProvider(upload_s=5.0)
    jobs = [job(f"j{n}", f"{n % 3}.png") for n in range(12)]
    assert batch(provider, tmp_path, jobs, max_workers=12) == {"succeeded": 12}
    assert sorted(path.name for path in provider.uploads) == ["0.png", "1.png", "2.png"]
    for sent in provider.submitted:
        assert sent.params["image"].startswith("https://fake.example/")
        assert not sent.inputs
    again = FakeProvider()
    assert batch(again, tmp_path, [*jobs, job("new", "1.png")]) == {"succeeded": 13}
    assert (len(again.uploads), len(again.sold)) == (0, 1)


def test_an_old_url_is_not_used(tmp_path: Path) -> None:
    """What was uploaded long ago is uploaded again, for the job that needs it."""
    photo(tmp_path, "a.png")
    batch(FakeProvider(), tmp_path, [job("one", "a.png")])
    with sqlite3.connect(tmp_path / "out" / ".asyncpipe" / "ledger.sqlite3") as connection:
        old = (datetime.now(UTC) - FRESH - timedelta(minutes=1)).isoformat()
        connection.execute("UPDATE uploads SET uploaded_at=?", (old,))
    connection.close()
    provider = FakeProvider()
    batch(provider, tmp_path, [job("one", "a.png"), job("two", "a.png")])
    assert (len(provider.uploads), provider.sold) == (1, ["two"])


def test_a_failing_upload_is_repeated_and_costs_nothing(tmp_path: Path) -> None:
    """429, 5xx and a broken network: with pauses, then the job goes its way."""
    photo(tmp_path, "a.png")
    trouble: list[ProviderError] = [RateLimited("429", retry_after_s=7.0), NotAccepted("cut")]
    provider = FakeProvider(upload_errors=trouble)
    assert batch(provider, tmp_path, [job("one", "a.png")]) == {"succeeded": 1}
    assert (len(provider.uploads), provider.submits) == (3, 1)
    with tables(tmp_path / "out") as connection:
        refusals = connection.execute("SELECT refusals FROM attempts").fetchall()
    assert refusals == [(0,)], "an upload that is repeated is nobody's submit"


def test_an_upload_limit_says_nothing_of_the_models_window(tmp_path: Path) -> None:
    """A 429 of uploads that lasts is a plain wait, not the model's own limit."""

    async def main() -> ProviderError | Mapping[str, str]:
        provider = FakeProvider(upload_errors=[RateLimited("429", retry_after_s=1.0)] * 9)
        attached = LocalFiles(tmp_path).attach(job("one", "a.png"))
        ledger = await ledger_of(tmp_path, None)
        try:
            return await Uploads(provider, ledger, Random(1)).ready(attached)
        finally:
            await ledger.aclose()

    photo(tmp_path, "a.png")
    assert type(run_virtual(main())) is NotAccepted


def test_an_upload_that_never_works_leaves_the_job_pending(tmp_path: Path) -> None:
    """Patience ends the run; nothing was sent, so nothing is unknown."""
    photo(tmp_path, "a.png")
    provider = FakeProvider(upload_errors=[NotAccepted("cut") for _ in range(1000)])
    ends = batch(provider, tmp_path, [job("one", "a.png")], patience_s=60.0)
    assert ends == {"pending": 1}
    assert provider.submits == 0
    assert batch(FakeProvider(), tmp_path, [job("one", "a.png")]) == {"succeeded": 1}


def test_the_intent_of_a_job_whose_file_cannot_be_had_is_never_alone_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ends then must not take what was never sent for unknown."""
    photo(tmp_path, "a.png")
    seen, durable = Counter[str](), SqliteLedger.durable

    async def looking(self: SqliteLedger) -> None:
        await durable(self)
        with tables(tmp_path / "out") as connection:
            seen.update(row[0] for row in connection.execute("SELECT state FROM jobs"))

    monkeypatch.setattr(SqliteLedger, "durable", looking)
    trouble: list[ProviderError] = [NotAccepted("cut")] * 5
    trouble.append(Rejected("unsupported file", status=400))
    provider = FakeProvider(upload_errors=trouble)
    assert batch(provider, tmp_path, [job("one", "a.png")]) == {"failed, not charged": 1}
    assert seen["pending"]
    assert seen["failed"]
    assert not seen["submitting"]


def test_a_refused_file_fails_its_jobs_uncharged_and_is_sent_once(tmp_path: Path) -> None:
    """The API's word on these bytes holds for every job that takes them in."""
    photo(tmp_path, "a.png")
    refusals: list[ProviderError] = [Rejected("unsupported file", status=400) for _ in range(9)]
    provider = FakeProvider(upload_errors=refusals)
    jobs = [job(f"j{n}", "a.png") for n in range(3)]
    assert batch(provider, tmp_path, jobs) == {"failed, not charged": 3}
    assert (len(provider.uploads), provider.submits) == (1, 0)


def test_refused_files_do_not_stop_their_model(tmp_path: Path) -> None:
    """A model that refuses its first twenty submits is stopped; these were no submits."""
    photo(tmp_path, "a.png")
    provider = FakeProvider(upload_errors=[Rejected("unsupported file", status=400)])
    jobs = [*(job(f"j{n}", "a.png") for n in range(25)), job("good", "https://x/a.png")]
    ends = batch(provider, tmp_path, jobs, max_workers=1)
    assert ends == {"failed, not charged": 25, "succeeded": 1}


def test_a_key_that_is_refused_at_an_upload_stops_the_run(tmp_path: Path) -> None:
    """Like at a submit: the jobs stay pending."""
    photo(tmp_path, "a.png")
    provider = FakeProvider(upload_errors=[KeyRefused("401", status=401) for _ in range(9)])
    jobs = [job(f"j{n}", "a.png") for n in range(3)]
    assert batch(provider, tmp_path, jobs, max_workers=1) == {"pending": 1}
    assert (len(provider.uploads), provider.submits) == (2, 0)


@pytest.mark.parametrize("status", [401, 403])
def test_one_refused_key_at_an_upload_is_asked_once_more(tmp_path: Path, status: int) -> None:
    photo(tmp_path, "a.png")
    provider = FakeProvider(upload_errors=[KeyRefused("a slip", status=status)])
    jobs = [job(f"j{n}", "a.png") for n in range(3)]
    assert batch(provider, tmp_path, jobs) == {"succeeded": 3}
    assert (len(provider.uploads), provider.submits) == (2, 3)


class Forgetful(FakeProvider):
    """Does not know the first URL of a file any more when a job names it."""

    fails: str = "prediction"

    async def submit(self, job: Job) -> Any:
        if "/1/" not in job.params["image"]:
            return await super().submit(job)
        if self.fails == "submit":
            self.submits += 1
            raise Rejected("the input image cannot be fetched", status=400)
        sold = await super().submit(job)
        made = self._made[sold.id]
        error = "failed to download the input image: 404"
        made.script = Script(end=PredictionStatus.FAILED, error=error)
        return sold


@pytest.mark.parametrize("fails", ["prediction", "submit"])
def test_a_url_that_leads_nowhere_is_forgotten_and_the_file_sent_again(
    tmp_path: Path, fails: str
) -> None:
    """Within the job's retries; a refused submit is repeated once, since it is another request."""
    photo(tmp_path, "a.png")
    provider = Forgetful()
    provider.fails = fails
    assert batch(provider, tmp_path, [job("one", "a.png")]) == {"succeeded": 1}
    assert (len(provider.uploads), provider.submits) == (2, 2)


def test_a_refusal_that_blames_the_input_for_ever_ends(tmp_path: Path) -> None:
    """One upload anew, then the refusal counts."""
    photo(tmp_path, "a.png")
    refusals = [Rejected("cannot fetch image_url", status=400) for _ in range(50)]
    provider = FakeProvider(default=Script(submits=refusals))
    assert batch(provider, tmp_path, [job("one", "a.png")]) == {"failed, not charged": 1}
    assert (len(provider.uploads), provider.submits) == (2, 2)


def test_a_drain_while_a_file_is_on_its_way_submits_nothing(tmp_path: Path) -> None:
    """The upload ends, the job stays pending; the next run does not upload again."""
    photo(tmp_path, "a.png")
    provider = FakeProvider(upload_s=5.0)
    files = LocalFiles(tmp_path)

    async def main() -> None:
        async with pipeline(provider, tmp_path) as running, anyio.create_task_group() as tasks:
            tasks.start_soon(running.batch_generate, [files.attach(job("one", "a.png"))])
            await anyio.sleep(2)
            running.stop()

    run_virtual(main())
    assert (len(provider.uploads), provider.submits) == (1, 0)
    again = FakeProvider()
    assert batch(again, tmp_path, [job("one", "a.png")]) == {"succeeded": 1}
    assert (len(again.uploads), again.submits) == (0, 1)


def test_leaving_while_a_file_is_on_its_way_gives_its_money_back(tmp_path: Path) -> None:
    """Cut in the middle of an upload: pending, nothing reserved, and the next run has it all."""
    photo(tmp_path, "a.png")
    provider = FakeProvider(upload_s=500.0)
    files = LocalFiles(tmp_path)

    async def main() -> None:
        async with pipeline(provider, tmp_path, max_cost=Decimal("0.04")) as running:
            with anyio.move_on_after(2):
                await running.batch_generate([files.attach(job("one", "a.png"))])

    run_virtual(main())
    assert (len(provider.uploads), provider.submits) == (1, 0)
    again = FakeProvider()
    ends = batch(again, tmp_path, [job("one", "a.png")], max_cost=Decimal("0.04"))
    assert ends == {"succeeded": 1}


def test_the_library_takes_paths_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``generate``, ``stream`` and a batch of dicts; a wrong path is an error before spending."""
    photo(tmp_path, "a.png")
    monkeypatch.chdir(tmp_path)
    provider = FakeProvider()
    row = {"model": FLUX, "prompt": "p", "image": "a.png"}

    async def main() -> None:
        async with pipeline(provider, tmp_path, local_files=tmp_path) as running:
            assert (await running.generate({"name": "a", **row})).status == "success"
            async for result in running.stream([{"name": "b", **row}]):
                assert result.status == "success"
            with pytest.raises(JobFileError, match=r"image: 'no\.png': there is no file"):
                await running.generate({**row, "image": "no.png"})
            wrong = [{"name": f"w{n}", **row, "image": f"no{n}.png"} for n in range(3)]
            with pytest.raises(JobFileError) as caught:
                await running.batch_generate([{"name": "c", **row}, *wrong])
            assert [problem.job for problem in caught.value.problems] == ["w0", "w1", "w2"]
            assert provider.sold == ["a", "b"]
            await running.batch_generate([{"name": "c", **row}])

    run_virtual(main())
    assert provider.sold == ["a", "b", "c"]
    assert len(provider.uploads) == 1


class NoFiles:
    """A provider without ``upload``."""

    def __init__(self) -> None:
        self._fake = FakeProvider()
        self.name, self.origin, self.simulated = "other", "fake", True
        self.submit, self.poll = self._fake.submit, self._fake.poll
        self.price_book = self._fake.price_book

    async def __aenter__(self) -> NoFiles:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None


def test_a_provider_that_takes_no_files_says_so_before_anything_is_spent(tmp_path: Path) -> None:
    """URLs it takes."""
    photo(tmp_path, "a.png")
    with pytest.raises(JobFileError, match=r"'a\.png': other takes no files: give a URL"):
        batch(NoFiles(), tmp_path, [job("one", "a.png")])
    assert batch(NoFiles(), tmp_path, [job("one", "https://x/a.png")]) == {"succeeded": 1}


async def run_against(
    simulator: Simulator, folder: Path, jobs: list[Job], **options: Any
) -> Counter[str]:
    provider = AtlasCloud(KEY, base_url=simulator.base_url)
    polling = Polling(initial_s=0.02, maximum_s=0.05)
    files = LocalFiles(folder)
    async with pipeline(provider, folder, polling=polling, **options) as running:
        manifest = await running.batch_generate([files.attach(each) for each in jobs])
        return Counter(result.status for result in manifest)


def test_three_photos_and_twelve_jobs_are_three_uploads_and_then_none(tmp_path: Path) -> None:
    """Streamed over a real socket; the simulator refuses what is not one of its own URLs."""
    paths = [photo(tmp_path, f"照片/{n}.png") for n in range(3)]
    paths[2].write_bytes(PNG + os.urandom(3_000_000))
    jobs = [job(f"j{n}", [f"照片/{n % 3}.png", f"照片/{(n + 1) % 3}.png"]) for n in range(12)]
    digests = {hashlib.sha256(path.read_bytes()).hexdigest(): 1 for path in paths}

    async def steps(simulator: Simulator) -> None:
        assert await run_against(simulator, tmp_path, jobs) == {"success": 12}
        assert simulator.books.uploads() == digests
        assert len(simulator.books.predictions()) == 12
        assert await run_against(simulator, tmp_path, jobs) == {"success": 12}
        assert simulator.books.uploads() == digests
        assert len(simulator.books.predictions()) == 12

    simulated(tmp_path, steps)


def test_faulty_uploads_and_lost_inputs_are_survived(tmp_path: Path) -> None:
    """Every upload fails twice, every URL is gone when first used: all jobs succeed, paid once."""
    for n in range(4):
        photo(tmp_path, f"{n}.png")
    jobs = [job(f"j{n}", f"{n}.png") for n in range(4)]

    async def steps(simulator: Simulator) -> None:
        assert await run_against(simulator, tmp_path, jobs) == {"success": 4}
        assert set(simulator.books.uploads().values()) == {2}
        assert simulator.books.charged() == Decimal("0.16")

    faults = Faults(upload_error=1.0, input_gone=1.0)
    simulated(tmp_path, steps, faults=faults, seed=3)
