"""The ledger against the bill: what agrees, what does not, and what it may come from."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from asyncpipe import AtlasCloud, Job, Polling, read_manifest
from asyncpipe.errors import KeyRefused, PollFailed, ProviderError
from asyncpipe.http.client import HttpAnswer
from asyncpipe.ledger.folder import ledger_path
from asyncpipe.pricing.bill import Bill, BilledDay
from asyncpipe.pricing.price import Price, Prices
from asyncpipe.providers.atlas.billing import (
    COSTS,
    LONGEST_WAIT_S,
    RETRIES,
    USAGE,
    page_path,
    ranges,
    read_bill,
    read_page,
)
from asyncpipe.report.purchases import Entries, Ledgered, read_entries
from asyncpipe.report.reconcile import CauseKind, ModelCompared, Reconciled, Verdict, compare
from asyncpipe.simulator.books import Books
from asyncpipe.simulator.faults import Faults
from asyncpipe.simulator.server import Simulator
from asyncpipe.simulator.settings import SimulatorSettings
from asyncpipe.testing import run_virtual
from tests.support.command_line import asyncpipe, books, write_jobs
from tests.support.pipelines import a_pipeline
from tests.support.simulator_client import KEY

FLUX = "black-forest-labs/flux-2-pro/text-to-image"  # 0.04 USD
IMAGEN = "google/imagen4-ultra/text-to-image"  # 0.06 USD
DAY = date(2026, 3, 1)
NEXT = DAY + timedelta(days=1)


# -- a run, then the bill -----------------------------------------------------------------------


def run(folder: Path, settings: SimulatorSettings, count: int = 8, **options: Any) -> None:
    async def main() -> None:
        async with Simulator(settings) as simulator:
            provider = AtlasCloud("any", base_url=simulator.base_url, simulated=True)
            jobs = [
                Job(name=f"杯 {n}", model=IMAGEN if n % 4 == 3 else FLUX, prompt=f"mug {n}")
                for n in range(count)
            ]
            options.setdefault("retries", 5)
            async with a_pipeline(
                provider,
                folder,
                polling=Polling(initial_s=0.02, maximum_s=0.1),
                **{"quotes": False, **options},
            ) as pipeline:
                await pipeline.batch_generate(jobs)

    asyncio.run(main())


def settings_of(folder: Path, **faults: float) -> SimulatorSettings:
    return SimulatorSettings(
        speed=500, books=folder / "books", body_bytes=64, faults=Faults(**faults)
    )


def reconciled(folder: Path, settings: SimulatorSettings) -> Reconciled:
    async def main() -> Bill:
        async with (
            Simulator(settings) as simulator,
            AtlasCloud("any", base_url=simulator.base_url, simulated=True) as provider,
        ):
            return await read_bill(provider, found.days)

    found = read_entries(folder / "out")
    return compare(found, asyncio.run(main()))


def kinds(check: ModelCompared) -> list[CauseKind]:
    return [cause.kind for cause in check.causes]


def test_a_run_with_failures_adds_up_to_the_cent(tmp_path: Path) -> None:
    """Failed ones were charged and returned; each model and the day agree with the books."""
    settings = settings_of(tmp_path, failed=0.4, rate_limited=0.2, moderated=0.1)
    run(tmp_path / "out", settings)
    sold = Books(settings.books)
    assert {p.outcome for p in sold.predictions()} > {"completed"}
    found = reconciled(tmp_path, settings)
    assert [check.model for check in found.models] == [FLUX, IMAGEN]
    assert all(check.verdict is Verdict.EQUAL for check in found.models)
    assert all(check.causes == () for check in found.models)
    assert found.agrees
    assert sum(check.total.charged for check in found.models) == sold.charged() > 0


def test_an_unknown_job_explains_what_was_billed_for_it(tmp_path: Path) -> None:
    """Sold, its answer lost: the bill has it, the ledger has it reserved. That is no difference."""
    settings = settings_of(tmp_path, dropped=0.5, no_history=1.0)
    run(tmp_path / "out", settings)
    found = reconciled(tmp_path, settings)
    off = [check for check in found.models if check.verdict is not Verdict.EQUAL]
    assert off
    assert all(check.verdict is Verdict.RESERVED for check in off)
    assert all(kinds(check) == [CauseKind.UNKNOWN] for check in off)
    assert all(check.total.difference == check.total.reserved > 0 for check in off)
    assert found.agrees


def test_what_the_bill_says_of_lost_answers_names_the_decision(tmp_path: Path) -> None:
    """All of them on it: charge them; none: release them; open ones beside them: nobody can say."""
    lost = {"unknown": 2, "unknown_cost": 80_000, "reserved": 100_000}
    (flux,) = compare(ledgered(DAY, **lost), bill({DAY: "0.48", NEXT: "0"})).models
    assert "resolve FOLDER --lost-charged" in flux.causes[0].text
    (flux,) = compare(ledgered(DAY, **lost), bill({DAY: "0.40", NEXT: "0"})).models
    assert (flux.verdict, kinds(flux)) == (Verdict.EQUAL, [CauseKind.UNKNOWN])
    assert "resolve FOLDER --lost-free" in flux.causes[0].text
    for billed in ("0.44", "0.48", "0.40"):
        opened = ledgered(DAY, **lost, open=int(billed != "0.44"))
        (flux,) = compare(opened, bill({DAY: billed, NEXT: "0"})).models
        assert "FOLDER" not in "".join(cause.text for cause in flux.causes)


def test_more_than_the_unknown_ones_explain_is_a_difference(tmp_path: Path) -> None:
    """What is reserved covers only so much."""
    settings = settings_of(tmp_path, dropped=0.5, no_history=1.0)
    run(tmp_path / "out", settings)
    Books(settings.books).sell_to_somebody(FLUX, 1000)
    flux = reconciled(tmp_path, settings).models[0]
    assert flux.verdict is Verdict.DIFFERENT
    assert {CauseKind.UNKNOWN, CauseKind.FOREIGN} <= set(kinds(flux))


def test_somebody_else_with_the_same_key_is_seen(tmp_path: Path) -> None:
    """One prediction more than the ledger has: that model differs by its price, and no other."""
    settings = settings_of(tmp_path)
    run(tmp_path / "out", settings)
    Books(settings.books).sell_to_somebody(FLUX, 40_000)
    found = reconciled(tmp_path, settings)
    flux, imagen = found.models
    assert not found.agrees
    assert (flux.verdict, imagen.verdict) == (Verdict.DIFFERENT, Verdict.EQUAL)
    assert flux.total.difference == Decimal("0.04")
    causes = [kind for kind in kinds(flux) if kind is not CauseKind.NOT_COVERED]
    assert causes[:2] == [CauseKind.COUNT, CauseKind.FOREIGN]


def test_models_the_folder_never_used_are_told_apart(tmp_path: Path) -> None:
    """Another program's model on the same days is no difference of ours."""
    settings = settings_of(tmp_path)
    run(tmp_path / "out", settings)
    Books(settings.books).sell_to_somebody("openai/sora-v2/text-to-video", 750_000)
    found = reconciled(tmp_path, settings)
    assert found.agrees
    assert found.others == {"openai/sora-v2/text-to-video": Decimal("0.75")}


