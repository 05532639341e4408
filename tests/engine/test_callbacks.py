"""Deliveries: they wake the next poll, whenever they come, and are believed for nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import Pipeline, Polling
from asyncpipe.engine import callbacks as callbacks_module
from asyncpipe.engine.callbacks import KEPT_S, Callbacks
from asyncpipe.errors import PollFailed, Rejected, UsageError, WebhookKeysAway
from asyncpipe.flow import Finding, backstop_gap_s
from asyncpipe.jobs import now
from asyncpipe.providers import Prediction, PredictionStatus
from asyncpipe.testing import PIXEL, FakeProvider, Script, run_virtual
from asyncpipe.webhooks import Delivery, StandardWebhooks, Verifier, sign
from tests.support.pipelines import FLUX, job, opened
from tests.support.signed import NOW, SECRET, STANDARD, STANDARD_BODY

Call = Callable[[Pipeline], Coroutine[Any, Any, None]]


class Plain:
    """A verifier for tests: every delivery is right, and its body the prediction's id."""

    async def verify(self, headers: Any, body: bytes, now: Any = None) -> Delivery:
        if body == b"away":
            raise WebhookKeysAway("away")
        return Delivery(
            prediction_id=body.decode(), status="succeeded", payload={}, delivery_id="d", at=NOW
        )


@dataclass(kw_only=True)
class Calling(FakeProvider):
    """A provider that was told where to call back."""

    webhook_url: str | None = "https://me.example/hooks"
    verifier: Verifier = field(default_factory=Plain)


def run(
    folder: Path,
    provider: FakeProvider,
    call: Call,
    *,
    jobs: int = 1,
    **options: Any,
) -> tuple[float, Pipeline]:
    """Run jobs while ``call`` calls back; the virtual seconds it took."""

    async def main() -> tuple[float, Pipeline]:
        async with opened(folder, provider, **options) as pipeline:
            loop = asyncio.get_running_loop()
            started = loop.time()
            async with asyncio.TaskGroup() as tasks:
                calling = tasks.create_task(call(pipeline))
                manifest = await pipeline.batch_generate([job(f"mug {n}") for n in range(jobs)])
                took_s = loop.time() - started
                calling.cancel()
            assert manifest.totals.successful == jobs
            return took_s, pipeline

    return run_virtual(main())


async def nothing(pipeline: Pipeline) -> None:
    await asyncio.Event().wait()


def at(seconds: float, *bodies: bytes) -> Call:
    async def call(pipeline: Pipeline) -> None:
        await asyncio.sleep(seconds)
        for body in bodies:
            assert await pipeline.deliver({}, body) == 200
        await asyncio.Event().wait()

    return call


@pytest.mark.parametrize(
    ("last", "heard", "gap_s"),
    [
        (None, False, 60.0),
        (Finding.RUNNING, False, 60.0),
        (Finding.RUNNING, True, 5.0),
        (Finding.NOTHING, False, 5.0),
        (Finding.ENDED, False, 5.0),
        (None, True, 5.0),
    ],
)
def test_polls_are_sparse_while_a_delivery_is_expected(
    last: Finding | None, heard: bool, gap_s: float
) -> None:
    """Not once it came, and not where a poll leaves a question."""
    assert backstop_gap_s(5.0, last, backstop_s=60.0, heard=heard) == gap_s
    assert backstop_gap_s(5.0, last, backstop_s=None, heard=heard) == 5.0
    assert backstop_gap_s(90.0, last, backstop_s=60.0, heard=heard) == 90.0


def test_a_delivery_has_its_prediction_polled_at_once(tmp_path: Path) -> None:
    """One poll, at the end, and none in between."""
    provider = Calling(default=Script(generation_s=40))
    took_s, pipeline = run(tmp_path, provider, at(40, b"p1"))
    assert (provider.polls, took_s) == (1, 40)
    assert pipeline.deliveries == {"woken": 1}


def test_lost_deliveries_are_made_up_for(tmp_path: Path) -> None:
    """By sparse polls; how sparse can be set."""
    provider = Calling(default=Script(generation_s=100))
    took_s, _ = run(tmp_path / "a", provider, nothing)
    assert (provider.polls, took_s) == (2, 120)
    provider = Calling(default=Script(generation_s=100))
    took_s, _ = run(tmp_path / "b", provider, nothing, polling=Polling(backstop_s=110))
    assert (provider.polls, took_s) == (1, 110)
    with pytest.raises(UsageError, match="backstop_s"):
        Polling(backstop_s=0)


