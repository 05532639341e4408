"""Where a provider takes keys a lost submit is sent again with its own, and buys once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from asyncpipe.engine.again import bought_with_key, is_known_still, is_lost
from asyncpipe.errors import (
    KeyRefused,
    NotSent,
    PollFailed,
    ProviderError,
    RateLimited,
    Rejected,
    SubmitUnknown,
)
from asyncpipe.jobs import Attempt, Event, JobRecord, Sent, now
from asyncpipe.providers import HasKeys, Prediction, PredictionStatus
from asyncpipe.testing import FakeProvider, Script, run_virtual
from tests.support.batches import collect, jobs, run_counted
from tests.support.keyed import Keyed
from tests.support.pipelines import clock_restarts, opened

LOST = Script(lost=1)
NOT_ARRIVED = Script(submits=[SubmitUnknown("reset")])
RESET = SubmitUnknown("reset", status=502, request_id="r1")


def run(folder: Path, provider: FakeProvider, count: int = 3, **options: Any) -> Any:
    return run_counted(folder, provider, jobs(count), **options)[0].totals


def test_keys_are_asked_for() -> None:
    assert isinstance(Keyed(), HasKeys)
    assert not isinstance(FakeProvider(), HasKeys)


@pytest.mark.parametrize("script", [LOST, NOT_ARRIVED])
def test_a_lost_submit_is_sent_again_with_its_key(tmp_path: Path, script: Script) -> None:
    """Whether it had arrived or not: bought once, and never unknown, not even for a moment."""
    provider = Keyed(scripts={"杯子 1": script})
    seen: list[str] = []

    def hook(event: Event, record: JobRecord) -> None:
        if record.name == "杯子 1":
            seen.append(type(event).__name__)

    totals = run(tmp_path, provider, on_event=hook)
    assert (totals.successful, totals.reserved_micro, len(provider.sold)) == (3, 0, 3)
    assert "Unknown" not in seen
    by_key = [key for key, _ in provider.keys]
    assert len(by_key) == 4
    assert len(set(by_key)) == 3


def test_every_attempt_has_a_key_of_its_own(tmp_path: Path) -> None:
    """One that was refused bought nothing with its key, and one that failed is another purchase."""
    failing = Script(submits=[RateLimited("429")], end=PredictionStatus.FAILED)
    provider = Keyed(default=failing)
    run(tmp_path, provider, 1, retries=2)
    keys = [key for key, _ in provider.keys]
    assert len(provider.sold) == 3
    assert len(set(keys)) == len(keys) == 4


def test_one_that_is_never_answered_stays_unknown_until_a_later_run(tmp_path: Path) -> None:
    """Then it is asked for by the key that the ledger has; collect buys nothing and asks nobody."""
    provider = Keyed(scripts={"杯子 1": LOST}, replays=[RESET] * 9)
    totals = run(tmp_path, provider)
    assert (totals.unknown, totals.reserved_micro, len(provider.sold)) == (1, 40_000, 3)
    asked, provider.replays = len(provider.keys), []
    clock_restarts(provider)
    assert collect(tmp_path, provider).totals.unknown == 1
    assert len(provider.keys) == asked
    totals = run(tmp_path, provider)
    assert (totals.successful, totals.unknown, totals.reserved_micro) == (3, 0, 0)
    assert (len(provider.sold), len(provider.keys)) == (3, asked + 1)


@pytest.mark.parametrize("arrived", [True, False])
def test_a_killed_submit_is_asked_for_by_its_key(tmp_path: Path, arrived: bool) -> None:
    """The intent holds the key before anything is sent."""
    provider = Keyed(default=Script(submit_s=30.0))

    class Killed(BaseException):
        pass

    async def die() -> None:
        async with opened(tmp_path, provider) as pipeline:
            submit = provider.submit

            async def cut(job: Any, *, key: str | None = None) -> Prediction:
                if arrived:
                    await submit(job, key=key)
                else:
                    provider.keys.append((key or "", job.body))
                pipeline._parts().ledger.append = lambda record, held=False: None  # type: ignore[misc, method-assign]
                raise RESET

            provider.submit = cut  # type: ignore[method-assign]
            await pipeline.batch_generate(jobs(1))

    run_virtual(die())
    del provider.submit
    key = provider.keys[0][0]
    clock_restarts(provider)
    totals = run(tmp_path, provider, 1)
    assert (totals.successful, totals.unknown, len(provider.sold)) == (1, 0, 1)
    assert {each for each, _ in provider.keys} == {key}


def test_an_old_key_is_not_used_any_more(tmp_path: Path) -> None:
    """The provider may have forgotten it, and would buy another one."""
    provider = Keyed(scripts={"杯子 0": LOST}, key_ttl_s=0.0)
    totals = run(tmp_path, provider, 1)
    assert (totals.unknown, len(provider.keys)) == (1, 1)


def test_hold_leaves_it(tmp_path: Path) -> None:
    provider = Keyed(scripts={"杯子 0": LOST})
    assert run(tmp_path, provider, 1, ambiguous="hold").unknown == 1
    assert run(tmp_path, provider, 1, ambiguous="hold").unknown == 1
    assert len(provider.keys) == 1


def test_a_service_asks_again_by_and_by(tmp_path: Path) -> None:
    """Its caller was told that nobody knows; the money is not reserved for ever."""
    provider = Keyed(scripts={"杯子 0": LOST}, replays=[RESET] * 9)

    async def main() -> tuple[Any, Any]:
        async with opened(tmp_path, provider) as pipeline:
            first = await pipeline.generate(jobs(1)[0])
            await asyncio.sleep(3600)
            return first.state, (await pipeline.generate(jobs(1)[0])).state

    assert run_virtual(main()) == ("unknown", "succeeded")
    assert len(provider.sold) == 1


@pytest.mark.parametrize("refusal", [Rejected("422"), KeyRefused("401")])
def test_what_is_refused_the_second_time_proves_nothing(
    tmp_path: Path, refusal: ProviderError
) -> None:
    """The first may have been taken: nothing is released, and nothing is bought elsewhere."""
    provider = Keyed(scripts={"杯子 0": LOST}, replays=[refusal])
    totals = run(tmp_path, provider, 1)
    assert (totals.unknown, totals.reserved_micro, len(provider.keys)) == (1, 40_000, 2)


# -- pure ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age_s", "ttl_s", "known"),
    [
        (0.0, None, True),
        (10.0**9, None, True),
        (0.0, 86_400.0, True),
        (86_000.0, 86_400.0, True),
        (86_101.0, 86_400.0, False),  # it might arrive when the key is forgotten
        (4.0, 10.0, True),
        (5.0, 10.0, False),
        (-1.0, 86_400.0, False),  # a clock was set back
    ],
)
def test_a_key_is_known_for_a_while(age_s: float, ttl_s: float | None, known: bool) -> None:
    at = now()
    attempt = Attempt(n=1, sent=Sent(key="k"), intended_at=at - timedelta(seconds=age_s))
    assert is_known_still(attempt, ttl_s, at) is known


def test_without_a_key_there_is_nothing_to_send_again() -> None:
    assert not is_known_still(Attempt(n=1, intended_at=now()), None, now())


@pytest.mark.parametrize(
    ("answer", "lost"),
    [
        (RESET, True),
        (PollFailed("a provider's slip"), True),
        (Prediction(id=""), True),
        (Prediction(id="p1"), False),
        (Prediction(id="", status=PredictionStatus.FAILED), False),
        (NotSent("no way"), False),
        (Rejected("no"), False),
        (KeyRefused("no"), False),
    ],
)
def test_an_answer_is_lost_that_leaves_open_what_was_bought(
    answer: Prediction | ProviderError, lost: bool
) -> None:
    assert is_lost(answer) is lost


def ask(answers: list[Any], *, at_once: bool = False, mays: int = 99) -> tuple[Any, int, float]:
    """What comes of it, how often it was sent, and how long that took."""
    left, sent = [mays], [0]

    def may() -> bool:
        left[0] -= 1
        return left[0] >= 0

    async def send() -> Any:
        sent[0] += 1
        return answers.pop(0)

    async def main() -> tuple[Any, float]:
        answer = await bought_with_key(send, RESET, may=may, rng=Random(1), at_once=at_once)
        return answer, asyncio.get_running_loop().time()

    answer, took_s = run_virtual(main())
    return answer, sent[0], took_s


def test_it_is_sent_until_it_is_told() -> None:
    """Through whatever passes, and with pauses."""
    bought = Prediction(id="p1")
    waits = [RateLimited("429", retry_after_s=5.0), NotSent("no way"), Prediction(id=""), bought]
    answer, sent, took_s = ask([*waits])
    assert (answer, sent) == (bought, 4)
    assert 5.0 < took_s < 20.0
    assert ask([bought], at_once=True) == (bought, 1, 0.0)


def test_it_is_not_sent_for_ever() -> None:
    answer, sent, took_s = ask([RESET] * 9)
    assert isinstance(answer, SubmitUnknown)
    assert (sent, answer.status, answer.request_id) == (4, 502, "r1")
    assert took_s < 16.0


def test_it_is_not_sent_when_it_may_not_be() -> None:
    """Not after a pause, either."""
    assert ask([RESET], mays=0)[1] == ask([RESET], mays=1)[1] == 0


def test_what_was_answered_last_is_said() -> None:
    answer, sent, _ = ask([Rejected("bound to another body")])
    assert sent == 1
    assert str(answer) == "reset; sent again with its key: bound to another body"
