"""No file of somebody else's is overwritten, and no link in a folder is followed."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest
from aiohttp import web

from asyncpipe.errors import DiskError
from asyncpipe.media import Downloader, Target
from asyncpipe.media.downloader import SMALL
from tests.support.media import LARGE, PNG
from tests.support.servers import serving


def fetched(folder: Path, body: bytes, stem: str = "images/杯子") -> str:
    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(body=body)

    async def main() -> str:
        async with serving(answer) as origin, Downloader(folder) as downloader:
            target = Target(stem=stem, part="1_0.part")
            return (await downloader.fetch(f"{origin}/x", target)).path

    return asyncio.run(main())


BODIES = [(PNG, "png"), (LARGE, "mp4")]


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize(("body", "ending"), BODIES)
def test_a_file_that_came_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes, ending: str, *, links: bool
) -> None:
    """Also where the file system has no hard links; the media get the next name that is free."""
    if not links:

        def no_links(*_: object, **__: object) -> None:
            raise OSError(errno.EPERM, "not here")

        monkeypatch.setattr(os, "link", no_links)
    mine = tmp_path / "images" / f"杯子.{ending}"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    mine.with_name(f"杯子-2.{ending}").write_bytes(bytes(len(body)))
    assert fetched(tmp_path, body) == f"images/杯子-3.{ending}"
    assert mine.read_bytes() == b"mine"
    assert mine.with_name(f"杯子-3.{ending}").read_bytes() == body
    assert len([*mine.parent.iterdir()]) == 3
    assert not [*(tmp_path / ".asyncpipe" / "parts").iterdir()]


@pytest.mark.parametrize(("body", "ending"), BODIES)
def test_what_a_killed_run_put_in_place_is_not_stored_twice(
    tmp_path: Path, body: bytes, ending: str
) -> None:
    """Its record was lost, and the same bytes come again: they stand already."""
    for _ in range(2):
        assert fetched(tmp_path, body) == f"images/杯子.{ending}"
    assert len([*(tmp_path / "images").iterdir()]) == 1


@pytest.mark.parametrize(("body", "ending"), BODIES)
def test_a_link_in_the_place_of_a_file_is_neither_followed_nor_removed(
    tmp_path: Path, body: bytes, ending: str
) -> None:
    """Whether it leads to a file of the user's or nowhere."""
    mine, place = tmp_path / "mine", tmp_path / "images" / f"杯子.{ending}"
    place.parent.mkdir()
    place.symlink_to(mine)
    assert fetched(tmp_path, body) == f"images/杯子-2.{ending}"
    assert not mine.exists()
    assert place.is_symlink()


@pytest.mark.parametrize("stem", ["../x", "images/../../x", "/tmp/x", "images/linked/x", "C:x"])
def test_a_stem_that_leads_out_of_the_folder_is_refused(tmp_path: Path, stem: str) -> None:
    """The ledger may come from somebody else; the message names the path."""
    folder, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    (folder / "images").mkdir(parents=True)
    elsewhere.mkdir()
    (folder / "images" / "linked").symlink_to(elsewhere)
    with pytest.raises(DiskError, match=r"outside .*x|linked is a symbolic link"):
        fetched(folder, PNG, stem)
    assert not [*elsewhere.iterdir()]
    assert {path.name for path in tmp_path.iterdir()} == {"out", "elsewhere"}


def test_parts_that_are_links_go_and_nothing_that_they_lead_to(tmp_path: Path) -> None:
    """A part is truncated and its log appended to: so neither may be another's file."""
    parts, mine = tmp_path / "out" / ".asyncpipe" / "parts", tmp_path / "mine"
    parts.mkdir(parents=True)
    mine.write_bytes(b"x" * (SMALL + 1))
    (parts / "1_0.part.a-1").symlink_to(mine)
    (parts / "1_0.part.a-1.log").write_bytes(b"{}\n")
    (parts / "1_0.part.a-2").write_bytes(b"part")
    (parts / "1_0.part.a-2.log").symlink_to(mine)
    assert fetched(tmp_path / "out", PNG) == "images/杯子.png"
    assert not [*parts.iterdir()]
    assert mine.read_bytes() == b"x" * (SMALL + 1)


def test_a_folder_of_parts_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """It would be emptied."""
    mine, state = tmp_path / "mine", tmp_path / "out" / ".asyncpipe"
    mine.mkdir()
    (mine / "letter").write_bytes(b"dear")
    state.mkdir(parents=True)
    (state / "parts").symlink_to(mine)
    with pytest.raises(DiskError, match="parts is a symbolic link"):
        fetched(tmp_path / "out", PNG)
    assert (mine / "letter").read_bytes() == b"dear"