@pytest.mark.parametrize(("factor", "word"), [("2.5", "2.5 times"), ("0.8", "discount")])
def test_a_wrong_built_in_price_is_seen(tmp_path: Path, factor: str, word: str) -> None:
    """The bill is what is paid: the table is named, and how far off it is."""
    settings = settings_of(tmp_path)
    run(tmp_path / "out", settings)
    Books(settings.books).reprice(IMAGEN, Decimal(factor))
    found = reconciled(tmp_path, settings)
    flux, imagen = found.models
    assert (flux.verdict, imagen.verdict) == (Verdict.EQUAL, Verdict.DIFFERENT)
    causes = [cause for cause in imagen.causes if cause.kind is not CauseKind.NOT_COVERED]
    assert causes[0].kind is CauseKind.PRICE
    assert "built-in table of 2026-02-28" in causes[0].text
    assert word in causes[0].text
    assert imagen.total.difference == 2 * Decimal("0.06") * (Decimal(factor) - 1)


@pytest.mark.parametrize("factor", ["0.9", "1.25"])
def test_an_estimated_price_is_the_first_cause_of_a_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: str
) -> None:
    """Both ways, even by whole predictions; the model whose price is certain still agrees."""

    exact = Prices.of

    def estimate(prices: Prices, job: Job) -> Price:
        found, guessed = exact(prices, job), job.model == IMAGEN
        return replace(found, estimated=guessed, margin=found.micro // 4 if guessed else 0)

    monkeypatch.setattr(Prices, "of", estimate)
    settings = settings_of(tmp_path)
    run(tmp_path / "out", settings)
    Books(settings.books).reprice(IMAGEN, Decimal(factor))
    flux, imagen = reconciled(tmp_path, settings).models
    assert (flux.verdict, imagen.verdict) == (Verdict.EQUAL, Verdict.DIFFERENT)
    causes = [cause for cause in imagen.causes if cause.kind is not CauseKind.NOT_COVERED]
    assert causes[0].kind is CauseKind.ESTIMATED
    assert "2 have an estimated price" in causes[0].text
    Books(settings.books).sell_to_somebody(IMAGEN, 60_000)
    again = reconciled(tmp_path, settings).models[1]
    causes = [cause for cause in again.causes if cause.kind is not CauseKind.NOT_COVERED]
    assert [cause.kind for cause in causes[:2]] == [CauseKind.COUNT, CauseKind.ESTIMATED]


@pytest.mark.parametrize("wire", ["canonical", "article"])
def test_what_the_provider_says_it_cost_agrees_with_its_bill(tmp_path: Path, wire: str) -> None:
    """Some cost half as much again as their price: by the answers the ledger knows it."""
    faults = Faults(overrun=0.4, cost_told=0.5, instant=0.3)
    settings = SimulatorSettings(
        speed=500, books=tmp_path / "books", body_bytes=64, faults=faults, wire=wire
    )
    run(tmp_path / "out", settings, count=12)
    found = reconciled(tmp_path, settings)
    assert all(check.verdict is Verdict.EQUAL for check in found.models)
    sold = Books(settings.books)
    assert sum(check.total.charged for check in found.models) == sold.charged() > Decimal("0.54")
    totals = read_manifest(tmp_path / "out").totals
    assert 0 < totals.overruns < 12
    assert Decimal(totals.charged_micro - totals.overrun_micro).scaleb(-6) == Decimal("0.54")


def test_the_command_says_it_and_exits_by_it(tmp_path: Path) -> None:
    """A simulated folder asks its own books: 0 when they agree, 1 when they do not."""
    write_jobs(
        tmp_path / "jobs.yaml",
        f"output_dir: out\njobs:\n  - {{name: 杯, model: {FLUX}, prompt: mug, width: 64}}\n",
    )
    assert asyncpipe("run", "jobs.yaml", "--simulate", cwd=tmp_path).returncode == 0
    done = asyncpipe("reconcile", "out", cwd=tmp_path)
    assert (done.returncode, "agree" in done.stdout) == (0, True), done.stderr
    books(tmp_path / "out").sell_to_somebody(FLUX, 40_000)
    done = asyncpipe("reconcile", "out", "--json", cwd=tmp_path)
    assert done.returncode == 1
    told = json.loads(done.stdout)
    (model,) = told["models"]
    assert (model["charged"], model["billed"], model["difference"]) == (0.04, 0.08, 0.04)
    assert (told["agrees"], model["verdict"]) == (False, "different")
    assert "foreign" in [cause["kind"] for cause in model["causes"]]
    assert "differ" in asyncpipe("reconcile", "out", cwd=tmp_path).stdout


def test_the_command_refuses_what_cannot_be_compared(tmp_path: Path) -> None:
    """No ledger: 3. Another provider than the folder's: 2, before anything is asked."""
    none = asyncpipe("reconcile", "nowhere", cwd=tmp_path)
    assert (none.returncode, "has no ledger" in none.stderr) == (3, True)
    settings = settings_of(tmp_path)
    run(tmp_path / "out", settings)
    with sqlite3.connect(ledger_path(tmp_path / "out")) as connection:
        connection.execute("UPDATE meta SET value='0' WHERE key='simulated'")
        connection.execute("UPDATE meta SET value='https://a.example' WHERE key='origin'")
    connection.close()
    arguments = ("reconcile", "out", "--base-url", "http://127.0.0.1:9/api/v1")
    other = asyncpipe(*arguments, cwd=tmp_path, ATLASCLOUD_API_KEY="apikey-123456789")
    assert other.returncode == 2, other.stderr
    assert "https://a.example" in other.stderr
    assert "http://127.0.0.1:9" in other.stderr


# -- what the ledger says -----------------------------------------------------------------------


def entries(**fields: Any) -> Entries:
    filled = {"charged": 400_000, "delivered": 10, **fields}
    made = Entries(**filled)
    made.sources["built-in table"] = made.attempts
    return made


def ledgered(*days: date, **fields: Any) -> Ledgered:
    return Ledgered(
        entries={(FLUX, day): entries(**fields) for day in days}, days=frozenset([*days, NEXT])
    )


def bill(amounts: dict[date, str], *, partial: Sequence[date] = ()) -> Bill:
    days = {
        day: BilledDay(day=day, amounts={FLUX: Decimal(usd)}, partial=day in partial)
        for day, usd in amounts.items()
    }
    return Bill(days=days)


def test_a_prediction_booked_beyond_midnight_is_no_difference() -> None:
    """A day too much and a day too little make one that agrees."""
    found = compare(ledgered(DAY), bill({DAY: "0.36", NEXT: "0.04"}))
    (flux,) = found.models
    assert flux.verdict is Verdict.EQUAL
    assert [day.difference for day in flux.days.values()] == [Decimal("-0.04"), Decimal("0.04")]


def test_rounding_of_each_prediction_is_no_difference() -> None:
    """The ledger rounds each to micro-dollars, the bill need not; a whole one is a difference."""
    assert compare(ledgered(DAY), bill({DAY: "0.400004", NEXT: "0"})).agrees
    assert not compare(ledgered(DAY), bill({DAY: "0.400008", NEXT: "0"})).agrees


def test_a_bill_that_is_not_whole_yet_says_so() -> None:
    """Days that are partial, and days the bill does not tell at all."""
    found = compare(ledgered(DAY), bill({DAY: "0.2"}, partial=[DAY]))
    (flux,) = found.models
    assert found.not_covered == (DAY, NEXT)
    assert flux.verdict is Verdict.DIFFERENT
    assert kinds(flux)[0] is CauseKind.NOT_COVERED
    nothing = compare(ledgered(DAY), Bill()).models[0]
    assert nothing.days[DAY].billed is None
    assert nothing.total.difference == Decimal("-0.4")


def test_a_smaller_bill_names_what_may_never_have_been_bought() -> None:
    """Given up, counted as charged though failed, bought with another key or under another name."""
    given_up = ledgered(DAY, delivered=8, given_up=1, failed_charged=1)
    (flux,) = compare(given_up, bill({DAY: "0.32", NEXT: "0"})).models
    assert {CauseKind.GIVEN_UP, CauseKind.FAILED_CHARGED, CauseKind.PRICE} == set(kinds(flux))
    days = {day: BilledDay(day=day, amounts={"flux-2-pro": Decimal(1)}) for day in (DAY, NEXT)}
    (flux,) = compare(ledgered(DAY), Bill(days=days)).models
    assert kinds(flux) == [CauseKind.OTHER_KEY, CauseKind.OTHER_NAME]
    assert "flux-2-pro" in flux.causes[1].text


def test_a_larger_bill_names_returns_midnight_and_assumptions() -> None:
    """What the ledger knows of failed ones, of the time of day, of guessed durations."""
    odd = ledgered(DAY, returned=2, returned_later=1, near_midnight=3, assumed=4)
    (flux,) = compare(odd, bill({DAY: "0.5", NEXT: "0"})).models
    assert {
        CauseKind.PRICE,
        CauseKind.FOREIGN,
        CauseKind.ASSUMED,
        CauseKind.RETURNED,
        CauseKind.MIDNIGHT,
    } == set(kinds(flux))


def test_entries_are_by_the_day_of_the_submit(tmp_path: Path) -> None:
    """In UTC; the day after is asked for where one ended on it; near midnight is noted."""
    run(tmp_path / "out", settings_of(tmp_path), count=2)
    with sqlite3.connect(ledger_path(tmp_path / "out")) as connection:
        connection.execute(
            "UPDATE attempts SET submitted_at='2026-03-02T01:59:00+02:00',"
            " ended_at='2026-03-09T09:00:00+00:00' WHERE job_id=1"
        )
        connection.execute(
            "UPDATE attempts SET submitted_at='2026-05-01T12:00:00+00:00',"
            " ended_at='2026-05-01T12:00:09+00:00' WHERE job_id=2"
        )
    connection.close()
    found = read_entries(tmp_path / "out")
    assert found.days == {DAY, NEXT, date(2026, 5, 1)}
    assert set(found.entries) == {(FLUX, DAY), (FLUX, date(2026, 5, 1))}
    assert found.entries[FLUX, DAY].near_midnight == 1
    assert found.entries[FLUX, date(2026, 5, 1)].near_midnight == 0
    assert found.entries[FLUX, DAY].charged == 40_000


# -- asking -------------------------------------------------------------------------------------


def page(*days: date, next_page: Any = None, **more: Any) -> HttpAnswer:
    data = [
        {
            "date": str(d),
            "results": [{"model": FLUX, "amount": {"value": "0.1", "currency": "usd"}}],
        }
        for d in days
    ]
    document = {"data": data, "has_more": next_page is not None, "next_page": next_page, **more}
    return answer(200, json.dumps(document))


def answer(status: int, body: str = "", **headers: str) -> HttpAnswer:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpAnswer(status=status, headers=names, body=body.encode())


class Scripted:
    """An account that answers from a list; it notes what it is asked, and when.

    ``usage`` is how it answers when it is asked how often, which it does not note.
    """

    def __init__(self, *answers: HttpAnswer | PollFailed, usage: HttpAnswer | None = None) -> None:
        self.answers = list(answers)
        self.usage = usage or answer(404, "")
        self.asked: list[str] = []
        self.times: list[float] = []

    async def ask_account(self, path: str) -> HttpAnswer:
        if path.startswith(USAGE):
            return self.usage
        self.asked.append(path)
        self.times.append(asyncio.get_running_loop().time())
        said = self.answers.pop(0)
        if isinstance(said, PollFailed):
            raise said
        return said


def ask(account: Scripted, *days: date) -> Bill:
    return run_virtual(read_bill(account, days or (DAY, NEXT)))


def test_pages_are_followed_to_the_last() -> None:
    """And a day that two pages share is summed."""
    account = Scripted(page(DAY, next_page="a&b=c"), page(DAY, NEXT, next_page=7), page(NEXT))
    found = ask(account)
    assert found.days[DAY].amounts == {FLUX: Decimal("0.2")}
    assert found.days[NEXT].amounts == {FLUX: Decimal("0.2")}
    assert [path.partition("&page=")[2] for path in account.asked] == ["", "a%26b%3Dc", "7"]


def test_pages_in_circles_end() -> None:
    """An API that names the same page again is not asked for ever."""
    with pytest.raises(ProviderError, match="circles"):
        ask(Scripted(*[page(DAY, next_page="a")] * 9))


def test_long_runs_are_asked_for_in_ranges_of_180_days() -> None:
    """Each day once, the end exclusive, nothing of the gaps at the ends."""
    far = DAY + timedelta(days=400)
    days = [DAY, DAY + timedelta(days=179), DAY + timedelta(days=180), far]
    found = list(ranges(days))
    assert found == [
        (DAY, DAY + timedelta(days=180)),
        (DAY + timedelta(days=180), DAY + timedelta(days=181)),
        (far, far + timedelta(days=1)),
    ]
    assert all(end - first <= timedelta(days=180) for first, end in found)
    assert "start_date=2026-03-01&end_date=2026-03-03" in page_path(
        COSTS, DAY, NEXT + timedelta(days=1)
    )


def test_429_waits_as_long_as_it_is_told() -> None:
    """Retry-After in seconds, then the bill; without one, longer and longer."""
    account = Scripted(answer(429, Retry_After="7"), answer(429), page(DAY))
    assert ask(account).days[DAY].amounts == {FLUX: Decimal("0.1")}
    first, second, third = account.times
    assert second - first == pytest.approx(7)
    assert 1.0 <= third - second <= 2.0


def test_waiting_has_an_end() -> None:
    """A few times, and never beyond a minute: then it is said when to come back."""
    account = Scripted(*[answer(429, Retry_After="1")] * 99)
    with pytest.raises(ProviderError, match="too many requests"):
        ask(account)
    assert len(account.asked) == RETRIES.attempts
    account = Scripted(answer(429, Retry_After="1800"))
    with pytest.raises(ProviderError, match="come back in 1800 s"):
        ask(account)
    assert account.times[-1] - account.times[0] < LONGEST_WAIT_S


def test_a_network_that_fails_is_tried_again() -> None:
    """Asking costs nothing; what stays is a message of the bill, not of a poll."""
    lost = PollFailed("the billing API got no answer: reset")
    assert ask(Scripted(lost, answer(502, "<html>"), page(DAY))).days
    with pytest.raises(ProviderError, match=r"the bill cannot be read: .*reset") as caught:
        ask(Scripted(*[lost] * RETRIES.attempts))
    assert not isinstance(caught.value, PollFailed)


def envelope(**error: Any) -> str:
    return json.dumps({"error": error, "request_id": "req-1"})


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (401, envelope(message="unauthorized"), KeyRefused, "refuses the key.*unauthorized"),
        (403, envelope(message="no", code="forbidden"), ProviderError, "may not read.*403: no"),
        (404, "", ProviderError, "no billing API at this base URL"),
        (400, envelope(message="bad", param="limit"), ProviderError, "bad, parameter limit"),
        (418, '{"msg": "teapot"}', ProviderError, "refuses .HTTP 418: teapot"),
    ],
)
def test_the_public_envelope_becomes_a_message(
    status: int, body: str, kind: type[ProviderError], words: str
) -> None:
    """With the API's own words and its trace id; only a refused key is asked once more."""
    account = Scripted(*[answer(status, body)] * (2 if kind is KeyRefused or status == 403 else 1))
    with pytest.raises(kind, match=words) as caught:
        ask(account)
    assert caught.value.status == status
    assert caught.value.request_id == ("req-1" if "req-1" in body else None)


