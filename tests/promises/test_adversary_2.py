"""More ways in which money was once spent against promise or wish, and truth was lost."""

from __future__ import annotations

import asyncio
import base64
import os
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest

from asyncpipe import Job, Manifest, Pipeline
from asyncpipe.errors import (
    AsyncpipeError,
    BalanceTooLow,
    BudgetReached,
    DiskError,
    JobFileError,
    KeyRefused,
    NotAccepted,
    PollFailed,
    PredictionGone,
    ProviderError,
    RateLimited,
    Rejected,
    SubmitUnknown,
    UsageError,
)
from asyncpipe.jobfile.load import open_jobs
from asyncpipe.jobs.events import now
from asyncpipe.pricing.quotes import Quote
from asyncpipe.pricing.rates import Rate
from asyncpipe.providers.base import PredictionStatus
from asyncpipe.report.totals import Totals, read_totals
from asyncpipe.testing import PIXEL, FakeProvider, Script, run_virtual

FLUX = "black-forest-labs/flux-2-pro/text-to-image"
MUGS = ("mug 0", "mug 1", "mug 2")


def job(name: str, **fields: Any) -> Job:
    return Job(name=name, model=FLUX, prompt="a mug", **fields)


def opened(folder: Path, provider: FakeProvider, **options: Any) -> Pipeline:
    return Pipeline(provider, folder, seed=1, min_free_bytes=0, **options)


def mugs(folder: Path, provider: FakeProvider, usd: str | None = None) -> Manifest:
    """A process of its own that works the same job file."""

    async def main() -> Manifest:
        cap = None if usd is None else Decimal(usd)
        async with opened(folder, provider, max_cost=cap) as pipeline:
            return await pipeline.batch_generate([job(name) for name in MUGS], digest="d1")

    return run_virtual(main())


def counts(totals: Totals) -> tuple[int, int, int, int]:
    return totals.total, totals.successful, totals.pending, totals.removed


# -- the same file again, and something else in between --------------------------------------------


def test_jobs_are_not_removed_by_a_program_that_came_between(tmp_path: Path) -> None:
    """What it bought is its own; what the file still has to do is pending, and in the manifest."""
    provider = FakeProvider()
    mugs(tmp_path, provider, "0.04")

    async def between() -> None:
        async with opened(tmp_path, provider) as pipeline:
            await pipeline.generate(job("own"))

    run_virtual(between())
    assert counts(mugs(tmp_path, provider, "0.12").totals) == (4, 3, 1, 0)
    assert counts(mugs(tmp_path, provider).totals) == (4, 4, 0, 0)


def test_a_session_that_named_nothing_removes_nothing(tmp_path: Path) -> None:
    """As one leaves it that was killed before it came to its jobs."""
    provider = FakeProvider()
    mugs(tmp_path, provider, "0.04")

    async def killed() -> None:
        async with opened(tmp_path, provider) as pipeline:
            await pipeline._parts().intake._begin()

    run_virtual(killed())
    assert counts(mugs(tmp_path, provider, "0.08").totals) == (3, 2, 1, 0)


def test_what_a_program_asked_for_and_left_is_not_bought_by_the_file(tmp_path: Path) -> None:
    """It was refused, and its caller knows; the job file never named it."""
    provider = FakeProvider()
    mugs(tmp_path, provider)

    async def between() -> None:
        async with opened(tmp_path, provider) as pipeline:
            pipeline.drain()
            with pytest.raises(AsyncpipeError, match="drained"):
                await pipeline.generate(job("own"))

    run_virtual(between())
    assert counts(mugs(tmp_path, provider).totals) == (3, 3, 0, 1)
    assert "own" not in provider.sold


def test_a_job_of_the_file_that_a_program_withdrew_is_made(tmp_path: Path) -> None:
    """The run must not end as if all were well, with the job neither made nor told of."""
    provider = FakeProvider(scripts={"blocker": Script(submit_s=50)})
    mugs(tmp_path, provider, "0.04")

    async def between() -> None:
        async with opened(tmp_path, provider, max_workers=1) as pipeline:
            blocker = asyncio.ensure_future(pipeline.generate(job("blocker")))
            await asyncio.sleep(1)
            withdrawn = asyncio.ensure_future(pipeline.generate(job("mug 2")))
            await asyncio.sleep(1)
            withdrawn.cancel()
            await asyncio.wait([blocker, withdrawn])

    run_virtual(between())
    assert mugs(tmp_path, provider).totals.successful == 4
    assert {*MUGS} <= {*provider.sold}


