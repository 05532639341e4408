"""Paid once: an intent is durable before a submit leaves, the id before the first poll.

What is killed or cut at any moment goes on; the simulator's books judge. ASYNCPIPE_CHAOS=long kills
each run at a second and a third step as well, many times over.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sqlite3
import sys
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import anyio
import pytest

from asyncpipe import Job, JobState, Manifest, Pipeline, Polling, read_manifest
from asyncpipe.errors import (
    AsyncpipeError,
    BalanceTooLow,
    LedgerError,
    NotSent,
    Overloaded,
    PollFailed,
    PredictionGone,
    ProviderError,
    RateLimited,
    SubmitUnknown,
    UsageError,
)
from asyncpipe.jobs import Hook
from asyncpipe.jobs.events import Event, Intended, Submitted, now
from asyncpipe.jobs.record import JobRecord, fold
from asyncpipe.jobs.settings import Limits
from asyncpipe.ledger.folder import Origin, ledger_path
from asyncpipe.providers.base import Prediction, PredictionStatus
from asyncpipe.report.totals import Totals
from asyncpipe.simulator.books import Books
from asyncpipe.testing import PIXEL, FakeProvider, Script, run_virtual
from tests.support import forked
from tests.support.batches import jobs, run_batch
from tests.support.chaos import LONG, MODELS, SEEDS, bought
from tests.support.command_line import asyncpipe, books, environment, intended, manifest, write_jobs
from tests.support.crashes import (
    Runner,
    against_simulator,
    judge,
    killing,
    patient,
    submitting,
    two_jobs,
)
from tests.support.faulty import run_faulty
from tests.support.mugs import MUGS, counts, mugs
from tests.support.pipelines import a_pipeline, clock_restarts, counts_agree, cut_after, job, opened
from tests.support.tables import ledger_of, tables

FAILED, DONE = PredictionStatus.FAILED, PredictionStatus.COMPLETED

BOTH = ("black-forest-labs/flux-2-pro/text-to-image", "google/veo3.1/text-to-video")
RUNS = 40
JOBS = 300


@killing
@patient
def test_killed_at_every_step_nothing_is_paid_twice_or_lost(tmp_path: Path) -> None:
    """Every ledger write, request, rename and fsync of a run is its last one once.

    The run after that goes on; in the long form it is killed as well, at random.
    """

    def kill_everywhere(runs: Runner, books: Books) -> int:
        rng, stop_at, killed = Random(1), 0, True
        while killed:
            stop_at += 1
            for again in range(20 if LONG else 1):
                folder = tmp_path / f"{stop_at}-{again}"
                jobs = two_jobs(folder.name)
                unknown, at = 0, stop_at
                for _ in range(3 if LONG else 1):
                    killed = runs.run(folder, jobs, stop_at=at) or at != stop_at
                    unknown += submitting(folder)
                    at = rng.randrange(1, 120)
                assert not runs.run(folder, jobs, stop_at=None)
                judge(folder, jobs, books, unknown)
        return stop_at

    steps = against_simulator(tmp_path, kill_everywhere)
    assert steps > 80, "there are not that few steps in a run"


@killing
@patient
@pytest.mark.parametrize("what", ["collect", "verify"])
def test_killed_while_recovering_nothing_is_bought(tmp_path: Path, what: str) -> None:
    """collect and verify, killed at every step: they buy nothing and can be repeated."""

    def kill_everywhere(runs: Runner, books: Books) -> int:
        stop_at, killed = 0, True
        while killed:
            stop_at += 1
            folder = tmp_path / f"{stop_at}"
            jobs = two_jobs(f"{what} {stop_at}")
            if what == "verify":
                assert not runs.run(folder, jobs, stop_at=None)
                next((folder / "images").iterdir()).unlink()
                clip = next((folder / "videos").iterdir())
                clip.write_bytes(clip.read_bytes()[:-1] + b"?")
            else:
                assert runs.run(folder, jobs, stop_at=75)
            unknown, sold = submitting(folder), len(books.predictions())
            killed = runs.run(folder, jobs, stop_at=stop_at, what=what)
            assert not runs.run(folder, jobs, stop_at=None, what=what)
            assert len(books.predictions()) == sold
            assert not runs.run(folder, jobs, stop_at=None)
            for changed in folder.glob("videos/*.changed"):
                changed.unlink()
            judge(folder, jobs, books, unknown)
        return stop_at

    assert against_simulator(tmp_path, kill_everywhere) > 20


@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_random_under_faults(tmp_path: Path, seed: int) -> None:
    """The command, kill -9 at random moments, again and again, then to the end: paid once.

    And every prediction that is at the provider is adopted: lost submits are looked for 2 s long.
    """
    rng = Random(seed)
    text = "max_workers: 12\nretries: 8\njobs:\n" + "".join(
        f"  - {{name: 杯 {n}, model: {MODELS[n % 2]}, prompt: mug {n}, width: 64, height: 64}}\n"
        for n in range(JOBS)
    )
    write_jobs(tmp_path / "jobs.yaml", text)
    faults = "all=0.1,rate_limited=0.02,overloaded=0.02,hung_poll=0.02,slow=0.02"
    options = ("--simulate", "-o", "out", "--simulate-faults", faults, "--simulate-speed", 60)
    for _ in range(20):
        kill_in_mid_run(tmp_path, ["run", "jobs.yaml", *map(str, options), "-q"], rng.randrange(20))
    for _ in range(5):
        done = asyncpipe("run", "jobs.yaml", *options, cwd=tmp_path)
        report = manifest(tmp_path / "out")
        if not report["pending"]:
            break
    assert "Traceback" not in done.stderr
    assert (report["pending"], report["failed"], report["total_jobs"]) == (0, 0, JOBS), done.stdout
    kept = books(tmp_path / "out")
    assert max(bought(kept.predictions()).values()) == 1
    cost, reserved = (Decimal(str(report[name])) for name in ("total_cost", "reserved"))
    assert (cost, reserved > 0) == (kept.charged(), report["unknown"] > 0)
    told = {row["prediction_id"] for row in report["results"]}
    assert {p.id for p in kept.predictions() if p.outcome == "completed"} <= told
    assert done.returncode == (75 if report["unknown"] else 0)
    assets = [a for row in report["results"] if row["status"] == "success" for a in row["assets"]]
    assert len(list((tmp_path / "out" / "images").iterdir())) == len(assets)
    verified = asyncpipe("verify", "out", cwd=tmp_path)
    assert (verified.returncode, json.dumps(report)) != (3, "")
    assert f"{len(assets)} assets checked, all as they were bought" in verified.stdout


def kill_in_mid_run(home: Path, arguments: list[str], after: int) -> None:
    """Kill a command after so many submits, whatever else it does meanwhile, if it gets so far."""
    before = intended(home / "out") if ledger_path(home / "out").exists() else 0
    process = forked.begun(arguments, cwd=home, env=environment())
    while process.is_alive():
        with contextlib.suppress(LedgerError, sqlite3.Error):  # it is being made
            if intended(home / "out") >= before + after:
                break
        process.join(0.005)
    process.kill()
    process.join()
    process.close()


def script(rng: Random) -> Script:
    """A provider's mood for one job: every fault in it can be recovered from."""
    refusals = [RateLimited("429"), NotSent("dns"), Overloaded("503")]
    empty = Prediction(id="p", status=PredictionStatus.COMPLETED)
    mishaps: list[ProviderError | Prediction] = [PollFailed("502"), PredictionGone("404")]
    mishaps += [empty, Prediction(id="p", said="?")]
    return Script(
        submits=rng.choices(refusals, k=rng.choice([0, 0, 0, 1, 3])),
        polls=rng.choices(mishaps, k=rng.choice([0, 0, 1, 4])),
        generation_s=rng.choice([0.0, 3.0, 40.0, 200.0]),
        submit_s=rng.choice([0.0, 0.2, 5.0]),
        outputs=(PIXEL,) * rng.choice([1, 1, 2]),
    )


