"""Hidden limits in virtual time: how much of them is used, and how often they are met.

    python -m benchmarks.parts.flow [--seed 1] [--short]

Drives the whole engine (admission, window, pace, driver, ledger) against a provider that refuses
without a word beyond a number of predictions in flight, or of requests a second. Exit code 1 when
a goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from asyncpipe import Job, Pipeline, Polling
from asyncpipe.jobs.settings import Limits
from asyncpipe.testing import run_virtual
from benchmarks.harness.limits import PRIVATE, Bucket, Limited, Outcome, Sliding, run_private

MODEL = "black-forest-labs/flux-2-pro/text-to-image"
MINUTE_S = 60.0
FOLLOW_S = 900.0
"""A limit that is raised is found by looking, at the cost of refusals: not at once."""

REFUSED = 0.02
"""Most submits that may be refused after the first minute."""

RATE = 800.0
RATE_REFUSED = 0.05
GAPS = (0.3, 0.45, 0.675, 1.0125, 1.51875, 2.0)
LIMIT_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One measurement: its words for the table, and whether its goals hold."""

    words: tuple[str, ...]
    holds: bool


def run(provider: Limited, jobs: int, *, polling: Polling | None = None, workers: int) -> Outcome:
    """Run jobs through the engine in virtual time."""

    async def main(folder: Path) -> Outcome:
        async with Pipeline(
            provider,
            folder,
            max_workers=workers,
            polling=polling,
            seed=provider.seed,
            limits=Limits(downloads=64),
            storage={"min_free_bytes": 0},
        ) as pipeline:
            batch = (Job(name=f"{n}", model=MODEL, prompt=f"a mug {n}") for n in range(jobs))
            totals = (await pipeline.batch_generate(batch)).totals
            seconds = asyncio.get_running_loop().time()
            return Outcome(done=totals.successful, lost=jobs - totals.successful, seconds=seconds)

    with tempfile.TemporaryDirectory() as folder:
        return run_virtual(main(Path(folder)))


# -- predictions in flight ------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Hidden:
    """A limit of predictions in flight: at first, and what it changes to at a time."""

    limit: int
    jobs: int
    median_s: float = 30.0
    changes: tuple[tuple[float, int], ...] = ()

    def at(self, now: float) -> int:
        """The limit at a time."""
        return next((n for since, n in reversed(self.changes) if now >= since), self.limit)

    def periods(self) -> list[tuple[float, int]]:
        """When each limit began."""
        return [(0.0, self.limit), *self.changes]


def reached_s(provider: Limited, since: float, limit: int) -> float:
    """Seconds after ``since`` until 90 % of ``limit`` were in flight at once."""
    return next(
        (at - since for at, running in provider.curve if at >= since and running >= 0.9 * limit),
        float("inf"),
    )


def refused_share(provider: Limited, periods: Sequence[tuple[float, int]]) -> float:
    """Share of submits refused, the minute after each change of the limit left out.

    Of a limit that is lowered the minute begins when no more is in flight than it allows: until
    then every submit is refused, whoever sends it.
    """
    unsettled = [
        (since, next((at for at, n in provider.curve if at >= since and n <= limit), since))
        for since, limit in periods
    ]
    later = [
        refused
        for at, refused in provider.sent
        if not any(since <= at < settled + MINUTE_S for since, settled in unsettled)
    ]
    return sum(later) / max(len(later), 1)


def used_share(provider: Limited, hidden: Hidden) -> float:
    """Mean share of the limit that was in use until the jobs ran out."""
    end = provider.sent[-1][0]
    area = room = 0.0
    for (at, running), (until, _) in zip(provider.curve, provider.curve[1:], strict=False):
        if at >= MINUTE_S and until <= end:
            area += running * (until - at)
            room += hidden.at(at) * (until - at)
    return area / room if room else float("nan")


def hidden_line(hidden: Hidden, seed: int) -> Line:
    """Measure one hidden limit."""
    provider = Limited(median_s=hidden.median_s, in_flight=hidden.at, seed=seed)
    outcome = run(provider, hidden.jobs, workers=256)
    periods = hidden.periods()
    reached = [reached_s(provider, since, limit) for since, limit in periods]
    refused = refused_share(provider, periods)
    follow_s = [MINUTE_S] + [FOLLOW_S] * (len(periods) - 1)
    in_time = all(took <= goal for took, goal in zip(reached, follow_s, strict=True))
    limits = " → ".join(str(limit) for _, limit in periods)
    words = (
        limits,
        f"{hidden.median_s:g} s",
        str(hidden.jobs),
        ", ".join(f"{took:.0f} s" for took in reached),
        f"{used_share(provider, hidden):.0%}",
        f"{refused:.1%}",
        str(sum(refused for _, refused in provider.sent)),
        str(outcome.lost),
    )
    return Line(words=words, holds=in_time and refused <= REFUSED and outcome.lost == 0)


