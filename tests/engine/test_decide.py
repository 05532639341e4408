"""What comes of each answer: bought, refused, unknown, tried again; without a loop."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from asyncpipe.engine.decide import after_deadline, after_failure, after_submit, next_wait_s
from asyncpipe.errors import (
    BalanceExhausted,
    KeyRefused,
    NotSent,
    Overloaded,
    PollFailed,
    PredictionGone,
    ProviderError,
    RateLimited,
    Rejected,
    SubmitUnknown,
)
from asyncpipe.jobs.events import (
    Expired,
    Failed,
    Generated,
    NotBought,
    Released,
    Submitted,
    Unknown,
)
from asyncpipe.jobs.job import Job, JobType
from asyncpipe.jobs.record import Attempt, JobRecord
from asyncpipe.jobs.states import JobState
from asyncpipe.providers.base import Prediction, PredictionStatus

AT = datetime(2026, 11, 24, tzinfo=UTC)


def record(**fields: Any) -> JobRecord:
    model = fields.pop("model", "m/text-to-image")
    job = fields.pop("job", None) or Job(name="a", type=JobType.IMAGE, model=model, prompt="p")
    base: Any = {"id": 1, "key": "k" * 32, "name": "a", "job": job, "state": JobState.SUBMITTING}
    return JobRecord(**(base | fields))


@pytest.mark.parametrize(
    ("answer", "event"),
    [
        (RateLimited("429"), NotBought),
        (Overloaded("503"), NotBought),
        (NotSent("dns"), NotBought),
        (KeyRefused("401"), NotBought),
        (BalanceExhausted("402"), NotBought),
        (Rejected("400"), Failed),
        (SubmitUnknown("reset"), Unknown),
        (ProviderError("a kind nobody thought of"), Unknown),
        (Prediction(id="p"), Submitted),
        (Prediction(id="p", status=PredictionStatus.COMPLETED), Submitted),
        (Prediction(id="p", status=PredictionStatus.COMPLETED, outputs=("u",)), Generated),
        (Prediction(id="", status=PredictionStatus.COMPLETED, outputs=("u",)), Generated),
        (Prediction(id=""), Unknown),
        # A free poll has to agree before another one is bought.
        (Prediction(id="p", status=PredictionStatus.FAILED), Submitted),
        (Prediction(id="", status=PredictionStatus.FAILED), Released),
        (Prediction(id="p", status=PredictionStatus.FAILED, again=False), Failed),
        (Prediction(id="p", status=PredictionStatus.FAILED, moderated=True), Failed),
    ],
)
def test_every_answer_to_a_submit_has_one_meaning(
    answer: Prediction | ProviderError, event: type
) -> None:
    """What is not surely refused is unknown; what is unknown is never sent again."""
    assert type(after_submit(record(), answer, AT, retries=2)) is event


@pytest.mark.parametrize(
    ("failures", "fields", "event"),
    [
        (0, {}, Released),
        (1, {}, Released),
        (2, {}, Failed),
        (0, {"moderated": True}, Failed),
        (0, {"again": False}, Failed),
        (0, {"released": False}, Failed),
        (0, {"released": None}, Unknown),
        (2, {"released": None, "moderated": True}, Unknown),
        (0, {"released": None, "charged": Decimal(0)}, Released),
        (0, {"released": None, "charged": Decimal("0.1")}, Failed),
    ],
)
def test_only_a_released_failure_with_retries_left_is_bought_anew(
    failures: int, fields: dict[str, Any], event: type
) -> None:
    """Two retries: the third failure is final."""
    failed = Prediction(id="p", status=PredictionStatus.FAILED, error="x", **fields)
    outcome = after_failure(record(failures=failures), failed, AT, retries=2)
    assert type(outcome) is event
    if isinstance(outcome, Failed):
        assert outcome.charged is not failed.released
    if isinstance(outcome, Unknown):
        assert outcome.prediction_id == "p"
        assert outcome.error == "x: whether it is charged the provider does not say"


@pytest.mark.parametrize(
    ("last", "event"),
    [
        (Prediction(id="p"), Expired),
        (PollFailed("502"), Expired),
        (PredictionGone("404"), Expired),
        (Prediction(id="p", status=PredictionStatus.COMPLETED), Failed),
    ],
)
@pytest.mark.parametrize("lasting", [True, False])
def test_the_deadline_judges_by_what_lasts(
    last: Prediction | ProviderError, event: type, lasting: bool
) -> None:
    """Working, or not known: expired. Completed without outputs: failed and charged.

    Once is not enough for the latter: the next poll may find the prediction as it should be.
    """
    outcome = after_deadline(record(), last, AT, deadline_s=300.0, lasting=lasting)
    if not lasting:
        assert isinstance(outcome, Expired)
        return
    assert type(outcome) is event
    assert not isinstance(outcome, Failed) or outcome.charged


@pytest.mark.parametrize(
    ("params", "flags", "notes"),
    [
        ({}, None, {}),
        ({"num_images": 2}, None, {}),
        ({"num_images": 3}, None, {"given": 2, "asked": 3}),
        ({"n": "4"}, None, {"given": 2, "asked": 4}),
        ({"num_outputs": 5}, None, {"given": 2, "asked": 5}),
        ({"max_images": 9}, None, {}),
        ({"n": True}, None, {}),
        ({}, [False, True, False], {"given": 2, "asked": 3}),
        ({"num_images": 2}, [True], {}),
    ],
)
def test_fewer_outputs_than_asked_for_are_noted(
    params: dict[str, Any], flags: list[bool] | None, notes: dict[str, Any]
) -> None:
    """By what the job says, or by how many flags there are."""
    said = {"nsfw": flags} if flags else {}
    answer = Prediction(
        id="p", status=PredictionStatus.COMPLETED, outputs=("u", "v"), notes=dict(said)
    )
    asked = record(job=Job(model="m/text-to-image", prompt="p", params=params))
    event = after_submit(asked, answer, AT, retries=2)
    assert isinstance(event, Generated)
    assert event.notes == said | notes


def test_trouble_beside_a_word_that_is_known_is_told_at_the_deadline() -> None:
    """It is waited for all the same."""
    last = Prediction(id="p", said="queued", error="no worker")
    outcome = after_deadline(record(), last, AT, deadline_s=300.0, lasting=False)
    assert isinstance(outcome, Expired)
    assert "'queued'" in outcome.error
    assert "no worker" in outcome.error


@pytest.mark.parametrize(
    ("days", "lasting", "event"),
    [(13.9, True, Expired), (14.1, True, Unknown), (14.1, False, Expired), (400, True, Unknown)],
)
def test_what_is_not_known_after_the_retention_is_unknown(
    days: float, lasting: bool, event: type
) -> None:
    """Counted from the submit; until then it may be another account that does not know it."""
    attempt = Attempt(n=1, prediction_id="p", submitted_at=AT - timedelta(days=days))
    gone = PredictionGone("404")
    old = record(attempt=attempt)
    assert type(after_deadline(old, gone, AT, deadline_s=3.0, lasting=lasting)) is event


def test_a_poll_waits_as_long_as_the_provider_asks() -> None:
    """Retry-After stretches a gap and never shortens it."""
    assert next_wait_s(5.0, PollFailed("429", retry_after_s=20.0)) == 20.0
    assert next_wait_s(30.0, PollFailed("429", retry_after_s=20.0)) == 30.0
    assert next_wait_s(5.0, Prediction(id="p")) == 5.0