@pytest.mark.parametrize("status", [401, 403])
def test_one_refusal_of_the_bill_is_asked_once_more(status: int) -> None:
    """On any page: a gateway's slip must not end a comparison."""
    slip = answer(status, "<html>")
    account = Scripted(slip, page(DAY, next_page="a"), slip, page(NEXT))
    assert set(ask(account).days) == {DAY, NEXT}


def day(**fields: Any) -> str:
    bucket = {"date": str(DAY), "results": [], **fields}
    return json.dumps({"data": [bucket], "has_more": False})


def amount(value: Any, currency: str = "usd") -> str:
    return day(results=[{"model": "m", "amount": {"value": value, "currency": currency}}])


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html>",
        "[]",
        "{}",
        '{"data": {}}',
        '{"data": [3]}',
        '{"data": [], "has_more": true}',
        day(date="soon"),
        day(results=None),
        day(results=[{"model": "m"}]),
        day(covered_until="later"),
        amount("lots"),
        amount("NaN"),
        amount("1e999999"),
        amount("1e-999999"),
        amount(None),
        amount("1", "eur"),
        "[" * 100_000,
    ],
)
def test_nonsense_is_no_bill(body: str) -> None:
    """Whatever comes is a bill or a ProviderError; never a wrong sum."""
    with pytest.raises(ProviderError, match="the bill the API sent cannot be read"):
        read_page(answer(200, body))