@pytest.mark.parametrize("seed", range(30))
def test_cancelled_at_random_moments_every_job_is_paid_once(tmp_path: Path, seed: int) -> None:
    """However often a run is cut short, no job is bought twice and none is lost."""
    rng = Random(seed)
    jobs = [Job(name=f"杯 {n}", model=rng.choice(BOTH), prompt="x") for n in range(12)]
    scripts = {str(job.name): script(rng) for job in jobs}
    provider = FakeProvider(scripts=scripts)
    workers = rng.choice([1, 2, 5])

    async def one(limit_s: float) -> Manifest | None:
        with anyio.move_on_after(limit_s):
            async with Pipeline(
                provider, tmp_path, max_workers=workers, seed=seed, limits=Limits(downloads=1)
            ) as pipeline:
                manifest = await pipeline.batch_generate(jobs)
                assert pipeline.totals.in_flight == 0
                return manifest
        return None

    manifest = None
    whole = 0  # a third run that finds nothing left to do would be the second one again
    for turn in range(RUNS):
        if whole == 3:
            break
        limit_s = rng.choice([0.0, 0.1, 1.0, 7.0, 31.0, 90.0]) if turn < RUNS - 1 else 100_000.0
        provider_clock_restarts(provider)
        found = run_virtual(one(limit_s))
        manifest, whole = found or manifest, whole + (found is not None)
    assert manifest is not None
    results = list(manifest)
    assert {result.state for result in results} == {JobState.SUCCEEDED}, results
    assert sorted(provider.sold) == sorted(str(job.name) for job in jobs)
    assert provider.peak_in_flight <= workers
    paths = [asset.name for result in results for asset in result.assets]
    assert len(paths) == len(set(paths))
    assert len(paths) == sum(len(scripts[result.name].outputs) for result in results)


