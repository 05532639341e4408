"""Local files as inputs: checked before spending, uploaded once, never confused, never leaked."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sqlite3
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import anyio
import pytest
from aiohttp import web

from asyncpipe import AtlasCloud, Job, JobFileError, Pipeline, Polling, load_jobs
from asyncpipe.engine.upload import FRESH, Uploads, is_fresh, speaks_of_input
from asyncpipe.errors import (
    BalanceExhausted,
    KeyRefused,
    NotAccepted,
    ProviderError,
    RateLimited,
    Rejected,
)
from asyncpipe.http.multipart import FilePart
from asyncpipe.jobs.inputs import LocalFile, is_local, local_media, with_media
from asyncpipe.ledger.database import Ledger, reading
from asyncpipe.ledger.queries import job_from_spec, job_to_spec
from asyncpipe.media.formats import media_type
from asyncpipe.media.local import MOST_BYTES, BadInputs, LocalFiles, trouble_with
from asyncpipe.providers.atlas.reader import read_upload
from asyncpipe.providers.base import PredictionStatus
from asyncpipe.simulator.faults import Faults
from asyncpipe.simulator.server import Simulator
from asyncpipe.simulator.settings import SimulatorSettings
from asyncpipe.testing import FakeProvider, Script, run_virtual
from tests.support.servers import serving

FLUX = "black-forest-labs/flux-2-pro/text-to-image"
KEY = "apikey-a-secret-that-must-not-travel"
PNG = b"\x89PNG\r\n\x1a\n"


def photo(folder: Path, name: str, *, mark: str = "") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(PNG + (mark or name).encode() + bytes(2000))
    return path


def job(name: str, image: object, **fields: Any) -> Job:
    return Job(
        name=name, model=FLUX, prompt=f"on an oak table {name}", params={"image": image}, **fields
    )


# -- what is a file of this machine ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("photos/杯子.jpg", True),
        ("a.png", True),
        ("C:\\photos\\a.png", True),
        ("file:///srv/a.png", True),
        ("https://x/a.png", False),
        ("HTTP://x/a.png", False),
        ("data:image/png;base64,AA==", False),
        ("asset://a1b2", False),
        ("QUFB" * 100, False),
        ("", False),
    ],
)
def test_urls_data_and_base64_pass_through_all_else_is_a_path(text: str, local: bool) -> None:
    """Whoever writes a path wrong is told so; a URL is never taken for one."""
    assert is_local(text) is local


def test_media_are_found_wherever_they_stand_and_nothing_else() -> None:
    """In lists, and in mappings of lists; a style called ``a.png`` is not a file."""
    params = {
        "image": "a.png",
        "images": ["b.png", "https://x/c.png"],
        "references": [{"audio_url": "v.mp3", "weight": 1}, {"text": "d.png"}],
        "style": "e.png",
        "last_image": None,
        "video": True,
        "start_image_url": "f.png",
    }
    found = dict(local_media(params))
    assert found == {
        "image": "a.png",
        "images[0]": "b.png",
        "references[0].audio_url": "v.mp3",
        "start_image_url": "f.png",
    }
    sent = with_media(
        params, {text: f"https://u/{text}" for text in found.values()} | {"e.png": "!"}
    )
    assert sent["images"] == ["https://u/b.png", "https://x/c.png"]
    assert sent["references"][0] == {"audio_url": "https://u/v.mp3", "weight": 1}
    assert sent["references"][1] == {"text": "d.png"}
    assert (sent["style"], sent["video"], sent["last_image"]) == ("e.png", True, None)
    assert params["image"] == "a.png", "the job itself is not changed"


# -- identity -------------------------------------------------------------------------------------


def test_a_job_is_the_bytes_it_takes_in_not_their_place(tmp_path: Path) -> None:
    """The photos folder may move; other bytes are another job."""
    photo(tmp_path, "old/a.png", mark="same")
    photo(tmp_path, "new/杯子.png", mark="same")
    photo(tmp_path, "new/b.png", mark="other")
    files = LocalFiles(tmp_path)
    keys = [
        files.attach(job("x", image)).key("atlas")
        for image in ("old/a.png", "new/杯子.png", str(tmp_path / "old" / "a.png"), "new/b.png")
    ]
    assert keys[0] == keys[1] == keys[2] != keys[3]
    assert job("x", "https://x/a.png").key("atlas") != keys[0]


def test_a_file_is_hashed_once_however_many_jobs_take_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1,000 jobs with one photo; again only when its size or time is another."""
    path, reads = photo(tmp_path, "a.png"), Counter[str]()
    digest = hashlib.file_digest

    def counting(file: Any, name: Any) -> Any:
        reads[file.name] += 1
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counting)
    files = LocalFiles(tmp_path)
    for n in range(1000):
        files.attach(job(str(n), ["a.png", "./a.png"]))
    assert sum(reads.values()) == 1
    os.utime(path, ns=(1, 1))
    files.attach(job("again", "a.png"))
    assert sum(reads.values()) == 2


