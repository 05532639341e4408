"""A slip in a provider's code, or in a hook, is one job's affair: the others go on."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import Job, Outcome, Pipeline, Result
from asyncpipe.errors import ProviderError, RateLimited, Rejected, UsageError
from asyncpipe.providers import Listed, Prediction, PredictionStatus, prediction_of
from asyncpipe.providers.answers import MENDS
from asyncpipe.testing import PIXEL, FakeProvider, Script, run_virtual
from tests.support.pipelines import FLUX, counts_agree, job, opened

FAILED, DONE = PredictionStatus.FAILED, PredictionStatus.COMPLETED

Slip = Callable[[str], Any]
"""From a prediction's id to what is returned, or raised, in place of the truth."""


def pred(**said: Any) -> Slip:
    return lambda prediction_id: Prediction(**{"id": prediction_id, **said})


def done(**said: Any) -> Slip:
    return pred(**{"status": DONE, "outputs": (PIXEL,), **said})


def failed(**said: Any) -> Slip:
    return pred(status=FAILED, **said)


class Unprintable(Exception):
    def __repr__(self) -> str:
        raise ZeroDivisionError

    __str__ = __repr__


NAN = float("nan")

NONSENSE: Mapping[str, Slip] = {
    "none": lambda _: None,
    "dict": lambda prediction_id: {"id": prediction_id},
    "unprintable": lambda _: Unprintable(),
    "cancelled": lambda _: asyncio.CancelledError(),
    "group": lambda _: ExceptionGroup("two", [ValueError()]),
}
"""Nobody knows what happened."""

MENDED: Mapping[str, Slip] = {
    "status as text": done(status="completed"),
    "an unknown word": done(status="weird"),
    "no status": done(status=None),
    "a list": done(outputs=[PIXEL]),
    "one text": done(outputs=PIXEL),
    "below nothing": done(charged=Decimal(-1)),
    "no number": done(charged=Decimal("NaN")),
    "endless": done(charged=Decimal("Infinity")),
    "a float": done(charged=0.05),
    "a set": done(notes={"x": {1}}),
    "no notes": done(notes=None),
    "a wrong note": done(notes={"nsfw": 3, "extras": "two"}),
    "half a letter": done(request_id="\ud800", said="\0"),
    "an object": done(request_id=object()),
    "extras": done(extras=[3]),
}
"""The picture is there, and is taken."""

NO_OUTPUT: Mapping[str, Slip] = {
    "bytes": done(outputs=[b"x"]),
    "numbers": done(outputs=(1, 2)),
    "an object": done(outputs=object()),
    "none": done(outputs=None),
}

FAILURES: Mapping[str, tuple[Slip, Outcome]] = {
    "an exception": (failed(error=ValueError("x"), released=False), Outcome.FAILED_CHARGED),
    "half a letter": (failed(error="\ud800", released=False), Outcome.FAILED_CHARGED),
    "a long code": (failed(error_code=10**30, released=False), Outcome.FAILED_CHARGED),
    "no number": (failed(charged=Decimal("NaN"), released=True), Outcome.UNKNOWN),
    "below nothing": (failed(charged=Decimal(-1), released=True), Outcome.UNKNOWN),
    "a word": (failed(released="yes"), Outcome.UNKNOWN),
}


class Slipping(FakeProvider):
    """Says nonsense of jobs by their name: of their submits, or of all their polls."""

    submit_slips: Mapping[str, Slip]
    poll_slips: Mapping[str, Slip]
    names: dict[str, str]

    async def submit(self, job: Job) -> Prediction:
        bought = await super().submit(job)
        assert job.name is not None
        self.names[bought.id] = job.name
        return said(self.submit_slips.get(job.name), bought)

    async def poll(self, prediction_id: str, *, route: str = "") -> Prediction:
        true = await super().poll(prediction_id, route=route)
        return said(self.poll_slips.get(self.names[prediction_id]), true)