def provider_clock_restarts(provider: FakeProvider) -> None:
    """Every run has a virtual clock of its own: what an earlier one bought is ready by now."""
    for made in provider._made.values():
        made.ready = 0.0


class Auditor(FakeProvider):
    """A provider that looks into the ledger, as another process would, whenever it is asked."""

    folder: Path
    early: list[str]

    def look(self, query: str, value: str) -> list[tuple[str]]:
        with tables(self.folder) as connection:
            return connection.execute(query, (value,)).fetchall()

    async def submit(self, job: Job) -> Prediction:
        states = self.look("SELECT state FROM jobs WHERE name=?", str(job.name))
        if states != [("submitting",)]:
            self.early.append(f"{job.name} submitted while {states}")
        return await super().submit(job)

    async def poll(self, prediction_id: str, *, route: str = "") -> Prediction:
        if not self.look("SELECT 1 FROM attempts WHERE prediction_id=?", prediction_id):
            self.early.append(f"{prediction_id} polled before it was recorded")
        return await super().poll(prediction_id, route=route)


def test_intent_and_id_are_durable_before_the_network_hears_of_them(tmp_path: Path) -> None:
    """Seen from another connection: the intent at every submit, the id at every poll."""
    provider = Auditor()
    provider.folder, provider.early = tmp_path, []

    provider.default = Script(generation_s=0.0)
    polling = Polling(initial_s=1e-6, maximum_s=1e-6)

    async def main() -> Manifest:
        async with Pipeline(provider, tmp_path, max_workers=8, polling=polling) as pipeline:
            return await pipeline.batch_generate(
                Job(name=f"杯 {n}", model=BOTH[0], prompt="x") for n in range(40)
            )

    # In real time: virtual time waits for the ledger's thread and would hide an early request.
    assert asyncio.run(main()).totals.successful == 40
    assert provider.early == []