def test_the_spec_keeps_path_and_digest_and_never_bytes(tmp_path: Path) -> None:
    """And gives the same job back, with its key."""
    photo(tmp_path, "a.png")
    attached = LocalFiles(tmp_path).attach(job("x", "a.png"))
    spec = json.loads(json.dumps(job_to_spec(attached)))
    assert spec["params"] == {"image": "a.png"}
    assert len(json.dumps(spec)) < 1000
    assert job_from_spec(spec) == attached
    assert job_from_spec(spec).key("atlas") == attached.key("atlas")
    assert "inputs" not in job_to_spec(job("y", "https://x/a.png"))


# -- checked before anything is spent -------------------------------------------------------------


def test_everything_wrong_with_files_is_said_at_once(tmp_path: Path) -> None:
    """With line, job, field, value and remedy; relative to the job file, not to here."""
    photo(tmp_path, "photos/好.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "notes.png").write_text("not a picture", encoding="utf-8")
    with (tmp_path / "large.mp4").open("wb") as file:
        file.write(PNG)
        file.truncate(MOST_BYTES + 1)
    path = tmp_path / "jobs.yaml"
    path.write_text(
        f"defaults: {{model: {FLUX}, prompt: p}}\n"
        "jobs:\n"
        "  - {name: fine, image: photos/好.png}\n"
        "  - {name: gone, image: photos/没有.png}\n"
        "  - {name: two, images: [empty.png, photos]}\n"
        "  - {name: text, params: {image_url: notes.png}}\n"
        "  - {name: large, video: large.mp4}\n"
        "  - {name: home, params: {end_image: ~/a.png, mask: 'file:///a.png'}}\n",
        encoding="utf-8",
    )
    with pytest.raises(JobFileError) as caught:
        load_jobs(path)
    said = [str(problem).replace(str(tmp_path), "…") for problem in caught.value.problems]
    assert said == [
        "…/jobs.yaml:4: job 'gone': image: 'photos/没有.png': there is no file …/photos/没有.png: "
        "correct the path, or write a URL with its https://",
        "…/jobs.yaml:5: job 'two': images[0]: 'empty.png' is empty",
        "…/jobs.yaml:5: job 'two': images[1]: 'photos' is a folder: name the file in it",
        "…/jobs.yaml:6: job 'text': image_url: 'notes.png' is no picture, video or sound: "
        "it begins b'not a picture'",
        "…/jobs.yaml:7: job 'large': video: 'large.mp4' has 52424705 bytes, the API takes 50 MB: "
        "make it smaller, or give its URL",
        "…/jobs.yaml:8: job 'home': end_image: '~/a.png': there is no file …/~/a.png: "
        "~ is not expanded here, write the whole path",
        "…/jobs.yaml:8: job 'home': mask: 'file:///a.png': write the path alone, without file:",
    ]


def test_a_file_that_may_not_be_read_is_said_before(tmp_path: Path) -> None:
    """Like one that hangs in the air, or is no file at all."""
    files = LocalFiles(tmp_path)
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with pytest.raises(BadInputs, match="cannot be read"):
        files.attach(job("x", "loop.png"))
    with pytest.raises(BadInputs, match="cannot be read"):
        files.attach(job("x", "a\0b.png"))
    if sys.platform != "win32":
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(BadInputs, match="not an ordinary file"):
            files.attach(job("x", "pipe.png"))


def test_a_job_file_takes_media_on_the_job_and_needs_no_prompt_for_tools(tmp_path: Path) -> None:
    """``defaults.image`` stays what jobs of that type take."""
    photo(tmp_path, "a.png")
    path = tmp_path / "jobs.yaml"
    path.write_text(
        "defaults: {image: {model: acme/upscale}}\n"
        "jobs:\n  - {type: image, image: a.png}\n"
        "  - {type: image, image: 5, prompt: x}\n"
        "  - {type: image, image: a.png, params: {image: a.png}}\n",
        encoding="utf-8",
    )
    with pytest.raises(JobFileError) as caught:
        load_jobs(path)
    assert [(p.line, p.message[:24]) for p in caught.value.problems] == [
        (4, "image: 5 is a number: pu"),
        (5, "params.image: image stan"),
    ]
    path.write_text(path.read_text(encoding="utf-8").split("  - {type: image, image: 5")[0])
    (only,) = load_jobs(path).jobs
    assert only.body == {"model": "acme/upscale", "image": "a.png"}
    assert set(only.inputs) == {"a.png"}


def test_a_template_names_photos_by_column_and_wrong_ones_by_row(tmp_path: Path) -> None:
    """``photos/{sku}.png``, lists too; five hundred rows read twice look at each file once."""
    for sku in ("a1", "b2"):
        photo(tmp_path, f"photos/{sku}.png")
    photo(tmp_path, "logo.png")
    (tmp_path / "skus.csv").write_text("sku,file\na1,logo.png\nb2,logo.png\n", encoding="utf-8")
    path = tmp_path / "jobs.yaml"
    path.write_text(
        "rows: skus.csv\n"
        "jobs:\n"
        f"  - {{name: 'x {{sku}}', model: {FLUX}, prompt: p, image: 'photos/{{sku}}.png'}}\n"
        "  - {name: 'u {sku}', type: image, model: acme/upscale, image: '{file}'}\n"
        f"  - {{name: 'l {{sku}}', model: {FLUX}, prompt: q, count: 2,\n"
        "     images: ['photos/{sku}.png', logo.png, 'https://x/{sku}.png']}\n",
        encoding="utf-8",
    )
    jobs = list(load_jobs(path).jobs)
    assert [sorted(each.inputs) for each in jobs[:3]] == [
        ["photos/a1.png"],
        ["logo.png"],
        ["logo.png", "photos/a1.png"],
    ]
    assert jobs[1].body == {"model": "acme/upscale", "image": "logo.png"}
    assert jobs[7].params["images"] == ["photos/b2.png", "logo.png", "https://x/b2.png"]
    (tmp_path / "photos" / "b2.png").unlink()
    with pytest.raises(JobFileError) as caught:
        load_jobs(path)
    assert [(p.line, p.job, p.message[:32]) for p in caught.value.problems] == [
        (3, "sku b2", "image: 'photos/b2.png': there is"),
        (3, "sku b2", "images[0]: 'photos/b2.png': ther"),
    ]
    text = path.read_text(encoding="utf-8").replace("prompt: p", "prompt: 'p {shot}'")
    path.write_text("matrix: {shot: [1, 2, 3]}\n" + text, encoding="utf-8")
    with pytest.raises(JobFileError) as caught:
        load_jobs(path)
    files = [p for p in caught.value.problems if "there is no file" in p.message]
    assert len(files) == 2, "a row is told once, however many jobs it makes"


def test_a_table_of_jobs_and_json_lines_take_files_too(tmp_path: Path) -> None:
    """Relative to the table; a wrong one has its line."""
    photo(tmp_path, "a.png")
    table = tmp_path / "jobs.csv"
    table.write_text(f"model,prompt,image\n{FLUX},p,a.png\n{FLUX},q,b.png\n", encoding="utf-8")
    with pytest.raises(JobFileError, match=r"jobs\.csv:3: .*image: 'b\.png': there is no file"):
        load_jobs(table)
    photo(tmp_path, "b.png")
    assert [sorted(each.inputs) for each in load_jobs(table).jobs] == [["a.png"], ["b.png"]]
    lines = tmp_path / "jobs.jsonl"
    row = {"model": FLUX, "prompt": "p", "params": {"image_url": "a.png"}}
    lines.write_text(json.dumps(row), encoding="utf-8")
    assert [sorted(each.inputs) for each in load_jobs(lines).jobs] == [["a.png"]]


# -- the provider's answers, from atlas-api §4 ----------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {
            "code": 200,
            "message": "success",
            "data": {
                "type": "image",
                "download_url": "https://u.example/a.png",
                "filename": "0b5c.png",
                "size": 12345,
            },
        },
        {"code": "200", "data": {"url": "https://u.example/a.png"}},
        {"download_url": "https://u.example/a.png"},
        {"url": "https://u.example/a.png"},
        {"file_url": "https://u.example/a.png"},
    ],
)
def test_every_answer_to_an_upload_is_understood(body: dict[str, Any]) -> None:
    """data.download_url, data.url, download_url, url, file_url."""
    assert read_upload(200, {}, json.dumps(body).encode()) == "https://u.example/a.png"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, b'{"code":429,"msg":"rate limit exceeded"}', RateLimited),
        (503, b"<html>", NotAccepted),
        (502, b"", NotAccepted),
        (200, b'{"code":200,"data":{}}', NotAccepted),
        (200, b'{"code":200,"data":{"url":"ftp://x/a"}}', NotAccepted),
        (200, b"not json", NotAccepted),
        (401, b'{"code":401,"msg":"unauthorized"}', KeyRefused),
        (200, b'{"code":402,"msg":"insufficient balance"}', BalanceExhausted),
        (413, b'{"code":413,"msg":"too large"}', Rejected),
        (400, b'{"code":400,"msg":"unsupported file"}', Rejected),
        (307, b"", Rejected),
    ],
)
def test_a_refused_upload_is_tried_again_only_where_that_helps(
    status: int, body: bytes, kind: type[ProviderError]
) -> None:
    """Nothing is bought by a file, so nothing about it is ever unknown."""
    with pytest.raises(kind):
        read_upload(status, {"Retry-After": "2"}, body)


