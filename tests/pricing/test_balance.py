"""The account's money: the least there must be, and how much is missing when there is none."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import AtlasCloud, Job, Manifest, Pipeline, Polling, UsageError
from asyncpipe.engine.tickets import Tickets
from asyncpipe.errors import (
    AsyncpipeError,
    BalanceExhausted,
    BalanceTooLow,
    CannotConnect,
    KeyRefused,
    ProviderError,
)
from asyncpipe.http.client import HttpAnswer
from asyncpipe.pricing.balance import ASKED_S, ENOUGH_S, Balance
from asyncpipe.pricing.budget import Budget
from asyncpipe.pricing.spending import SpendingLimits
from asyncpipe.providers.atlas.billing import read_account, read_balance
from asyncpipe.providers.base import Prediction, PredictionStatus
from asyncpipe.report.totals import Totals
from asyncpipe.simulator.faults import Faults
from asyncpipe.simulator.server import Simulator
from asyncpipe.testing import FakeProvider, Script, run_virtual
from tests.support.command_line import environment
from tests.support.pipelines import a_pipeline
from tests.support.simulator_client import beside_simulator

FLUX = "black-forest-labs/flux-2-pro/text-to-image"

# As atlas-api.md §5 has it.
DOCUMENTED = (
    '{"object":"balance","scope":"account","account":{"id":"a1","name":"n","type":"personal"},'
    '"available":{"value":"125.500000","currency":"usd"},"cash":{"value":"100","currency":"usd"},'
    '"bonus":{"value":"25.5","currency":"usd"},"frozen":{"value":"0","currency":"usd"},'
    '"credit_grant":{},"request_id":"r1"}'
)


def answer(body: str, status: int = 200) -> HttpAnswer:
    return HttpAnswer(status=status, headers={}, body=body.encode())


def test_the_documented_balance_is_read() -> None:
    """What is available counts: cash, bonus and subscription, without what is frozen."""
    assert read_balance(answer(DOCUMENTED)) == Decimal("125.5")


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        ("{}", 200, "the balance cannot be read: KeyError"),
        ('{"available":5}', 200, "the balance cannot be read: AttributeError"),
        ('{"available":{"value":"5","currency":"eur"}}', 200, "it is in eur, not in USD"),
        ('{"available":{"value":"much"}}', 200, "'much' is no amount"),
        ('{"available":{"value":"NaN"}}', 200, "the balance cannot be read: 'NaN' is no amount"),
        ("<html></html>", 200, "the balance cannot be read: JSONDecodeError"),
        ("<html></html>", 404, "the balance cannot be read: there is no billing API"),
        (
            '{"error":{"type":"permission_error","code":"c","message":"not yours","param":null}}',
            403,
            r"the balance cannot be read: this key may not read it \(HTTP 403: not yours\)",
        ),
    ],
)
def test_what_is_no_balance_says_why(body: str, status: int, why: str) -> None:
    with pytest.raises(ProviderError, match=why):
        read_balance(answer(body, status))


def test_a_refused_key_is_told_as_such() -> None:
    for read in (read_balance, read_account):
        with pytest.raises(KeyRefused):
            read(answer("{}", 401))


@pytest.mark.parametrize(
    ("body", "account"),
    [
        (DOCUMENTED, "a1"),
        ('{"account":{"id":7,"name":"n"}}', "7"),
        ('{"code":200,"data":{"account":{"id":" a1 "},"available":{"value":"1"}}}', "a1"),
        ('\ufeff{"account":{"id":"a1"}}', "a1"),
    ],
)
def test_whose_the_balance_is_is_read(body: str, account: str) -> None:
    """By the account's id; its name may change, and several may have the same."""
    assert read_account(answer(body)) == account


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        ('{"available":{"value":"5","currency":"usd"}}', 200, "names no account"),
        ('{"account":{"id":null,"name":"n"}}', 200, "names no account"),
        ('{"account":{"id":""}}', 200, "names no account"),
        ('{"account":"me"}', 200, "names no account"),
        ('{"account":[],"data":[]}', 200, "names no account"),
        ("[]", 200, "names no account"),
        ("<html></html>", 200, "names no account"),
        ("<html></html>", 404, "the account cannot be read: there is no billing API"),
        ("{}", 403, "the account cannot be read: this key may not read it"),
    ],
)
def test_an_answer_that_names_no_account_says_why(body: str, status: int, why: str) -> None:
    with pytest.raises(ProviderError, match=why):
        read_account(answer(body, status))


@dataclass(kw_only=True)
class Rich(FakeProvider):
    """A fake provider with a balance: what it says in turn, the last one for ever."""

    says: Sequence[Decimal | Exception] = (Decimal(100),)
    asked: list[float] = field(default_factory=list)

    async def balance(self) -> Decimal:
        self.asked.append(asyncio.get_running_loop().time())
        said = self.says[min(len(self.asked), len(self.says)) - 1]
        if isinstance(said, Exception):
            raise said
        return said