def test_cut_while_the_intent_is_being_written_nothing_is_unknown(tmp_path: Path) -> None:
    """Cancelled between intent and submit: it was not sent, and the ledger says so."""
    provider = FakeProvider(default=Script(generation_s=0.0))
    jobs = [Job(name=f"杯 {n}", model=BOTH[0], prompt="x") for n in range(8)]
    scopes: list[anyio.CancelScope] = []

    def cut(event: Event, record: JobRecord) -> None:
        if isinstance(event, Intended):
            scopes[0].cancel()

    async def main(hook: Hook | None) -> Manifest | None:
        polling = Polling(initial_s=1e-6, maximum_s=1e-6)
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            async with Pipeline(
                provider, tmp_path, max_workers=8, polling=polling, on_event=hook
            ) as pipeline:
                return await pipeline.batch_generate(jobs)
        return None

    assert asyncio.run(main(cut)) is None
    interrupted = read_manifest(tmp_path).totals
    assert interrupted.jobs[JobState.SUBMITTING] == 0
    manifest = asyncio.run(main(None))
    assert manifest is not None
    assert (manifest.totals.successful, manifest.totals.unknown) == (8, 0)
    assert len(provider.sold) == 8


def test_a_process_that_died_while_submitting_leaves_unknown(tmp_path: Path) -> None:
    """The intent is there and the answer is not: reported, reserved, never sent again."""
    job = Job(name="杯", model=BOTH[0], prompt="x")
    provider = FakeProvider()

    async def die() -> None:
        ledger = await ledger_of(tmp_path, Origin(provider="atlas", origin="fake", simulated=True))
        await ledger.add_jobs([(job.key("atlas"), job)], run=1, position=0)
        base: Any = {"job_id": 1, "at": now(), "attempt": 1}
        (record,) = await ledger.records([1])
        intent = Intended(**base, reserved=40_000, booked=40_000, price_source="t")
        ledger.append(fold(record, intent))
        await ledger.aclose()

    heard: list[str] = []

    def hook(event: Event, record: JobRecord) -> None:
        heard.append(type(event).__name__)

    async def main() -> Manifest:
        async with Pipeline(provider, tmp_path, on_event=hook) as pipeline:
            return await pipeline.batch_generate([job])

    asyncio.run(die())
    for turn in range(2):
        totals = run_virtual(main()).totals
        assert (totals.unknown, totals.reserved_micro, provider.submits) == (1, 40_000, 0)
        assert heard == ["Unknown"], turn  # hooks hear of it, once


@pytest.mark.parametrize(
    "fault", ["dropped", "hung_submit", "server_error_submit", "nameless", "huge_answer"]
)
def test_a_lost_answer_is_unknown_and_never_sent_again(tmp_path: Path, fault: str) -> None:
    """However it is lost, where nobody lists it: reserved to the cent, after a second run, too."""
    for _ in range(2):
        manifest, stopped, books = run_faulty(tmp_path, 2, **{fault: 1.0}, no_history=1.0)
        assert {result.state for result in manifest} == {JobState.UNKNOWN}
        assert len(books.predictions()) == books.submits() == 2
        assert Decimal(manifest.totals.reserved_micro).scaleb(-6) == books.charged()
        assert stopped is None


@pytest.mark.parametrize("how", ["collect", "removed", "idle"])
def test_what_fails_of_earlier_runs_is_not_bought_anew_unasked(tmp_path: Path, how: str) -> None:
    """By collect, by a job file without it, or by opening the folder; named again, it is."""
    provider = FakeProvider(default=Script(generation_s=50, end=FAILED, error="gpu"))
    run_virtual(cut_after(20, opened(tmp_path, provider), [job("a")]))
    clock_restarts(provider)

    async def again() -> None:
        async with opened(tmp_path, provider) as pipeline:
            if how == "collect":
                await pipeline.collect()
            elif how == "removed":
                await pipeline.batch_generate([job("other")])
            else:
                await asyncio.sleep(3600)

    run_virtual(again())
    assert provider.sold.count("a") == 1

    async def asked() -> Manifest:
        async with opened(tmp_path, provider, retries=5) as pipeline:
            return await pipeline.batch_generate([job("a")])

    provider.default = Script()
    assert run_virtual(asked()).totals.successful == 1


