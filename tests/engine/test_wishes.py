"""What is wished for one job: when it goes, what it may cost, which other it is the same as."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import Event, Job, JobRecord
from asyncpipe.engine import verify
from asyncpipe.errors import IdempotencyConflict, JobFileError, TooExpensive, UsageError
from asyncpipe.jobs.events import now
from asyncpipe.pricing.quotes import Quote
from asyncpipe.report.results import Result
from asyncpipe.testing import PIXEL, FakeProvider, Script, run_virtual
from tests.support.pipelines import FLUX, counts_agree, job, opened

OTHER = "google/imagen4-ultra/text-to-image"
FIXED: dict[str, Any] = {"max_workers": 2, "window": "fixed"}


def test_an_urgent_call_overtakes_400_that_wait(tmp_path: Path) -> None:
    """It is the next to be submitted; one that can wait longest is the last."""
    provider = FakeProvider()

    async def main() -> None:
        async with opened(tmp_path, provider, **FIXED) as pipeline:

            async def ask(name: str, **fields: Any) -> Result:
                return await pipeline.generate(job(name, **fields))

            async with asyncio.TaskGroup() as calls:
                calls.create_task(ask("first"))
                calls.create_task(ask("second"))
                await asyncio.sleep(5)
                calls.create_task(ask("whenever", priority=-1))
                for n in range(400):
                    calls.create_task(ask(f"mug {n}"))
                calls.create_task(ask("urgent", priority=9))
            await counts_agree(pipeline)

    run_virtual(main())
    assert provider.sold.index("urgent") == 2
    assert provider.sold[-1] == "whenever"
    assert len(provider.sold) == 404


def test_a_batch_goes_by_priority_across_its_pages_and_models(tmp_path: Path) -> None:
    """Equals in the order of the file, and models in turn."""
    provider = FakeProvider()
    jobs = [Job(name=f"{n}", model=FLUX, prompt="a mug") for n in range(300)]
    jobs += [Job(name=f"o{n}", model=OTHER, prompt="a mug") for n in range(5)]
    jobs += [Job(name=f"u{n}", model=OTHER, prompt="a cup", priority=1) for n in range(4)]

    async def main() -> None:
        async with opened(tmp_path, provider, **FIXED) as pipeline:
            manifest = await pipeline.batch_generate(jobs)
            assert (manifest.totals.successful, pipeline.stopped) == (309, None)

    run_virtual(main())
    assert provider.sold[:4] == ["u0", "u1", "u2", "u3"]
    assert provider.sold[4:8] in (["o0", "0", "o1", "1"], ["0", "o0", "1", "o1"])


@pytest.mark.parametrize("priority", [1.5, "high", True, 10**7, None])
def test_a_priority_that_is_none_is_refused(priority: Any) -> None:
    """Also by the rules of job files."""
    with pytest.raises(UsageError, match="priority"):
        job("a", priority=priority)


def test_a_job_that_costs_more_than_it_may_is_refused_before_anything_is_reserved(
    tmp_path: Path,
) -> None:
    """With what it takes, by which price, and what to do; one that costs just that is not."""
    provider = FakeProvider()

    async def main() -> None:
        async with opened(tmp_path, provider) as pipeline:
            with pytest.raises(
                TooExpensive, match=r"mug: the job may cost 0\.03 USD at most.*0\.04"
            ):
                await pipeline.generate(job("mug", max_cost=Decimal("0.03")))
            with pytest.raises(TooExpensive, match="b: the job may cost"):
                await pipeline.batch_generate([job("a"), job("b", max_cost=Decimal(0))])
            assert (pipeline.totals.total, pipeline.totals.reserved) == (0, Decimal(0))
            assert (
                await pipeline.generate(job("mug", max_cost=Decimal("0.04")))
            ).status == "success"
            # What was bought before is finished, whatever may be paid for it now.
            assert (await pipeline.generate(job("mug", max_cost=Decimal(0)))).status == "success"

    run_virtual(main())
    assert provider.sold == ["mug"]


@pytest.mark.parametrize("amount", [0.5, "1", Decimal(-1), Decimal("nan")])
def test_a_most_that_is_no_amount_is_refused(amount: Any) -> None:
    """A float is not money."""
    with pytest.raises(UsageError, match="max_cost"):
        job("a", max_cost=amount)


class Dearer(FakeProvider):
    """Its quotes rise while jobs wait."""

    asked = 0

    async def quote(self, job: Job) -> Quote:
        self.asked += 1
        return Quote(amount=Decimal("0.04") * self.asked, asked_at=now())


def test_a_price_that_rises_beyond_it_leaves_the_job_out_and_others_go_on(tmp_path: Path) -> None:
    """It stays pending, and the reason is named."""
    provider = Dearer()

    async def main() -> None:
        async with opened(tmp_path, provider, **FIXED) as pipeline:
            cheap = job("cheap", max_cost=Decimal("0.05"), params={"width": 512})
            manifest = await pipeline.batch_generate([job("a"), cheap, job("b")])
            assert "cheap: the job may cost" in str(pipeline.stopped)
            assert (manifest.totals.successful, manifest.totals.pending) == (2, 1)
            await counts_agree(pipeline)

    run_virtual(main())
    assert provider.sold == ["a", "b"]


def test_one_idempotency_key_is_one_job(tmp_path: Path) -> None:
    """Asked for at once, later, and in another process, with another priority: bought once."""
    provider = FakeProvider()
    order = {"model": FLUX, "prompt": "a mug", "idempotency_key": "order 7"}

    async def main() -> None:
        keys = set[str]()
        for _ in range(2):
            async with opened(tmp_path, provider) as pipeline:
                async with asyncio.TaskGroup() as calls:
                    asked = [calls.create_task(pipeline.generate(order)) for _ in range(5)]
                keys |= {each.result().key for each in asked}
                keys.add((await pipeline.generate({**order, "priority": 7})).key)
        assert len(keys) == 1

    run_virtual(main())
    assert len(provider.sold) == 1


def test_another_job_under_the_same_key_is_a_conflict(tmp_path: Path) -> None:
    """Nothing is bought; key and both jobs are named. After a restart, too."""
    provider = FakeProvider()
    order = job("mug", idempotency_key="order 7")
    others: list[Any] = [
        job("cup", idempotency_key="order 7"),
        job("mug", idempotency_key="order 7", params={"width": 64}),
        {"model": FLUX, "prompt": "a mug", "idempotency_key": "order 7"},
    ]

    async def main() -> None:
        for _ in range(2):
            async with opened(tmp_path, provider) as pipeline:
                await pipeline.generate(order)
                for other in others:
                    with pytest.raises(
                        IdempotencyConflict, match="'order 7' stands for the job mug"
                    ):
                        await pipeline.generate(other)
                assert pipeline.totals.total == 1
                await counts_agree(pipeline)

    run_virtual(main())
    assert provider.sold == ["mug"]


def test_a_named_job_may_be_asked_for_under_several_keys(tmp_path: Path) -> None:
    """Its name makes it the same; each key stands for it from then on."""
    provider = FakeProvider()

    async def main() -> None:
        async with opened(tmp_path, provider) as pipeline:
            for key in ("a", "b", None):
                await pipeline.generate(job("mug", idempotency_key=key))
            with pytest.raises(IdempotencyConflict):
                await pipeline.generate(job("cup", idempotency_key="b"))

    run_virtual(main())
    assert provider.sold == ["mug"]


@pytest.mark.parametrize("key", ["", "k" * 256, "a\nb", 7, "\ud800"])
def test_a_key_that_is_none_is_refused(key: Any) -> None:
    """It must be a text that every ledger can keep."""
    with pytest.raises(UsageError, match="idempotency_key"):
        job("a", idempotency_key=key)
    with pytest.raises(JobFileError, match="idempotency_key"):
        run_virtual(_stream_of({"model": FLUX, "prompt": "p", "idempotency_key": key}))


async def _stream_of(said: dict[str, Any]) -> None:
    from asyncpipe.jobfile import parse_jobs

    parse_jobs([said])


def test_a_batch_takes_no_idempotency_keys(tmp_path: Path) -> None:
    """There jobs are the same by name and what they say."""

    async def main() -> None:
        async with opened(tmp_path, FakeProvider()) as pipeline:
            with pytest.raises(UsageError, match="idempotency_key is for single jobs"):
                await pipeline.batch_generate([job("a", idempotency_key="k")])

    run_virtual(main())


def test_a_deadline_counts_from_the_submit(tmp_path: Path) -> None:
    """A job's own goes before the pipeline's; the time in the queue does not count."""
    provider = FakeProvider(default=Script(generation_s=200.0))

    async def main() -> None:
        async with opened(tmp_path, provider, max_workers=1, window="fixed") as pipeline:
            calls = [
                pipeline.generate(job("first", deadline_s=250.0)),
                pipeline.generate(job("second", deadline_s=250.0)),
                pipeline.generate(job("third", deadline_s=100.0)),
            ]
            results = await asyncio.gather(*calls)
            assert [each.status for each in results] == ["success", "success", "pending"]
            assert "expired" in str(results[2].state)

    run_virtual(main())


def test_labels_of_a_call_are_in_its_result_and_listed(tmp_path: Path) -> None:
    """Set by a dict or a Job; none of the wishes is part of the job's identity."""

    async def main() -> None:
        async with opened(tmp_path, FakeProvider()) as pipeline:
            said = {"name": "mug", "model": FLUX, "prompt": "p", "labels": {"team": "a"}}
            result = await pipeline.generate(said)
            assert result.labels == {"team": "a"}

    run_virtual(main())
    plain = job("a")
    wished = job(
        "a",
        priority=3,
        max_cost=Decimal(1),
        store=False,
        labels={"a": "b"},
        deadline_s=5.0,
        idempotency_key="k",
    )
    assert (plain.key("atlas"), plain.body) == (wished.key("atlas"), wished.body)


