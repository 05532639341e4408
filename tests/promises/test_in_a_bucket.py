"""Jobs whose media go to a bucket: the promises are those of a folder on disk."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from asyncpipe import Job, Manifest, Pipeline, read_manifest
from asyncpipe.engine import chase
from asyncpipe.engine.verify import verify
from asyncpipe.errors import DiskError, LedgerError, UsageError
from asyncpipe.ledger import choose
from asyncpipe.media import bucket as edge
from asyncpipe.media.bucket import PART
from asyncpipe.report import export_stream
from asyncpipe.testing import PIXEL, FakeProvider, Script
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
from tests.support.media import PNG_WHOLE, offering
from tests.support.pipelines import a_pipeline, job
from tests.support.postgres import shared_url

_names = itertools.count(1)

QUICK = FakeProvider(default=Script(generation_s=0.0))


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    monkeypatch.setattr(chase, "INITIAL_S", 0.05)
    with a_bucket(monkeypatch) as found:
        choose(shared_url(), f"{found.bucket}-{os.getpid()}")
        try:
            yield found
        finally:
            choose(None, None)


def quick(**scripts: Script) -> FakeProvider:
    return FakeProvider(scripts=scripts, default=Script(generation_s=0.0))


def pipeline(s3: S3, provider: FakeProvider, **options: Any) -> Pipeline:
    return a_pipeline(provider, s3.place, seed=1, **options)


async def batch(s3: S3, provider: FakeProvider, jobs: list[Job], **options: Any) -> Manifest:
    async with pipeline(s3, provider, **options) as running:
        return await running.batch_generate(jobs)


def run(s3: S3, provider: FakeProvider, *names: str, **options: Any) -> Counter[str]:
    """Run jobs of these names; how many ended how."""
    manifest = asyncio.run(batch(s3, provider, [job(name) for name in names], **options))
    return Counter(result.outcome.value for result in manifest)


def written(s3: S3) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(s3.get("manifest.json")[0])
    return told


def test_a_run_into_a_bucket_is_whole(s3: S3) -> None:
    """Media, manifest and export name the place; the same again buys nothing."""
    provider = quick()
    assert run(s3, provider, "mug", "cup") == {"succeeded": 2}
    assert sorted(s3.names()) == ["images/cup.png", "images/mug.png", "manifest.json"]
    assert s3.get("images/mug.png") == (PNG_WHOLE, "image/png")
    told = written(s3)
    assert told["store"] == str(s3.place)
    (asset,) = told["results"][0]["assets"]
    assert asset["url"] == f"{s3.place}/images/mug.png"
    assert asset["store"] == str(s3.place)
    assert asset["sha256"] == hashlib.sha256(PNG_WHOLE).hexdigest()
    assert s3.get("manifest.json")[1] == "application/json"
    assert run(s3, provider, "mug", "cup") == {"succeeded": 2}
    assert sorted(provider.sold) == ["cup", "mug"]
    assert read_manifest(s3.place).url == f"{s3.place}/manifest.json"
    assert KEY not in json.dumps(told)
    assert SECRET not in json.dumps(told)


def test_a_bucket_needs_a_ledger_elsewhere(s3: S3) -> None:
    """A folder's own lies in the folder, and there is none."""
    choose(None, None)
    with pytest.raises(UsageError, match="--ledger postgresql"):
        run(s3, quick(), "mug")


def test_a_ledger_that_knows_nothing_of_a_bucket_does_not_buy_it_again(s3: S3) -> None:
    """The manifest that stands there says that somebody has bought for it."""
    run(s3, quick(), "mug")
    choose(shared_url(), f"another-{os.getpid()}")
    provider = quick()
    with pytest.raises(LedgerError, match="manifest of 1 jobs"):
        run(s3, provider, "mug")
    assert provider.sold == []
    assert written(s3)["total_jobs"] == 1


def test_a_file_that_is_called_like_a_manifest_stays(s3: S3) -> None:
    """Nothing of a stranger's is written over."""
    s3.put("manifest.json", b'{"name": "a web app"}')
    provider = quick()
    with pytest.raises(LedgerError, match="no manifest of asyncpipe's"):
        run(s3, provider, "mug")
    assert provider.sold == []
    assert s3.get("manifest.json")[0] == b'{"name": "a web app"}'


