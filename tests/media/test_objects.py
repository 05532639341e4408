"""Downloads into a bucket, over real sockets: whole under their names, or nothing at all."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web

from asyncpipe._tasks import Retries
from asyncpipe.errors import DiskError, DownloadError, MediaGone, UsageError
from asyncpipe.jobs import BucketUrl
from asyncpipe.media import StoredFile, Target
from asyncpipe.media import objects as module
from asyncpipe.media.bucket import LEFT_S, PART, PARTS_AT_ONCE, PARTS_FOLDER, Bucket
from asyncpipe.media.ends import Passing, broken
from asyncpipe.media.objects import BucketStore
from asyncpipe.testing import PIXEL
from tests.support import ROOT
from tests.support.buckets import (
    KEY,
    S3,
    SECRET,
    a_bucket,
    environment,
    film,
    gated,
    is_part,
    refusal,
)
from tests.support.media import PNG, PNG_WHOLE, offering

FILM = film(3 * PART + 12345)
TARGET = Target(stem="images/杯子", part="1_0.part", default_extension="png")


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    with a_bucket(monkeypatch) as found:
        yield found


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What breaks off is gone on with at once."""
    quick = Retries(attempts=4, initial_s=0.001)
    monkeypatch.setattr(module, "GOING_ON", quick)


def always(body: bytes) -> Any:
    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(body=body, content_type="application/octet-stream")

    return answer


async def fetched(s3: S3, answer: Any, target: Target = TARGET, **options: Any) -> StoredFile:
    async with offering(answer) as url, BucketStore(s3.place, **options) as store:
        return await store.fetch(url, target)


def fetch(s3: S3, answer: Any, **options: Any) -> StoredFile:
    return asyncio.run(fetched(s3, answer, **options))


@pytest.mark.parametrize(
    ("body", "ending", "told"),
    [
        (PNG, "png", "image/png"),
        (film(PART - 1), "mp4", "video/mp4"),
        (film(PART), "mp4", "video/mp4"),
        (FILM, "mp4", "video/mp4"),
    ],
    ids=["small", "below a part", "one part", "parts"],
)
def test_a_file_stands_whole_with_its_hash(s3: S3, body: bytes, ending: str, told: str) -> None:
    """Small ones by one request, large ones in parts; served as what they are."""
    stored = fetch(s3, always(body))
    assert stored.path == f"images/杯子.{ending}"
    assert s3.get(stored.path) == (body, told)
    assert (stored.size, stored.sha256) == (len(body), hashlib.sha256(body).hexdigest())
    assert (s3.names(), s3.unfinished()) == ([stored.path], [])


def test_data_uris_need_no_network(s3: S3) -> None:
    """Outputs that came inside an answer become objects like any other."""

    async def main() -> StoredFile:
        async with BucketStore(s3.place) as store:
            return await store.fetch(PIXEL, TARGET)

    assert s3.get(asyncio.run(main()).path) == (PNG_WHOLE, "image/png")


