"""Results are data: a word for programs, files that can be found, JSON, and money in USD."""

from __future__ import annotations

import base64
import json
import struct
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import Asset, JobFailed, JobState, Outcome, Reason, Result, read_manifest
from asyncpipe.errors import DiskError, Rejected, SubmitUnknown, UsageError
from asyncpipe.media import measure
from asyncpipe.providers import Prediction, PredictionStatus
from asyncpipe.report import export_file
from asyncpipe.report.results import reason_of
from asyncpipe.testing import PIXEL, FakeProvider, Script, run_virtual
from tests.support.pipelines import job, opened

FAILED, DONE = PredictionStatus.FAILED, PredictionStatus.COMPLETED

NONE_OUT = Script(polls=[Prediction(id="p", status=DONE, error="nothing came")] * 500)

SCRIPTS = {
    "well": Script(),
    "moderated": Script(end=FAILED, error="no", moderated=True, released=False),
    "refused": Script(submits=[Rejected("400", status=400)]),
    "broken": Script(end=FAILED, error="out of memory", released=False),
    "free": Script(end=FAILED, error="out of memory", released=True),
    "empty": NONE_OUT,
    "late": Script(generation_s=1e6),
    "lost answer": Script(submits=[SubmitUnknown("no answer")]),
}

REASONS = {
    "well": None,
    "moderated": Reason.MODERATED,
    "refused": Reason.REFUSED,
    "broken": Reason.PROVIDER_FAILED,
    "free": Reason.PROVIDER_FAILED,
    "empty": Reason.NO_OUTPUT,
    "late": Reason.EXPIRED,
    "lost answer": Reason.UNKNOWN,
}


def run(folder: Path, provider: FakeProvider, names: list[str]) -> dict[str, Result]:
    async def main() -> dict[str, Result]:
        async with opened(folder, provider, retries=0, search_s=1.0) as pipeline:
            manifest = await pipeline.batch_generate([job(n, deadline_s=90.0) for n in names])
            return {result.name: result for result in manifest}

    return run_virtual(main())


def test_each_way_to_end_has_its_word(tmp_path: Path) -> None:
    """In results, manifest and export alike; moderated, refused and broken are three."""
    results = run(tmp_path, FakeProvider(scripts=SCRIPTS), [*SCRIPTS])
    assert {name: result.reason for name, result in results.items()} == REASONS
    assert results["moderated"].moderated
    assert [name for name, result in results.items() if result.ok] == ["well"]
    document = json.loads((tmp_path / "manifest.json").read_bytes())
    assert {row["name"]: row["reason"] for row in document["results"]} == REASONS
    assert document["run"]["manifest_version"] == 2
    export_file(tmp_path, tmp_path / "jobs.jsonl", form="jsonl")
    lines = map(json.loads, (tmp_path / "jobs.jsonl").read_text(encoding="utf-8").splitlines())
    assert {row["name"]: row["reason"] for row in lines} == REASONS


@pytest.mark.parametrize(
    ("state", "outcome", "settled", "bought", "reason"),
    [
        (JobState.PENDING, Outcome.PENDING, None, False, None),
        (JobState.GENERATED, Outcome.PENDING, "charged", True, None),
        (JobState.LOST, Outcome.FAILED_CHARGED, "charged", True, Reason.LOST),
        (JobState.MISSING, Outcome.MISSING, "charged", True, Reason.MISSING),
        (JobState.FAILED, Outcome.UNKNOWN, "absent", False, Reason.UNKNOWN),
        (JobState.FAILED, Outcome.FAILED_CHARGED, "charged", False, Reason.GIVEN_UP),
        (JobState.FAILED, Outcome.FAILED_NOT_CHARGED, "free", True, Reason.GIVEN_UP),
        (JobState.FAILED, Outcome.FAILED_NOT_CHARGED, "released", True, Reason.PROVIDER_FAILED),
    ],
)
def test_a_reason_follows_from_how_a_job_ended(
    state: JobState, outcome: Outcome, settled: str | None, bought: bool, reason: Reason | None
) -> None:
    """The rest of the table."""
    assert reason_of(state, outcome, {}, settled=settled, bought=bought) is reason


def test_a_failure_can_be_raised(tmp_path: Path) -> None:
    """With the result; one that succeeded passes."""
    results = run(tmp_path, FakeProvider(scripts=SCRIPTS), ["well", "broken"])
    assert results["well"].raise_for_status() is results["well"]
    with pytest.raises(JobFailed, match="broken: out of memory") as caught:
        results["broken"].raise_for_status()
    assert caught.value.result is results["broken"]