def test_a_job_of_the_file_that_a_program_made_is_looked_at_like_the_others(tmp_path: Path) -> None:
    """Its file is fetched again when it is deleted; so it is when it failed and is wanted again."""
    provider = FakeProvider(scripts={"mug 1": Script(submits=[Rejected("no")])})
    mugs(tmp_path, provider, "0")

    async def between() -> None:
        async with opened(tmp_path, provider) as pipeline:
            for name in MUGS:
                await pipeline.generate(job(name))

    async def again() -> Totals:
        async with opened(tmp_path, provider) as pipeline:
            jobs = [job(name) for name in MUGS]
            manifest = await pipeline.batch_generate(jobs, digest="d1", retry_failed=True)
            return manifest.totals

    run_virtual(between())
    (deleted,) = (tmp_path / "images").glob("*2.png")
    deleted.unlink()
    assert run_virtual(again()).successful == 3
    assert deleted.exists()
    assert Counter(provider.sold) == Counter(MUGS)


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

            pipeline._parts().spending.funds.too_little = too_little  # type: ignore[method-assign]
            with pytest.raises(BalanceTooLow):
                await pipeline.generate(job("own"))
            return (await batch).totals

    run_virtual(before())
    mugs(tmp_path, provider, "0.04")
    assert run_virtual(main()).successful == 3
    assert "own" not in provider.sold


# -- a batch that is refused beside another --------------------------------------------------------


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


# -- a disk that fills up ----------------------------------------------------------------------


def test_a_disk_that_fills_up_while_jobs_are_written_down_stops_the_run(tmp_path: Path) -> None:
    """The reason came before the first submit, and no new job makes anybody forget it."""
    provider = FakeProvider()

    async def main() -> None:
        async with opened(tmp_path, provider) as pipeline:

            def jobs() -> Iterator[Job]:
                for n in range(5):
                    if n == 3:  # what the ledger does when it finds the disk full
                        pipeline._parts().ledger._ballast.release()
                    yield job(f"{n}")

            manifest = await pipeline.batch_generate(jobs())
            assert isinstance(pipeline.stopped, DiskError)
            assert manifest.totals.pending == 5
            for name in ("single", "another"):
                with pytest.raises(DiskError):
                    await pipeline.generate(job(name))
        assert provider.submits == 0

    run_virtual(main())


# -- job files that mean harm ---------------------------------------------------------------------

TEMPLATE = f"jobs: [{{name: n, model: {FLUX}, prompt: a}}]\n"


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


# -- what a job takes in --------------------------------------------------------------------------


def test_other_bytes_of_the_same_size_and_time_are_not_bought(tmp_path: Path) -> None:
    """As a copy that keeps times leaves them, or a file system that knows seconds only."""
    photo, provider = tmp_path / "a.png", FakeProvider()

    def taken(end: bytes) -> None:
        photo.write_bytes(base64.b64decode(PIXEL.partition(",")[2]) + end)
        os.utime(photo, ns=(10**18, 10**18))

    async def main() -> Manifest:
        async with opened(tmp_path / "out", provider, max_workers=1) as pipeline:
            blocker = asyncio.ensure_future(pipeline.generate(job("blocker")))
            await asyncio.sleep(1)
            jobs = [job("a", params={"image": str(photo)})]
            batch = asyncio.ensure_future(pipeline.batch_generate(jobs))
            await asyncio.sleep(1)
            taken(b"2")
            await blocker
            return await batch

    taken(b"1")
    manifest = run_virtual(main())
    assert provider.sold == ["blocker"]
    (result,) = [result for result in manifest if result.name == "a"]
    assert "has changed since it was checked" in (result.error or "")


# -- money that nobody waits for -------------------------------------------------------------------


def test_a_job_is_refused_for_money_that_nobody_polls_for(tmp_path: Path) -> None:
    """The key was refused while polling; its caller waited for ever for that job's money."""
    scripts = {"a": Script(polls=[KeyRefused("401")], generation_s=50)}
    provider = FakeProvider(scripts=scripts)

    async def main() -> None:
        async with opened(tmp_path, provider, max_cost=Decimal("0.04")) as pipeline:
            await pipeline.generate(job("a"))
            with pytest.raises(BudgetReached):
                await asyncio.wait_for(pipeline.generate(job("b")), 1_000_000)
            assert (await pipeline.generate(job("a"))).status == "success"
            assert pipeline._parts().tickets.releasable() == 0

    run_virtual(main())
    assert provider.sold == ["a"]


# -- a provider that tells nonsense ----------------------------------------------------------------


@pytest.mark.parametrize("amount", [Decimal(-1), Decimal("NaN"), Decimal("1e30"), Decimal(0), 0.04])
def test_a_quote_of_nonsense_holds_no_budget_and_ends_no_run(tmp_path: Path, amount: Any) -> None:
    """Below nothing it let jobs go beyond the cap; what is no number ended everybody's run."""

    class Quoting(FakeProvider):
        async def quote(self, asked: Job) -> Quote:
            return Quote(amount=amount, asked_at=now())

    provider = Quoting()

    async def main() -> Totals:
        async with opened(tmp_path, provider, max_cost=Decimal("0.08")) as pipeline:
            return (await pipeline.batch_generate([job(f"{n}") for n in range(5)])).totals

    assert run_virtual(main()).charged == 80_000  # by the table


@pytest.mark.parametrize("amount", [Decimal("NaN"), Decimal("sNaN"), None])
def test_a_balance_of_nonsense_ends_no_run(tmp_path: Path, amount: Any) -> None:
    """It cannot be compared, and says nothing of the money."""

    class Telling(FakeProvider):
        async def balance(self) -> Decimal:
            return cast("Decimal", amount)

    async def main() -> Totals:
        async with opened(tmp_path, Telling(), min_balance=Decimal(1)) as pipeline:
            return (await pipeline.batch_generate([job("a")])).totals

    assert run_virtual(main()).successful == 1


