"""Telling people: what a run comes to, when it is told, and that nobody is held up by it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from asyncpipe import Notify, Rate
from asyncpipe.engine import notices as notices_module
from asyncpipe.engine.notices import LIMIT_S, Notices, notice_of
from asyncpipe.errors import (
    AsyncpipeError,
    BalanceExhausted,
    BalanceTooLow,
    BudgetReached,
    KeyRefused,
    NotAccepted,
)
from asyncpipe.jobs import JobState
from asyncpipe.report import Totals
from asyncpipe.testing import FakeProvider, Script, run_virtual
from asyncpipe.webhooks import Notice
from tests.support.pipelines import job, opened
from tests.support.servers import Api, noting

S = JobState


def totals(**states: int) -> Totals:
    counted = Counter({JobState(name): count for name, count in states.items()})
    return Totals(
        jobs=counted, charged_micro=1_200_000, reserved_micro=80_000 * states.get("unknown", 0)
    )


def notice(**said: Any) -> Notice:
    return notice_of(**{"folder": "out", "totals": totals(succeeded=18, failed=2), **said})


def test_an_end_is_told_in_plain_words() -> None:
    """What, how many, money, exit code, remedy."""
    found = notice(exit_code=1, job_file="weekly.yaml", simulated=True)
    assert found.occasion == "run.ended"
    assert found.text.splitlines() == [
        "asyncpipe: weekly.yaml has ended (simulated)",
        "Jobs: 18 of 20 succeeded, 2 failed",
        "Money: 1.20 USD charged, 0.00 reserved",
        "Exit code: 1, some failed",
        "Folder: out",
        "What to do: see out/manifest.json; run again with --retry-failed what was not charged",
    ]
    assert found.facts == {
        "folder": "out",
        "job_file": "weekly.yaml",
        "total": 20,
        "succeeded": 18,
        "failed": 2,
        "unknown": 0,
        "pending": 0,
        "charged_usd": "1.20",
        "reserved_usd": "0.00",
        "exit_code": 1,
        "interrupted": False,
        "reason": None,
        "decision": None,
        "remedy": "see out/manifest.json; run again with --retry-failed what was not charged",
        "simulated": True,
    }


@pytest.mark.parametrize(
    ("stopped", "decision"),
    [
        (BudgetReached("with it the folder would cost 21 USD"), "the cap is reached"),
        (BalanceExhausted("402"), "the account has no money left"),
        (BalanceTooLow("3 USD"), "the account has less than min_balance"),
        (KeyRefused("401"), "the key is refused"),
        (None, "2 submits lost their answers: they may have been bought"),
    ],
)
def test_what_people_have_to_decide_is_told_so(
    stopped: AsyncpipeError | None, decision: str
) -> None:
    """Each with what to do about it."""
    found = notice(totals=totals(succeeded=1, unknown=2), stopped=stopped)
    assert found.occasion == "run.needs_decision"
    assert f"To decide: {decision}" in found.text
    assert found.facts["decision"] == decision
    assert found.facts["remedy"] in found.text


def test_other_stops_are_told_as_such() -> None:
    """Interrupted, out of patience, or not even begun."""
    for said in (
        {"interrupted": True},
        {"stopped": NotAccepted("no submit was accepted")},
        {"totals": None, "stopped": AsyncpipeError("the disk is away"), "exit_code": 3},
    ):
        found = notice(**said)
        assert found.occasion == "run.stopped"
        assert "What to do: run the same command again to go on" in found.text or not said.get(
            "stopped"
        )
    assert "What is paid for goes on" in notice(stopped=KeyRefused("401"), ended=False).text
    assert "\x1b" not in notice(stopped=KeyRefused("\x1b[31m")).text


def told(api: Api) -> list[str]:
    return [json.loads(body)["type"] for body in api.bodies]


async def fine(request: web.BaseRequest) -> web.Response:
    return web.Response()


def test_a_batch_tells_its_end_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And a stop that it ends with is not told before it; unsigned, which is said."""
    caplog.set_level(logging.WARNING)

    async def main() -> list[str]:
        async with noting(fine) as api:
            plain, refused = (
                FakeProvider(),
                FakeProvider(default=Script(submits=[BalanceExhausted("402")])),
            )
            for folder, provider in (("a", plain), ("b", refused)):
                async with opened(tmp_path / folder, provider, notify=f"{api.url}/x") as pipeline:
                    await pipeline.batch_generate([job("mug")])
            return told(api)

    assert run_virtual(main()) == ["asyncpipe.run.ended", "asyncpipe.run.needs_decision"]
    assert "what 127.0.0.1 is told is not signed" in caplog.text


