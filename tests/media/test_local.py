"""Local files: told by their bytes, hashed once, everything wrong with them said at once."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import JobFileError, load_jobs
from asyncpipe.jobs.inputs import LocalFile
from asyncpipe.ledger.queries import job_from_spec, job_to_spec
from asyncpipe.media.local import MOST_AUDIO_BYTES, MOST_BYTES, BadInputs, LocalFiles
from tests.support.photos import FLUX, PNG, job, photo


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


def test_sound_may_be_ten_times_as_large(tmp_path: Path) -> None:
    """Up to 512 MB; pictures and films are not."""
    name = "a.m4a"
    with (tmp_path / name).open("wb") as file:
        file.write(b"\0\0\0\x18ftypM4A ")
        file.truncate(MOST_BYTES + 1)
    assert LocalFiles(tmp_path).attach(job("x", name)).inputs[name].size == MOST_BYTES + 1
    os.truncate(tmp_path / name, MOST_AUDIO_BYTES + 1)
    with pytest.raises(BadInputs, match="512 MB of sound"):
        LocalFiles(tmp_path).attach(job("x", name))


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
        "name another file",
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
    with pytest.raises(BadInputs, match="control sign"):
        files.attach(job("x", "a\0b.png"))
    if sys.platform != "win32":
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(BadInputs, match="not an ordinary file"):
            files.attach(job("x", "pipe.png"))


def test_five_hundred_photos_are_checked_quickly(tmp_path: Path) -> None:
    """A catalogue's first pass: one look and one hash for each, nothing quadratic."""
    for n in range(500):
        photo(tmp_path, f"p/{n}.png")
    files = LocalFiles(tmp_path)
    jobs = [files.attach(job(str(n), f"p/{n % 500}.png")) for n in range(2000)]
    assert len({each.inputs[each.params["image"]].sha256 for each in jobs}) == 500
    assert isinstance(jobs[0].inputs["p/0.png"], LocalFile)