def said(slip: Slip | None, true: Prediction) -> Prediction:
    if slip is None:
        return true
    told = slip(true.id)
    if isinstance(told, BaseException):
        raise told
    return told  # type: ignore[no-any-return]


def run(
    folder: Path, *, submits: Mapping[str, Slip] | None = None, polls: Mapping[str, Slip] | None
) -> tuple[dict[str, Result], list[str]]:
    provider = Slipping()
    provider.submit_slips, provider.poll_slips, provider.names = submits or {}, polls or {}, {}
    names = [*provider.submit_slips, *provider.poll_slips, "good"]
    remarks: list[str] = []

    async def main() -> dict[str, Result]:
        async with opened(folder, provider, on_remark=remarks.append, search_s=1.0) as pipeline:
            manifest = await pipeline.batch_generate([job(n, deadline_s=90.0) for n in names])
            later = await pipeline.generate(job("later"))
            assert later.outcome is Outcome.SUCCEEDED
            await counts_agree(pipeline)
            return {result.name: result for result in manifest}

    results = run_virtual(main())
    assert provider.submits == len(names) + 1
    assert results["good"].outcome is Outcome.SUCCEEDED
    return results, remarks


def test_a_submit_that_returns_nonsense_may_have_bought(tmp_path: Path) -> None:
    """It is a lost submit: unknown, its money reserved, never sent again by itself."""
    results, _ = run(tmp_path, submits=NONSENSE, polls=None)
    found = {name: results[name] for name in NONSENSE}
    assert {each.outcome for each in found.values()} == {Outcome.UNKNOWN}
    assert "returned None, which is no Prediction: it may have been bought" in str(
        found["none"].error
    )
    assert all(each.reserved for each in found.values())


def test_a_poll_that_returns_nonsense_is_a_failed_poll(tmp_path: Path) -> None:
    """What was bought is kept, and asked for again by the next run."""
    results, _ = run(tmp_path, polls=NONSENSE)
    assert {results[name].state.value for name in NONSENSE} == {"expired"}
    assert "returned None, which is no Prediction" in str(results["none"].error)


def test_what_is_delivered_in_a_wrong_form_is_taken(tmp_path: Path) -> None:
    """Submit and poll alike: the picture is there; what cannot be kept is left, and told once."""
    for n, where in enumerate(("submits", "polls")):
        results, remarks = run(tmp_path / str(n), **{"polls": None, where: MENDED})
        assert {name: results[name].error for name in MENDED} == dict.fromkeys(MENDED)
        assert {results[name].outcome for name in MENDED} == {Outcome.SUCCEEDED}
        assert results["a float"].cost == Decimal("0.05")
        assert len([each for each in remarks if "charged=" in each]) == 1
        assert "request_id=" in str(remarks)
        assert "outputs=" not in str(remarks)


def test_an_output_that_cannot_be_read_is_paid_for(tmp_path: Path) -> None:
    """It is no success, and no free failure."""
    results, _ = run(tmp_path, polls=NO_OUTPUT)
    assert {results[name].outcome for name in NO_OUTPUT} == {Outcome.FAILED_CHARGED}
    assert "an output that cannot be read: [b'x']" in str(results["bytes"].error)


def test_a_failure_in_a_wrong_form_is_a_failure(tmp_path: Path) -> None:
    """Where its cost is no amount, nobody knows whether it is charged: not released."""
    slips = {name: slip for name, (slip, _) in FAILURES.items()}
    for n, where in enumerate(("submits", "polls")):
        results, _ = run(tmp_path / str(n), **{"polls": None, where: slips})
        for name, (_, outcome) in FAILURES.items():
            assert results[name].outcome is outcome, (where, name, results[name])


@pytest.mark.parametrize("wish", ["3", NAN, float("inf"), -5.0, object()])
def test_a_wish_to_wait_that_is_none_is_left(tmp_path: Path, wish: Any) -> None:
    """Nor does what comes with an error harm the ledger."""
    limited = RateLimited("\ud800", request_id=wish, retry_after_s=wish)
    provider = FakeProvider(default=Script(submits=[limited]))

    async def main() -> Outcome:
        async with opened(tmp_path, provider) as pipeline:
            return (await pipeline.generate(job("a"))).outcome

    assert run_virtual(main()) is Outcome.SUCCEEDED


