"""Files that were moved away, and media that the provider dropped: known, said, and no failure."""

from __future__ import annotations

import shutil
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from aiohttp import web

from asyncpipe import JobState, Pipeline, read_manifest
from asyncpipe.cli.session import Exit, of_run, of_verify
from asyncpipe.engine.verify import Verified, verify
from asyncpipe.report import summary
from asyncpipe.report.status import read_status, status_lines
from asyncpipe.testing import FakeProvider, Script, run_virtual
from tests.support.media import PNG
from tests.support.pipelines import counts_agree, job, opened
from tests.support.servers import serving


class Shop:
    """A provider whose pictures lie at a media host; ``asked`` are the paths asked of that."""

    def __init__(self, outputs: int = 1) -> None:
        self.status, self.asked = 200, list[str]()
        self.body = PNG
        self._outputs, self._exit = outputs, AsyncExitStack()

    async def __aenter__(self) -> Shop:
        self.origin = await self._exit.enter_async_context(serving(self.answer))
        urls = tuple(f"{self.origin}/{n}.png" for n in range(self._outputs))
        self.provider = FakeProvider(default=Script(outputs=urls), origin=self.origin)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._exit.aclose()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request.path)
        return web.Response(status=self.status, body=self.body, content_type="image/png")


async def run(folder: Path, shop: Shop, *names: str, **options: Any) -> Pipeline:
    async with opened(folder, shop.provider, **options) as pipeline:
        await pipeline.batch_generate([job(name) for name in names])
        await counts_agree(pipeline)
    return pipeline


async def collect(folder: Path, shop: Shop, *, lost: bool = False) -> None:
    async with opened(folder, shop.provider) as pipeline:
        await pipeline.collect(lost=lost)
        await counts_agree(pipeline)


async def verified(folder: Path, shop: Shop) -> tuple[Verified, int]:
    """What ``asyncpipe verify`` does, and its exit code."""
    found = await verify(folder)
    totals = read_manifest(folder).totals
    if found.bad_count or totals.jobs[JobState.GENERATED]:
        await collect(folder, shop)
        totals = read_manifest(folder).totals
    return found, of_verify(of_run(totals, stopped=None), totals)


def states(folder: Path) -> dict[str, JobState]:
    return {result.name: result.state for result in read_manifest(folder)}


def test_pictures_moved_away_are_missing_and_back_when_they_are_back(tmp_path: Path) -> None:
    """A run with one job more ends well; nothing is asked for again by the runs after it."""
    folder, away = tmp_path / "out", tmp_path / "archive"

    async def main() -> None:
        async with Shop() as shop:
            await run(folder, shop, "杯", "a mug")
            shutil.move(folder / "images", away)
            shop.status = 404
            first = await run(folder, shop, "杯", "a mug")
            assert (first.totals.missing, first.totals.successful) == (2, 0)
            assert (first.totals.failed, first.totals.pending) == (0, 0)
            assert of_run(first.totals, stopped=first.stopped) is Exit.OK
            shop.status, asked = 200, len(shop.asked)
            again = await run(folder, shop, "杯", "a mug", "茶")
            assert (again.totals.missing, again.totals.successful) == (2, 1)
            assert len(shop.asked) == asked + 1
            told = {r.name: (r.status, r.error, r.assets) for r in read_manifest(folder)}
            assert (told["杯"][0], told["杯"][2]) == ("missing", ())
            assert "images/杯.png is missing" in str(told["杯"][1])
            lines = summary(
                again.totals, elapsed_s=1, manifest="out/manifest.json", simulated=False
            )
            assert sum("missing" in line for line in lines) == 2  # counted, and what to do
            assert "2 missing" in " ".join(status_lines(read_status(folder)))
            for path in away.iterdir():
                shutil.copy(path, folder / "images")
            back = await run(folder, shop, "杯", "a mug", "茶")
            assert (back.totals.successful, back.totals.missing) == (3, 0)
            assert (len(shop.asked), back.totals.assets) == (asked + 1, 3)
            assert len(shop.provider.sold) == 3

    run_virtual(main())


def test_another_file_of_the_same_size_is_not_what_was_missing(tmp_path: Path) -> None:
    """Only the bytes that were bought are; what stands in their place is left alone."""

    async def main() -> None:
        async with Shop() as shop:
            await run(tmp_path, shop, "杯")
            path = tmp_path / "images" / "杯.png"
            path.unlink()
            shop.status = 410
            await run(tmp_path, shop, "杯")
            path.write_bytes(bytes(len(PNG)))
            await run(tmp_path, shop, "杯")
            assert states(tmp_path) == {"杯": JobState.MISSING}
            assert path.read_bytes() == bytes(len(PNG))

    run_virtual(main())


