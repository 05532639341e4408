"""What a broken, slow or killed download left is gone on with, and never mixed with anything else.

Every test asserts what the server was asked for, how much it sent, and the file's own bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from aiohttp import web

from asyncpipe.errors import DownloadError, MediaGone, TooLarge
from asyncpipe.http.headers import Entity, is_rest, validator
from asyncpipe.media import parts
from asyncpipe.media.downloader import PIECE, SMALL, Downloader
from asyncpipe.media.parts import KEPT_S, Part, Partial, partials_in
from asyncpipe.media.source import StoredFile, Target
from tests.support.servers import Odd, Origin, Watched

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LONG_AGO = "Sat, 28 Feb 2026 08:00:00 GMT"
TARGET = Target(stem="videos/杯子", part="1_0.part", default_extension="mp4")
CLIP = b"\x00\x00\x00\x18ftypisom" + Random(1).randbytes(3 * SMALL)
OTHER = b"\x00\x00\x00\x18ftypisom" + Random(2).randbytes(3 * SMALL)
PICTURE = b"\x89PNG\r\n\x1a\n" + Random(3).randbytes(5000)


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let servers see how much was read."""
    monkeypatch.setattr("asyncpipe.media.source.Body", Watched)


def fetch(
    folder: Path, origin: Origin, *, runs: list[int], tails: list[str] | None = None, **options: Any
) -> StoredFile | DownloadError:
    """Fetch in several runs, ``runs[n]`` tries each; the first file, or else the last error."""

    async def main() -> StoredFile | DownloadError:
        error = DownloadError("not tried")
        urls = iter(tails or [])
        async with origin.serving():
            for tries in runs:
                async with Downloader(folder, **({"stalled_s": 5.0} | options)) as downloader:
                    for _ in range(tries):
                        try:
                            url = origin.url(next(urls, "x/out?sig=1"))
                            return await downloader.fetch(url, TARGET)
                        except DownloadError as exc:
                            error = exc
        return error

    return asyncio.run(main())


def kept(folder: Path) -> list[Path]:
    return [p for p in (folder / ".asyncpipe" / "parts").glob("*") if p.suffix != ".log"]


def standing(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and "parts" not in p.parts]


def assert_stored(folder: Path, stored: StoredFile | DownloadError, body: bytes) -> None:
    """One whole file with its own hash, and nothing else."""
    assert isinstance(stored, StoredFile), stored
    assert (folder / stored.path).read_bytes() == body
    assert (stored.size, stored.sha256) == (len(body), hashlib.sha256(body).hexdigest())
    assert standing(folder) == [folder / stored.path]
    assert not list((folder / ".asyncpipe" / "parts").iterdir())