# -- any history ----------------------------------------------------------------------------------

OTHER = "other/text-to-image"


def trouble(rng: Random) -> ProviderError:
    wish = rng.choice((None, 1.0, 30.0))
    return rng.choice(
        (
            RateLimited("429", status=429, retry_after_s=wish),
            NotAccepted("no connection"),
            NotAccepted("503", status=503),
            Rejected("400", status=400),
            SubmitUnknown("the answer was lost"),
        )
    )


def hard_life(rng: Random) -> Script:
    polls = (PollFailed("500", status=500), PollFailed("429", status=429), PredictionGone("404"))
    return Script(
        submits=[trouble(rng) for _ in range(rng.choice((0, 0, 0, 1, 2, 5)))],
        polls=[rng.choice(polls) for _ in range(rng.choice((0, 0, 0, 1, 3)))],
        generation_s=rng.choice((0.0, 5.0, 60.0, 1000.0)),
        submit_s=rng.choice((0.0, 1.0, 10.0, 400.0)),
        end=rng.choice((*[PredictionStatus.COMPLETED] * 3, PredictionStatus.FAILED)),
        error="gpu",
        released=rng.random() < 0.7,
        moderated=rng.random() < 0.1,
    )


async def let_go(rng: Random, work: Coroutine[Any, Any, object]) -> None:
    """Begin something, and leave it after a while."""
    begun = asyncio.ensure_future(work)
    await asyncio.sleep(rng.choice((0.0, 0.5, 50.0, 500.0)))
    begun.cancel()
    await asyncio.wait([begun])
    if not begun.cancelled():
        begun.exception()  # a refusal is an answer, too


async def churn(rng: Random, pipeline: Pipeline, jobs: list[Job]) -> None:
    """Callers who come and go beside the run."""

    async def some() -> None:
        async for _ in pipeline.stream(rng.sample(jobs, 8)):
            if rng.random() < 0.3:
                break

    for n in range(12):
        await asyncio.sleep(rng.choice((0.0, 0.5, 7.0, 100.0)))
        single = rng.choice(jobs) if rng.random() < 0.5 else job(f"single {n}")
        again = rng.random() < 0.5
        works: tuple[Callable[[], Coroutine[Any, Any, object]], ...] = (
            partial(pipeline.generate, single),
            partial(pipeline.batch_generate, rng.sample(jobs, 10), retry_failed=again),
            some,
        )
        await let_go(rng, rng.choice(works)())
        if rng.random() < 0.01:
            pipeline.drain()


def nothing_leaked(pipeline: Pipeline) -> None:
    """Every permit, place in a window and held amount was given back, and none twice."""
    engine = pipeline._parts()
    assert (engine.admission._carried, engine.tickets) == (0, {})
    assert engine.limiter.out == 0
    for known in engine.limiter.models.values():
        assert (known.window.in_flight, known.window._waiting, known.pause._out) == (0, 0, 0)
    assert engine.spending.budget.held == 0


@pytest.mark.parametrize("seed", range(8))
def test_after_any_history_nothing_is_held_and_all_counts_agree(tmp_path: Path, seed: int) -> None:
    """Jobs refused, lost, failed, put back, cancelled by callers who come and go beside a run."""
    rng = Random(seed)
    jobs = [Job(name=f"j{n}", model=rng.choice((FLUX, OTHER)), prompt="a mug") for n in range(30)]
    provider = FakeProvider(scripts={each.name or "": hard_life(rng) for each in jobs})
    workers, cap = rng.choice((1, 2, 5, 16)), rng.choice((None, Decimal("0.50")))
    options: dict[str, Any] = {
        "max_workers": workers,
        "max_cost": cap,
        "prices": {OTHER: Rate(per_image=Decimal("0.03"))},
        "resubmit_unknown": rng.random() < 0.3,
        "patience_s": rng.choice((None, 600.0)),
    }

    async def main() -> None:
        async with opened(tmp_path, provider, **options) as pipeline:
            beside = [asyncio.ensure_future(churn(rng, pipeline, jobs)) for _ in range(2)]
            await pipeline.batch_generate(jobs)
            await asyncio.gather(*beside)
            await pipeline.batch_generate(jobs)
            await asyncio.sleep(100_000)  # what callers left goes on without them
            nothing_leaked(pipeline)
            pipeline._parts().recorder.tell()
            counted, true = pipeline.totals, await pipeline._parts().ledger.ask(read_totals)
            assert +counted.jobs == +true.jobs
            for name in ("charged", "reserved", "held", "lost_answers", "in_doubt", "removed"):
                assert getattr(counted, name) == getattr(true, name), name
            assert (
                pipeline._parts(ever=True).spending.budget.committed == true.charged + true.reserved
            )
            assert cap is None or true.charged + true.reserved <= cap * 1_000_000

    run_virtual(asyncio.wait_for(main(), 1_000_000))