def test_who_was_told_no_url_is_polled_as_ever(tmp_path: Path) -> None:
    """Nothing is expected of it."""
    plain, calling = FakeProvider(), Calling(webhook_url=None)
    assert run(tmp_path / "a", plain, nothing)[0] == run(tmp_path / "b", calling, nothing)[0]
    assert plain.polls == calling.polls > 1


def test_a_delivery_before_the_submits_answer_is_kept(tmp_path: Path) -> None:
    """The answer comes a minute later than the end: the first poll is at once."""
    done = Prediction(id="p1", status=PredictionStatus.COMPLETED, outputs=(PIXEL,))
    provider = Calling(default=Script(polls=[done], submit_s=60))
    took_s, pipeline = run(tmp_path, provider, at(30, b"p1"))
    assert (provider.polls, took_s) == (1, 60)
    assert pipeline.deliveries == {"kept": 1}


def test_what_is_kept_is_forgotten_after_a_while_and_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ids of nobody must not fill the memory of a service."""
    monkeypatch.setattr(callbacks_module, "MOST_KEPT", 3)
    clock = 0.0
    callbacks = Callbacks(lambda: clock)

    def known(prediction_id: str) -> bool:
        with callbacks.expecting(prediction_id) as callback:
            return callback.heard

    for each in "abcd":
        assert not callbacks.hear([each])
    assert not known("a")
    assert known("b")
    assert not known("b"), "once"
    clock = KEPT_S
    assert not known("c")
    assert not callbacks._kept


def test_any_of_its_ids_will_do() -> None:
    """Gateways that try again have one of their own."""
    callbacks = Callbacks(lambda: 0.0)
    with callbacks.expecting("p1") as callback:
        assert callbacks.hear(["gateway's", "p1"])
        assert callback.heard
    assert not callbacks.hear(["gateway's", "p1"])


def test_twice_and_out_of_order_cost_polls_and_nothing_else(tmp_path: Path) -> None:
    """What was said before the end is not believed, what comes after it concerns nobody."""
    provider = Calling(default=Script(generation_s=40))

    async def call(pipeline: Pipeline) -> None:
        await asyncio.sleep(10)
        assert await pipeline.deliver({}, b"p1") == 200
        assert await pipeline.deliver({}, b"p1") == 200
        await asyncio.sleep(30)
        assert await pipeline.deliver({}, b"p1") == 200
        await asyncio.sleep(0.001)
        assert await pipeline.deliver({}, b"p1") == 200
        await asyncio.Event().wait()

    took_s, pipeline = run(tmp_path, provider, call, polling=Polling(policy="fixed", initial_s=25))
    assert took_s == 40
    assert provider.polls == 3, "at 10, by the policy after that, and at 40"
    assert pipeline.deliveries["woken"] == 3


def test_one_that_comes_while_it_is_polled_has_it_polled_once_more(tmp_path: Path) -> None:
    """The poll that is under way may have been answered before the end."""

    class Slow(Calling):
        async def poll(self, prediction_id: str, *, route: str = "") -> Prediction:
            answer = await super().poll(prediction_id, route=route)
            await asyncio.sleep(10)
            return answer

    provider = Slow(default=Script(generation_s=65))
    took_s, _ = run(tmp_path, provider, at(66, b"p1"))
    assert (provider.polls, took_s) == (2, 80), "polled at 60 and, when that was answered, at 70"


def test_a_poll_that_fails_is_made_again_soon(tmp_path: Path) -> None:
    """The delivery was not lost, the poll was: no minute is waited."""
    provider = Calling(default=Script(generation_s=40, polls=[PollFailed("no answer")]))
    took_s, _ = run(tmp_path, provider, at(40, b"p1"))
    assert provider.polls == 2
    assert took_s < 50


def test_a_delivery_of_an_unknown_prediction_is_taken_and_ignored(tmp_path: Path) -> None:
    """200: its sender need not send it again."""
    provider = Calling(default=Script(generation_s=40))
    _, pipeline = run(tmp_path, provider, at(1, b"nobody's"))
    assert pipeline.deliveries == {"kept": 1}


def test_refused_ones_are_counted_and_logged_without_what_they_say(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once a minute for each kind, however many there are."""
    caplog.set_level(logging.WARNING, "asyncpipe.webhooks")
    statuses = []

    async def call(pipeline: Pipeline) -> None:
        for n in range(50):
            body = b'{"id":"secret-%d"}' % n
            statuses.append(await pipeline.deliver({**STANDARD, "webhook-id": "wid"}, body))
            statuses.append(await pipeline.deliver({}, body))
        await asyncio.Event().wait()

    provider = Calling(default=Script(generation_s=1), verifier=StandardWebhooks(SECRET))
    _, pipeline = run(tmp_path, provider, call)
    assert set(statuses) == {400}, "it was signed in another year, or not at all"
    assert pipeline.deliveries == {"stale": 50, "malformed": 50}
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "secret" not in str(told)
    assert "wid" not in str(told)