@pytest.mark.parametrize("ends", [True, False])
def test_a_stop_is_told_while_what_is_paid_goes_on(tmp_path: Path, ends: bool) -> None:
    """Ten seconds after it, long before the end; that is told unless somebody else does it."""

    async def main() -> tuple[list[str], list[Any]]:
        refused = Script(submits=[BalanceExhausted("402")])
        scripts = {"late": Script(generation_s=100), "mug": refused}
        async with noting(fine) as api:
            provider = FakeProvider(scripts=scripts)
            notify = Notify(urls=[api.url], ends=ends)
            async with opened(tmp_path, provider, notify=notify) as pipeline:
                await pipeline.batch_generate([job("late"), job("mug")])
            return told(api), [json.loads(body)["data"] for body in api.bodies]

    types, facts = run_virtual(main())
    assert types == ["asyncpipe.run.needs_decision"] * (1 + ends)
    assert [each["succeeded"] for each in facts] == [0, 1][: 1 + ends]
    assert ["goes on" in each["text"] for each in facts] == [True, False][: 1 + ends]


def test_jobs_that_are_left_out_for_the_cap_are_told_of(tmp_path: Path) -> None:
    """At the end: until then money that is given back may buy them after all."""
    prices = {"black-forest-labs/flux-2-pro/text-to-image": Rate(per_image=Decimal("0.04"))}

    async def main() -> list[Any]:
        async with noting(fine) as api:
            provider = FakeProvider(default=Script(generation_s=100))
            options = {"notify": api.url, "max_cost": Decimal("0.05"), "prices": prices}
            async with opened(tmp_path, provider, **options) as pipeline:
                await pipeline.batch_generate([job("a"), job("b")])
            return [json.loads(body)["data"] for body in api.bodies]

    (only,) = run_virtual(main())
    assert (only["decision"], only["succeeded"]) == ("the cap is reached", 1)


def sent(notify: Notify, *, virtual: bool = False, **options: Any) -> tuple[list[str], float]:
    """Send a notice; the remarks, and the seconds that it took."""
    remarks: list[str] = []

    async def main() -> float:
        loop = asyncio.get_running_loop()
        started = loop.time()
        await Notices(notify, remarks.append, **options).send(notice(exit_code=0))
        return loop.time() - started

    took_s = run_virtual(main()) if virtual else asyncio.run(main())
    return [line for line in remarks if "is not signed" not in line], took_s


def test_a_target_that_fails_is_a_remark(tmp_path: Path) -> None:
    """Tried again where that may help, and never held up longer than said."""
    answers = {"/away": 503, "/gone": 410, "/moved": 302}

    async def main() -> tuple[list[str], list[str], float]:
        remarks: list[str] = []

        async def respond(request: web.BaseRequest) -> web.StreamResponse:
            if request.path == "/hangs":
                await asyncio.Event().wait()
            return web.Response(status=answers[request.path], headers={"Location": "/x"})

        async with noting(respond) as api:
            urls = [f"{api.url}{path}" for path in (*answers, "/hangs")]
            loop = asyncio.get_running_loop()
            started = loop.time()
            await Notices(Notify(urls=urls), remarks.append).send(notice())
            return remarks, [each.path for each in api.requests], loop.time() - started

    remarks, paths, took_s = run_virtual(main())
    assert Counter(paths)["/away"] == 5
    assert Counter(paths)["/gone"] == Counter(paths)["/moved"] == 1
    assert took_s <= LIMIT_S
    failed = sorted(line for line in remarks if "not signed" not in line)
    assert failed == [
        "127.0.0.1 was not told within 30 s",
        "not told: 127.0.0.1: it answered 302",
        "not told: 127.0.0.1: it answered 410",
        "not told: 127.0.0.1: it answered 503",
    ]