def test_a_url_is_used_while_it_is_young() -> None:
    """Nor is one from the future: the clock was wrong when it was kept, or is now."""
    at = datetime(2026, 11, 25, tzinfo=UTC)
    assert is_fresh(at - FRESH, at)
    assert not is_fresh(at - FRESH - timedelta(seconds=1), at)
    assert not is_fresh(at + timedelta(seconds=1), at)


@pytest.mark.parametrize(
    ("error", "speaks"),
    [
        ("failed to download the input image: 404 Not Found", True),
        ("Invalid image_url: cannot fetch", True),
        ("无法下载输入图片", True),
        ("图片链接已过期", True),
        ("the model failed to generate: internal error", False),
        ("input refused: it violates the content policy", False),
        ("insufficient balance", False),
        (None, False),
    ],
)
def test_an_error_that_speaks_of_the_input_is_known(error: str | None, speaks: bool) -> None:
    """Then its file is uploaded anew before the next attempt."""
    assert speaks_of_input(error) is speaks


# -- in the engine, in virtual time ---------------------------------------------------------------


def pipeline(provider: Any, folder: Path, **options: Any) -> Pipeline:
    options = {"max_workers": 8, "min_free_bytes": 0, "seed": 1, **options}
    return Pipeline(provider, folder / "out", **options)


