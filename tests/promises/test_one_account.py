"""A folder belongs to one account, whichever of its keys is used; another one is told at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import AtlasCloud, Job, Pipeline, Polling
from asyncpipe.errors import KeyRefused, PollFailed, ProviderError, UsageError
from asyncpipe.http import HttpAnswer
from asyncpipe.jobs import JobState
from asyncpipe.ledger import origin_of
from asyncpipe.simulator import Simulator, SimulatorSettings
from asyncpipe.testing import FakeProvider, run_virtual
from tests.support.command_line import command, environment, write_jobs
from tests.support.pipelines import a_pipeline

FLUX = "black-forest-labs/flux-2-pro/text-to-image"
OLD, NEW, HERS = "apikey-of-his-old", "apikey-of-his-new", "apikey-of-hers"
ACCOUNTS = {OLD: "acct-his", NEW: "acct-his", HERS: "acct-hers"}
JOBS = f"""\
output_dir: out
polling: {{initial_s: 0.05, maximum_s: 0.1}}
jobs:
- {{name: 杯, model: {FLUX}, prompt: a mug}}
"""
MORE = f"- {{name: 壶, model: {FLUX}, prompt: a pot}}\n"

Step = Callable[..., Awaitable[tuple[int, str]]]


def at_a_simulator(
    tmp_path: Path,
    steps: Callable[[Simulator, Step], Awaitable[None]],
    settings: SimulatorSettings | None = None,
) -> None:
    """Run ``steps``, whose commands get a key."""

    async def main() -> None:
        known = settings or SimulatorSettings(speed=1000, accounts=ACCOUNTS)
        async with Simulator(known) as simulator:

            async def run(key: str, *arguments: str) -> tuple[int, str]:
                process = await asyncio.create_subprocess_exec(
                    *command(*arguments, "--base-url", simulator.base_url),
                    cwd=tmp_path,
                    env=environment(ATLASCLOUD_API_KEY=key),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                )
                said, _ = await process.communicate()
                assert process.returncode is not None
                return process.returncode, said.decode()

            await steps(simulator, run)

    asyncio.run(main())


RUN = ("run", "jobs.yaml", "--max-cost", "1")


def test_a_rotated_key_goes_on_and_another_account_is_refused_by_name(tmp_path: Path) -> None:
    """By every command that asks the provider; nothing is polled, bought or listed for it."""

    async def steps(simulator: Simulator, run: Step) -> None:
        write_jobs(tmp_path / "jobs.yaml", JOBS)
        code, said = await run(OLD, *RUN)
        assert code == 0, said
        assert "account" not in said
        write_jobs(tmp_path / "jobs.yaml", JOBS + MORE)
        for arguments in (
            RUN,
            ("collect", "out"),
            ("reconcile", "out"),
            ("resolve", "out", "--find"),
        ):
            asked = {**simulator.books.summary()}
            code, said = await run(HERS, *arguments)
            assert code == 2, (arguments, said)
            assert "acct-his" in said
            assert "acct-hers" in said
            assert "--same-account" in said
            assert simulator.books.summary() == asked
        code, said = await run(NEW, *RUN)
        assert code == 0, said
        assert len(simulator.books.predictions()) == 2
        assert (await run(NEW, "reconcile", "out"))[0] == 0

    at_a_simulator(tmp_path, steps)


def test_same_account_accepts_it_and_from_then_on_it_is_the_one(tmp_path: Path) -> None:
    async def steps(simulator: Simulator, run: Step) -> None:
        write_jobs(tmp_path / "jobs.yaml", JOBS)
        assert (await run(OLD, *RUN))[0] == 0
        write_jobs(tmp_path / "jobs.yaml", JOBS + MORE)
        code, said = await run(HERS, *RUN, "--same-account")
        assert code == 0, said
        assert origin_of(tmp_path / "out").account == "acct-hers"
        assert (await run(HERS, "collect", "out"))[0] == 0
        code, said = await run(NEW, "collect", "out")
        assert code == 2, said
        assert (await run(NEW, "collect", "out", "--same-account"))[0] == 0

    at_a_simulator(tmp_path, steps)


async def one_run(provider: Any, folder: Path, *names: str, **options: Any) -> list[str]:
    """Run jobs to their end; returns what was remarked."""
    remarks: list[str] = []
    polling = Polling(initial_s=0.05, maximum_s=0.1)
    async with a_pipeline(
        provider, folder, polling=polling, on_remark=remarks.append, **options
    ) as pipeline:
        jobs = [Job(name=name, model=FLUX, prompt=name) for name in names]
        manifest = await pipeline.batch_generate(jobs)
    assert manifest.totals.jobs[JobState.SUCCEEDED] == len(names)
    return remarks


def test_in_the_library_it_is_a_usage_error(tmp_path: Path) -> None:
    """Raised before anything is polled or bought; ``same_account`` accepts it."""

    async def main() -> None:
        async with Simulator(SimulatorSettings(speed=1000, accounts=ACCOUNTS)) as simulator:
            his, hers = (AtlasCloud(key, base_url=simulator.base_url) for key in (OLD, HERS))
            assert await one_run(his, tmp_path, "杯") == []
            with pytest.raises(UsageError, match=r"acct-his .*acct-hers"):
                await one_run(hers, tmp_path, "杯", "壶")
            assert len(simulator.books.predictions()) == 1
            await one_run(hers, tmp_path, "杯", "壶", same_account=True)

    asyncio.run(main())


class Named(FakeProvider):
    """One that tells its account, or raises what stands in its place."""

    def __init__(self, *told: object) -> None:
        super().__init__()
        self.told = [*told]
        self.asked = 0

    async def account_id(self) -> Any:
        self.asked += 1
        said = self.told.pop(0) if len(self.told) > 1 else self.told[0]
        if isinstance(said, Exception):
            raise said
        return said


@pytest.mark.parametrize(
    "trouble",
    [
        ProviderError("not found", status=404),
        ProviderError("forbidden", status=403),
        ProviderError("unauthorized", status=401),
        PollFailed("no answer"),
        ProviderError("the balance names no account", status=200),
        ValueError("a bug"),
        None,
        "",
        7,
    ],
)
def test_where_the_account_cannot_be_told_nothing_is_refused(
    tmp_path: Path, trouble: object
) -> None:
    """Neither at the first run nor after one that knew it; it is said, once a run."""

    async def main() -> None:
        remarks = await one_run(Named(trouble), tmp_path / "new", "杯")
        assert sum("account" in remark for remark in remarks) == 1
        assert await one_run(Named("acct-1"), tmp_path / "new", "杯") == []
        remarks = await one_run(Named(trouble), tmp_path / "new", "杯", "壶")
        assert sum("account" in remark for remark in remarks) == 1
        with pytest.raises(UsageError, match=r"acct-1 .*acct-2"):
            await one_run(Named("acct-2"), tmp_path / "new", "杯", "壶")

    run_virtual(main())


def test_a_slip_of_a_gateway_is_asked_once_more(tmp_path: Path) -> None:
    async def main() -> None:
        await one_run(Named("acct-1"), tmp_path, "杯")
        for slip in (
            KeyRefused("401", status=401),
            ProviderError("403", status=403),
            ProviderError("502", status=502),
        ):
            with pytest.raises(UsageError, match="acct-2"):
                await one_run(Named(slip, "acct-2"), tmp_path, "杯")

    run_virtual(main())


def test_an_account_that_hangs_is_not_waited_for_long(tmp_path: Path) -> None:
    class Hanging(FakeProvider):
        async def account_id(self) -> str:
            await asyncio.sleep(1e6)
            return ""

    remarks = run_virtual(one_run(Hanging(), tmp_path, "杯"))
    assert len(remarks) == 1
    assert "no answer within 10 s" in remarks[0]


def test_a_provider_without_accounts_is_not_spoken_of(tmp_path: Path) -> None:
    assert run_virtual(one_run(FakeProvider(), tmp_path, "杯")) == []


def test_while_nothing_was_bought_the_key_may_be_anybodys(tmp_path: Path) -> None:
    """A first run with the wrong key has bought nothing: the right one is not refused."""

    class Refused(Named):
        async def submit(self, job: Job) -> Any:
            raise KeyRefused("unauthorized", status=401)

    async def main() -> None:
        provider = Refused("acct-1")
        async with Pipeline(provider, tmp_path, on_remark=lambda _: None) as pipeline:
            await pipeline.batch_generate([Job(name="杯", model=FLUX, prompt="杯")])
            assert isinstance(pipeline.stopped, KeyRefused)
        await one_run(Named("acct-2"), tmp_path, "杯")
        assert origin_of(tmp_path).account == "acct-2"

    run_virtual(main())


def test_a_wrong_key_is_told_once_and_before_anything_is_submitted(tmp_path: Path) -> None:
    """Where every path that asks for a key refuses it; nothing is said to be tried again."""
    write_jobs(tmp_path / "jobs.yaml", JOBS)

    async def steps(simulator: Simulator, run: Step) -> None:
        for arguments in (RUN, ("collect", "out"), ("resolve", "out", "--find")):
            code, said = await run(NEW, *arguments)
            assert code == 3, (arguments, said)
            assert said.count("401") == said.count("refuses the key") + 1 == 2, said
            assert "again" not in said
        assert simulator.books.submits() == 0
        provider = AtlasCloud(NEW, base_url=simulator.base_url)
        with pytest.raises(KeyRefused):
            await one_run(provider, tmp_path / "library", "杯")

    at_a_simulator(tmp_path, steps, SimulatorSettings(speed=1000, api_key=OLD))


def test_a_key_that_may_not_read_the_balance_is_no_wrong_key(tmp_path: Path) -> None:
    """401 from the billing paths alone, which some APIs do not have: all goes on."""

    class NoBilling(AtlasCloud):
        async def ask_account(self, path: str) -> HttpAnswer:
            return HttpAnswer(status=401, headers={}, body=b"{}")

    async def main() -> None:
        for wire in ("canonical", "article"):
            async with Simulator(SimulatorSettings(speed=1000, wire=wire)) as simulator:
                provider = NoBilling(OLD, base_url=simulator.base_url)
                remarks = await one_run(provider, tmp_path / wire, "杯")
                assert sum("account" in remark for remark in remarks) == 1

    asyncio.run(main())