def jobs(count: int) -> list[Job]:
    return [Job(name=f"杯 {n}", model=FLUX, prompt=f"mug {n}") for n in range(count)]


def batch(
    folder: Path, provider: FakeProvider, count: int, **options: Any
) -> tuple[Manifest, AsyncpipeError | None]:
    async def main() -> tuple[Manifest, AsyncpipeError | None]:
        async with a_pipeline(provider, folder, seed=1, **options) as pipeline:
            manifest = await pipeline.batch_generate(jobs(count))
            return manifest, pipeline.stopped

    return run_virtual(main())


def test_too_low_a_balance_submits_nothing_and_says_what_is_missing(tmp_path: Path) -> None:
    """Once it is enough, the same run goes on."""
    provider = Rich(says=[Decimal("12.5"), Decimal("20.12")])
    manifest, stopped = batch(tmp_path, provider, 3, min_balance=Decimal(20))
    assert isinstance(stopped, BalanceTooLow)
    assert str(stopped).startswith(
        "the account has 12.50 USD, 7.50 USD less than min_balance (20.00 USD)"
    )
    assert (provider.submits, manifest.totals.pending) == (0, 3)
    manifest, stopped = batch(tmp_path, provider, 3, min_balance=Decimal(20))
    assert (manifest.totals.successful, stopped) == (3, None)


def test_what_was_bought_is_brought_home_though_the_balance_is_too_low(tmp_path: Path) -> None:
    """Only submitting stops."""
    slow = Rich(default=Script(generation_s=1000.0))

    async def cut() -> None:
        async with Pipeline(slow, tmp_path, max_workers=2) as pipeline:
            task = asyncio.ensure_future(pipeline.batch_generate(jobs(4)))
            await asyncio.sleep(10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run_virtual(cut())
    assert len(slow.sold) == 2

    class Home(Rich):
        async def poll(self, prediction_id: str, *, route: str = "") -> Any:
            made = slow._made[prediction_id]
            made.ready = 0.0
            return await slow.poll(prediction_id, route=route)

    poor = Home(says=[Decimal(0)])
    manifest, stopped = batch(tmp_path, poor, 4, min_balance=Decimal(1))
    assert (manifest.totals.successful, manifest.totals.pending) == (2, 2)
    assert (poor.submits, type(stopped)) == (0, BalanceTooLow)


@pytest.mark.parametrize(
    "slip", [KeyRefused("401", status=401), ProviderError("a firewall's page", status=403)]
)
def test_one_refusal_of_the_balance_is_asked_once_more(tmp_path: Path, slip: Exception) -> None:
    """A gateway's slip must not leave the least that was asked for unkept."""
    provider = Rich(says=[slip, Decimal("12.5")])
    _, stopped = batch(tmp_path, provider, 3, min_balance=Decimal(20))
    assert (provider.submits, type(stopped)) == (0, BalanceTooLow)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (ProviderError("the balance cannot be read: this key may not read it"), "may not read it"),
        (KeyError("oops"), "the provider's code failed during a balance: KeyError('oops')"),
    ],
)
def test_a_balance_that_cannot_be_read_is_said_and_stops_nothing(
    tmp_path: Path, said: Exception, why: str
) -> None:
    """It says nothing of the money; a submit without money is refused at no cost."""
    told: list[str] = []
    provider = Rich(says=[said])
    options: dict[str, Any] = {"min_balance": Decimal(1), "on_remark": told.append}
    manifest, stopped = batch(tmp_path, provider, 2, **options)
    assert (manifest.totals.successful, stopped, len(told)) == (2, None, 1)
    assert told[0].startswith("min_balance is not checked: ")
    assert why in told[0]


def test_a_way_that_is_set_up_wrongly_is_no_balance_that_cannot_be_read() -> None:
    """It is raised with its remedy, not said as a remark, and nothing is bought meanwhile."""
    error = CannotConnect("the certificate is not trusted")

    class Untrusted(FakeProvider):
        async def balance(self) -> Decimal:
            raise error

    async def main() -> None:
        budget = Budget(None, Totals(), Tickets())
        balance = Balance(Untrusted(), budget, least=Decimal(1))
        with pytest.raises(CannotConnect):
            await balance.too_little()

    run_virtual(main())


def test_a_provider_without_balance_is_said_too(tmp_path: Path) -> None:
    told: list[str] = []
    batch(tmp_path, FakeProvider(), 1, min_balance=Decimal(1), on_remark=told.append)
    assert told == ["min_balance is not checked: the provider does not tell its balance"]


def test_without_min_balance_nobody_asks(tmp_path: Path) -> None:
    provider = Rich()
    batch(tmp_path, provider, 2)
    assert provider.asked == []