def test_a_bill_of_other_days_is_refused() -> None:
    """It would make sums of what was not asked for."""
    with pytest.raises(ProviderError, match="2026-05-01"):
        ask(Scripted(page(date(2026, 5, 1))))


@pytest.mark.parametrize(
    "row",
    [
        {"model": FLUX},
        {"model_id": FLUX},
        {"model": {"id": FLUX, "name": "Flux 2 Pro"}},
        {"model_name": FLUX},
    ],
)
def test_amounts_are_read_exactly_however_the_model_is_named(row: dict[str, Any]) -> None:
    """As text or number, to the last digit; with the day's coverage."""
    results = [{**row, "amount": {"value": "0.12345678901234567891"}}]
    body = day(results=results, covered_until="2026-03-01T12:00:00Z", partial=True)
    body = body.replace('"0.12345678901234567891"', "0.12345678901234567891")
    (found,) = read_page(answer(200, body)).days
    assert found.amounts == {FLUX: Decimal("0.12345678901234567891")}
    assert found.covered_until == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert found.partial


def test_the_key_goes_to_the_same_host_and_nowhere_else() -> None:
    """``/public/v1`` beside ``/api/v1``, with the run's key; a wrong one is said to be."""

    async def main() -> None:
        settings = SimulatorSettings(api_key="apikey-right-123")
        async with Simulator(settings) as simulator:
            host = simulator.base_url.removesuffix("/api/v1")
            for base in (host, simulator.base_url):
                async with AtlasCloud("apikey-right-123", base_url=base) as provider:
                    today = datetime.now(UTC).date()
                    assert (await read_bill(provider, [today])).days[today].partial
            async with AtlasCloud("apikey-wrong-123", base_url=host) as provider:
                with pytest.raises(KeyRefused) as caught:
                    await read_bill(provider, [DAY])
                assert "apikey-wrong" not in str(caught.value)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("row", "count"),
    [
        ({"model": FLUX, "requests": 7}, 7),
        ({"model_id": FLUX, "request_count": "7"}, 7),
        ({"model": {"id": FLUX}, "num_requests": 7.0}, 7),
        ({"model": FLUX, "images": 7}, None),
        ({"model": FLUX, "requests": -1}, None),
    ],
)
def test_requests_are_counted_where_that_is_told(row: dict[str, Any], count: int | None) -> None:
    """A number that cannot be read, or no such endpoint, takes nothing from the bill."""
    usage = answer(200, day(results=[row, row]))
    found = ask(Scripted(page(DAY), usage=usage), DAY)
    assert found.requests == (None if count is None else {FLUX: 2 * count})
    assert found.days[DAY].amounts == {FLUX: Decimal("0.1")}
    assert ask(Scripted(page(DAY), usage=answer(500, "")), DAY).requests is None