def test_keys_that_are_away_have_it_sent_again(tmp_path: Path) -> None:
    """503, as from a pipeline that is not open."""
    statuses = []

    async def call(pipeline: Pipeline) -> None:
        statuses.append(await pipeline.deliver({}, b"away"))
        await asyncio.Event().wait()

    _, pipeline = run(tmp_path, Calling(), call)
    statuses.append(asyncio.run(pipeline.deliver({}, b"p1")))
    assert statuses == [503, 503]
    assert pipeline.deliveries == {"keys away": 1}


def test_without_a_verifier_nothing_is_taken(tmp_path: Path) -> None:
    """Whoever has a sender of his own gives its verifier."""

    async def call(pipeline: Pipeline) -> None:
        with pytest.raises(UsageError, match="give a verifier"):
            await pipeline.deliver(STANDARD, STANDARD_BODY)
        assert await pipeline.deliver({}, b"p1", verifier=Plain()) == 200
        assert pipeline.heard("p1") is True
        assert pipeline.heard("p2") is False
        await asyncio.Event().wait()

    provider = FakeProvider(default=Script(generation_s=9))
    took_s, _ = run(tmp_path, provider, lambda p: _after(1.0, call(p)))
    assert took_s >= 9


async def _after(seconds: float, call: Awaitable[None]) -> None:
    await asyncio.sleep(seconds)
    await call


@dataclass(kw_only=True)
class Pottery(Calling):
    """Another provider, which signs in its own way."""

    name: str = "pottery"
    verifier: Verifier = field(default_factory=lambda: StandardWebhooks(SECRET))


def test_every_provider_of_a_pipeline_may_call_back(tmp_path: Path) -> None:
    """Each is known by its own signature, and polled seldom if it was told where to call."""
    main = FakeProvider(default=Script(submits=[Rejected("no")]))
    other = Pottery(default=Script(generation_s=40, prediction_id="p7"))
    now_s = int(now().timestamp())

    async def call(pipeline: Pipeline) -> None:
        await asyncio.sleep(40)
        body = b'{"id":"p7","status":"succeeded"}'
        wrong = {**sign(SECRET, "m", now_s, body), "webhook-id": "n"}
        assert await pipeline.deliver(wrong, body) == 401
        assert await pipeline.deliver(sign(SECRET, "m", now_s, body), body) == 200
        await asyncio.Event().wait()

    async def run_it() -> tuple[float, Pipeline]:
        options: dict[str, Any] = {"fallback_to": [other]}
        async with opened(tmp_path, main, **options) as pipeline:
            started = asyncio.get_running_loop().time()
            async with asyncio.TaskGroup() as tasks:
                calling = tasks.create_task(call(pipeline))
                falls = job("mug", fallback=(f"pottery:{FLUX}",))
                assert (await pipeline.batch_generate([falls])).totals.successful == 1
                took_s = asyncio.get_running_loop().time() - started
                calling.cancel()
            return took_s, pipeline

    took_s, pipeline = run_virtual(run_it())
    assert (other.polls, took_s) == (1, 40)
    assert pipeline.deliveries == {"forged": 1, "woken": 1}