def test_a_service_asks_now_and_then_and_its_callers_hear_of_it(tmp_path: Path) -> None:
    """Each refused call raises; jobs that are there already are returned all the same."""
    provider = Rich(says=[Decimal("5.04"), Decimal(0), Decimal("5.04")])

    async def main() -> None:
        async with Pipeline(
            provider, tmp_path, spending=SpendingLimits(min_balance=Decimal(5))
        ) as pipeline:
            first, second, *_ = jobs(2)
            await asyncio.gather(pipeline.generate(first), pipeline.generate(first))
            assert len(provider.asked) == 1
            await asyncio.sleep(ENOUGH_S)
            for _ in range(3):
                with pytest.raises(BalanceTooLow):
                    await pipeline.generate(second)
            assert (await pipeline.generate(first)).name == "杯 0"
            assert len(provider.asked) == 2
            await asyncio.sleep(ASKED_S)
            await pipeline.generate(second)

    run_virtual(main())
    assert provider.sold == ["杯 0", "杯 1"]


@dataclass(kw_only=True)
class Account(Rich):
    """One whose money goes down: at each submit, or with ``late`` when its polls say so.

    ``others`` is what another program spends when the balance is asked for the second time.
    """

    money: Decimal = Decimal(10)
    late: bool = False
    others: Decimal = Decimal(0)
    least_seen: Decimal = Decimal(10)
    _paid: set[str] = field(default_factory=set)

    async def balance(self) -> Decimal:
        await super().balance()
        if len(self.asked) == 2:
            self._spend(self.others)
        return self.money

    async def submit(self, job: Job) -> Prediction:
        made = await super().submit(job)
        if not self.late:
            self._charge(made)
        return made

    async def poll(self, prediction_id: str, *, route: str = "") -> Prediction:
        found = await super().poll(prediction_id, route=route)
        if self.late and found.status is not PredictionStatus.RUNNING:
            self._charge(found)
        if found.status is PredictionStatus.FAILED and not self.late:
            self._spend(Decimal("-0.04"))
        return found

    def _charge(self, made: Prediction) -> None:
        if made.id not in self._paid and made.status is not PredictionStatus.FAILED:
            self._paid.add(made.id)
            self._spend(Decimal("0.04"))

    def _spend(self, amount: Decimal) -> None:
        self.money -= amount
        self.least_seen = min(self.least_seen, self.money)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("workers", [1, 7, 64])
def test_the_least_is_kept_during_the_run(tmp_path: Path, workers: int, late: bool) -> None:
    """10 USD, 9 are to stay: 25 pictures at 0.04, whether they are charged soon or late."""
    provider = Account(late=late)
    least = Decimal(9)
    manifest, stopped = batch(tmp_path, provider, 60, min_balance=least, max_workers=workers)
    assert (manifest.totals.successful, manifest.totals.pending) == (25, 35)
    assert (provider.money, provider.least_seen) == (least, least)
    assert isinstance(stopped, BalanceTooLow)
    assert str(stopped) == (
        "the account has 9.00 USD, and the next job, for 0.04 USD, would leave less than "
        "min_balance (9.00 USD). It was not submitted. Add money, or lower --min-balance "
        "(min_balance in the job file), then run again"
    )


def test_what_others_spend_meanwhile_is_noticed(tmp_path: Path) -> None:
    """It is asked for again when half of what may be spent was committed."""
    provider = Account(others=Decimal("0.30"))
    manifest, _ = batch(tmp_path, provider, 60, min_balance=Decimal(9), max_workers=2)
    assert manifest.totals.successful == 17
    assert Decimal(9) <= provider.least_seen <= Decimal("9.04")


def test_what_fails_free_of_charge_is_spent_again(tmp_path: Path) -> None:
    """Half of the predictions fail and are given back; the money goes to other jobs."""
    failing = {f"杯 {n}": Script(end=PredictionStatus.FAILED, error="gpu") for n in range(0, 30, 2)}
    provider = Account(scripts=failing)
    manifest, _ = batch(tmp_path, provider, 60, min_balance=Decimal(9), retries=0)
    assert (manifest.totals.successful, manifest.totals.failed) == (25, 15)
    assert (provider.money, provider.least_seen) == (Decimal(9), Decimal(9))


def test_a_balance_that_cannot_be_read_any_more_is_reckoned_on(tmp_path: Path) -> None:
    """What it was, less what was committed since, is all there is to go by."""
    broken = ProviderError("the balance cannot be read: HTTP 500")
    provider = Rich(says=[Decimal(10), broken])
    manifest, stopped = batch(tmp_path, provider, 60, min_balance=Decimal(9), max_workers=3)
    assert (manifest.totals.successful, type(stopped)) == (25, BalanceTooLow)