def test_only_requests_of_the_days_of_the_ledger_count() -> None:
    """A range is asked for, days between them too; and this key's, not those of the account."""
    later = DAY + timedelta(days=2)
    buckets = [
        {"date": str(DAY + timedelta(days=n)), "results": [{"model": FLUX, "requests": 10**n}]}
        for n in range(3)
    ]
    usage = answer(200, json.dumps({"data": buckets, "has_more": False}))
    account = Scripted(page(DAY, NEXT, later), usage=usage)
    assert ask(account, DAY, later).requests == {FLUX: 101}
    assert "scope=self" in account.asked[0]
    assert "scope=self" in page_path(USAGE, DAY, later)


@pytest.mark.parametrize(
    ("requests", "first", "words"),
    [
        (3, CauseKind.COUNT, "3 requests on these days, the ledger 2 predictions: others were"),
        (2, CauseKind.PRICE, "2 requests on these days, the ledger 2 predictions: it is the price"),
        (0, CauseKind.PRICE, "0 requests"),
    ],
)
def test_the_number_of_requests_tells_a_price_from_somebody_else(
    requests: int, first: CauseKind, words: str
) -> None:
    """More was bought than by this folder, or the same at another price."""
    entries = Entries(charged=80_000, delivered=2)
    ledgered = Ledgered(entries={(FLUX, DAY): entries}, days=frozenset({DAY}))
    billed = {DAY: BilledDay(day=DAY, amounts={FLUX: Decimal("0.11")})}
    (check,) = compare(ledgered, Bill(days=billed, requests={FLUX: requests})).models
    assert (check.requests, check.predictions) == (requests, 2)
    assert check.causes[0].kind is first
    (said,) = [cause.text for cause in check.causes if cause.kind is CauseKind.COUNT]
    assert words in said
    (silent,) = compare(ledgered, Bill(days=billed)).models
    assert CauseKind.COUNT not in kinds(silent)
    assert silent.requests is None