URLS = ("https://media.example/1.png", "https://media.example/2.png")


def test_a_job_whose_urls_are_enough_is_done_with_them(tmp_path: Path) -> None:
    """Nothing is downloaded, nothing missing: in result, manifest, verify, status and a new run."""
    provider = FakeProvider(default=Script(outputs=URLS))
    urls_only = job("mug", store=False)

    async def main() -> None:
        for _ in range(2):
            async with opened(tmp_path, provider) as pipeline:
                result = await pipeline.generate(urls_only)
                assert (result.status, result.outputs, result.assets) == ("success", URLS, ())
                manifest = await pipeline.batch_generate([urls_only])
                assert (manifest.totals.successful, manifest.totals.missing) == (1, 0)
                await counts_agree(pipeline)
        verified = await verify(tmp_path)
        assert (verified.checked, verified.bad_count) == (0, 0)

    run_virtual(main())
    (row,) = json.loads((tmp_path / "manifest.json").read_bytes())["results"]
    assert (row["status"], row["output_url"], row["local_path"]) == ("success", URLS[0], None)
    assert [*(tmp_path / "images").iterdir()] == []
    assert provider.sold == ["mug"]


def test_media_that_come_inside_the_answer_are_stored_all_the_same(tmp_path: Path) -> None:
    """There is no other place to have them from."""
    provider = FakeProvider(default=Script(outputs=(PIXEL, URLS[0])))

    async def main() -> None:
        async with opened(tmp_path, provider) as pipeline:
            result = await pipeline.generate(job("mug", store=False))
            assert (result.status, [each.path.name for each in result.assets]) == (
                "success",
                ["mug_1.png"],
            )

    run_virtual(main())