def batch(provider: Any, folder: Path, jobs: list[Job], **options: Any) -> Counter[str]:
    """Run ``jobs`` with files of ``folder``; how many ended how."""
    retry_failed = options.pop("retry_failed", False)
    files = LocalFiles(folder)

    async def main() -> Counter[str]:
        async with pipeline(provider, folder, **options) as running:
            manifest = await running.batch_generate(
                [files.attach(each) for each in jobs], retry_failed=retry_failed
            )
            return Counter(result.outcome.value for result in manifest)

    return run_virtual(main())


def errors(folder: Path) -> list[str]:
    with reading(folder / "out") as connection:
        rows = connection.execute("SELECT error FROM attempts WHERE error IS NOT NULL")
        return [row[0] for row in rows]


def test_one_file_is_sent_once_and_others_wait_for_it(tmp_path: Path) -> None:
    """Three photos, twelve jobs, all at once; the request has the URL where the path stood."""
    for n in range(3):
        photo(tmp_path, f"{n}.png")
    provider = FakeProvider(upload_s=5.0)
    jobs = [job(f"j{n}", f"{n % 3}.png") for n in range(12)]
    assert batch(provider, tmp_path, jobs, max_workers=12) == {"succeeded": 12}
    assert sorted(path.name for path in provider.uploads) == ["0.png", "1.png", "2.png"]
    for sent in provider.submitted:
        assert sent.params["image"].startswith("https://fake.example/")
        assert not sent.inputs
    again = FakeProvider()
    assert batch(again, tmp_path, [*jobs, job("new", "1.png")]) == {"succeeded": 13}
    assert (len(again.uploads), len(again.sold)) == (0, 1)


def test_an_old_url_is_not_used(tmp_path: Path) -> None:
    """What was uploaded long ago is uploaded again, for the job that needs it."""
    photo(tmp_path, "a.png")
    batch(FakeProvider(), tmp_path, [job("one", "a.png")])
    with sqlite3.connect(tmp_path / "out" / ".asyncpipe" / "ledger.sqlite3") as connection:
        old = (datetime.now(UTC) - FRESH - timedelta(minutes=1)).isoformat()
        connection.execute("UPDATE uploads SET uploaded_at=?", (old,))
    connection.close()
    provider = FakeProvider()
    batch(provider, tmp_path, [job("one", "a.png"), job("two", "a.png")])
    assert (len(provider.uploads), provider.sold) == (1, ["two"])


def test_a_failing_upload_is_repeated_and_costs_nothing(tmp_path: Path) -> None:
    """429, 5xx and a broken network: with pauses, then the job goes its way."""
    photo(tmp_path, "a.png")
    trouble: list[ProviderError] = [RateLimited("429", retry_after_s=7.0), NotAccepted("cut")]
    provider = FakeProvider(upload_errors=trouble)
    assert batch(provider, tmp_path, [job("one", "a.png")]) == {"succeeded": 1}
    assert (len(provider.uploads), provider.submits) == (3, 1)
    with reading(tmp_path / "out") as connection:
        kinds = [row[0] for row in connection.execute("SELECT kind FROM events")]
    assert "NotBought" not in kinds, "an upload that is repeated is nobody's submit"


def test_a_photo_that_changes_under_an_unchanged_job_file_is_another_job(tmp_path: Path) -> None:
    """The pass over the jobs is not skipped for them, whatever the digest of the job file."""
    path = photo(tmp_path, "a.png")

    async def main(provider: FakeProvider) -> None:
        async with pipeline(provider, tmp_path) as running:
            attached = LocalFiles(tmp_path).attach(job("one", "a.png"))
            await running.batch_generate([attached], digest="same")

    first, second, third = FakeProvider(), FakeProvider(), FakeProvider()
    run_virtual(main(first))
    run_virtual(main(second))
    _rewrite(path)
    run_virtual(main(third))
    assert [len(each.sold) for each in (first, second, third)] == [1, 0, 1]