# -- the simulator's bill -----------------------------------------------------------------------


async def costs(simulator: Simulator, query: str, what: str = COSTS) -> tuple[int, Any]:
    url = simulator.base_url.removesuffix("/api/v1") + f"/public/v1{what}?{query}"
    async with aiohttp.ClientSession() as session, session.get(url, headers=KEY) as response:
        return response.status, await response.json()


def test_the_simulator_books_sales_and_returns_by_day(tmp_path: Path) -> None:
    """In pages of so many days; charged when sold, returned when failed; grouped and filtered."""

    async def main() -> None:
        async with Simulator(SimulatorSettings(books=tmp_path / "books")) as simulator:
            sold = simulator.books
            noon = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
            sold.sell_to_somebody(FLUX, 40_000, at=noon)
            sold.sell_to_somebody(IMAGEN, 60_000, at=noon + 86_400)
            sold._connection.execute(
                "UPDATE predictions SET outcome='failed', ready_at=? WHERE model=?",
                (noon + 2 * 86_400, IMAGEN),
            )
            query = "start_date=2026-03-01&end_date=2026-03-05&limit=3&group_by[]=model"
            status, first = await costs(simulator, query)
            assert (status, first["has_more"], len(first["data"])) == (200, True, 3)
            sums = [
                {row["model"]: row["amount"]["value"] for row in bucket["results"]}
                for bucket in first["data"]
            ]
            assert sums == [{FLUX: "0.040000"}, {IMAGEN: "0.060000"}, {IMAGEN: "-0.060000"}]
            assert not first["data"][0]["partial"]
            _, second = await costs(simulator, f"{query}&page={first['next_page']}")
            assert [bucket["date"] for bucket in second["data"]] == ["2026-03-04"]
            assert (second["has_more"], second["data"][0]["results"]) == (False, [])
            _, one = await costs(simulator, f"{query}&scope=account&model_ids[]={FLUX}")
            assert [len(bucket["results"]) for bucket in one["data"]] == [1, 0, 0]
            ungrouped = "start_date=2026-03-01&end_date=2026-03-02"
            (row,) = (await costs(simulator, ungrouped))[1]["data"][0]["results"]
            assert row == {
                "object": "model_cost.result",
                "amount": {"value": "0.040000", "currency": "usd"},
            }

    asyncio.run(main())