def test_every_field_is_looked_at() -> None:
    """A sound prediction is passed on as it is; whoever adds a field says what it may be."""
    assert MENDS.keys() == {each.name for each in fields(Prediction)}
    sound = Prediction(id="p", status=DONE, outputs=(PIXEL,), notes={"nsfw": (True,)})
    heard = prediction_of(sound, of="poll")
    assert (heard.prediction is sound, heard.faults) == (True, {})


def test_outputs_beside_one_that_cannot_be_read_are_kept() -> None:
    """Nothing that is paid for is left for a neighbour's sake."""
    heard = prediction_of(done(outputs=[PIXEL, b"x"])("p"), of="poll")
    assert heard.prediction.outputs == (PIXEL,)
    assert heard.prediction.notes == {"raw": "[b'x']"}


class Listing(FakeProvider):
    """Its history, its bodies, its routes and its uploads are nonsense."""

    pages: Sequence[Any] = ()
    body: Any = None
    route: Any = None
    uploaded: Any = None
    selling: int = 0

    async def submit(self, job: Job) -> Prediction:
        self.selling += 1
        try:
            return await super().submit(job)
        finally:
            self.selling -= 1

    async def history(
        self, since: datetime, until: datetime, *, models: Collection[str] = ()
    ) -> AsyncIterator[Sequence[Listed]]:
        await asyncio.sleep(0)
        for page in self.pages:
            yield page

    def body_of(self, job: Job) -> Mapping[str, Any]:
        if self.selling:
            return super().body_of(job)
        if isinstance(self.body, Exception):
            raise self.body
        return self.body  # type: ignore[no-any-return]

    def route_of(self, job: Job) -> str:
        return self.route  # type: ignore[no-any-return]

    async def upload(self, path: Path) -> str:
        return self.uploaded  # type: ignore[no-any-return]


NAIVE = Listed(id="p", created=datetime(2026, 1, 1), model=FLUX, body={})  # noqa: DTZ001


@pytest.mark.parametrize("page", [None, [None], [NAIVE], "page", {"id": "p"}])
@pytest.mark.parametrize("body", [None, {"x": {1}}, 3, ValueError("no body")])
def test_a_history_of_nonsense_proves_nothing(tmp_path: Path, page: Any, body: Any) -> None:
    """The lost submit stays unknown, and the others are delivered."""
    provider = Listing(scripts={"lost": Script(lost=1)})
    provider.pages, provider.body = [page], body

    async def main() -> list[Outcome]:
        async with opened(tmp_path, provider, search_s=1.0) as pipeline:
            manifest = await pipeline.batch_generate([job("lost"), job("good")])
            return [result.outcome for result in manifest]

    assert run_virtual(main()) == [Outcome.UNKNOWN, Outcome.SUCCEEDED]


def test_a_body_of_nonsense_finds_nothing(tmp_path: Path) -> None:
    """Where the list itself is sound."""
    provider = Listing(scripts={"lost": Script(lost=1)}, shows_history=True)
    provider.body = ValueError("no body")

    async def main() -> Outcome:
        async with opened(tmp_path, provider, search_s=1.0) as pipeline:
            return (await pipeline.generate(job("lost"))).outcome

    assert run_virtual(main()) is Outcome.UNKNOWN


@pytest.mark.parametrize("url", [None, b"x", "", "\ud800", 5])
def test_an_upload_that_returns_no_url_buys_nothing(tmp_path: Path, url: Any) -> None:
    """It is that job's own failure."""
    picture = tmp_path / "a.png"
    picture.write_bytes(b64decode(PIXEL.partition(",")[2]))
    provider = Listing()
    provider.uploaded = url
    bad = Job(name="bad", model=FLUX, prompt="x", params={"image": str(picture)})

    async def main() -> list[Result]:
        async with opened(tmp_path / "out", provider, local_files=str(tmp_path)) as pipeline:
            return list(await pipeline.batch_generate([bad, job("good")]))

    results = run_virtual(main())
    assert [each.outcome for each in results] == [Outcome.FAILED_NOT_CHARGED, Outcome.SUCCEEDED]
    assert "which is no URL" in str(results[0].error)
    assert provider.sold == ["good"]