@pytest.mark.parametrize("runs", [[2], [1, 1]], ids=["next try", "next run"])
@pytest.mark.parametrize(
    ("body", "cut"), [(CLIP, 2 * SMALL + 77), (CLIP, SMALL // 2), (PICTURE, 1234)]
)
def test_what_is_there_is_not_fetched_again(
    tmp_path: Path, body: bytes, cut: int, runs: list[int]
) -> None:
    """Large or small, in this run or the next: the rest is asked for, and only the rest is sent."""
    origin = Origin(body, cuts=[cut])
    assert_stored(tmp_path, fetch(tmp_path, origin, runs=runs), body)
    assert origin.asked == [(None, None), (f"bytes={cut}-", '"v1"')]
    assert origin.sent == len(body)


def test_many_breaks_are_all_gone_on_from(tmp_path: Path) -> None:
    """Each try adds to what the ones before it kept, and says how far it has got."""
    origin = Origin(CLIP, cuts=[SMALL, 100_000, 20, 1_000_000])
    error = fetch(tmp_path, origin, runs=[2])
    assert isinstance(error, DownloadError)
    assert (error.have, error.total) == (SMALL + 100_000, len(CLIP))
    assert standing(tmp_path) == []
    assert_stored(tmp_path, fetch(tmp_path, origin, runs=[1, 1, 1]), CLIP)
    starts = [SMALL, SMALL + 100_000, SMALL + 100_020, SMALL + 1_100_020]
    assert [asked for asked, _ in origin.asked] == [None, *(f"bytes={n}-" for n in starts)]
    assert origin.sent == len(CLIP)


@pytest.mark.parametrize(
    ("headers", "if_range"),
    [
        ({"ETag": 'W/"v1"', "Last-Modified": LONG_AGO}, LONG_AGO),
        ({"Last-Modified": LONG_AGO}, LONG_AGO),
        ({"ETag": '"v1"', "Last-Modified": LONG_AGO}, '"v1"'),
        ({"ETag": 'W/"v1"'}, None),
        ({"Last-Modified": "yesterday"}, None),
        ({}, None),
    ],
    ids=["weak tag and date", "date", "tag and date", "weak tag", "no date", "nothing"],
)
def test_only_a_strong_validator_joins_bytes(
    tmp_path: Path, headers: dict[str, str], if_range: str | None
) -> None:
    """Without one the file is fetched anew, and nothing is kept meanwhile."""
    origin = Origin(CLIP, headers=headers, cuts=[2 * SMALL])
    assert_stored(tmp_path, fetch(tmp_path, origin, runs=[1, 1]), CLIP)
    assert [asked for _, asked in origin.asked] == [None, if_range]
    assert origin.sent == len(CLIP) + (0 if if_range else 2 * SMALL)


def test_a_date_as_young_as_the_answer_is_not_strong() -> None:
    """The file could change once more within that second (RFC 9110, 8.8.2.2)."""
    young = format_datetime(NOW, usegmt=True)
    later = format_datetime(NOW + timedelta(seconds=2), usegmt=True)
    assert validator({"Last-Modified": young, "Date": young}, NOW) is None
    assert validator({"Last-Modified": young, "Date": later}, NOW) == young
    assert validator({"Last-Modified": young}, NOW) is None


def test_a_fresh_url_of_the_same_file_goes_on(tmp_path: Path) -> None:
    """A new signature is the same file; so is another path with the same strong ETag and length."""
    origin = Origin(CLIP, cuts=[SMALL, SMALL])
    tails = ["x/out?sig=1", "x/out?sig=2", "y/out?sig=3"]
    assert_stored(tmp_path, fetch(tmp_path, origin, runs=[3], tails=tails), CLIP)
    assert [asked for asked, _ in origin.asked] == [
        None,
        f"bytes={SMALL}-",
        f"bytes={2 * SMALL}-",
    ]
    assert origin.sent == len(CLIP)
    assert "sig=" not in "".join(origin.paths[2].split("?")[0])


def another(headers: dict[str, str], told: str | None) -> Odd:
    """Another file at another place; with ``told`` it answers as if it were the one asked for."""

    async def answer(request: web.BaseRequest, origin: Origin) -> web.StreamResponse:
        if told is None or request.http_range.start is None:
            return await origin.send(request, 200, headers, OTHER)
        there = headers | {"Content-Range": f"bytes {SMALL}-{len(OTHER) - 1}/{told}"}
        return await origin.send(request, 206, there, OTHER[SMALL:])

    return answer


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"ETag": '"v2"'}, None),
        ({"ETag": '"v2"'}, f"{len(OTHER)}"),
        ({"ETag": 'W/"v1"'}, f"{len(OTHER)}"),
        ({}, f"{len(OTHER)}"),
        ({"ETag": '"v1"'}, "*"),
        ({"ETag": '"v1"'}, f"{len(OTHER) + 1}"),
    ],
)
def test_another_file_at_another_place_is_not_joined(
    tmp_path: Path, headers: dict[str, str], told: str | None
) -> None:
    """Only the same strong ETag and a length that is told make two places one file."""
    odd = another(headers, told)
    origin = Origin(CLIP, cuts=[SMALL], odd={1: odd, 2: odd})
    stored = fetch(tmp_path, origin, runs=[2], tails=["x/out?sig=1", "y/other?sig=1"])
    assert_stored(tmp_path, stored, OTHER)