# -- requests a second ----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Gateway:
    """A limit of requests a second, and the gain wanted over the best private discipline."""

    kind: Callable[[float], Bucket | Sliding]
    gain: float
    jobs: int
    at_once: int = 1000
    rate: float = RATE

    def provider(self, *, seed: int, wish_s: float | None = None) -> Limited:
        """The provider behind it."""
        return Limited(
            median_s=0.3,
            submit_s=0.02,
            answer_s=0.02,
            rate=self.kind(self.rate),
            wish_s=wish_s,
            seed=seed,
        )


def run_herd(gateway: Gateway, discipline: str, provider: Limited) -> Outcome:
    """Run clients that retry each for itself."""
    herd = run_private(
        provider,
        name=discipline,
        jobs=gateway.jobs,
        at_once=gateway.at_once,
        gaps=GAPS,
        limit_s=LIMIT_S,
    )
    return run_virtual(herd)


def gateway_lines(gateway: Gateway, seed: int) -> Iterator[Line]:
    """Measure every discipline behind one gateway, ours last."""
    name, best = gateway.kind.__name__.lower(), 0.0
    for discipline in PRIVATE:
        provider = gateway.provider(seed=seed, wish_s=1.0)
        outcome = run_herd(gateway, discipline, provider)
        best = max(best, outcome.done / outcome.seconds)
        yield _gateway_line(name, discipline, provider, outcome)
    polling = Polling(initial_s=GAPS[0], factor=1.5, maximum_s=GAPS[-1])
    for title, wish_s in (("asyncpipe", None), ("asyncpipe, told Retry-After", 1.0)):
        provider = gateway.provider(seed=seed, wish_s=wish_s)
        outcome = run(provider, gateway.jobs, polling=polling, workers=gateway.at_once)
        line = _gateway_line(name, title, provider, outcome)
        gain = outcome.done / outcome.seconds / best
        refused = provider.refusals / provider.requests
        held = gain >= gateway.gain and refused <= RATE_REFUSED and outcome.lost == 0
        words = (*line.words, f"{gain:.2f} x the best")
        yield replace(line, words=words, holds=held or wish_s is not None)


def _gateway_line(name: str, discipline: str, provider: Limited, outcome: Outcome) -> Line:
    words = (
        name,
        discipline,
        str(outcome.done),
        str(outcome.lost),
        f"{outcome.seconds:.1f} s",
        f"{outcome.done / outcome.seconds:.0f}",
        f"{provider.refusals / provider.requests:.1%}",
    )
    return Line(words=words, holds=True)


# -- the table ------------------------------------------------------------------------------------

HIDDEN = (
    Hidden(limit=8, jobs=1000),
    Hidden(limit=26, jobs=1500),
    Hidden(limit=200, jobs=5000),
    Hidden(limit=26, jobs=3000, median_s=5.0),
    Hidden(limit=26, jobs=2000, changes=((600.0, 8), (1800.0, 26))),
    Hidden(limit=26, jobs=3000, changes=((600.0, 200),)),
)
GATEWAYS = (
    Gateway(kind=Bucket, gain=1.15, jobs=3000),
    Gateway(kind=Sliding, gain=1.4, jobs=3000),
)
SHORT = (Hidden(limit=8, jobs=250, median_s=10.0), Hidden(limit=26, jobs=300, median_s=10.0))


def lines(seed: int, *, short: bool) -> Iterator[tuple[tuple[str, ...], Line]]:
    """Every measurement with the heading of its table."""
    flights = ("limit", "generation", "jobs", "90 % after", "used", "refused", "in all", "lost")
    for hidden in SHORT if short else HIDDEN:
        yield flights, hidden_line(hidden, seed)
    rates = ("gateway", "discipline", "done", "lost", "time", "jobs/s", "refused", "")
    for gateway in () if short else GATEWAYS:
        for line in gateway_lines(gateway, seed):
            yield rates, line


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parts.flow", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="two small limits, in seconds")
    options = parser.parse_args(argv)
    missed = 0
    shown: tuple[str, ...] = ()
    for heading, line in lines(options.seed, short=options.short):
        if heading != shown:
            print("\n| " + " | ".join(heading) + " | |")
            print("| --- " * (len(heading) + 1) + "|")
            shown = heading
        print(f"| {' | '.join(line.words)} | {'' if line.holds else 'MISSED'} |", flush=True)
        missed += not line.holds
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
