"""The public API as a user's program has it: mypy checks it, nothing runs it.

What is asserted here is what an editor shows; a change of it breaks people's type checks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, assert_type

from asyncpipe import (
    Absent,
    Ambiguous,
    AskedAgain,
    Asset,
    AssetStored,
    AsyncpipeError,
    AtlasCloud,
    Attempt,
    BadAsset,
    BalanceExhausted,
    BalanceTooLow,
    Bill,
    BilledDay,
    BucketUrl,
    BudgetReached,
    Cancelled,
    CannotConnect,
    CatalogModel,
    Cause,
    CauseKind,
    ClaimLost,
    Compared,
    Costs,
    Damaged,
    Deadlines,
    Delivery,
    DiskError,
    DownloadError,
    Estimate,
    Event,
    Expired,
    Failed,
    Fal,
    FetchFailed,
    FolderInUse,
    Found,
    Generated,
    Handle,
    Health,
    HealthStatus,
    HistoryUnavailable,
    Holder,
    Hook,
    HttpAnswer,
    Intended,
    Job,
    JobDict,
    JobFailed,
    JobFile,
    JobFileError,
    JobLike,
    JobRecord,
    Jobs,
    JobState,
    JobType,
    JobUpdate,
    KeyRefused,
    LedgerAt,
    LedgerError,
    Limits,
    Links,
    Listed,
    LocalFile,
    Lost,
    LostSettled,
    Manifest,
    MediaGone,
    Missing,
    ModelCompared,
    Money,
    NotAccepted,
    NotBought,
    Noted,
    NotFound,
    NoticeFormat,
    Notify,
    NotSent,
    Outcome,
    OutputPlace,
    Overloaded,
    Pipeline,
    Polled,
    PolledAgain,
    PollFailed,
    Polling,
    PollingPolicy,
    Prediction,
    PredictionGone,
    PredictionStatus,
    Price,
    PriceBook,
    Problem,
    Provider,
    ProviderError,
    Pruned,
    Quote,
    Quotes,
    Rate,
    RateLimited,
    Reason,
    Recipient,
    Reconciled,
    Recovery,
    Rejected,
    Released,
    Replicate,
    Resolved,
    Resubmitted,
    Result,
    RetryAsked,
    Sent,
    Settled,
    ShardWork,
    SoughtAgain,
    SpendingLimits,
    Status,
    Storage,
    StoredAsset,
    SubmitStopped,
    Submitted,
    SubmitUnknown,
    Succeeded,
    Tell,
    Terms,
    Tier,
    Timeouts,
    TooLarge,
    Totals,
    TurnedUp,
    Unknown,
    UsageError,
    Validated,
    Verdict,
    Verified,
    Verifier,
    WebhookRefused,
    WindowKind,
    Withdrawn,
    WorkerRow,
    collect,
    connect,
    estimate,
    export,
    find_lost,
    load_jobs,
    prune,
    quote,
    read_manifest,
    reconcile,
    resolve,
    status,
    take_prediction,
    validate,
    verify,
)


def groups() -> None:
    """What says more than one word."""
    assert_type(Recovery(retries=1).patience_s, float | None)
    assert_type(Storage(local_files="photos").same_account, bool)
    assert_type(LedgerAt(url="postgresql://me@db/jobs", place="out").lease_s, float)


def heard(event: Event, record: JobRecord) -> None:
    """What hooks are given."""
    assert_type(event.job_id, int)
    assert_type(event.at, datetime)
    assert_type(record.state, JobState)
    assert_type(record.job, Job)


def what_happened(event: Event) -> str:
    """Every kind of event there is."""
    match event:
        case Intended() | NotBought() | Submitted() | Polled() | Generated() | Released():
            return "on its way"
        case Failed() | Unknown() | Expired() | Lost() | Missing() | Damaged() | FetchFailed():
            return event.error or ""
        case Found() | NotFound() | Absent() | TurnedUp() | LostSettled():
            return "looked for"
        case PolledAgain() | SoughtAgain() | RetryAsked() | Resubmitted() | AskedAgain():
            return "asked again"
        case AssetStored():
            return event.path
        case Succeeded() | Withdrawn():
            pass
    return ""


def by_word(
    word: Ambiguous, window: WindowKind, policy: PollingPolicy, tell: Tell, place: OutputPlace
) -> Pipeline:
    """Options that are one of a few words."""
    return Pipeline(
        AtlasCloud(),
        place,
        limits=Limits(window=window),
        polling=Polling(policy=policy),
        on_remark=tell,
        recovery=Recovery(ambiguous=word),
    )


def words_that_are_none() -> None:
    """A slip of the pen is seen by type checkers."""
    Pipeline(AtlasCloud(), recovery=Recovery(ambiguous="fnid"))  # type: ignore[arg-type]
    Limits(window="slow")  # type: ignore[arg-type]
    Polling(policy="often")  # type: ignore[arg-type]
    one: JobDict = {"model": "m", "prompt": "p", "widht": 3}  # type: ignore[typeddict-unknown-key]
    print(one)


async def of_any_kind(pipeline: Pipeline, one: JobLike, several: Jobs) -> None:
    """Jobs as they come."""
    typed: JobDict = {"model": "m", "prompt": "a mug", "labels": {"sku": "A1"}}
    assert_type(await pipeline.generate(typed), Result)
    assert_type(await pipeline.generate(one), Result)
    assert_type(await pipeline.batch_generate(several), Manifest)
    assert_type(await pipeline.batch_generate([typed]), Manifest)


REFUSALS = (NotSent, RateLimited, Overloaded, CannotConnect, KeyRefused, BalanceExhausted)
"""What surely bought nothing; each is one of the two that come next."""


def went_wrong(error: Exception) -> str:
    """By what can be done about it."""
    match error:
        case NotAccepted() | SubmitStopped() | Rejected():
            return "nothing was bought"
        case SubmitUnknown():
            return "it may have been bought"
        case PredictionGone() | PollFailed() | HistoryUnavailable():
            return "nothing is known"
        case MediaGone() | TooLarge() | DiskError():
            return "the media"
        case BudgetReached() | BalanceTooLow() | ClaimLost():
            pass
        case WebhookRefused():
            return error.word
    return str(error)


def read_by_people(
    record: JobRecord, totals: Totals, problem: Problem, costs: Costs, work: ShardWork
) -> None:
    """What the other names are met as."""
    attempt: Attempt = record.attempt
    sent: Sent = attempt.sent
    terms: Terms = attempt.terms
    stored: tuple[StoredAsset, ...] = attempt.stored
    settled: Settled | None = attempt.settled
    noted: dict[str, Noted] = totals.noted
    files: Mapping[str, LocalFile] = record.job.inputs
    assert_type(problem.message, str)
    assert_type(work.elsewhere, int)
    print(sent, terms, stored, settled, noted, files, costs.reserved)


KINDS: tuple[type, ...] = (
    *(BadAsset, Bill, BilledDay, BucketUrl, Cancelled, CatalogModel, Cause, CauseKind, Compared),
    *(Delivery, Holder, HttpAnswer, JobFile, Links, Listed, ModelCompared, Money, NoticeFormat),
    *(PriceBook, Quote, Quotes, Recipient, Tier, Timeouts, Verdict, Verifier, WorkerRow),
)
"""What commands, providers and webhooks answer or take."""


def settings(provider: Provider) -> Pipeline:
    """Every group of settings, by keyword."""
    return Pipeline(
        provider,
        Path("out"),
        max_workers=8,
        limits=Limits(requests_per_second=10.0, models={"m": 4}, window="fixed"),
        spending=SpendingLimits(
            max_cost=Decimal(20),
            min_balance=Decimal(5),
            prices={"m": Rate(per_image=Decimal("0.04"))},
        ),
        deadlines=Deadlines(image=300, video=900),
        polling=Polling(initial_s=2.0),
        on_event=heard,
        on_remark=print,
        notify=Notify(urls=["slack:$SLACK_URL"], command="say", secret="$SECRET", private=True),
        recovery=Recovery(retries=1),
    )


def jobs() -> Iterator[Job | Mapping[str, object]]:
    """Jobs of both kinds, mixed."""
    yield Job(name="mug", model="m/text-to-image", prompt="a mug", params={"width": 64})
    yield Job(model="m", type=JobType.VIDEO, prompt="a clip", labels={"sku": "A1"})
    yield {"name": "mug 2", "model": "m/text-to-image", "prompt": "a mug"}


async def feed() -> AsyncIterator[dict[str, object]]:
    """Jobs as a service gets them."""
    yield {"model": "m", "prompt": "a mug"}


def told(result: Result) -> None:
    """Every field of a result."""
    assert_type(result.name, str)
    assert_type(result.key, str)
    assert_type(result.type, JobType | None)
    assert_type(result.model, str)
    assert_type(result.state, JobState)
    assert_type(result.outcome, Outcome)
    assert_type(result.status, str)
    assert_type(result.cost, Decimal)
    assert_type(result.reserved, Decimal)
    assert_type(result.overrun, Decimal)
    assert_type(result.cost_source, str | None)
    assert_type(result.charged, bool)
    assert_type(result.estimated, bool)
    assert_type(result.attempts, int)
    assert_type(result.attempts_charged, int)
    assert_type(result.lost_answers, int)
    assert_type(result.polls, int)
    assert_type(result.generation_s, float | None)
    assert_type(result.prediction_id, str | None)
    assert_type(result.request_id, str | None)
    assert_type(result.outputs, tuple[str, ...])
    assert_type(result.assets, tuple[Asset, ...])
    assert_type(result.error, str | None)
    assert_type(result.submitted_at, datetime | None)
    assert_type(result.completed_at, datetime | None)
    assert_type(result.labels, Mapping[str, str])
    assert_type(result.reason, Reason | None)
    assert_type(result.error_code, int | None)
    assert_type(result.ok, bool)
    assert_type(result.moderated, bool)
    assert_type(result.url, str | None)
    assert_type(result.to_dict()["name"], Any)
    try:
        assert_type(result.raise_for_status(), Result)
    except JobFailed as exc:
        assert_type(exc.result, Result)
    for asset in result.assets:
        assert_type(asset.path, Path)
        assert_type(asset.name, str)
        assert_type(asset.url, str)
        assert_type(asset.media_type, str | None)
        assert_type(asset.width, int | None)
        assert_type(asset.height, int | None)
        assert_type(asset.duration_s, float | None)
        assert_type(asset.size, int)
        assert_type(asset.sha256, str)
    if result.outcome is Outcome.SUCCEEDED:
        return
    result.cost = Decimal(0)  # type: ignore[misc]  # results are frozen


def reported(manifest: Manifest) -> None:
    """A manifest: totals, and results as often as they are wanted."""
    assert_type(manifest.path, Path)
    assert_type(manifest.generated_at, datetime)
    assert_type(manifest.totals.successful, int)
    assert_type(manifest.totals.charged, Decimal)
    assert_type(list(manifest), list[Result])


async def work() -> None:
    """The three ways to run jobs, and what goes on with them."""
    async with settings(AtlasCloud()) as pipeline:
        assert_type(pipeline, Pipeline)
        assert_type(await pipeline.generate(Job(model="m", prompt="a mug")), Result)
        assert_type(await pipeline.generate({"model": "m", "prompt": "a mug"}), Result)
        async for result in pipeline.stream(jobs()):
            assert_type(result, Result)
            told(result)
        async for result in pipeline.stream(feed()):
            told(result)
        reported(await pipeline.batch_generate(jobs(), retry_failed=True))
        reported(await pipeline.batch_generate(load_jobs("jobs.yaml").jobs))
        assert_type(await pipeline.collect(), Manifest)
        handle = await pipeline.submit({"model": "m", "prompt": "a mug"})
        assert_type(handle, Handle)
        assert_type(await handle.wait(timeout_s=60), Result)
        assert_type(await handle.cancel(), bool)
        async for update in handle.events():
            assert_type(update, JobUpdate)
            assert_type(update.state, JobState)
        assert_type(await pipeline.get(key=handle.key), Handle | None)
        async for result in pipeline.list(outcome=Outcome.SUCCEEDED, label="week=48", limit=9):
            told(result)
        assert_type(pipeline.stopped, AsyncpipeError | None)
        assert_type(pipeline.health(), Health)
        assert_type(pipeline.health().status, HealthStatus)
        pipeline.pause()
        pipeline.go()
        pipeline.set(max_workers=9, max_cost=None, limits=Limits())
        for left in await pipeline.drain(grace_s=9):
            assert_type(left, Handle)
        await pipeline.idle()
        pipeline.stop()
        await pipeline.generate("a mug")  # type: ignore[arg-type]
        await pipeline.batch_generate(feed())
        await pipeline.batch_generate(3)  # type: ignore[arg-type]
    Pipeline(AtlasCloud(), max_worker=3)  # type: ignore[call-arg]
    assert_type(Fal("id:secret").origin, str)
    assert_type(Replicate("r8_key").origin, str)
    Pipeline("atlas")  # type: ignore[arg-type]


async def commands(folder: Path, job: Job) -> None:
    """The commands as functions."""
    hooks: list[Hook] = [heard]
    found = await estimate([job, {"model": "m", "prompt": "a mug"}], AtlasCloud(), max_workers=8)
    assert_type(found, Estimate)
    assert_type(found.total, Decimal)
    assert_type(await estimate("jobs.yaml"), Estimate)
    assert_type(await quote(job, AtlasCloud()), Price)
    assert_type(await validate(load_jobs("jobs.yaml")), Validated)
    told = await status(folder, ledger="postgresql://db/jobs", place="catalog")
    assert_type(told, Status)
    assert_type(told.charged, Decimal)
    assert_type((await verify(folder)), Verified)
    reported(await collect("out", AtlasCloud(), lost=True, on_event=hooks))
    assert_type(await resolve(folder, ["mug"], lost_charged=False), list[Resolved])
    assert_type(await take_prediction(folder, "mug", "p1"), Resolved)
    assert_type(await find_lost(folder), list[Resolved])
    assert_type(await prune(folder, timedelta(days=30), dry_run=True), Pruned)
    reconciled = await reconcile(folder)
    assert_type(reconciled, Reconciled)
    assert_type(reconciled.agrees, bool)
    assert_type(await export(folder), list[dict[str, Any]])
    assert_type(await export(folder, "rows.csv", rows="attempts"), int)


def at_home() -> None:
    """Without a loop: files, manifests, and what goes wrong."""
    try:
        reported(read_manifest(Path("out")))
        asyncio.run(work())
    except JobFileError as exc:
        for problem in exc.problems:
            assert_type(problem.file, str | None)
            assert_type(problem.line, int | None)
            assert_type(problem.job, str | None)
    except ProviderError as exc:
        assert_type(exc.status, int | None)
        assert_type(exc.request_id, str | None)
    except (DownloadError, FolderInUse, LedgerError, UsageError) as exc:
        caught: AsyncpipeError = exc
        raise caught from None


class Own:
    """A provider of a user's own is one by its methods."""

    name, origin, simulated = "own", "https://own.example", False

    async def submit(self, job: Job) -> Prediction:
        return Prediction(id="1", status=PredictionStatus.COMPLETED, outputs=("https://x/a.png",))

    async def poll(self, prediction_id: str, *, route: str = "") -> Prediction:
        return Prediction(id=prediction_id)

    async def __aenter__(self) -> Own:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None


own: Provider = Own()
by_name: Provider = connect("own", base_url=None, keyless=True)


def a_name_that_is_none_is_told() -> None:
    """mypy wants the remark used: it fails as soon as a misspelled name passes."""
    from asyncpipe import Pipelin  # type: ignore[attr-defined]

    print(Pipelin)