def test_retries_keep_the_message_and_sign_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who gets it twice knows it by its id."""
    monkeypatch.setenv("ASYNCPIPE_NOTIFY_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    statuses = iter([500, 200])

    async def respond(request: web.BaseRequest) -> web.Response:
        return web.Response(status=next(statuses))

    async def main() -> list[str]:
        async with noting(respond) as api:
            await Notices(Notify(urls=[api.url]), print).send(notice())
            return [each.headers["webhook-id"] for each in api.requests]

    first, second = run_virtual(main())
    assert first == second


def test_a_name_that_leads_inside_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks public, and resolves to the own network."""
    inside = [
        {"hostname": "m", "host": "10.0.0.9", "port": 443, "family": 2, "proto": 0, "flags": 0}
    ]

    async def resolve(*_: Any) -> Any:
        return inside

    monkeypatch.setattr("aiohttp.resolver.ThreadedResolver.resolve", resolve)
    remarks, _ = sent(Notify(urls=["slack:https://hook.me.example/token"]))
    assert len(remarks) == 1
    assert "private network" in remarks[0]
    assert "token" not in remarks[0]


SAYS = """
import json, os, sys
facts = json.load(sys.stdin)
facts["variables"] = {k: v for k, v in os.environ.items() if "ASYNCPIPE" in k or "KEY" in k}
open(sys.argv[1], "w").write(json.dumps(facts))
"""


def test_a_command_gets_the_facts_and_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On stdin and in its environment; no shell is between."""
    monkeypatch.setenv("SOME_API_KEY", "apikey-secret")
    program, out = tmp_path / "says.py", tmp_path / "told; touch x"
    program.write_text(SAYS, encoding="utf-8")
    command = f"{sys.executable} {program} '{out}'"
    assert sent(Notify(command=command), hidden={"SOME_API_KEY"})[0] == []
    facts = json.loads(out.read_text(encoding="utf-8"))
    assert (facts["event"], facts["succeeded"], facts["exit_code"]) == ("run.ended", 18, 0)
    variables = facts["variables"]
    assert variables["ASYNCPIPE_EVENT"] == "run.ended"
    assert variables["ASYNCPIPE_RUN_CHARGED_USD"] == "1.20"
    assert "apikey-secret" not in json.dumps(facts)


@pytest.mark.parametrize(
    ("command", "remark"),
    [
        (f"{sys.executable} -c 'exit(7)'", "ended with exit code 7"),
        ("no-such-program-anywhere", "no-such-program-anywhere cannot be run"),
    ],
)
def test_a_command_that_fails_is_a_remark(command: str, remark: str) -> None:
    """Whatever its exit code."""
    (told,), _ = sent(Notify(command=command))
    assert remark in told


@pytest.mark.skipif(os.name != "posix", reason="what a command has started ends with it on POSIX")
def test_a_command_that_hangs_is_ended_with_all_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its time, however it is nested."""
    monkeypatch.setattr(notices_module, "LIMIT_S", 0.5)
    pid = tmp_path / "pid"
    command = f"/bin/sh -c 'sleep 600 & echo $! > {pid}; wait'"
    (told,), took_s = sent(Notify(command=command))
    assert "was not told within 0.5 s" in told
    assert took_s < 5
    stat = Path(f"/proc/{pid.read_text().strip()}/stat")
    assert not stat.exists() or stat.read_text().split()[2] == "Z"