def test_memory_is_bounded_by_a_few_parts(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is slower than the media host slows it down; nothing piles up here."""
    body, sent, ahead, most = film(8 * PART), 0, 0, 0

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"Content-Length": str(len(body))})
        await response.prepare(request)
        while sent < len(body):
            await response.write(body[sent : sent + 65536])
            sent += 65536
        return response

    async def main() -> StoredFile:
        stored, under_way, both = 0, 0, asyncio.Event()

        async def look(request: web.BaseRequest, piece: bytes) -> web.StreamResponse | None:
            nonlocal stored, ahead, under_way, most
            if not is_part(request):
                return None
            stored += len(piece)
            ahead, under_way = max(ahead, sent - stored), under_way + 1
            most = max(most, under_way)
            if under_way == PARTS_AT_ONCE:
                both.set()
            await both.wait()  # as many as may be are on their way at once
            try:
                return await gate.forward(request, piece)
            finally:
                under_way -= 1

        async with gated(s3, monkeypatch) as gate:
            gate.meddle = look
            return await fetched(s3, answer)

    assert asyncio.run(main()).size == len(body)
    buffers = 8 * 1024 * 1024  # of sockets, and what is read at once
    assert ahead <= (PARTS_AT_ONCE + 1) * PART + buffers
    assert most == PARTS_AT_ONCE


def test_parts_that_fail_are_sent_again(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in the middle, by an error of the store's, and by a connection that is cut."""

    async def main() -> StoredFile:
        failed = list[str]()

        async def fail(request: web.BaseRequest, _: bytes) -> web.StreamResponse | None:
            if (
                request.method == "POST"
                and "uploads" in request.query
                and PARTS_FOLDER in request.path
            ):
                types.append(request.headers["Content-Type"])
            if is_part(request, 2) and failed.count("2") < 2:
                failed.append("2")
                return refusal(500, "InternalError")
            if is_part(request, 3) and not failed.count("3"):
                failed.append("3")
                assert request.transport is not None
                request.transport.abort()
            return None

        async with gated(s3, monkeypatch) as gate:
            gate.meddle = fail
            stored = await fetched(s3, always(FILM))
        assert sorted(failed) == ["2", "2", "3"]
        return stored

    types = list[str]()
    stored = asyncio.run(main())
    assert s3.get(stored.path)[0] == FILM
    assert s3.unfinished() == []
    assert types[-1] == "video/mp4"  # stores that copy all of an object have it from there


@pytest.mark.parametrize("body", [PNG, FILM], ids=["small", "large"])
def test_a_store_that_is_away_is_come_back_to(
    s3: S3, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    """It counts as media that could not be fetched yet; nothing is there until it is back."""

    async def main() -> StoredFile:
        async with (
            gated(s3, monkeypatch) as gate,
            offering(always(body)) as url,
            BucketStore(s3.place) as store,
        ):

            async def away(request: web.BaseRequest, _: bytes) -> web.StreamResponse | None:
                return None if request.method == "POST" else refusal(503, "SlowDown")

            gate.meddle, passing = away, gate.meddle
            with pytest.raises(
                DownloadError, match=r"cannot be reached \(503 SlowDown\)"
            ) as caught:
                await store.fetch(url, TARGET)
            assert not caught.value.refused  # the media's own URL is as good as it was
            assert s3.names() == []
            gate.meddle = passing
            return await store.fetch(url, TARGET)

    assert s3.get(asyncio.run(main()).path)[0] == body


@pytest.mark.parametrize("resumable", [True, False])
def test_a_body_that_breaks_off(s3: S3, *, resumable: bool) -> None:
    """It is gone on with where its server can; where not, the upload is given up at once."""
    asked = list[str | None]()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.headers.get("Range"))
        start = int((asked[-1] or "bytes=0-")[6:-1])
        headers = {"ETag": '"one"', "Content-Length": str(len(FILM) - start)}
        if not resumable:
            del headers["ETag"]
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(FILM) - 1}/{len(FILM)}"
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        await response.prepare(request)
        await response.write(FILM[start : start + PART + 1000])
        if start + PART + 1000 < len(FILM):
            assert request.transport is not None
            request.transport.abort()
        return response

    if resumable:
        assert s3.get(fetch(s3, answer).path)[0] == FILM
        assert len(asked) > 2
    else:
        with pytest.raises(DownloadError, match="could not be fetched"):
            fetch(s3, answer)
        assert asked == [None]
    assert s3.unfinished() == []
    assert bool(s3.names()) is resumable


def test_a_rest_that_is_none_leaves_nothing(s3: S3) -> None:
    """A server that ends an answer of its own before the end of the file is not believed."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        end = start + PART + 1000 if start else len(FILM)
        headers = {"ETag": '"one"', "Content-Length": str(end - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(FILM)}"
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        await response.prepare(request)
        await response.write(FILM[start : start + PART + 1000])
        if not start:
            assert request.transport is not None
            request.transport.abort()
        return response

    with pytest.raises(DownloadError, match="broke off"):
        fetch(s3, answer)
    assert (s3.names(), s3.unfinished()) == ([], [])


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<!doctype html>" + b"x" * 100, "page of text"),
        (b"\0" * 16 + FILM, "no media of any kind"),
        (FILM[: 2 * PART], "is cut off"),
        (PNG_WHOLE[:-8], "is cut off"),
    ],
    ids=["page", "unknown", "half a film", "half a picture"],
)
def test_what_is_no_whole_medium_leaves_nothing(s3: S3, body: bytes, why: str) -> None:
    """Also where nobody told its length: an upload is ended only after the look at its end."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(body)
        return response

    target = Target(stem="images/a", part="1_0.part")
    with pytest.raises(DownloadError, match=why):
        fetch(s3, answer, target=target)
    assert (s3.names(), s3.unfinished()) == ([], [])


def test_gone_media_says_so(s3: S3) -> None:
    """As on a disk."""

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(status=404)

    with pytest.raises(MediaGone, match="404"):
        fetch(s3, answer)


