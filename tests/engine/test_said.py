"""What is said beside outputs is seen everywhere; files beside them are kept."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import Job, JobState, JobType, Result
from asyncpipe.pricing import Rate
from asyncpipe.providers import Prediction, PredictionStatus
from asyncpipe.report.export import export_file
from asyncpipe.report.manifest import read_manifest
from asyncpipe.report.summary import summary
from asyncpipe.testing import PIXEL, SAMPLES, FakeProvider, Script, run_virtual
from tests.support.pipelines import a_pipeline, counts_agree

FLUX = "black-forest-labs/flux-2-pro/text-to-image"
SONG = SAMPLES[JobType.AUDIO]
PRICES = {"suno/song": Rate(per_job=Decimal("0.1"))}


def done(*outputs: str, **fields: Any) -> Prediction:
    return Prediction(id="p", status=PredictionStatus.COMPLETED, outputs=outputs, **fields)


def run(folder: Path, answers: dict[str, Prediction], **job: Any) -> list[Result]:
    """Run one job per answer, which every poll of it gets."""
    scripts = {name: Script(polls=[answer] * 500) for name, answer in answers.items()}
    provider = FakeProvider(scripts=scripts)
    base: dict[str, Any] = {"model": FLUX, "prompt": "p", "deadline_s": 60}

    async def main() -> list[Result]:
        async with a_pipeline(provider, folder, prices=PRICES, min_free_bytes=0) as pipeline:
            manifest = await pipeline.batch_generate([Job(name=n, **(base | job)) for n in answers])
            await counts_agree(pipeline)
            return list(manifest)

    results = run_virtual(main())
    assert provider.submits == len(answers)
    return results


def pictures(count: int) -> list[str]:
    """Different URLs of the same picture."""
    return [PIXEL.replace("image/png", f"image/png;n={n}") for n in range(count)]


def said(folder: Path) -> str:
    """The summary of a folder, as one line."""
    totals = read_manifest(folder).totals
    lines = summary(totals, elapsed_s=1.0, manifest=str(folder), simulated=False)
    return " ".join(" ".join(lines).split())


def test_what_is_said_beside_outputs_is_seen_everywhere(tmp_path: Path) -> None:
    """A black picture is no silent success, nor is one of four pictures that does not come."""
    answers = {
        "黑": done(PIXEL, notes={"nsfw": [True]}),
        "four": done(*pictures(3), notes={"error": "1 was blocked"}),
        "plain": done(PIXEL),
    }
    # Every job asks for 4; the two that name one picture give 1 of them.
    results = {r.name: r for r in run(tmp_path, answers, params={"num_images": 4})}
    assert {r.state for r in results.values()} == {JobState.SUCCEEDED}
    assert results["黑"].notes == {"nsfw": [True], "given": 1, "asked": 4}
    assert results["four"].notes == {"error": "1 was blocked", "given": 3, "asked": 4}
    document = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    rows = {row["name"]: row for row in document["results"]}
    assert rows["four"]["notes"] == results["four"].notes
    assert any("NSFW" in line and "黑" in line for line in document["remarks"])
    export_file(tmp_path, tmp_path / "jobs.jsonl", "jsonl")
    lines = (tmp_path / "jobs.jsonl").read_text(encoding="utf-8").splitlines()
    assert {row["name"]: row["notes"] for row in map(json.loads, lines)} == {
        name: result.notes for name, result in results.items()
    }
    shown = said(tmp_path)
    assert "flagged as not safe (NSFW) by the provider: 1 job (黑)" in shown
    assert "3 of 4 outputs came: 1 job (four)" in shown
    assert "1 of 4 outputs came: 2 jobs" in shown
    assert "1 was blocked" in shown


def test_nothing_is_said_of_a_job_that_got_what_it_asked_for(tmp_path: Path) -> None:
    """At most so many may be fewer."""
    answers = {"a": done(PIXEL), "b": done(PIXEL)}
    results = run(tmp_path, answers, params={"max_images": 4})
    assert [r.notes for r in results] == [{}, {}]
    assert "Note" not in said(tmp_path)


@pytest.mark.parametrize(
    ("answer", "words", "moderated"),
    [
        (done(error="raiMediaFilteredCount 1", moderated=True), "raiMedia", True),
        (done(notes={"raw": "//host/a.png"}), "//host/a.png", False),
        (done(notes={"nsfw": [True]}, error="flagged", moderated=True), "flagged", True),
    ],
)
def test_why_there_is_no_output_is_the_error(
    tmp_path: Path, answer: Prediction, words: str, moderated: bool
) -> None:
    """And what could not be read is kept as it came."""
    (result,) = run(tmp_path, {"a": answer})
    assert (result.state, result.charged) == (JobState.FAILED, True)
    assert words in (result.error or "")
    told = {"moderated": True} if moderated else {}
    assert result.notes == answer.notes | told | {"no_output": True}


def test_what_a_failed_prediction_says_besides_is_kept(tmp_path: Path) -> None:
    """Outputs that it has all the same, which are not paid for."""
    raw = '["https://host/preview.png"]'
    failed = Prediction(
        id="p", status=PredictionStatus.FAILED, error="no luck", again=False, notes={"raw": raw}
    )
    (result,) = run(tmp_path, {"a": failed})
    assert (result.state, result.charged, result.notes) == (JobState.FAILED, False, {"raw": raw})


def test_files_beside_the_outputs_are_stored_and_count_for_nothing(tmp_path: Path) -> None:
    """A song, its cover and its words: one output was asked for, and one came."""
    text = "data:text/plain;charset=utf-8,La%20la"
    answers = {"歌": done(SONG, extras=(PIXEL, text))}
    (result,) = run(tmp_path, answers, type="audio", model="suno/song", params={"n": 1})
    assert result.state is JobState.SUCCEEDED
    assert [asset.name for asset in result.assets] == [
        "audio/歌.wav", "audio/歌_extra_1.png", "audio/歌_extra_2.txt",
    ]  # fmt: skip
    assert result.notes == {"extras": 2}
    assert (tmp_path / "audio/歌_extra_2.txt").read_text() == "La la"
    assert "Note" not in said(tmp_path)


def test_media_inside_an_answer_are_asked_for_again_with_fewer_extras(tmp_path: Path) -> None:
    """What was asked for is stored as such, whatever has become of the rest."""
    bad = "data:image/png;base64,AAAA"
    first = done(bad, extras=(PIXEL,))
    job = Job(name="a", model=FLUX, prompt="p", deadline_s=60)

    async def main(*answers: Prediction, patience_s: float) -> Result:
        provider.scripts = {"a": Script(polls=answers)}
        for made in provider._made.values():
            made.polls[:] = [*answers]
        async with a_pipeline(
            provider, tmp_path, min_free_bytes=0, patience_s=patience_s
        ) as pipeline:
            return next(iter(await pipeline.batch_generate([job])))

    provider = FakeProvider()
    result = run_virtual(main(*[first] * 50, patience_s=5.0))
    assert result.state is JobState.GENERATED
    result = run_virtual(main(*[done(PIXEL)] * 50, patience_s=5.0))
    assert result.state is JobState.SUCCEEDED
    assert result.assets[0].name == "images/a.png"


def test_an_extra_file_that_cannot_be_had_fails_nothing(tmp_path: Path) -> None:
    """Nobody asked for it: what was asked for stands."""
    answers = {"a": done(PIXEL, extras=("data:text/html,<html>gone", PIXEL))}
    (result,) = run(tmp_path, answers)
    assert result.state is JobState.SUCCEEDED
    assert [asset.name for asset in result.assets] == ["images/a.png", "images/a_extra_2.png"]
