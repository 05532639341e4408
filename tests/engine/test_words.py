"""Whole runs against a provider that says things nobody documented: words, errors, no outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asyncpipe import Job, Result
from asyncpipe.jobs import JobState
from asyncpipe.providers import Prediction, PredictionStatus
from asyncpipe.testing import PIXEL, FakeProvider, Script, run_virtual
from tests.support.pipelines import a_pipeline

FLUX = "black-forest-labs/flux-2-pro/text-to-image"
COMPLETED, FAILED = PredictionStatus.COMPLETED, PredictionStatus.FAILED


def run(
    folder: Path, *polls: Prediction, jobs: int = 1, times: int = 400, **options: Any
) -> tuple[list[Result], FakeProvider, list[str]]:
    """Run jobs whose polls are all answered so; the results, the provider, what was said."""
    provider = FakeProvider(default=Script(polls=list(polls) * times, generation_s=1e9))
    said: list[str] = []

    async def main() -> list[Result]:
        async with a_pipeline(
            provider, folder, on_remark=said.append, min_free_bytes=0, **options
        ) as pipeline:
            batch = [
                Job(name=f"job {n}", model=FLUX, prompt="p", deadline_s=60) for n in range(jobs)
            ]
            return list(await pipeline.batch_generate(batch))

    return run_virtual(main()), provider, said


def strange(**fields: Any) -> Prediction:
    return Prediction(id="p", said="borked", notes={"status": "borked"}, **fields)


def test_a_word_that_is_not_known_is_told_once_with_its_error(tmp_path: Path) -> None:
    """However many jobs and polls have it."""
    _, provider, said = run(tmp_path, strange(error="no worker"), jobs=3)
    assert provider.polls > 10
    (line,) = said
    assert "'borked'" in line
    assert "no worker" in line
    assert FLUX in line


def test_an_error_under_such_a_word_is_what_a_job_ends_as(tmp_path: Path) -> None:
    """At the deadline, and not as if it were worked on; it is never bought again."""
    (result,), provider, _ = run(tmp_path, strange(error="no worker"))
    assert (result.state, result.prediction_id) == (JobState.UNKNOWN, "p1")
    assert "no worker" in (result.error or "")
    assert "still working" not in (result.error or "")
    assert provider.submits == 1


@pytest.mark.parametrize("ambiguous", ["hold", "find", "find-resubmit", "resubmit"])
def test_such_a_job_is_never_bought_again(tmp_path: Path, ambiguous: str) -> None:
    """Whatever is done with lost answers, and in the next run, too: the provider has it still."""
    for _ in range(2):
        (result,), provider, _ = run(tmp_path, strange(error="no worker"), ambiguous=ambiguous)
        assert result.state in (JobState.UNKNOWN, JobState.EXPIRED)
    assert (result.attempts, provider.submits) == (1, 0)


def test_such_a_word_alone_is_waited_for(tmp_path: Path) -> None:
    """Without an error nothing says that it has ended; which word it was is told."""
    (result,), provider, said = run(tmp_path, strange())
    assert result.state is JobState.EXPIRED
    assert "'borked'" in (result.error or "")
    assert len(said) == 1
    assert provider.submits == 1


def test_outputs_under_such_a_word_are_fetched(tmp_path: Path) -> None:
    """At once: they are there."""
    answer = strange(status=COMPLETED, outputs=(PIXEL,))
    (result,), provider, said = run(tmp_path, answer)
    assert result.state is JobState.SUCCEEDED
    assert "fetched" in said[0]
    assert provider.polls == 1


def test_an_end_that_nobody_has_documented_is_not_bought_again(tmp_path: Path) -> None:
    """It failed, free of charge, and only the user may try once more."""
    expired = Prediction(id="p", status=FAILED, said="expired", error="too late", again=False)
    (result,), provider, _ = run(tmp_path, expired)
    assert (result.state, result.error, result.charged) == (JobState.FAILED, "too late", False)
    assert provider.submits == 1


@pytest.mark.parametrize("moderated", [False, True])
def test_the_reason_for_no_outputs_ends_a_job_soon(tmp_path: Path, moderated: bool) -> None:
    """Three polls that say why there will be none are enough."""
    empty = Prediction(id="p", status=COMPLETED, error="filtered out", moderated=moderated)
    (result,), provider, _ = run(tmp_path, empty)
    assert (result.state, result.charged) == (JobState.FAILED, True)
    assert "filtered out" in (result.error or "")
    assert (provider.submits, provider.polls) == (1, 3)