@pytest.mark.parametrize(
    "headers", [{"Last-Modified": LONG_AGO}, {"ETag": '"v1"', "Transfer-Encoding": "chunked"}]
)
def test_a_date_or_no_length_does_not_make_two_places_one_file(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    """All files of a second share their date."""
    origin = Origin(CLIP, headers=headers, cuts=[SMALL])
    fetch(tmp_path, origin, runs=[2], tails=["x/out?sig=1", "y/out?sig=1"])
    assert [asked for asked, _ in origin.asked] == [None, None]


def test_no_signature_is_written_down(tmp_path: Path) -> None:
    """The log of a part names its source without the query."""
    origin = Origin(CLIP, cuts=[SMALL])
    fetch(tmp_path, origin, runs=[1], tails=["x/out?sig=topsecret"])
    (log,) = (tmp_path / ".asyncpipe" / "parts").glob("*.log")
    assert b"/x/out" in log.read_bytes()
    assert b"topsecret" not in log.read_bytes()


def partial_answer(start: int, total: int, headers: dict[str, str]) -> Odd:
    async def answer(request: web.BaseRequest, origin: Origin) -> web.StreamResponse:
        told = {"Content-Range": f"bytes {start}-{len(OTHER) - 1}/{total}"} | headers
        return await origin.send(request, 206, told, OTHER[start:])

    return answer


async def not_satisfiable(request: web.BaseRequest, origin: Origin) -> web.StreamResponse:
    told = {"Content-Range": f"bytes */{len(OTHER)}", "Content-Encoding": "br"}
    return await origin.send(request, 416, told, b"page")


async def ranges_ignored(request: web.BaseRequest, origin: Origin) -> web.StreamResponse:
    return await origin.send(request, 200, origin.headers, origin.body)


async def range_not_told(request: web.BaseRequest, origin: Origin) -> web.StreamResponse:
    return await origin.send(request, 206, origin.headers, OTHER[SMALL:])


V1 = {"ETag": '"v1"'}
WRONG: dict[str, Odd] = {
    "whole": ranges_ignored,
    "416": not_satisfiable,
    "no Content-Range": range_not_told,
    "earlier start": partial_answer(SMALL - 1, len(OTHER), V1),
    "later start": partial_answer(SMALL + 1, len(OTHER), V1),
    "other total": partial_answer(SMALL, len(OTHER) + 1, V1),
    "other tag": partial_answer(SMALL, len(OTHER), {"ETag": '"v2"'}),
    "no tag": partial_answer(SMALL, len(OTHER), {}),
}


@pytest.mark.parametrize("odd", WRONG.values(), ids=WRONG)
def test_what_is_not_the_rest_is_never_joined(tmp_path: Path, odd: Odd) -> None:
    """The file is begun anew, within the same try, and is all of one piece."""
    origin = Origin(CLIP, cuts=[SMALL], odd={1: odd})
    assert_stored(tmp_path, fetch(tmp_path, origin, runs=[2]), CLIP)
    assert origin.asked[1] == (f"bytes={SMALL}-", '"v1"')
    assert origin.asked[2:] == ([] if odd is ranges_ignored else [(None, None)])


@pytest.mark.parametrize("validated", ["ETag", "Last-Modified"])
def test_a_file_that_changed_is_fetched_anew(tmp_path: Path, validated: str) -> None:
    """If-Range lets the server say so; no byte of the old one is left."""
    dates = {"ETag": '"v2"', "Last-Modified": "Sat, 28 Feb 2026 09:00:00 GMT"}

    async def changed(request: web.BaseRequest, origin: Origin) -> web.StreamResponse:
        origin.body, origin.headers = OTHER, {validated: dates[validated]}
        return await origin.by_the_rules(request)

    first = {"ETag": '"v1"', "Last-Modified": LONG_AGO}[validated]
    origin = Origin(CLIP, headers={validated: first}, cuts=[SMALL, 2 * SMALL], odd={1: changed})
    assert_stored(tmp_path, fetch(tmp_path, origin, runs=[1, 1, 1]), OTHER)
    assert origin.asked == [
        (None, None),
        (f"bytes={SMALL}-", first),
        (f"bytes={2 * SMALL}-", dates[validated]),
    ]


@pytest.mark.parametrize("cut", [[], [30]], ids=["whole", "broken off"])
def test_a_page_in_between_costs_nothing(tmp_path: Path, cut: list[int]) -> None:
    """A login page of some network, an error of a server: what was kept stays."""

    async def page(request: web.BaseRequest, origin: Origin) -> web.StreamResponse:
        origin.cuts = list(cut)
        body = b"<!DOCTYPE html><p>Log in to the hotel's network"
        return await origin.send(request, 200, {"ETag": '"page"'}, body)

    async def broken(request: web.BaseRequest, origin: Origin) -> web.StreamResponse:
        return web.Response(status=502, text="<html>")

    origin = Origin(CLIP, cuts=[SMALL], odd={1: page, 2: broken})
    assert_stored(tmp_path, fetch(tmp_path, origin, runs=[3, 1]), CLIP)
    assert [asked for asked, _ in origin.asked] == [None, *[f"bytes={SMALL}-"] * 3]


def test_gone_media_keeps_its_part_for_a_fresh_url(tmp_path: Path) -> None:
    """An expired signature is no reason to fetch anything twice."""

    async def expired(request: web.BaseRequest, origin: Origin) -> web.StreamResponse:
        return web.Response(status=403)

    origin = Origin(CLIP, cuts=[SMALL], odd={1: expired})
    error = fetch(tmp_path, origin, runs=[2])
    assert isinstance(error, MediaGone)
    assert error.have == SMALL
    assert_stored(tmp_path, fetch(tmp_path, origin, runs=[1], tails=["x/out?sig=2"]), CLIP)
    assert [asked for asked, _ in origin.asked] == [None, *[f"bytes={SMALL}-"] * 2]


def test_redirects_pass_the_range_on(tmp_path: Path) -> None:
    """Each hop is asked for the rest; a part belongs to the URL we were given."""

    async def moved(request: web.BaseRequest, origin: Origin) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": f"/edge{len(origin.asked)}"})

    origin = Origin(CLIP, cuts=[SMALL], odd={0: moved, 2: moved, 3: moved})
    assert_stored(tmp_path, fetch(tmp_path, origin, runs=[2]), CLIP)
    assert origin.asked == [(None, None)] * 2 + [(f"bytes={SMALL}-", '"v1"')] * 3
    assert origin.paths == ["/x/out?sig=1", "/edge1", "/x/out?sig=1", "/edge3", "/edge4"]


def test_a_shorter_range_than_asked_for_is_gone_on_from(tmp_path: Path) -> None:
    """A server may send less; that alone is no whole file."""

    async def short(request: web.BaseRequest, origin: Origin) -> web.StreamResponse:
        told = {"Content-Range": f"bytes {SMALL}-{2 * SMALL - 1}/{len(CLIP)}", **V1}
        return await origin.send(request, 206, told, CLIP[SMALL : 2 * SMALL])

    origin = Origin(CLIP, cuts=[SMALL], odd={1: short})
    error = fetch(tmp_path, origin, runs=[2])
    assert isinstance(error, DownloadError)
    assert error.have == 2 * SMALL
    assert standing(tmp_path) == []
    assert_stored(tmp_path, fetch(tmp_path, origin, runs=[1]), CLIP)


def test_a_body_without_a_length_goes_on_too(tmp_path: Path) -> None:
    """Chunked and cut: seen as cut, kept, and gone on with; the range tells the size then."""
    origin = Origin(CLIP, headers=V1 | {"Transfer-Encoding": "chunked"}, cuts=[2 * SMALL])
    error = fetch(tmp_path, origin, runs=[1])
    assert isinstance(error, DownloadError)
    assert (error.have, error.total) == (2 * SMALL, None)
    assert standing(tmp_path) == []
    assert_stored(tmp_path, fetch(tmp_path, origin, runs=[1]), CLIP)
    assert origin.asked[1] == (f"bytes={2 * SMALL}-", '"v1"')


@pytest.mark.parametrize(
    ("told", "rest"),
    [
        ("bytes 10-99/100", True),
        ("bytes 10-50/100", True),
        ("bytes 10-99/*", True),
        ("bytes 10-100/100", False),
        ("bytes 10-9/100", False),
        ("bytes 0-99/100", False),
        ("bytes */100", False),
        ("items 10-99/100", False),
        ("", False),
    ],
)
def test_content_range_is_taken_at_its_word_only_where_it_fits(told: str, rest: bool) -> None:
    """Start, end and total all have to agree with what there is."""
    entity = Entity(source="http://x/a", validator='"v"', total=100, content_type="video/mp4")
    assert is_rest({"Content-Range": told, "ETag": '"v"'}, entity, 10) is rest


@pytest.mark.parametrize(
    ("headers", "rest"),
    [
        ({}, True),
        ({"Last-Modified": LONG_AGO}, True),
        ({"Last-Modified": "Sun, 1 Mar 2026"}, False),
    ],
)
def test_a_date_may_be_left_out_but_not_differ(headers: dict[str, str], rest: bool) -> None:
    """A 206 to If-Range need not repeat it (RFC 9110, 15.3.7)."""
    entity = Entity(source="http://x/a", validator=LONG_AGO, total=100, content_type="video/mp4")
    assert is_rest({"Content-Range": "bytes 10-99/100"} | headers, entity, 10) is rest


def test_what_turns_out_no_medium_is_not_gone_on_with(tmp_path: Path) -> None:
    """Its beginning did not tell; complete it does, and goes."""
    page = b"\x89PNG\r\n\x1a\n" + bytes(36)  # one byte less than a picture has
    origin = Origin(page, cuts=[30])
    for _ in range(2):
        assert isinstance(fetch(tmp_path, origin, runs=[2]), DownloadError)
        assert not kept(tmp_path)
        assert standing(tmp_path) == []
        origin.cuts = [30]
    assert [asked for asked, _ in origin.asked] == [None, "bytes=30-"] * 2


def test_a_limit_that_was_lowered_counts_for_parts(tmp_path: Path) -> None:
    """Told by the first words of the answer, before anything is waited for."""
    origin, _, _ = leave(tmp_path, 2 * SMALL)

    async def silent(request: web.BaseRequest, origin: Origin) -> web.StreamResponse:
        told = {"Content-Range": f"bytes {2 * SMALL}-{len(CLIP) - 1}/{len(CLIP)}", **V1}
        response = web.StreamResponse(status=206, headers=told)
        await response.prepare(request)
        await asyncio.Event().wait()
        return response

    origin.odd[0] = silent
    error = fetch(tmp_path, origin, runs=[1], largest=3 * SMALL, stalled_s=0.5)
    assert isinstance(error, TooLarge)
    assert (error.have, kept(tmp_path)) == (0, [])


def leave(folder: Path, size: int) -> tuple[Origin, Path, Path]:
    """Leave a part of CLIP; returns its server, the part and its log."""
    origin = Origin(CLIP, cuts=[size])
    error = fetch(folder, origin, runs=[1])
    assert isinstance(error, DownloadError)
    (part,) = kept(folder)
    assert part.read_bytes() == CLIP[:size]
    origin.asked.clear()
    origin.sent = 0
    return origin, part, part.with_name(f"{part.name}.log")


def zeros_at_the_end(part: Path, log: Path) -> None:
    body = part.read_bytes()
    part.write_bytes(body[:-5000] + bytes(5000))


def shorter_than_its_log(part: Path, log: Path) -> None:
    os.truncate(part, part.stat().st_size - 5000)


def longer_than_its_log(part: Path, log: Path) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:-1]))
    with part.open("ab") as file:
        file.write(bytes(4 * SMALL))