@pytest.mark.parametrize("back", [0, 1])
def test_one_of_two_files_that_is_missing_keeps_the_other(tmp_path: Path, back: int) -> None:
    """The one that stands is neither fetched nor forgotten; both are needed for success."""

    async def main() -> None:
        async with Shop(outputs=2) as shop:
            await run(tmp_path, shop, "杯")
            files = [tmp_path / "images" / f"杯_{n}.png" for n in (1, 2)]
            files[back].unlink()
            shop.status = 403
            await run(tmp_path, shop, "杯")
            (result,) = read_manifest(tmp_path)
            assert (result.state, len(result.assets)) == (JobState.MISSING, 1)
            files[1 - back].unlink()  # the other one, too
            files[back].write_bytes(PNG)
            await run(tmp_path, shop, "杯")
            assert states(tmp_path) == {"杯": JobState.MISSING}
            files[1 - back].write_bytes(PNG)
            await run(tmp_path, shop, "杯")
            assert states(tmp_path) == {"杯": JobState.SUCCEEDED}

    run_virtual(main())


def test_missing_files_are_left_alone_where_that_is_wanted(tmp_path: Path) -> None:
    """Neither looked for nor fetched: the job has succeeded."""

    async def main() -> None:
        async with Shop() as shop:
            await run(tmp_path, shop, "杯")
            (tmp_path / "images" / "杯.png").unlink()
            asked = len(shop.asked)
            await run(tmp_path, shop, "杯", fetch_missing=False)
            async with opened(tmp_path, shop.provider, fetch_missing=False) as pipeline:
                assert (await pipeline.generate(job("杯"))).state is JobState.SUCCEEDED
            assert len(shop.asked) == asked
            await run(tmp_path, shop, "杯")
            assert len(shop.asked) == asked + 1

    run_virtual(main())


def test_verify_says_every_time_that_a_file_is_missing(tmp_path: Path) -> None:
    """Until it is back: then it says that all stands, whoever brought it."""

    async def main() -> None:
        async with Shop() as shop:
            await run(tmp_path, shop, "杯", "a mug")
            assert (await verified(tmp_path, shop))[1] == 0
            path = tmp_path / "images" / "杯.png"
            path.unlink()
            shop.status = 404
            for _ in range(3):
                found, code = await verified(tmp_path, shop)
                assert ([bad.asset.path for bad in found.bad], code) == (["images/杯.png"], 1)
            shop.status = 200
            assert (await verified(tmp_path, shop))[1] == 0
            assert path.read_bytes() == PNG
            path.write_bytes(b"edited")
            shop.status = 404
            assert (await verified(tmp_path, shop))[1] == 1
            path.write_bytes(PNG)
            found, code = await verified(tmp_path, shop)
            assert (found.bad_count, code) == (0, 0)
            assert path.with_name("杯.png.changed").read_bytes() == b"edited"

    run_virtual(main())


def test_verify_does_not_call_well_what_was_not_repaired_yet(tmp_path: Path) -> None:
    """A media host that fails leaves the repair open: 75 each time, and the file is named."""

    async def main() -> None:
        async with Shop(outputs=2) as shop:
            await run(tmp_path, shop, "杯")
            (tmp_path / "images" / "杯_2.png").unlink()
            shop.status = 500
            for _ in range(2):
                found, code = await verified(tmp_path, shop)
                assert ([bad.asset.path for bad in found.bad], code) == (["images/杯_2.png"], 75)
            (tmp_path / "images" / "杯_1.png").unlink()
            assert (await verified(tmp_path, shop))[0].bad_count == 2
            shop.status = 200
            assert (await verified(tmp_path, shop))[1] == 0
            assert len([*(tmp_path / "images").iterdir()]) == 2

    run_virtual(main())


def test_lost_media_are_tried_once_more_by_those_who_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found at a new URL, or the old one; what is not found is lost as before."""
    monkeypatch.setattr("asyncpipe.engine.engine.retention_of", lambda _: -1.0)

    async def main() -> None:
        async with Shop() as shop:
            shop.status = 404
            await run(tmp_path, shop, "杯", "a mug")
            assert set(states(tmp_path).values()) == {JobState.LOST}
            assert (await verified(tmp_path, shop))[1] == 1
            await collect(tmp_path, shop, lost=True)
            assert set(states(tmp_path).values()) == {JobState.LOST}
            shop.status = 200
            await collect(tmp_path, shop)
            assert set(states(tmp_path).values()) == {JobState.LOST}
            await collect(tmp_path, shop, lost=True)
            assert set(states(tmp_path).values()) == {JobState.SUCCEEDED}
            assert len(shop.provider.sold) == 2

    run_virtual(main())


@pytest.mark.parametrize("asking", ["verify", "collect --lost"])
def test_media_that_are_missing_are_asked_for_by_those_who_say_so(
    tmp_path: Path, asking: str
) -> None:
    """A run and a plain collect look for the files alone; these two ask the media host, too."""

    async def main() -> None:
        async with Shop() as shop:
            await run(tmp_path, shop, "杯")
            (tmp_path / "images" / "杯.png").unlink()
            shop.status = 404
            await run(tmp_path, shop, "杯")
            assert states(tmp_path) == {"杯": JobState.MISSING}
            shop.status, asked = 200, len(shop.asked)
            await run(tmp_path, shop, "杯")
            await collect(tmp_path, shop)
            assert (states(tmp_path), len(shop.asked)) == ({"杯": JobState.MISSING}, asked)
            if asking == "verify":
                await verified(tmp_path, shop)
            else:
                await collect(tmp_path, shop, lost=True)
            assert states(tmp_path) == {"杯": JobState.SUCCEEDED}
            assert len(shop.provider.sold) == 1

    run_virtual(main())