def test_asking_again_for_a_withdrawn_job_twice_never_hides_its_submit(tmp_path: Path) -> None:
    """The second caller must not make a job pending in the ledger that is being submitted."""
    provider, over = FakeProvider(default=Script(submit_s=5.0)), threading.Event()

    async def main() -> None:
        async with opened(tmp_path, provider, max_workers=2) as pipeline:
            blockers = [asyncio.ensure_future(pipeline.generate(job(f"b{n}"))) for n in range(2)]
            await asyncio.sleep(1)
            first = asyncio.ensure_future(pipeline.generate(job("x")))
            await asyncio.sleep(1)
            first.cancel()  # withdrawn
            await asyncio.gather(*blockers)
            callers = [asyncio.ensure_future(pipeline.generate(job("x")))]
            await asyncio.sleep(0)
            ledger: Any = pipeline._parts().ledger
            busy = asyncio.ensure_future(ledger._ask(lambda _: over.wait(60)))
            await asyncio.sleep(0)
            callers.append(asyncio.ensure_future(pipeline.generate(job("x"))))
            for _ in range(50):  # until everybody waits for the ledger
                await asyncio.sleep(0)
            over.set()
            await asyncio.sleep(2.0)
            assert provider.submits == 3
            with sqlite3.connect(ledger_path(tmp_path)) as other:
                query = "SELECT state FROM jobs WHERE name='x'"
                assert other.execute(query).fetchone() == ("submitting",)
            other.close()
            await asyncio.gather(busy, *callers)
            await counts_agree(pipeline)
        assert provider.sold.count("x") == 1

    run_virtual(main())


def test_a_cancelled_batch_buys_no_more_and_goes_on_when_asked(tmp_path: Path) -> None:
    """Like generate and stream; what was submitted comes home."""
    provider = FakeProvider()

    async def main() -> None:
        async with opened(tmp_path, provider, max_workers=3) as pipeline:
            batch = [job(f"{n}") for n in range(60)]
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(pipeline.batch_generate(batch), 15)
            sold = provider.submits
            await asyncio.sleep(3000)
            assert provider.submits == sold < 20
            assert pipeline.totals.successful == sold
            assert (await pipeline.batch_generate(batch)).totals.successful == 60
            await counts_agree(pipeline)

    run_virtual(main())


def test_two_batches_of_the_same_jobs_end_together(tmp_path: Path) -> None:
    """Neither returns before its jobs have ended, and nothing is bought twice."""
    provider = FakeProvider()

    async def main() -> None:
        async with opened(tmp_path, provider, max_workers=1) as pipeline:
            names = [job(f"{n}") for n in range(12)]
            first = asyncio.ensure_future(pipeline.batch_generate(names))
            await asyncio.sleep(3)
            second = asyncio.ensure_future(pipeline.batch_generate(names))
            assert (await first).totals.successful == (await second).totals.successful == 12
            await counts_agree(pipeline)
        assert len(provider.sold) == 12

    run_virtual(main())


def test_what_a_program_asked_for_and_left_is_not_bought_by_the_file(tmp_path: Path) -> None:
    """It was refused, and its caller knows: it is withdrawn, and nobody buys it."""
    provider = FakeProvider()
    mugs(tmp_path, provider)

    async def between() -> None:
        async with opened(tmp_path, provider) as pipeline:
            pipeline.stop()
            with pytest.raises(AsyncpipeError, match="drained"):
                await pipeline.generate(job("own"))
            await counts_agree(pipeline)

    run_virtual(between())
    assert counts(mugs(tmp_path, provider).totals) == (3, 3, 0, 0)
    assert "own" not in provider.sold