def test_a_jobs_own_hook_hears_of_that_job_alone(tmp_path: Path) -> None:
    """Sync or async, from its intent to its end; a failing one harms nobody, and none is kept."""
    provider = FakeProvider()
    heard = list[tuple[str, str]]()

    def hear(event: Event, after: JobRecord) -> None:
        heard.append((after.name, type(event).__name__))

    async def hear_slowly(event: Event, after: JobRecord) -> None:
        await asyncio.sleep(1)
        hear(event, after)

    def fail(event: Event, after: JobRecord) -> None:
        raise RuntimeError("no")

    async def main() -> None:
        async with opened(tmp_path, provider) as pipeline:
            hooks = {"sync": hear, "async": hear_slowly, "bad": fail, "plain": None}
            calls = [pipeline.generate(job(name), on_event=hook) for name, hook in hooks.items()]
            assert [each.status for each in await asyncio.gather(*calls)] == ["success"] * 4
            handle = await pipeline.submit(job("handle"), on_event=hear)
            await handle.wait()
            await pipeline.generate(job("sync"), on_event=hear)  # it has ended: nothing happens
            with pytest.raises(UsageError, match="on_event"):
                await pipeline.submit(job("none"), on_event=[7])  # type: ignore[arg-type]
            heard_of = pipeline._parts().hooks
            assert heard_of._of_jobs == {}
        assert heard_of._fresh == {}

    run_virtual(main())
    steps = ["Intended", "Submitted", "Polled", "Generated", "AssetStored", "Succeeded"]
    for name in ("sync", "async", "handle"):
        assert [*dict.fromkeys(step for of, step in heard if of == name)] == steps
    assert {of for of, _ in heard} == {"sync", "async", "handle"}
