"""Faults as a whole: names, ``all=``, the list, seeds, and a run that meets them all."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import AtlasCloud, Deadlines, Manifest, Pipeline, Polling, load_jobs
from asyncpipe.cli.app import run_command
from asyncpipe.errors import UsageError
from asyncpipe.simulator.faults import Faults
from asyncpipe.simulator.server import Simulator
from asyncpipe.simulator.settings import SimulatorSettings
from tests.support import CONFIGS
from tests.support.clock import Clock
from tests.support.simulator_client import Client, run

FINAL = {
    "canceled",
    "dropped",
    "endless",
    "fewer_outputs",
    "firewall",
    "history_foreign",
    "history_missing",
    "history_taken",
    "huge_answer",
    "hung_submit",
    "late_refusal",
    "late_sale",
    "lost_media",
    "moderated",
    "nameless",
    "no_balance",
    "no_history",
    "output_removed",
    "overrun",
    "refused",
    "retried",
    "server_error_submit",
}


def test_all_sets_every_recoverable_fault_and_nothing_else() -> None:
    values = asdict(Faults.parse("all=0.1"))
    assert {name for name, value in values.items() if value == 0} == FINAL
    assert {value for name, value in values.items() if name not in FINAL} == {0.1}


def test_later_entries_override() -> None:
    """In both directions."""
    faults = Faults.parse(" all = 0.1, cut=0, dropped=0.5")
    assert (faults.cut, faults.slow, faults.dropped) == (0.0, 0.1, 0.5)
    assert Faults.parse("cut=0.5,all=0.1").cut == 0.1
    assert Faults.parse("all=0.1,all=0") == Faults()


@pytest.mark.parametrize("text", ["all", "all=2", "all=-0.1", "all=nan", "ALL=1"])
def test_what_all_cannot_be(text: str) -> None:
    with pytest.raises(UsageError, match="fault"):
        Faults.parse(text)


def test_every_fault_is_described() -> None:
    """Each has a line that fits on a screen, no two the same."""
    texts = [kind.text for kind in Faults.kinds()]
    assert len(set(texts)) == len(asdict(Faults()))
    assert all(10 < len(text) < 75 for text in texts)


def test_the_faults_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """``asyncpipe simulate --list-faults``: name, recoverable or not, what happens."""
    assert run_command(["simulate", "--list-faults"]) == 0
    rows = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    listed = {row[0]: row[1:] for row in rows if len(row) == 3}
    for kind in Faults.kinds():
        assert listed[kind.name] == ["yes" if kind.recoverable else "no", kind.text]


@pytest.mark.parametrize(
    "arguments",
    [("--faults", "rain=1"), ("--balance", "much"), ("--balance", "-1"), ("--hang", "-1")],
)
def test_what_cannot_be_simulated_is_said(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2 with the value, and no server."""
    assert run_command(["simulate", "--port", "0", *arguments]) == 2
    assert arguments[1].partition("=")[0] in capsys.readouterr().err


async def transcript(client: Client) -> list[Any]:
    """What a client hears that submits 10 times and polls each prediction 8 times."""
    heard: list[Any] = []
    for _ in range(10):
        reply = await client.submit()
        heard.append((reply.status, reply.headers.get("Retry-After")))
    for prediction in client.books.predictions():
        for _ in range(8):
            reply = await client.poll(prediction.id)
            heard.append((prediction.id, reply.status, len(reply.body)))
    return heard


def test_the_same_seed_makes_the_same_trouble() -> None:
    """Answer by answer; another seed makes other trouble. (What names the time or hangs is out.)

    Nothing is ready before it is asked for the last time, however long that takes; what is instant
    is ready at once.
    """
    faults = Faults.parse("all=0.3,rate_limited=0,poll_reset=0,hung_poll=0,inline=0")
    options: dict[str, Any] = {"faults": faults, "generation_s": (1e6, 1e6)}
    first, again = run(transcript, **options), run(transcript, **options)
    assert first == again
    assert first != run(transcript, **options, seed=1)
    assert len({status for _, status, *_ in first if isinstance(status, int)}) > 3


@pytest.mark.parametrize("wire", ["canonical", "article"])
def test_a_run_that_meets_every_recoverable_fault_gets_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_clock: Clock, wire: str
) -> None:
    """Every job succeeds within the usual retries, is charged once, and no key leaves home."""
    for module in ("_tasks", "engine.submit", "flow.backoff"):
        monkeypatch.setattr(f"asyncpipe.{module}.backoff_s", lambda *_, **__: 0.01)
    file = load_jobs(CONFIGS / "quickstart.yaml")
    faults = Faults.parse("all=0.3,rate_limited=0.1")
    settings = SimulatorSettings(
        speed=200.0, wire=wire, faults=faults, books=tmp_path / "books", seed=4
    )

    async def main() -> Manifest:
        async with Simulator(settings) as simulator:
            provider = AtlasCloud("any", base_url=simulator.base_url, simulated=True)
            async with Pipeline(
                provider,
                tmp_path / "out",
                max_workers=16,
                polling=Polling(initial_s=0.05, maximum_s=0.2),
                deadlines=Deadlines(image=20, video=20),
            ) as pipeline:
                manifest = await pipeline.batch_generate(file.jobs)
            sold = [p for p in simulator.books.predictions() if p.outcome == "completed"]
            assert Counter(p.body["prompt"] for p in sold) == Counter(j.prompt for j in file.jobs)
            assert Decimal(manifest.totals.charged_micro).scaleb(-6) == simulator.books.charged()
            assert simulator.books.media_credentials() == 0
            assert simulator.books.submits() > len(sold)
            return manifest

    manifest = one_clock.run(main())
    assert manifest.totals.successful == len(file.jobs), [r.error for r in manifest]