def test_a_batch_does_not_buy_what_a_caller_beside_it_was_refused(tmp_path: Path) -> None:
    """Its pass was skipped, so its rows bear an older run than the caller's one."""
    provider = FakeProvider(default=Script(submit_s=5))
    jobs = [job(name) for name in MUGS]

    async def before() -> None:
        async with opened(tmp_path, provider, max_cost=Decimal(0)) as pipeline:
            await pipeline.batch_generate([*jobs, job("own")])  # a row behind those of the mugs

    async def main() -> Totals:
        async with opened(tmp_path, provider, max_workers=1) as pipeline:
            batch = asyncio.ensure_future(pipeline.batch_generate(jobs, digest="d1"))
            await asyncio.sleep(1)
            refusal = BalanceTooLow("no money")

            async def too_little() -> BalanceTooLow:
                return refusal

            pipeline._parts().spending.balance.too_little = too_little  # type: ignore[method-assign]
            with pytest.raises(BalanceTooLow):
                await pipeline.generate(job("own"))
            return (await batch).totals

    run_virtual(before())
    mugs(tmp_path, provider, "0.04")
    assert run_virtual(main()).successful == 3
    assert "own" not in provider.sold


def test_a_batch_that_is_refused_buys_nothing_through_another(tmp_path: Path) -> None:
    """Its first jobs were written before the mistake was found; a batch beside it draws on."""
    provider = FakeProvider(default=Script(generation_s=5))

    def wrong() -> Iterator[Job]:
        yield job("wrong")
        yield job("wrong")

    async def main() -> None:
        async with opened(tmp_path, provider, max_workers=2) as pipeline:
            good = [job(f"good {n}") for n in range(20)]
            batch = asyncio.ensure_future(pipeline.batch_generate(good))
            await asyncio.sleep(1)
            with pytest.raises(UsageError, match="twice"):
                await pipeline.batch_generate(wrong())
            assert (await batch).totals.successful == 20
        assert "wrong" not in provider.sold

    run_virtual(main())


def test_an_unknown_submit_is_never_sent_again(tmp_path: Path) -> None:
    """Its money stays reserved, over any number of runs."""
    provider = FakeProvider(scripts={"杯子 1": Script(submits=[SubmitUnknown("reset")])})
    for _ in range(3):
        manifest, results, _ = run_batch(tmp_path, provider, jobs(3))
    assert provider.submits == 3
    assert manifest.totals.unknown == 1
    assert manifest.totals.reserved_micro == 40_000
    assert results[1].status == "unknown"
    assert results[1].error == "reset"


def test_a_copy_taken_at_any_moment_never_buys_again_what_was_bought(tmp_path: Path) -> None:
    """Power fails, or somebody copies the folder mid-run: what was sold by then is known by it."""
    script = Script(generation_s=30.0)
    provider = FakeProvider(default=script)
    model = "black-forest-labs/flux-2-pro/text-to-image"
    jobs = [Job(name=f"n{n}", model=model, prompt="p") for n in range(7)]
    copies: list[tuple[list[str], bytes, bytes]] = []
    folder = tmp_path / "first"
    path = ledger_path(folder)

    def copy(event: Event, record: JobRecord) -> None:
        if not isinstance(event, Intended | Submitted):
            return
        sold = list(provider.sold)
        wal = path.with_name(f"{path.name}-wal")
        copies.append((sold, path.read_bytes(), wal.read_bytes()))

    async def run(where: Path, **options: Any) -> None:
        async with a_pipeline(provider, where, seed=1, max_workers=3, **options) as pipeline:
            await pipeline.batch_generate(jobs)

    run_virtual(run(folder, on_event=copy))
    assert len(provider.sold) == len(jobs)
    assert len(copies) == 2 * len(jobs)
    for n, (sold, database, wal) in enumerate(copies):
        again = tmp_path / f"copy{n}"
        shutil.copytree(folder / "images", again / "images")
        ledger_path(again).parent.mkdir()
        ledger_path(again).write_bytes(database)
        path_of_wal = ledger_path(again)
        path_of_wal.with_name(f"{path_of_wal.name}-wal").write_bytes(wal)
        for made in provider._made.values():
            made.ready = 0.0
        before = len(provider.sold)
        run_virtual(run(again))
        assert not set(provider.sold[before:]) & set(sold), n