def test_a_callers_job_that_would_leave_too_little_is_refused(tmp_path: Path) -> None:
    """A service goes on once there is more."""
    provider = Account(money=Decimal("9.05"))

    async def main() -> None:
        async with a_pipeline(provider, tmp_path, min_balance=Decimal(9)) as pipeline:
            first, second, *_ = jobs(2)
            await pipeline.generate(first)
            with pytest.raises(BalanceTooLow, match=r"the account has 9\.01 USD, and the next"):
                await pipeline.generate(second)
            provider.money += 1
            await asyncio.sleep(ENOUGH_S)
            assert (await pipeline.generate(second)).status == "success"

    run_virtual(main())


@pytest.mark.parametrize("least", [Decimal(-1), 5, Decimal("Infinity"), Decimal("NaN"), True])
def test_min_balance_is_an_amount(tmp_path: Path, least: Any) -> None:
    with pytest.raises(UsageError, match="min_balance: "):
        Pipeline(FakeProvider(), tmp_path, spending=SpendingLimits(min_balance=least))


def test_no_money_says_how_much_is_missing(tmp_path: Path) -> None:
    """What is left, by its price, against what the account has."""
    stop = BalanceExhausted("the balance is used up (402)", status=402)
    provider = Rich(scripts={"杯 3": Script(submits=[stop])}, says=[Decimal("0.1")])
    manifest, stopped = batch(tmp_path, provider, 10, max_workers=1)
    assert (manifest.totals.successful, type(stopped)) == (3, BalanceExhausted)
    assert str(stopped) == (
        "the balance is used up (402). The 7 jobs left cost 0.28 USD, the account has 0.10 USD: "
        "0.18 USD are missing. Add money, then run again"
    )


def simulated(
    steps: Callable[[Simulator], Awaitable[Any]], *, balance: str | None = None, **options: Any
) -> Any:
    given = None if balance is None else Decimal(balance)
    told: dict[str, Any] = {"generation_s": (0.0, 0.0), "body_bytes": 2000, "balance_usd": given}
    return beside_simulator(steps, **told, **options)


@pytest.mark.parametrize("faults", ["", "no_balance=1"])
def test_the_simulators_402_says_what_is_missing(tmp_path: Path, faults: str) -> None:
    """The real 402, and the one that comes as a 200: what it sold is brought home."""

    async def steps(simulator: Simulator) -> None:
        provider = AtlasCloud("k", base_url=simulator.base_url)
        polling = Polling(initial_s=0.02, maximum_s=0.1)
        async with Pipeline(provider, tmp_path, max_workers=3, polling=polling) as pipeline:
            manifest = await pipeline.batch_generate(jobs(10))
            stopped = pipeline.stopped
        sold = len(simulator.books.predictions())
        assert isinstance(stopped, BalanceExhausted)
        assert manifest.totals.successful == sold == (0 if faults else 2)
        expected = (
            "The 10 jobs left cost 0.40 USD, the account has 0.10 USD: 0.30 USD are missing"
            if faults
            else "The 8 jobs left cost 0.32 USD, the account has 0.02 USD: 0.30 USD are missing"
        )
        assert expected in str(stopped)

    simulated(steps, balance="0.10", faults=Faults.parse(faults))


async def asyncpipe(*arguments: object, cwd: Path) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "asyncpipe", *map(str, arguments)),
        cwd=cwd,
        env=environment(ATLASCLOUD_API_KEY="k"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, " ".join((out + err).decode().split())


def test_the_command_line_stops_with_3_before_and_during(tmp_path: Path) -> None:
    """--min-balance and min_balance:, looked at first and kept; with a lower one it goes on."""
    path = tmp_path / "jobs.yaml"
    text = "output_dir: out\nmin_balance: 1\ndefaults: {model: " + FLUX + "}\njobs:\n"
    path.write_text(text + "".join(f"  - {{prompt: mug {n}}}\n" for n in range(4)))

    async def steps(simulator: Simulator) -> None:
        run = ("run", "jobs.yaml", "--base-url", simulator.base_url, "--allow-unknown-models")
        code, said = await asyncpipe(*run, cwd=tmp_path)
        assert (code, simulator.books.submits()) == (3, 0), said
        assert "less than min_balance (1.00 USD)" in said
        assert "or lower --min-balance (min_balance in the job file), then run again" in said
        code, said = await asyncpipe(*run, "--min-balance", "0.05", cwd=tmp_path)
        assert (code, len(simulator.books.predictions())) == (3, 1), said
        assert "the account has 0.06 USD, and the next job, for 0.04 USD, would leave" in said
        code, said = await asyncpipe(*run, "--min-balance", "0", cwd=tmp_path)
        assert (code, len(simulator.books.predictions())) == (3, 2), said
        assert "the account has 0.02 USD, and the next job, for 0.04 USD, would leave" in said

    simulated(steps, balance="0.10")
