"""The suite of tests/contract/provider.py, run over every provider there is."""

from __future__ import annotations

import asyncio
import importlib
import sys
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import asyncpipe.providers
from asyncpipe import AtlasCloud, Pipeline, Polling, Rate
from asyncpipe.errors import PollFailed, PredictionGone, ProviderError, UsageError
from asyncpipe.jobs import Job, JobState
from asyncpipe.pricing import SpendingLimits
from asyncpipe.providers import Prediction, PredictionStatus, Provider, connect, key_variable
from asyncpipe.providers.atlas.prices import built_in
from asyncpipe.report import Outcome, Result
from asyncpipe.testing import NOBODYS, PIXEL, FakeProvider, Script, check_provider
from tests.contract.provider import (
    KEY,
    MODEL,
    SUBMITS,
    WORLDS,
    Kitchen,
    Place,
    Trouble,
    World,
    fal,
    job,
    scripted,
    toy,
)
from tests.support.servers import serving

PRICED = SpendingLimits(prices={MODEL: Rate(per_job=Decimal("0.04"))})
OFTEN = Polling(initial_s=0.01, factor=1.0, maximum_s=0.01)


@pytest.fixture(params=WORLDS, ids=lambda world: world.__name__)
def world(request: pytest.FixtureRequest) -> World:
    found: World = request.param
    return found


@asynccontextmanager
async def opened(world: World, trouble: Trouble, folder: Path) -> AsyncIterator[Place]:
    async with world(trouble, folder) as place, place.provider:
        yield place


def test_a_provider_does_what_the_engine_relies_on(world: World, tmp_path: Path) -> None:
    """By the check that other people's providers are tried with."""

    async def main() -> Prediction:
        async with world(Trouble.NONE, tmp_path) as place:
            return await check_provider(place.provider, job(), poll_s=0.01, within_s=20.0)

    end = asyncio.run(main())
    assert end.status is PredictionStatus.COMPLETED
    assert end.outputs


@pytest.mark.parametrize("trouble", SUBMITS, ids=lambda trouble: trouble.name)
def test_what_comes_of_a_submit_is_one_of_our_errors(
    world: World, trouble: Trouble, tmp_path: Path
) -> None:
    """Of the right kind, clean of the key; whatever happened, at most one submit was bought."""

    async def main() -> tuple[ProviderError, int]:
        async with opened(world, trouble, tmp_path) as place:
            with pytest.raises(ProviderError) as caught:
                await place.provider.submit(job())
            return caught.value, place.submits()

    error, submits = asyncio.run(main())
    assert isinstance(error, trouble.value)
    assert KEY not in "".join(traceback.format_exception(error)) + repr(error.__dict__)
    assert submits <= (trouble is Trouble.LOST)


@pytest.mark.parametrize("trouble", [Trouble.FAILED, Trouble.NOT_SAID], ids=lambda t: t.name)
def test_a_failure_says_what_became_of_its_money(
    world: World, trouble: Trouble, tmp_path: Path
) -> None:
    """True or False where it is known, None where it is not, and why it failed."""
    if trouble is Trouble.NOT_SAID and world.__name__ in ("simulated", "keyed"):
        pytest.skip("it returns the money of all that fail")

    async def main() -> Prediction:
        async with world(trouble, tmp_path) as place:
            return await check_provider(place.provider, job(), poll_s=0.01, within_s=20.0)

    end = asyncio.run(main())
    assert end.status is PredictionStatus.FAILED
    assert end.released is (True if trouble is Trouble.FAILED else None)
    assert end.error


def test_ids_of_nobody_are_not_known(world: World, tmp_path: Path) -> None:
    """Nor is anything that would reach another path."""

    async def main() -> None:
        async with opened(world, Trouble.NONE, tmp_path) as place:
            for name in (NOBODYS, "..", "a/b", "预", ""):
                with pytest.raises((PredictionGone, PollFailed)):
                    await place.provider.poll(name)

    asyncio.run(main())


def run(
    world: World, trouble: Trouble, folder: Path, jobs: list[Job], times: int = 1
) -> tuple[list[Result], Any, int]:
    """Run a batch ``times`` times into one folder; returns the last's results and totals."""

    async def main() -> tuple[list[Result], Any, int]:
        async with world(trouble, folder) as place:
            for _ in range(times):
                async with Pipeline(
                    place.provider,
                    folder / "out",
                    spending=PRICED,
                    polling=OFTEN,
                    seed=1,
                    storage={"min_free_bytes": 0, "local_files": folder},
                ) as pipeline:
                    manifest = await pipeline.batch_generate(jobs)
            return list(manifest), manifest.totals, place.submits()

    return asyncio.run(main())


def test_a_batch_goes_the_whole_way_and_is_bought_once(world: World, tmp_path: Path) -> None:
    """Files stand, and the same batch again buys nothing."""
    results, totals, submits = run(
        world, Trouble.NONE, tmp_path, [job(f"mug {n}") for n in range(3)], times=2
    )
    assert [result.state for result in results] == [JobState.SUCCEEDED] * 3
    assert (totals.successful, submits) == (3, 3)
    for result in results:
        assert (tmp_path / "out" / result.assets[0].path).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("world", "reserved"),
    # fal quotes an estimate: a quarter more is kept.
    [(scripted, 40_000), (toy, 40_000), (fal, 62_500)],
    ids=["scripted", "toy", "fal"],
)
def test_money_nobody_knows_of_stays_reserved(world: World, reserved: int, tmp_path: Path) -> None:
    results, totals, submits = run(world, Trouble.NOT_SAID, tmp_path, [job()], times=2)
    assert results[0].outcome is Outcome.UNKNOWN
    assert (totals.unknown, submits) == (1, 1)
    assert (totals.reserved_micro, totals.charged_micro) == (reserved, 0)