def test_an_upload_limit_says_nothing_of_the_models_window(tmp_path: Path) -> None:
    """A 429 of uploads that lasts is a plain wait, not the model's own limit."""

    async def main() -> ProviderError | Job:
        provider = FakeProvider(upload_errors=[RateLimited("429", retry_after_s=1.0)] * 9)
        attached = LocalFiles(tmp_path).attach(job("one", "a.png"))
        ledger = Ledger(tmp_path)
        await ledger.open(None)
        try:
            return await Uploads(provider, ledger, Random(1)).ready(attached)
        finally:
            await ledger.aclose()

    photo(tmp_path, "a.png")
    (tmp_path / ".asyncpipe").mkdir()
    assert type(run_virtual(main())) is NotAccepted


def test_an_upload_that_never_works_leaves_the_job_pending(tmp_path: Path) -> None:
    """Patience ends the run; nothing was sent, so nothing is unknown."""
    photo(tmp_path, "a.png")
    provider = FakeProvider(upload_errors=[NotAccepted("cut") for _ in range(1000)])
    ends = batch(provider, tmp_path, [job("one", "a.png")], patience_s=60.0)
    assert ends == {"pending": 1}
    assert provider.submits == 0
    assert batch(FakeProvider(), tmp_path, [job("one", "a.png")]) == {"succeeded": 1}


def test_the_intent_of_a_job_whose_file_cannot_be_had_is_never_alone_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ends then must not take what was never sent for unknown."""
    photo(tmp_path, "a.png")
    seen, durable = Counter[str](), Ledger.durable

    async def looking(self: Ledger) -> None:
        await durable(self)
        with reading(tmp_path / "out") as connection:
            seen.update(row[0] for row in connection.execute("SELECT state FROM jobs"))

    monkeypatch.setattr(Ledger, "durable", looking)
    trouble: list[ProviderError] = [NotAccepted("cut")] * 5
    trouble.append(Rejected("unsupported file", status=400))
    provider = FakeProvider(upload_errors=trouble)
    assert batch(provider, tmp_path, [job("one", "a.png")]) == {"failed, not charged": 1}
    assert seen["pending"]
    assert seen["failed"]
    assert not seen["submitting"]


def test_a_refused_file_fails_its_jobs_uncharged_and_is_sent_once(tmp_path: Path) -> None:
    """The API's word on these bytes holds for every job that takes them in."""
    photo(tmp_path, "a.png")
    refusals: list[ProviderError] = [Rejected("unsupported file", status=400) for _ in range(9)]
    provider = FakeProvider(upload_errors=refusals)
    jobs = [job(f"j{n}", "a.png") for n in range(3)]
    assert batch(provider, tmp_path, jobs) == {"failed, not charged": 3}
    assert (len(provider.uploads), provider.submits) == (1, 0)


def test_refused_files_do_not_stop_their_model(tmp_path: Path) -> None:
    """A model that refuses its first twenty submits is stopped; these were no submits."""
    photo(tmp_path, "a.png")
    provider = FakeProvider(upload_errors=[Rejected("unsupported file", status=400)])
    jobs = [*(job(f"j{n}", "a.png") for n in range(25)), job("good", "https://x/a.png")]
    ends = batch(provider, tmp_path, jobs, max_workers=1)
    assert ends == {"failed, not charged": 25, "succeeded": 1}


def test_a_key_that_is_refused_at_an_upload_stops_the_run(tmp_path: Path) -> None:
    """Like at a submit: the jobs stay pending."""
    photo(tmp_path, "a.png")
    provider = FakeProvider(upload_errors=[KeyRefused("401", status=401) for _ in range(9)])
    jobs = [job(f"j{n}", "a.png") for n in range(3)]
    assert batch(provider, tmp_path, jobs, max_workers=1) == {"pending": 1}
    assert (len(provider.uploads), provider.submits) == (1, 0)


class Changing(FakeProvider):
    """Something happens to the file while it is on its way."""

    change: Callable[[Path], object]

    async def upload(self, path: Path) -> str:
        self.change(path)
        return await super().upload(path)


def _rewrite(path: Path) -> None:
    path.write_bytes(PNG + b"other bytes of another size")


def _same_size(path: Path) -> None:
    body = path.read_bytes()
    path.write_bytes(body[:-1] + b"!")
    os.utime(path, ns=(5, 5))