def test_the_code_of_a_failure_is_kept(tmp_path: Path) -> None:
    """The provider's own number."""
    answer = Prediction(id="p", status=FAILED, error="no", error_code=1042, released=False)
    results = run(tmp_path, FakeProvider(scripts={"a": Script(polls=[answer])}), ["a"])
    assert results["a"].error_code == 1042


def test_a_file_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its path is absolute, though the output folder was not."""
    monkeypatch.chdir(tmp_path)
    (asset,) = run(Path("out"), FakeProvider(), ["well"])["well"].assets
    (same,) = next(iter(read_manifest(Path("out")))).assets
    monkeypatch.chdir("/")
    assert asset.path.is_absolute()
    assert asset == same
    assert (asset.name, asset.path) == ("images/well.png", tmp_path / "out/images/well.png")
    assert asset.url == asset.path.as_uri()
    assert (asset.media_type, asset.width, asset.height) == ("image/png", 1, 1)
    assert asset.duration_s is None

    assert run_virtual(asset.read()) == asset.path.read_bytes()
    asset.path.unlink()
    with pytest.raises(DiskError, match="cannot be read"):
        run_virtual(asset.read())


def test_a_result_is_json(tmp_path: Path) -> None:
    """Nothing but what ``json.dumps`` takes; amounts are exact."""
    results = run(tmp_path, FakeProvider(scripts=SCRIPTS), ["well", "refused"])
    told = json.loads(json.dumps(results["well"].to_dict()))
    assert (told["cost"], told["ok"], told["reason"]) == ("0.040000", True, None)
    assert told["assets"][0]["path"] == str(results["well"].assets[0].path)
    assert told["assets"][0]["width"] == 1
    assert (told["type"], told["state"], told["status"]) == ("image", "succeeded", "success")
    told = json.loads(json.dumps(results["refused"].to_dict()))
    assert (told["reason"], told["error"], told["assets"]) == ("refused", "400", [])


def test_a_file_in_a_bucket_has_a_url_and_no_path() -> None:
    """Nor does anybody guess what it measures."""
    asset = Asset(name="images/a.png", size=1, sha256="0", store="s3://bucket/week")
    assert asset.url == "s3://bucket/week/images/a.png"
    assert (asset.media_type, asset.width) == ("image/png", None)
    with pytest.raises(UsageError, match="no file of this machine"):
        _ = asset.path
    assert json.loads(json.dumps(asset.to_dict()))["path"] is None


def test_money_is_usd_as_decimal(tmp_path: Path) -> None:
    """In totals, too."""

    async def main() -> None:
        async with opened(tmp_path, FakeProvider()) as pipeline:
            result = await pipeline.generate(job("a"))
            totals = pipeline.totals
            assert totals.charged == result.cost == Decimal("0.04")
            assert totals.cost_by_model == {result.model: Decimal("0.04")}
            for amount in (totals.reserved, totals.held, totals.estimated, totals.overrun):
                assert amount == Decimal(0)
                assert isinstance(amount, Decimal)

    run_virtual(main())


def test_what_is_refused_in_a_stream_says_so(tmp_path: Path) -> None:
    """Without a place in the ledger."""

    async def main() -> list[Result]:
        async with opened(tmp_path, FakeProvider()) as pipeline:
            return [each async for each in pipeline.stream([{"prompt": "x"}])]

    (result,) = run_virtual(main())
    assert (result.reason, result.type, result.key) == (Reason.REFUSED, None, "")
    assert json.dumps(result.to_dict())


# -- what files measure -------------------------------------------------------------------------


def box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), name) + body


def mvhd(duration: int, scale: int = 600) -> bytes:
    return box(b"mvhd", bytes(12) + struct.pack(">II", scale, duration) + bytes(80))


def tkhd(width: int, height: int, matrix: tuple[int, ...] = (1, 0, 0, 0, 1)) -> bytes:
    a, b, u, c, d = (each * 65536 for each in matrix)
    turned = struct.pack(">9i", a, b, u, c, d, 0, 0, 0, 1 << 30)
    return box(b"tkhd", bytes(40) + turned + struct.pack(">II", width << 16, height << 16))


def movie(*tracks: bytes, duration: int = 1500) -> bytes:
    ftyp, mdat = box(b"ftyp", b"isom" + bytes(8)), box(b"mdat", bytes(1000))
    moov = box(b"moov", mvhd(duration) + b"".join(box(b"trak", track) for track in tracks))
    return ftyp + mdat + moov


def wav(size: int, there: int) -> bytes:
    fmt = struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16)
    head = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", size)
    return b"RIFF" + struct.pack("<I", len(head) + there) + head + bytes(there)


def exif(orientation: int) -> bytes:
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0" + tiff
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def jpeg(*segments: bytes, width: int = 640, height: int = 480) -> bytes:
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\x01\x11\x00"
    return b"\xff\xd8" + b"".join(segments) + frame + b"\xff\xd9"


TURNED = (0, 1, 0, -1, 0)

FILES: dict[str, tuple[bytes, Any]] = {
    "pixel.png": (base64.b64decode(PIXEL.partition(",")[2]), (1, 1, None)),
    "a.gif": (b"GIF89a" + struct.pack("<HH", 320, 200) + bytes(20), (320, 200, None)),
    "a.jpg": (jpeg(b"\xff\xe0\x00\x04ab"), (640, 480, None)),
    "turned.jpg": (jpeg(exif(6)), (480, 640, None)),
    "upright.jpg": (jpeg(exif(1)), (640, 480, None)),
    "a.mp4": (movie(tkhd(0, 0), tkhd(1920, 1080)), (1920, 1080, 2.5)),
    "turned.mp4": (movie(tkhd(1920, 1080, TURNED)), (1080, 1920, 2.5)),
    "sound.m4a": (movie(tkhd(0, 0)).replace(b"isom", b"M4A "), (None, None, 2.5)),
    "streamed.mp4": (movie(tkhd(8, 8), duration=0), (8, 8, None)),
    "a.wav": (wav(16000, 16000), (None, None, 1.0)),
    "endless.wav": (wav(0xFFFFFFFF, 16000), (None, None, None)),
    "a.webp": (
        b"RIFF" + bytes(4) + b"WEBPVP8X" + bytes(8) + b"\x7f\x02\0\xdf\x01\0",
        (640, 480, None),
    ),
    "cut.mp4": (movie(tkhd(1920, 1080))[:-60], (None, None, None)),
    "cut.png": (base64.b64decode(PIXEL.partition(",")[2])[:20], (None, None, None)),
    "nonsense.png": (b"\x89PNG\r\n\x1a\n" + bytes(200), (None, None, None)),
    "text.png": (b"no picture at all", (None, None, None)),
    "empty.png": (b"", (None, None, None)),
}


@pytest.mark.parametrize("name", FILES)
def test_what_a_file_says_of_itself_is_told(tmp_path: Path, name: str) -> None:
    """And nothing that it does not say."""
    body, measures = FILES[name]
    (tmp_path / name).write_bytes(body)
    found = measure(tmp_path / name)
    assert (found.width, found.height, found.duration_s) == measures


def test_any_bytes_are_measured_without_harm(tmp_path: Path) -> None:
    """Cut or changed anywhere: an answer, never an error."""
    path = tmp_path / "x"
    for body, _ in FILES.values():
        for at in range(0, min(len(body), 120), 3):
            path.write_bytes(body[:at] + b"\xff\xff" + body[at + 2 :])
            measure(path)
            path.write_bytes(body[:at])
            measure(path)
    assert measure(tmp_path / "nothing").width is None


def test_real_files_measure_what_they_were_made_as(tmp_path: Path) -> None:
    """By Pillow and PyAV, which the simulator makes its media with."""
    image = pytest.importorskip("PIL.Image")
    for ending, kind in (("png", "PNG"), ("jpg", "JPEG"), ("gif", "GIF"), ("webp", "WEBP")):
        for size in ((31, 17), (640, 360)):
            buffer = BytesIO()
            image.new("RGB", size).save(buffer, kind)
            path = tmp_path / f"a.{ending}"
            path.write_bytes(buffer.getvalue())
            found = measure(path)
            assert (found.width, found.height) == size, ending
    from asyncpipe.simulator.media import clip_size, draw_clip

    av = pytest.importorskip("av")
    body = {"model": "m/text-to-video", "prompt": "x", "width": 320, "height": 180, "duration": 4}
    path = tmp_path / "a.mp4"
    path.write_bytes(draw_clip(body, 0, 1))
    with av.open(str(path)) as clip:
        lasts = clip.duration / 1_000_000
    found = measure(path)
    assert (found.width, found.height) == clip_size(body)
    assert found.duration_s == pytest.approx(lasts, abs=0.05)