def test_names_of_strangers_are_left_to_them(s3: S3) -> None:
    """A job gets a nicer name than the store would give it."""
    s3.put("images/mug.jpg", b"mine")
    run(s3, quick(), "mug")
    (result,) = read_manifest(s3.place)
    assert result.assets[0].name.startswith("images/mug-")
    assert s3.get("images/mug.jpg")[0] == b"mine"


def test_a_store_that_hangs_does_not_hold_the_ledger_up(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names are not worth waiting for: what was bought is written meanwhile."""
    monkeypatch.setattr(edge, "HASTE", timedelta(seconds=0.2))
    provider = quick()

    async def main() -> Manifest:
        over = asyncio.Event()

        async def hang(request: web.BaseRequest, _: bytes) -> None:
            if "images" in request.query.get("prefix", ""):
                await over.wait()

        async with gated(s3, monkeypatch) as gate, pipeline(s3, provider) as running:
            gate.meddle = hang
            try:
                return await running.batch_generate([job("mug")])
            finally:
                over.set()

    assert asyncio.run(main()).totals.successful == 1
    assert s3.get("images/mug.png")[0] == PNG_WHOLE


def test_verify_finds_what_is_missing_or_changed(s3: S3) -> None:
    """By its bytes; what changed is kept beside, and both are fetched again, at no cost."""
    provider = quick()
    run(s3, provider, "mug", "cup", "pot")
    assert asyncio.run(verify(s3.place)).bad_count == 0
    s3.client.delete_object(Bucket=s3.bucket, Key=f"{s3.place.prefix}/images/mug.png")
    s3.put("images/cup.png", bytes(len(PNG_WHOLE)))
    found = asyncio.run(verify(s3.place))
    problems = {bad.asset.path: bad.problem for bad in found.bad}
    assert problems == {
        "images/mug.png": "is missing",
        "images/cup.png": "has changed (kept as cup.png.changed)",
    }
    assert found.checked == 3

    async def collect() -> Manifest:
        async with pipeline(s3, provider) as running:
            return await running.collect()

    assert asyncio.run(collect()).totals.successful == 3
    assert s3.get("images/cup.png")[0] == s3.get("images/mug.png")[0] == PNG_WHOLE
    assert s3.get("images/cup.png.changed")[0] == bytes(len(PNG_WHOLE))
    assert len(provider.sold) == 3
    assert asyncio.run(verify(s3.place)).bad_count == 0


def test_a_next_run_sees_what_is_gone_by_listing(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of assets cost a request or two, not one each."""
    provider, names = quick(), [f"j{n:02d}" for n in range(30)]
    run(s3, provider, *names)
    s3.client.delete_object(Bucket=s3.bucket, Key=f"{s3.place.prefix}/images/j07.png")

    async def again() -> list[str]:
        async with gated(s3, monkeypatch) as gate:
            await batch(s3, provider, [job(name) for name in names])
            return [line for line in gate.lines if line.startswith("HEAD")]

    assert len(asyncio.run(again())) <= 3
    assert s3.get("images/j07.png")[0] == PNG_WHOLE
    assert len(provider.sold) == 30


def test_a_store_that_cannot_be_asked_says_nothing_of_what_is_in_it(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is fetched again for it."""
    run(s3, quick(), "mug")

    async def main() -> None:
        async with gated(s3, monkeypatch) as gate:

            async def away(request: web.BaseRequest, _: bytes) -> web.StreamResponse | None:
                return refusal(503, "SlowDown") if request.method in ("GET", "HEAD") else None

            gate.meddle = away
            await verify(s3.place)

    with pytest.raises(DiskError, match="nothing is known of what is there"):
        asyncio.run(main())
    (result,) = read_manifest(s3.place)
    assert result.status == "success"


def test_a_missing_bucket_is_said_before_anything_is_bought(s3: S3) -> None:
    """Nor is anything asked of the provider."""
    s3.client.delete_bucket(Bucket=s3.bucket)
    provider = quick()
    with pytest.raises(UsageError, match="no such bucket"):
        run(s3, provider, "mug")
    assert provider.sold == []


def test_a_store_that_is_away_for_a_while_is_waited_for(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run goes on by itself; each job is bought once."""
    provider = quick()

    async def main() -> Manifest:
        refused = 0

        async def away(request: web.BaseRequest, _: bytes) -> web.StreamResponse | None:
            nonlocal refused
            if request.method != "PUT" or refused >= 40:
                return None
            refused += 1
            return refusal(503, "SlowDown")

        async with gated(s3, monkeypatch) as gate, pipeline(s3, provider) as running:
            gate.meddle = away
            return await running.batch_generate([job(name) for name in ("a", "b", "c")])

    assert asyncio.run(main()).totals.successful == 3
    assert sorted(provider.sold) == ["a", "b", "c"]
    assert len([name for name in s3.names() if name.startswith("images/")]) == 3


def test_a_manifest_that_cannot_be_written_for_a_while_stops_nothing(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written when the store is back, by the end of the run at the latest."""
    monkeypatch.setattr("asyncpipe.engine.recorder.MANIFEST_EVERY_S", 0.01)
    monkeypatch.setattr("asyncpipe.engine.recorder.manifest_due_s", lambda rows, took_s: 0.01)
    provider = quick()

    async def main() -> Manifest:
        failed = asyncio.Event()
        refused = 0

        async def away(request: web.BaseRequest, _: bytes) -> web.StreamResponse | None:
            nonlocal refused
            if "images" in request.path and request.method == "PUT":
                await failed.wait()
            if "manifest" not in request.path or request.method == "GET" or failed.is_set():
                return None
            refused += 1
            if refused == 6:  # of one that was tried six times
                failed.set()
            return refusal(503, "SlowDown")

        async with gated(s3, monkeypatch) as gate, pipeline(s3, provider) as running:
            gate.meddle = away
            return await running.batch_generate([job(name) for name in "ab"])

    assert asyncio.run(main()).totals.successful == 2
    assert written(s3)["successful"] == 2


def test_keys_that_expire_stop_the_run_and_lose_nothing(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was bought by then is brought home by the next run with keys that hold."""
    provider = quick()

    async def main() -> tuple[Manifest, Exception | None]:
        async def expired(request: web.BaseRequest, _: bytes) -> web.StreamResponse | None:
            return refusal(400, "ExpiredToken") if "images" in request.path else None

        async with gated(s3, monkeypatch) as gate, pipeline(s3, provider, max_workers=1) as running:
            gate.meddle = expired
            manifest = await running.batch_generate([job(name) for name in ("a", "b", "c", "d")])
            return manifest, running.stopped

    manifest, stopped = asyncio.run(main())
    assert isinstance(stopped, DiskError)
    assert "keys in the environment have expired" in str(stopped)
    assert manifest.totals.successful == 0
    bought = len(provider.sold)
    assert 1 <= bought < 4
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    assert run(s3, provider, "a", "b", "c", "d") == {"succeeded": 4}
    assert len(provider.sold) == 4


def test_a_shard_of_a_queue_goes_to_a_bucket(s3: S3) -> None:
    """Who writes the jobs and who carries them need not be one machine."""
    provider = quick()

    async def main() -> int:
        async with pipeline(s3, provider) as writing:
            shards = await writing.enqueue([job(name) for name in "abcd"], shard_size=2)
        async with pipeline(s3, provider) as working:
            await working.work(shard=shards[1])
        return len(shards)

    assert asyncio.run(main()) == 2
    assert sorted(provider.sold) == ["c", "d"]
    assert {name for name in s3.names() if name.startswith("images/")} == {
        "images/c.png",
        "images/d.png",
    }


def test_what_lies_in_another_store_is_not_looked_at(s3: S3, tmp_path: Path) -> None:
    """One place may have files in a folder and in a bucket: each is verified where it is."""
    provider = quick()
    run(s3, provider, "mug")
    folder = tmp_path / "out"

    async def here() -> None:
        async with Pipeline(provider, folder, seed=1, storage={"min_free_bytes": 0}) as running:
            await running.batch_generate([job("cup")])

    asyncio.run(here())
    s3.client.delete_object(Bucket=s3.bucket, Key=f"{s3.place.prefix}/images/mug.png")
    looked = asyncio.run(verify(folder))
    assert (looked.checked, looked.bad_count) == (1, 0)
    assert looked.elsewhere == {str(s3.place): 1}
    looked = asyncio.run(verify(s3.place))
    assert (looked.checked, looked.bad_count) == (1, 1)
    assert sum(looked.elsewhere.values()) == 1


CHILD = """
import asyncio, sys
from asyncpipe import Job, Pipeline
from asyncpipe.testing import FakeProvider, Script
from tests.support.job_files import VEO

async def main(place, ledger, name, url):
    provider = FakeProvider(default=Script(generation_s=0.0, outputs=(url,), prediction_id="p1"))
    at = {"url": ledger, "place": name, "lease_s": 2.0}
    async with Pipeline(provider, place, ledger=at) as running:
        manifest = await running.batch_generate([Job(name="film", model=VEO, prompt="a film")])
    print(manifest.totals.successful, len(provider.sold), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_run_that_is_killed_in_mid_upload_goes_on(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No object is there but whole ones; the media are fetched again, and not bought."""
    body = film(3 * PART)

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(body=body)

    async def child(gate: Any, url: str, *, kill: bool) -> tuple[int, str]:
        arguments = [str(s3.place), shared_url(), f"{s3.bucket}-{os.getpid()}", url]
        running = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CHILD, *arguments),
            cwd=ROOT,
            env=os.environ | environment(os.environ["AWS_ENDPOINT_URL"]),
            stdout=asyncio.subprocess.PIPE,
        )

        async def strike(request: web.BaseRequest, _: bytes) -> None:
            if kill and is_part(request, 2):
                running.send_signal(signal.SIGKILL)
                await running.wait()

        gate.meddle = strike
        told, _ = await running.communicate()
        assert running.returncode is not None
        return running.returncode, told.decode().strip()

    async def main() -> None:
        async with gated(s3, monkeypatch) as gate, offering(answer) as url:
            assert (await child(gate, url, kill=True))[0] == -signal.SIGKILL
            assert not [name for name in s3.names() if name.startswith("videos/")]
            assert await child(gate, url, kill=False) == (0, "1 0")

    asyncio.run(main())
    assert s3.get("videos/film.mp4") == (body, "video/mp4")


# -- links --------------------------------------------------------------------------------------


def test_links_by_a_template(s3: S3) -> None:
    """In manifest and export, quoted; what writes the manifest next makes them alike."""
    template = "https://cdn.example.com/{path}"
    provider = quick()
    run(s3, provider, "杯子", public_url=template)
    link = "https://cdn.example.com/images/%E6%9D%AF%E5%AD%90.png"
    assert written(s3)["results"][0]["assets"][0]["url"] == link
    s3.client.delete_object(Bucket=s3.bucket, Key=f"{s3.place.prefix}/images/杯子.png")
    assert asyncio.run(verify(s3.place)).bad_count == 1
    assert written(s3)["links"] == {"public_url": template}
    run(s3, provider, "杯子")
    assert written(s3)["results"][0]["assets"][0]["url"] == link
    assert exported(s3)["asset_url"] == link


def exported(s3: S3) -> dict[str, Any]:
    from io import BytesIO

    stream = BytesIO()
    export_stream(s3.place, stream, "jsonl")
    row: dict[str, Any] = json.loads(stream.getvalue())
    return row


def test_links_that_are_signed_end_and_say_when(s3: S3) -> None:
    """Anybody can read by them until then; no key is in them but its public id."""
    import urllib.request

    run(s3, quick(), "mug", presign="12h")
    told = written(s3)
    url = told["results"][0]["assets"][0]["url"]
    assert "X-Amz-Expires=43200" in url
    assert SECRET not in url
    assert told["links_until"] > told["generated_at"]
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == PNG_WHOLE
    assert "X-Amz-Expires=43200" in exported(s3)["asset_url"]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"presign": "8d"}, "7 days at most"),
        ({"presign": "soon"}, "as 12h or 7d"),
        ({"public_url": "https://cdn.example.com/"}, "with {path}"),
        ({"public_url": "ftp://x/{path}"}, "with {path}"),
        ({"public_url": "https://me:secret@x/{path}"}, "leave user and password out"),
        ({"public_url": "https://x/{path}", "presign": "1d"}, "exclude each other"),
    ],
)
def test_links_that_make_no_sense(said: dict[str, str], why: str) -> None:
    """Said before anything is opened."""
    with pytest.raises(UsageError, match=why) as caught:
        Pipeline(QUICK, "s3://media/x", storage=said)
    assert "secret" not in str(caught.value)


def test_a_manifest_is_written_whole_or_not(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger that fails in the middle leaves the old one."""
    run(s3, quick(), "mug")
    before = s3.get("manifest.json")
    from asyncpipe.report import manifest, write_manifest

    def fail(*_: object) -> Any:
        raise LedgerError("the ledger cannot be read any more")

    monkeypatch.setattr(manifest, "result_of", fail)
    with pytest.raises(LedgerError, match="any more"):
        write_manifest(s3.place)
    assert s3.get("manifest.json") == before
    assert s3.unfinished() == []


def test_pixels_are_what_they_are() -> None:
    """What the fake provider gives is what is looked for above."""
    assert PIXEL.startswith("data:image/png")