@pytest.mark.parametrize("change", [_rewrite, _same_size, Path.unlink])
@pytest.mark.parametrize("when", ["before", "while"])
def test_no_job_is_bought_with_other_bytes_than_its_key_says(
    tmp_path: Path, change: Callable[[Path], object], when: str
) -> None:
    """Changed or gone between the first pass and the submit: failed, uncharged, said clearly."""
    path = photo(tmp_path, "a.png")
    provider = Changing()
    provider.change = change if when == "while" else lambda _: None
    attached = LocalFiles(tmp_path).attach(job("one", "a.png"))
    if when == "before":
        change(path)

    async def main() -> Counter[str]:
        async with pipeline(provider, tmp_path) as running:
            return Counter(r.outcome.value for r in await running.batch_generate([attached]))

    assert run_virtual(main()) == {"failed, not charged": 1}
    assert provider.submits == 0
    assert len(provider.uploads) == (when == "while")
    assert all("a.png" in error and "nothing was bought" in error for error in errors(tmp_path))


def test_a_file_touched_but_not_changed_is_the_same(tmp_path: Path) -> None:
    """A copy or a restore changes times, not bytes."""
    path = photo(tmp_path, "a.png")
    file = LocalFiles(tmp_path).attach(job("one", "a.png")).inputs["a.png"]
    os.utime(path, ns=(1, 1))
    assert trouble_with(file, read=False) is None


def test_a_file_that_is_gone_is_not_needed_while_its_url_is_young(tmp_path: Path) -> None:
    """The bytes are at the provider already, under their digest."""
    path = photo(tmp_path, "a.png")
    attached = LocalFiles(tmp_path).attach(job("two", "a.png"))
    batch(FakeProvider(), tmp_path, [job("one", "a.png")])
    path.unlink()
    provider = FakeProvider()
    ends = batch(provider, tmp_path, [attached])
    assert ends["succeeded"] == 2
    assert (len(provider.uploads), provider.sold) == (0, ["two"])


class Forgetful(FakeProvider):
    """Does not know the first URL of a file any more when a job names it."""

    fails: str = "prediction"

    async def submit(self, job: Job) -> Any:
        if "/1/" not in job.params["image"]:
            return await super().submit(job)
        if self.fails == "submit":
            self.submits += 1
            raise Rejected("the input image cannot be fetched", status=400)
        sold = await super().submit(job)
        made = self._made[sold.id]
        error = "failed to download the input image: 404"
        made.script = Script(end=PredictionStatus.FAILED, error=error)
        return sold


@pytest.mark.parametrize("fails", ["prediction", "submit"])
def test_a_url_that_leads_nowhere_is_forgotten_and_the_file_sent_again(
    tmp_path: Path, fails: str
) -> None:
    """Within the job's retries; a refused submit is repeated once, since it is another request."""
    photo(tmp_path, "a.png")
    provider = Forgetful()
    provider.fails = fails
    assert batch(provider, tmp_path, [job("one", "a.png")]) == {"succeeded": 1}
    assert (len(provider.uploads), provider.submits) == (2, 2)


def test_a_refusal_that_blames_the_input_for_ever_ends(tmp_path: Path) -> None:
    """One upload anew, then the refusal counts."""
    photo(tmp_path, "a.png")
    refusals = [Rejected("cannot fetch image_url", status=400) for _ in range(50)]
    provider = FakeProvider(default=Script(submits=refusals))
    assert batch(provider, tmp_path, [job("one", "a.png")]) == {"failed, not charged": 1}
    assert (len(provider.uploads), provider.submits) == (2, 2)


def test_a_drain_while_a_file_is_on_its_way_submits_nothing(tmp_path: Path) -> None:
    """The upload ends, the job stays pending; the next run does not upload again."""
    photo(tmp_path, "a.png")
    provider = FakeProvider(upload_s=5.0)
    files = LocalFiles(tmp_path)

    async def main() -> None:
        async with pipeline(provider, tmp_path) as running, anyio.create_task_group() as tasks:
            tasks.start_soon(running.batch_generate, [files.attach(job("one", "a.png"))])
            await anyio.sleep(2)
            running.drain()

    run_virtual(main())
    assert (len(provider.uploads), provider.submits) == (1, 0)
    again = FakeProvider()
    assert batch(again, tmp_path, [job("one", "a.png")]) == {"succeeded": 1}
    assert (len(again.uploads), again.submits) == (0, 1)


def test_leaving_while_a_file_is_on_its_way_gives_its_money_back(tmp_path: Path) -> None:
    """Cut in the middle of an upload: pending, nothing reserved, and the next run has it all."""
    photo(tmp_path, "a.png")
    provider = FakeProvider(upload_s=500.0)
    files = LocalFiles(tmp_path)

    async def main() -> None:
        async with pipeline(provider, tmp_path, max_cost=Decimal("0.04")) as running:
            with anyio.move_on_after(2):
                await running.batch_generate([files.attach(job("one", "a.png"))])

    run_virtual(main())
    assert (len(provider.uploads), provider.submits) == (1, 0)
    again = FakeProvider()
    ends = batch(again, tmp_path, [job("one", "a.png")], max_cost=Decimal("0.04"))
    assert ends == {"succeeded": 1}