def torn_log(part: Path, log: Path) -> None:
    os.truncate(log, log.stat().st_size - 30)


DAMAGE = [zeros_at_the_end, shorter_than_its_log, longer_than_its_log, torn_log]


@pytest.mark.parametrize("damage", DAMAGE)
def test_after_a_power_cut_only_what_is_vouched_for_counts(
    tmp_path: Path, damage: Callable[[Path, Path], None]
) -> None:
    """What the disk did not get is fetched again; the file is right, and so is its hash."""
    origin, part, log = leave(tmp_path, 2 * SMALL + 77)
    damage(part, log)
    assert_stored(tmp_path, fetch(tmp_path, origin, runs=[1]), CLIP)
    start = int(str(origin.asked[0][0]).removeprefix("bytes=").removesuffix("-"))
    assert SMALL <= start < 2 * SMALL + 77
    assert origin.sent == len(CLIP) - start


@pytest.mark.parametrize("text", [b"", b"\x00" * 200, b'{"source": 1}\n', b"[]\n"])
def test_a_part_without_an_account_is_not_used(tmp_path: Path, text: bytes) -> None:
    """Begun anew, and the leftover is gone."""
    origin, _, log = leave(tmp_path, 2 * SMALL)
    log.write_bytes(text)
    assert_stored(tmp_path, fetch(tmp_path, origin, runs=[1]), CLIP)
    assert origin.asked == [(None, None)]