def test_one_that_takes_no_files_is_not_given_any(tmp_path: Path) -> None:
    """Said before anything is bought; without a price it is not bought either."""
    (tmp_path / "mug.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    with pytest.raises(UsageError, match="takes no files"):
        run(toy, Trouble.NONE, tmp_path, [job(image=str(tmp_path / "mug.png"))])


def test_nobodys_prices_hold_for_another_provider(tmp_path: Path) -> None:
    """Not even for a model of the same name; those that somebody says do."""
    known = next(iter(built_in().rates))

    async def buy(place: Place, spending: SpendingLimits) -> int:
        options: dict[str, Any] = {
            "polling": OFTEN,
            "storage": {"min_free_bytes": 0},
            "spending": spending,
        }
        async with Pipeline(place.provider, tmp_path / "out", **options) as pipeline:
            await pipeline.batch_generate([replace(job(), model=known)])
        return place.submits()

    async def main() -> None:
        async with toy(Trouble.NONE, tmp_path) as place:
            with pytest.raises(UsageError, match=f"'{known}' has no known price"):
                await buy(place, SpendingLimits())
            assert place.submits() == 0
            said = SpendingLimits(prices={known: Rate(per_job=Decimal(1))})
            assert await buy(place, said) == 1

    asyncio.run(main())


# -- a provider is a folder ---------------------------------------------------------------------


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The toy's folder, as if it stood beside Atlas Cloud's."""
    before = set(sys.modules)
    path = [*asyncpipe.providers.__path__, str(Path(__file__).parent)]
    monkeypatch.setattr(asyncpipe.providers, "__path__", path)
    importlib.invalidate_caches()
    yield
    for name in set(sys.modules) - before:
        if name.startswith("asyncpipe.providers.toy"):
            del sys.modules[name]


@pytest.mark.usefixtures("installed")
def test_a_new_provider_is_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put there, it is found by its name: key, errors and all; nothing else was changed."""
    with pytest.raises(UsageError, match="TOY_TOKEN"):
        connect("toy")
    assert key_variable("toy") == "TOY_TOKEN"
    monkeypatch.setenv("TOY_TOKEN", KEY)
    provider = connect("toy")
    assert (provider.name, provider.origin) == ("toy", "https://toy.example")

    async def main() -> Prediction:
        kitchen = Kitchen(Trouble.NONE)
        async with serving(kitchen) as kitchen.origin:
            there = connect("toy", base_url=kitchen.origin)
            return await check_provider(there, job(), poll_s=0.01, within_s=20.0)

    assert asyncio.run(main()).outputs


# -- the check itself ---------------------------------------------------------------------------


class Odd(FakeProvider):
    """Breaks one rule, that of ``change``: what poll answers is changed by it."""

    change: dict[str, Any] = {}  # noqa: RUF012

    async def poll(self, prediction_id: str, *, route: str = "") -> Prediction:
        return replace(await super().poll(prediction_id, route=route), **self.change)


def broken(**fields: Any) -> Provider:
    provider = Odd(default=Script(generation_s=0.01))
    provider.change = fields
    return provider


class Knowing(FakeProvider):
    """Takes every id for a prediction."""

    async def poll(self, prediction_id: str, *, route: str = "") -> Prediction:
        done = PredictionStatus.COMPLETED
        return Prediction(id=prediction_id, status=done, outputs=(PIXEL,))


class Nameless(FakeProvider):
    """Sells predictions without an id."""

    async def submit(self, job: Job) -> Prediction:
        return replace(await super().submit(job), id="")


class Poor(FakeProvider):
    """Tells money as a float."""

    async def balance(self) -> Any:
        return 0.1


@pytest.mark.parametrize(
    ("provider", "rule"),
    [
        (broken(outputs=("/a.png",)), "outputs are http, https or data URLs"),
        (broken(released="yes"), "released is True, False or None"),
        (broken(charged=0.04), "charged is an amount as Decimal"),
        (broken(id="another"), "a poll keeps the id it was asked for"),
        (Knowing(), "an id that is nobody's is no prediction"),
        (Nameless(), "a prediction that runs has an id"),
        (Poor(default=Script(generation_s=0.01)), "a balance is an amount as Decimal"),
        (FakeProvider(name="two words"), "its name is one word"),
        (FakeProvider(origin=""), "it says where it is"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_rule_that_is_broken_is_named(provider: Provider, rule: str) -> None:
    """Each has been seen to be found."""
    with pytest.raises(AssertionError, match=f"broken: {rule}"):
        asyncio.run(check_provider(provider, job(), poll_s=0.01, within_s=5.0))


def test_what_is_no_provider_is_named() -> None:
    half: Any = object()
    with pytest.raises(AssertionError, match="everything that a Provider has"):
        asyncio.run(check_provider(half, job()))


def test_atlas_cloud_is_a_provider() -> None:
    """To the type checker as well."""
    provider: Provider = AtlasCloud(KEY)
    assert isinstance(provider, Provider)