@pytest.mark.parametrize(("body", "ending"), [(PNG, "png"), (FILM, "mp4")])
def test_an_object_that_is_there_stays(s3: S3, body: bytes, ending: str) -> None:
    """The media get the next name that is free; the store itself refuses the others."""
    s3.put(f"images/杯子.{ending}", b"mine")
    s3.put(f"images/杯子-2.{ending}", bytes(len(body)))
    assert fetch(s3, always(body)).path == f"images/杯子-3.{ending}"
    assert s3.get(f"images/杯子.{ending}")[0] == b"mine"
    assert s3.get(f"images/杯子-2.{ending}")[0] == bytes(len(body))
    assert s3.get(f"images/杯子-3.{ending}")[0] == body
    assert len(s3.names()) == 3


def test_an_object_that_comes_meanwhile_stays(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even in the last moment before the name is given."""

    async def main() -> StoredFile:
        async def come(request: web.BaseRequest, _: bytes) -> None:
            if "x-amz-copy-source" in request.headers:
                await asyncio.to_thread(s3.put, "images/杯子.mp4", b"mine")

        async with gated(s3, monkeypatch) as gate:
            gate.meddle = come
            return await fetched(s3, always(FILM))

    assert asyncio.run(main()).path == "images/杯子-2.mp4"
    assert s3.get("images/杯子.mp4")[0] == b"mine"
    assert s3.unfinished() == []


@pytest.mark.parametrize("body", [PNG, FILM], ids=["small", "large"])
def test_what_a_killed_run_stored_is_not_stored_twice(s3: S3, body: bytes) -> None:
    """The same bytes under the same name are the file."""
    first = fetch(s3, always(body))
    assert fetch(s3, always(body)) == first
    assert s3.names() == [first.path]


def test_a_cancelled_upload_is_taken_back(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is told, so that no part stays; the cancellation goes on."""

    async def main() -> None:
        async with gated(s3, monkeypatch) as gate:
            begun = asyncio.Event()

            async def look(request: web.BaseRequest, _: bytes) -> None:
                if is_part(request):
                    begun.set()

            async def answer(request: web.BaseRequest) -> web.StreamResponse:
                response = web.StreamResponse(headers={"Content-Length": str(len(FILM))})
                await response.prepare(request)
                await response.write(FILM[: 2 * PART])
                await asyncio.Event().wait()
                return response

            gate.meddle = look
            fetching = asyncio.create_task(fetched(s3, answer))
            await begun.wait()
            fetching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetching
            assert gate.lines[-1].startswith("DELETE")

    asyncio.run(main())
    assert (s3.names(), s3.unfinished()) == ([], [])


CHILD = """
import asyncio, sys
from asyncpipe.jobs import BucketUrl
from asyncpipe.media import Target
from asyncpipe.media.objects import BucketStore

async def main(place, url):
    async with BucketStore(BucketUrl.parse(place)) as store:
        stored = await store.fetch(url, Target(stem="videos/a", part="1_0.part"))
        print(stored.path)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("at", ["part", "complete", "copy"])
def test_a_killed_process_leaves_nothing_half(
    s3: S3, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """Killed in mid-upload, before its end, before its name: no object; once more, it is whole."""

    async def run(*, kill: bool) -> int:
        async with gated(s3, monkeypatch) as gate, offering(always(FILM)) as url:
            env = os.environ | environment(os.environ["AWS_ENDPOINT_URL"])
            command = [sys.executable, "-c", CHILD, str(s3.place), url]
            child = await asyncio.create_subprocess_exec(
                *command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL
            )

            async def strike(request: web.BaseRequest, _: bytes) -> None:
                ending = request.method == "POST" and "uploadId" in request.query
                copying = "x-amz-copy-source" in request.headers
                if {"part": is_part(request, 2), "complete": ending, "copy": copying}[at]:
                    child.send_signal(signal.SIGKILL)
                    await child.wait()

            if kill:
                gate.meddle = strike
            return await child.wait()

    assert asyncio.run(run(kill=True)) == -signal.SIGKILL
    assert [name for name in s3.names() if not name.startswith(PARTS_FOLDER)] == []
    assert asyncio.run(run(kill=False)) == 0
    assert s3.get("videos/a.mp4") == (FILM, "video/mp4")


def test_what_killed_runs_left_is_swept_once_it_is_old(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another process may be about to name is left alone."""

    async def main() -> None:
        bucket = Bucket(s3.place)
        s3.put(f"{PARTS_FOLDER}/9_0.part.x-1", b"left")
        await bucket.sweep()
        assert len(s3.names()) == 1
        monkeypatch.setattr("asyncpipe.media.bucket.LEFT_S", -LEFT_S)
        await bucket.sweep()
        assert s3.names() == []

    asyncio.run(main())


# -- opening ------------------------------------------------------------------------------------


async def opened(place: BucketUrl) -> None:
    async with BucketStore(place):
        pass


def test_looking_at_a_store_leaves_nothing(s3: S3) -> None:
    """Not even an upload that was begun."""
    asyncio.run(opened(s3.place))
    assert (s3.names(), s3.unfinished()) == ([], [])


def test_a_bucket_that_is_missing(s3: S3) -> None:
    """Said before anything is bought."""
    with pytest.raises(UsageError, match=r"no such bucket: make it.*nothing was bought"):
        asyncio.run(opened(BucketUrl.parse("s3://nobodys/x")))


@pytest.mark.parametrize(
    ("status", "code", "why"),
    [
        (403, "AccessDenied", "refuses the keys"),
        (403, "InvalidAccessKeyId", "refuses the keys"),
        (403, "SignatureDoesNotMatch", "refuses the keys"),
        (400, "ExpiredToken", "have expired"),
        (403, "RequestTimeTooSkewed", "clock is off"),
        (301, "PermanentRedirect", "another region"),
        (400, "InvalidRequest", "refuses what was asked"),
    ],
)
@pytest.mark.parametrize("writing", [False, True])
def test_a_store_that_refuses_us(
    s3: S3, monkeypatch: pytest.MonkeyPatch, status: int, code: str, why: str, *, writing: bool
) -> None:
    """Said with the remedy, before anything is bought, and without what its answer shows."""

    async def main() -> None:
        async with gated(s3, monkeypatch) as gate:

            async def refuse(request: web.BaseRequest, _: bytes) -> web.StreamResponse | None:
                if writing and request.method == "GET":
                    return None
                return refusal(status, code, f"<StringToSign>{SECRET}</StringToSign>")

            gate.meddle = refuse
            await opened(s3.place)

    with pytest.raises(UsageError, match=why) as caught:
        asyncio.run(main())
    assert "nothing was bought" in str(caught.value)
    assert KEY not in str(caught.value)
    assert SECRET not in str(caught.value)
    assert s3.names() == []


def test_a_store_that_cannot_be_reached(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is no mistake of the user's: the same command will do later."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(DiskError, match=r"cannot be reached.*run the same command again"):
        asyncio.run(opened(s3.place))


def test_a_store_that_turns_us_away_in_mid_run(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting helps: the run is stopped, as by a disk that is full."""

    async def main() -> None:
        async with (
            gated(s3, monkeypatch) as gate,
            offering(always(FILM)) as url,
            BucketStore(s3.place) as store,
        ):

            async def refuse(request: web.BaseRequest, _: bytes) -> web.StreamResponse | None:
                return refusal(400, "ExpiredToken") if is_part(request, 2) else None

            gate.meddle = refuse
            await store.fetch(url, TARGET)

    with pytest.raises(DiskError, match="have expired"):
        asyncio.run(main())
    assert (s3.names(), s3.unfinished()) == ([], [])


@pytest.mark.parametrize("endpoint", ["http://10.0.0.1:9000", "http://minio.example.com"])
def test_keys_go_out_encrypted(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """What is stored, too: without TLS only to this machine."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(UsageError, match="AWS_ENDPOINT_URL leads to http://"):
        Bucket(BucketUrl.parse("s3://media/x"))


def test_the_library_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has no bucket needs none."""
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(UsageError, match=r"pip install 'asyncpipe\[s3\]'"):
        Bucket(BucketUrl.parse("s3://media/x"))


# -- what passes by -----------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [1, 7, 16, 1000, 10**6])
@pytest.mark.parametrize("cut", [0, 1, 9, 5000, 9000])
def test_an_end_is_seen_in_passing(piece: int, cut: int) -> None:
    """The same is found as in a file that can be read at will, however the bytes come."""
    boxes = b"".join(n.to_bytes(4, "big") + b"free" + bytes(n - 8) for n in (8, 9, 30, 4000))
    long = (1).to_bytes(4, "big") + b"free" + (5000).to_bytes(8, "big") + bytes(4984)
    for kind, whole in {"mp4": film(9000)[:32] + boxes + long, "jpg": FILM[:9000]}.items():
        body = whole[: len(whole) - cut]
        passing = Passing()
        for at in range(0, len(body), piece):
            passing.feed(body[at : at + piece])

        def read(at: int, size: int, body: bytes = body) -> bytes:
            return body[at : at + size]

        for told in (True, False):
            expected = broken(kind, len(body), read, told=told)
            assert broken(kind, len(body), passing.read, told=told) == expected