def test_a_complete_part_needs_no_request(tmp_path: Path) -> None:
    """Killed between the last byte and the name: nothing is fetched again."""
    origin, part, log = leave(tmp_path, 2 * SMALL)
    entity = Entity(**orjson.loads(log.read_bytes().split(b"\n")[0]))
    with closing(Part(part, entity, new=False)) as rest:
        rest.take_up()
        rest.write(CLIP[2 * SMALL :])
    assert_stored(tmp_path, fetch(tmp_path, origin, runs=[1]), CLIP)
    assert origin.asked == []


KILLED = """
import asyncio, sys
from pathlib import Path
from asyncpipe.media import Downloader, Target

async def main():
    target = Target(stem="videos/a", part="1_0.part", default_extension="mp4")
    async with Downloader(Path(sys.argv[1])) as downloader:
        await downloader.fetch(sys.argv[2], target)

asyncio.run(main())
"""


def test_what_a_killed_process_left_is_gone_on_with(tmp_path: Path) -> None:
    """kill -9 in the middle: the next run asks for the rest of what had been written."""
    origin = Origin(CLIP, cuts=[2 * SMALL + 5])

    async def main() -> tuple[int, StoredFile]:
        origin.stall = asyncio.Event()
        async with origin.serving():
            program = (sys.executable, "-c", KILLED, str(tmp_path), origin.url())
            process = await asyncio.create_subprocess_exec(*program)
            sizes = [0, 0]
            while not (sizes[-1] == sizes[-2] > 2 * SMALL - PIECE):
                assert len(sizes) < 1000
                await asyncio.sleep(0.02)
                sizes.append(sum(p.stat().st_size for p in kept(tmp_path)))
            process.kill()
            await process.wait()
            origin.stall.set()
            (part,) = kept(tmp_path)
            size = part.stat().st_size
            async with Downloader(tmp_path) as downloader:
                return size, await downloader.fetch(origin.url(), TARGET)

    size, stored = asyncio.run(main())
    assert_stored(tmp_path, stored, CLIP)
    assert origin.asked[1] == (f"bytes={size}-", '"v1"')
    assert origin.sent == 2 * SMALL + 5 + len(CLIP) - size