def test_the_simulator_counts_requests_in_pages_of_rows(tmp_path: Path) -> None:
    """Failed ones too; a page may end within a day, and its cursor is nobody's business."""

    async def main() -> None:
        async with Simulator(SimulatorSettings(books=tmp_path / "books")) as simulator:
            noon = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
            for n, model in enumerate([FLUX, FLUX, IMAGEN, "other/model"]):
                simulator.books.sell_to_somebody(model, 40_000, at=noon + n)
            query = "start_date=2026-03-01&end_date=2026-03-03&group_by[]=model&scope=account"
            pages, following = [], ""
            while True:
                _, told = await costs(simulator, f"{query}&limit=2{following}", USAGE)
                pages.append(told)
                if not told["has_more"]:
                    break
                following = f"&page={told['next_page']}"
            assert [told["scope"] for told in pages] == ["account", "account"]
            assert [[len(b["results"]) for b in told["data"]] for told in pages] == [[2], [1, 0]]
            (first, second) = pages[0]["data"][0]["results"]
            assert (first["requests"], second["requests"]) == (2, 1)
            async with AtlasCloud("any", base_url=simulator.base_url) as provider:
                bill = await read_bill(provider, [DAY, NEXT])
                assert bill.requests == {FLUX: 2, IMAGEN: 1, "other/model": 1}

    asyncio.run(main())


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("", "start_date"),
        ("start_date=2026-03-01", "end_date"),
        ("start_date=2026-03-01&end_date=2026-03-01", "end_date"),
        ("start_date=2026-01-01&end_date=2026-06-31", "end_date"),
        ("start_date=2026-01-01&end_date=2026-07-02", "end_date"),
        ("start_date=2026-03-01&end_date=2026-03-02&limit=0", "limit"),
        ("start_date=2026-03-01&end_date=2026-03-02&limit=1001", "limit"),
        ("start_date=2026-03-01&end_date=2026-03-02&scope=world", "scope"),
        ("start_date=2026-03-01&end_date=2026-03-02&group_by[]=job", "group_by[]"),
        ("start_date=2026-03-01&end_date=2026-03-02&page=2026-04-01", "page"),
    ],
)
def test_the_simulator_refuses_what_the_api_does_not_take(query: str, param: str) -> None:
    """400 in the public API's envelope, naming the parameter."""

    async def main() -> None:
        async with Simulator(SimulatorSettings()) as simulator:
            status, told = await costs(simulator, query)
            assert (status, told["error"]["param"]) == (400, param)
            assert told["request_id"]

    asyncio.run(main())


def test_today_is_partial_and_covered_until_now() -> None:
    """More may come until midnight."""

    async def main() -> None:
        async with Simulator(SimulatorSettings()) as simulator:
            today = datetime.fromtimestamp(time.time(), UTC).date()
            query = f"start_date={today}&end_date={today + timedelta(days=1)}"
            _, told = await costs(simulator, query)
            (bucket,) = told["data"]
            assert bucket["partial"] is True
            assert bucket["start_at"] <= bucket["covered_until"] <= bucket["end_at"]

    asyncio.run(main())
