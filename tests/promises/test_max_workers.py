"""Never more than ``max_workers`` predictions in flight; a 429 costs no job and no attempt."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncpipe.errors import NotSent, ProviderError, RateLimited
from asyncpipe.testing import FakeProvider, Script
from tests.support.batches import jobs, run_batch


@pytest.mark.parametrize("max_workers", [1, 3, 7])
def test_never_more_in_flight_than_max_workers(tmp_path: Path, max_workers: int) -> None:
    """The provider itself never works on more, and the limit is reached."""
    provider = FakeProvider(default=Script(submit_s=0.5))
    run_batch(tmp_path, provider, jobs(20), max_workers=max_workers)
    assert provider.peak_in_flight == max_workers


@pytest.mark.parametrize(
    "refusal",
    [RateLimited("429"), NotSent("no route"), RateLimited("429", retry_after_s=77.0)],
    ids=["429", "connect", "retry-after"],
)
def test_refusals_wait_and_use_up_no_attempt(tmp_path: Path, refusal: ProviderError) -> None:
    """Five refusals in a row are more than ``retries``, and the job still succeeds, paid once."""
    provider = FakeProvider(default=Script(submits=[refusal] * 5))
    manifest, results, _ = run_batch(tmp_path, provider, jobs(4), retries=2)
    assert manifest.totals.successful == 4
    assert len(provider.sold) == 4
    assert {result.attempts for result in results} == {1}