def test_a_cancelled_download_is_gone_on_with(tmp_path: Path) -> None:
    """Cancelled at any moment, again and again: no file until it is whole, then the right one."""
    rng = Random(5)
    origin = Origin(CLIP)

    async def main() -> StoredFile:
        async with origin.serving():
            while True:
                async with Downloader(tmp_path) as downloader:
                    fetching = asyncio.ensure_future(downloader.fetch(origin.url(), TARGET))
                    limit_s = rng.uniform(0.0, 0.03) if len(origin.asked) < 12 else None
                    await asyncio.wait([fetching], timeout=limit_s)
                    if fetching.done():
                        return fetching.result()
                    fetching.cancel()
                    await asyncio.wait([fetching])
                    for file in standing(tmp_path):  # its last write may have been the rename
                        assert file.read_bytes() == CLIP

    stored = asyncio.run(main())
    assert (tmp_path / stored.path).read_bytes() == CLIP
    assert stored.size == len(CLIP)


def test_a_write_left_in_its_thread_meets_no_other_file(tmp_path: Path) -> None:
    """A cancelled run's last block of the old file does not get into the new one."""
    origin, part, _ = leave(tmp_path, 2 * SMALL)
    stale = part.open("rb+")
    stale.seek(2 * SMALL)
    block = CLIP[2 * SMALL : 2 * SMALL + PIECE]

    async def changed(request: web.BaseRequest, origin: Origin) -> web.StreamResponse:
        stale.write(block)
        stale.flush()
        origin.body, origin.headers = OTHER, {"ETag": '"v2"'}
        return await origin.by_the_rules(request)

    origin.odd[0] = changed
    with stale:
        assert_stored(tmp_path, fetch(tmp_path, origin, runs=[1]), OTHER)