def test_the_library_takes_paths_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``generate``, ``stream`` and a batch of dicts; a wrong path is an error before spending."""
    photo(tmp_path, "a.png")
    monkeypatch.chdir(tmp_path)
    provider = FakeProvider()
    row = {"model": FLUX, "prompt": "p", "image": "a.png"}

    async def main() -> None:
        async with pipeline(provider, tmp_path) as running:
            assert (await running.generate({"name": "a", **row})).status == "success"
            async for result in running.stream([{"name": "b", **row}]):
                assert result.status == "success"
            with pytest.raises(JobFileError, match=r"image: 'no\.png': there is no file"):
                await running.generate({**row, "image": "no.png"})
            wrong = [{"name": f"w{n}", **row, "image": f"no{n}.png"} for n in range(3)]
            with pytest.raises(JobFileError) as caught:
                await running.batch_generate([{"name": "c", **row}, *wrong])
            assert [problem.job for problem in caught.value.problems] == ["w0", "w1", "w2"]
            assert provider.sold == ["a", "b"]
            await running.batch_generate([{"name": "c", **row}])

    run_virtual(main())
    assert provider.sold == ["a", "b", "c"]
    assert len(provider.uploads) == 1


class NoFiles:
    """A provider without ``upload``."""

    def __init__(self) -> None:
        self._fake = FakeProvider()
        self.name, self.origin, self.simulated = "other", "fake", True
        self.submit, self.poll = self._fake.submit, self._fake.poll

    async def __aenter__(self) -> NoFiles:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None


def test_a_provider_that_takes_no_files_says_so_before_anything_is_spent(tmp_path: Path) -> None:
    """URLs it takes."""
    photo(tmp_path, "a.png")
    with pytest.raises(JobFileError, match=r"'a\.png': other takes no files: give a URL"):
        batch(NoFiles(), tmp_path, [job("one", "a.png")])
    assert batch(NoFiles(), tmp_path, [job("one", "https://x/a.png")]) == {"succeeded": 1}


# -- over real sockets ----------------------------------------------------------------------------


def simulated(tmp_path: Path, steps: Callable[[Simulator], Awaitable[Any]], **settings: Any) -> Any:
    async def main() -> Any:
        told = {"generation_s": (0.0, 0.1), "body_bytes": 3000, "books": tmp_path / "books"}
        async with Simulator(SimulatorSettings(**{**told, **settings})) as simulator:
            return await steps(simulator)

    return run_virtual(main())


async def run_against(
    simulator: Simulator, folder: Path, jobs: list[Job], **options: Any
) -> Counter[str]:
    provider = AtlasCloud(KEY, base_url=simulator.base_url)
    polling = Polling(initial_s=0.02, maximum_s=0.05)
    files = LocalFiles(folder)
    async with pipeline(provider, folder, polling=polling, **options) as running:
        manifest = await running.batch_generate([files.attach(each) for each in jobs])
        return Counter(result.status for result in manifest)


def test_three_photos_and_twelve_jobs_are_three_uploads_and_then_none(tmp_path: Path) -> None:
    """Streamed over a real socket; the simulator refuses what is not one of its own URLs."""
    paths = [photo(tmp_path, f"照片/{n}.png") for n in range(3)]
    paths[2].write_bytes(PNG + os.urandom(3_000_000))
    jobs = [job(f"j{n}", [f"照片/{n % 3}.png", f"照片/{(n + 1) % 3}.png"]) for n in range(12)]
    digests = {hashlib.sha256(path.read_bytes()).hexdigest(): 1 for path in paths}

    async def steps(simulator: Simulator) -> None:
        assert await run_against(simulator, tmp_path, jobs) == {"success": 12}
        assert simulator.books.uploads() == digests
        assert len(simulator.books.predictions()) == 12
        assert await run_against(simulator, tmp_path, jobs) == {"success": 12}
        assert simulator.books.uploads() == digests
        assert len(simulator.books.predictions()) == 12

    simulated(tmp_path, steps)


def test_faulty_uploads_and_lost_inputs_are_survived(tmp_path: Path) -> None:
    """Every upload fails twice, every URL is gone when first used: all jobs succeed, paid once."""
    for n in range(4):
        photo(tmp_path, f"{n}.png")
    jobs = [job(f"j{n}", f"{n}.png") for n in range(4)]

    async def steps(simulator: Simulator) -> None:
        assert await run_against(simulator, tmp_path, jobs) == {"success": 4}
        assert set(simulator.books.uploads().values()) == {2}
        assert simulator.books.charged() == Decimal("0.16")

    faults = Faults(upload_error=1.0, input_gone=1.0)
    simulated(tmp_path, steps, faults=faults, seed=3)


@contextmanager
def suppress_into(said: list[str]) -> Iterator[None]:
    try:
        yield
    except Rejected as exc:
        said.append(str(exc))


def test_a_quote_names_no_file(tmp_path: Path) -> None:
    """A price needs no upload, and where a file lies is not told."""
    photo(tmp_path, "geheim.png")
    bodies: list[Any] = []

    async def calculate(request: web.BaseRequest) -> web.Response:
        bodies.append(await request.json())
        return web.json_response({"code": 200, "data": {"price": 0.04, "currency": "usd"}})

    async def main() -> None:
        async with serving(calculate) as url, AtlasCloud(KEY, base_url=url) as provider:
            await provider.quote(LocalFiles(tmp_path).attach(job("x", ["geheim.png"])))

    run_virtual(main())
    assert "geheim" not in json.dumps(bodies)
    assert bodies[0]["image"][0].startswith("https://")


def test_the_simulator_refuses_paths_and_serves_what_it_took(tmp_path: Path) -> None:
    """A path in a request is an error; an upload comes back byte for byte, until it is cleaned."""
    path = photo(tmp_path, "a.png")

    async def steps(simulator: Simulator) -> None:
        async with AtlasCloud(KEY, base_url=simulator.base_url) as provider:
            with pytest.raises(Rejected, match="image must be a URL"):
                await provider.submit(job("x", "a.png"))
            url = await provider.upload(path)
            gone = url.replace("/uploads/", "/uploads/0")
            said: list[str] = []
            for _ in range(50):  # refused at once, or sold and failed: by dice
                with suppress_into(said):
                    await provider.submit(job("x", gone))
            assert 10 < len(said) < 40
            assert all("cannot be fetched" in text for text in said)
            assert {p.outcome for p in simulator.books.predictions()} == {"unreachable"}
            async with aiohttp.ClientSession() as session:
                async with session.get(url) as answer:
                    assert await answer.read() == path.read_bytes()
                    assert answer.content_type == "image/png"
                simulator.books.expire_uploads()
                async with session.get(url) as answer:
                    assert answer.status == 404

    simulated(tmp_path, steps)


def test_the_form_is_one_file_with_its_length_and_without_its_name(tmp_path: Path) -> None:
    """Names may be private, and in any script; what is sent is exactly as long as was said."""
    path = photo(tmp_path, "geheim-客户.png", mark="x")

    async def main() -> tuple[int, bytes]:
        async with AsyncExitStack() as stack:
            size, pieces = await FilePart(path, tell=media_type).open(stack)
            return size, b"".join([piece async for piece in pieces])

    size, body = asyncio.run(main())
    assert len(body) == size
    assert path.read_bytes() in body
    assert b"geheim" not in body
    assert b'name="file"; filename="input.png"\r\nContent-Type: image/png\r\n' in body


def test_the_key_follows_no_redirect_of_an_upload(tmp_path: Path) -> None:
    """Neither the key nor the file goes to where an answer points."""
    path, seen = photo(tmp_path, "a.png"), []

    async def elsewhere(request: web.BaseRequest) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.json_response({"url": "https://x/a.png"})

    async def redirect(request: web.BaseRequest) -> web.Response:
        await request.read()
        raise web.HTTPTemporaryRedirect(f"http://localhost:{others[0]}/elsewhere")

    others: list[str] = []

    async def main() -> None:
        async with (
            serving(elsewhere) as other,
            serving(redirect) as url,
            AtlasCloud(KEY, base_url=url) as provider,
        ):
            others.append(other.rpartition(":")[2])
            with pytest.raises(Rejected, match="redirects to localhost") as caught:
                await provider.upload(path)
        assert KEY not in repr(caught.value)

    asyncio.run(main())
    assert seen == []


def test_a_file_that_shrinks_while_it_is_sent_is_no_upload(tmp_path: Path) -> None:
    """The request breaks off; what was said to be its length is never filled with something."""
    path = photo(tmp_path, "a.png")
    path.write_bytes(PNG + bytes(2_000_000))

    async def steps(simulator: Simulator) -> None:
        read = FilePart.open

        async def shrinking(self: FilePart, stack: Any) -> Any:
            opened = await read(self, stack)
            os.truncate(path, 1000)
            return opened

        FilePart.open = shrinking  # type: ignore[method-assign]
        try:
            async with AtlasCloud(KEY, base_url=simulator.base_url) as provider:
                with pytest.raises(NotAccepted):
                    await provider.upload(path)
        finally:
            FilePart.open = read  # type: ignore[method-assign]
        assert simulator.books.uploads() == {}

    simulated(tmp_path, steps)


def test_five_hundred_photos_are_checked_quickly(tmp_path: Path) -> None:
    """A catalogue's first pass: one look and one hash for each, nothing quadratic."""
    for n in range(500):
        photo(tmp_path, f"p/{n}.png")
    files = LocalFiles(tmp_path)
    jobs = [files.attach(job(str(n), f"p/{n % 500}.png")) for n in range(2000)]
    assert len({each.inputs[each.params["image"]].sha256 for each in jobs}) == 500
    assert isinstance(jobs[0].inputs["p/0.png"], LocalFile)