def test_hooks_that_raise_harm_nobody(tmp_path: Path) -> None:
    """Neither ``on_remark`` nor ``on_event``."""

    def angry(*said: Any) -> None:
        raise RuntimeError(said)

    provider = FakeProvider(default=Script(polls=[Prediction(id="p1", notes={"status": "weird"})]))

    async def main() -> Outcome:
        options: dict[str, Any] = {"on_remark": angry, "on_event": angry}
        async with opened(tmp_path, provider, **options) as pipeline:
            return (await pipeline.generate(job("a"))).outcome

    assert run_virtual(main()) is Outcome.SUCCEEDED


def test_groups_may_be_mappings(tmp_path: Path) -> None:
    """Taken as meant, before anything is bought."""
    pipeline = Pipeline(
        FakeProvider(),
        tmp_path,
        deadlines={"image": 3},
        polling={"policy": "fixed"},
        spending={"max_cost": Decimal(1)},
        limits={"downloads": 2},
    )
    assert pipeline._settings.deadlines.image == 3
    assert pipeline._settings.polling.policy == "fixed"
    assert pipeline._settings.spending.max_cost == 1
    assert pipeline._settings.limits.downloads == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"deadlines": {"imgae": 3}}, "deadlines: unknown key 'imgae': image, video, audio"),
        ({"deadlines": {"image": "3"}}, "deadline_s.image: '3' must be a number"),
        ({"deadlines": 300}, "deadlines: 300 must be Deadlines, or a mapping"),
        ({"polling": "fixed"}, "polling: 'fixed' must be Polling, or a mapping"),
        ({"limits": 3}, "limits: 3 must be Limits"),
        ({"limits": {"models": 3}}, "limits.models: 3 must map models to numbers"),
        ({"spending": 5}, "spending: 5 must be SpendingLimits"),
        ({"spending": {"max_cost": 5.0}}, "max_cost: 5.0 must be an amount"),
        ({"max_workers": "8"}, "max_workers: '8' must be a whole number"),
        ({"recovery": {"retries": -1}}, "retries: -1 must be a whole number"),
        ({"storage": {"min_free_bytes": None}}, "min_free_bytes: None must be a whole number"),
        ({"recovery": {"patience_s": NAN}}, "patience_s: nan must be a number"),
        ({"recovery": {"search_s": None}}, "search_s: None must be a number"),
        ({"ledger": {"lease_s": 0}}, "lease_s: 0 must be a number, greater than 0"),
        ({"on_event": ["print"]}, "on_event: 'print' cannot be called"),
        ({"on_remark": None}, "on_remark: None must be a function"),
        ({"output_dir": None}, "None is no folder"),
        ({"output_dir": b"out"}, "b'out' is no folder"),
        ({"provider": None}, "provider: a NoneType has no name"),
        ({"provider": FakeProvider}, "provider: FakeProvider is a class: make one of it"),
    ],
)
def test_an_option_that_is_wrong_is_named_at_once(
    tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    """UsageError from the constructor, before anything is opened or bought."""
    with pytest.raises(UsageError) as caught:
        Pipeline(**{"provider": FakeProvider(), "output_dir": tmp_path / "out", **options})
    assert says in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_what_is_raised_can_be_kept() -> None:
    """An error of a provider takes no value that a ledger does not."""
    error = Rejected(ValueError("x"), request_id=5)  # type: ignore[arg-type]
    assert (str(error), error.request_id) == ("x", "5")
    assert str(ProviderError("\ud800\0")) == "?\ufffd"
    assert RateLimited("x", retry_after_s=10.0**9).retry_after_s == 86_400.0