def test_a_write_left_in_its_thread_is_harmless_to_the_same_file(tmp_path: Path) -> None:
    """Its bytes are those that belong there, and it may vouch for them."""
    origin, part, _ = leave(tmp_path, 2 * SMALL)
    entity = Entity(source="x", validator='"v1"', total=len(CLIP), content_type="video/mp4")
    stale = Part(part, entity, new=False)
    stale.take_up()

    async def late(request: web.BaseRequest, origin: Origin) -> web.StreamResponse:
        stale.write(CLIP[2 * SMALL : 2 * SMALL + PIECE])
        return await origin.by_the_rules(request)

    origin.odd[0] = late
    try:
        assert_stored(tmp_path, fetch(tmp_path, origin, runs=[1]), CLIP)
    finally:
        stale.close()


def test_a_close_waits_for_the_write_it_meets(tmp_path: Path) -> None:
    """Otherwise its file's number could be another file's by the time it goes on."""
    part = Part(tmp_path / "a", None)
    part._lock = lock = _Announced()  # type: ignore[assignment]
    thread = threading.Thread(target=part.close)
    with lock.inner:
        thread.start()
        assert lock.wanted.wait(60)
        assert not part.closed
    thread.join(60)
    assert part.closed


class _Announced:
    """A lock that says when somebody wants it."""

    def __init__(self) -> None:
        self.inner, self.wanted = threading.RLock(), threading.Event()

    def __enter__(self) -> None:
        self.wanted.set()
        self.inner.acquire()

    def __exit__(self, *_: object) -> None:
        self.inner.release()


def test_a_thread_that_was_faster_is_no_trouble(tmp_path: Path) -> None:
    """A cancelled run's last step may put in place what the next one was about to."""
    entity = Entity(source="x", validator='"v"', total=len(CLIP), content_type="video/mp4")
    path, final = tmp_path / "a", tmp_path / "videos" / "a.mp4"
    parts.keep(path, entity, [CLIP])
    stale, ours = Part(path, entity, new=False), Part(path, entity, new=False)
    for part in (stale, ours):
        part.take_up()
    stale.commit(final)
    ours.commit(final)
    assert final.read_bytes() == CLIP
    assert [p.name for p in tmp_path.iterdir()] == ["videos"]


def test_what_nobody_can_use_goes(tmp_path: Path) -> None:
    """Without a log, shorter than another of the same output, a log alone, or too old."""
    entity = Entity(source="x", validator='"v"', total=None, content_type="video/mp4")
    for name, size in {
        "1_0.part.a": 10,
        "1_0.part.b": 30,
        "1_0.part.c": 20,
        "2_0.part.a": 5,
    }.items():
        parts.keep(tmp_path / name, entity, [bytes(size)])
    (tmp_path / "3_0.part.a").write_bytes(bytes(99))
    (tmp_path / "4_0.part.a.log").write_bytes(b"{}\n")
    parts.keep(tmp_path / "5_0.part.a", entity, [bytes(9)])
    old = (tmp_path / "5_0.part.a").stat().st_mtime - KEPT_S - 60
    os.utime(tmp_path / "5_0.part.a", (old, old))
    found = partials_in(tmp_path)
    assert {output: left.path.name for output, left in found.items()} == {
        "1_0.part": "1_0.part.b",
        "2_0.part": "2_0.part.a",
    }
    assert found["1_0.part"].size == 30
    names = {"1_0.part.b", "2_0.part.a"}
    assert {p.name for p in tmp_path.iterdir()} == names | {f"{name}.log" for name in names}


def test_a_process_that_shares_a_folder_leaves_the_parts_of_others_alone(tmp_path: Path) -> None:
    """Nor goes on with them: who writes there may live. Only what is old for everybody goes."""
    entity = Entity(source="x", validator='"v"', total=None, content_type="video/mp4")
    folder = tmp_path / ".asyncpipe" / "parts"
    folder.mkdir(parents=True)
    (folder / "1_0.part.a").write_bytes(b"being written")
    for name in ("2_0.part.a", "3_0.part.a"):
        parts.keep(folder / name, entity, [bytes(9)])
    old = (folder / "3_0.part.a").stat().st_mtime - KEPT_S - 60
    for name in ("3_0.part.a", "3_0.part.a.log"):
        os.utime(folder / name, (old, old))

    async def main() -> dict[str, Partial]:
        async with Downloader(tmp_path, shared=True) as downloader:
            return downloader._partials

    assert asyncio.run(main()) == {}
    assert {p.name for p in folder.iterdir()} == {"1_0.part.a", "2_0.part.a", "2_0.part.a.log"}
