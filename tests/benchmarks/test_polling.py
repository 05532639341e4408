"""The claims of the polling benchmark, in a short seeded form; and that it would say if not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.parts.polling import (
    BATCH,
    LAWS,
    POLICIES,
    Lane,
    Row,
    broken,
    draw,
    main,
    measure,
    oracle_s,
    planning_ms,
)


def trained(name: str, law: str) -> Lane:
    lane = Lane(POLICIES[name], seed=1)
    lane.run(draw(law, 400, seed=11, drift=False))
    return lane


@pytest.mark.parametrize("law", LAWS)
def test_learned_beats_the_article_on_every_law(law: str) -> None:
    """On polls per job and on mean delay; warm, and from nothing."""
    warm, batch = draw(law, 800, seed=12), draw(law, BATCH, seed=202)
    article = Lane(POLICIES["article"], seed=1)
    for lane, times in ((trained("learned", law), warm), (Lane(POLICIES["learned"], 1), batch)):
        polls, delay = lane.run(times).per_job
        articles_polls, articles_delay = article.run(times).per_job
        assert polls < articles_polls
        assert delay < articles_delay


def test_learned_keeps_its_bounds_on_the_usual_law() -> None:
    """0.70 and 0.75 of the article's polls, 0.60 of its delay, 1.14 of the oracle's makespan."""
    times = draw("lognormal", BATCH, seed=203)
    articles_polls, articles_delay = Lane(POLICIES["article"], seed=1).run(times).per_job
    for lane, bound in (
        (trained("learned", "lognormal"), 0.70),
        (Lane(POLICIES["learned"], 1), 0.75),
    ):
        outcome = lane.run(times)
        polls, delay = outcome.per_job
        assert polls <= bound * articles_polls
        assert delay <= 0.60 * articles_delay
        assert outcome.makespan_s <= 1.14 * oracle_s(times)


def test_the_benchmark_says_what_does_not_hold(capsys: pytest.CaptureFixture[str]) -> None:
    """Its exit code is worth nothing otherwise."""
    good = Row(
        polls=3.0, delay=5.0, makespan=1.1, cold_polls=3.0, cold_delay=5.0, cold_makespan=1.1
    )
    article = replace(good, polls=5.0, delay=10.0, cold_polls=5.0, cold_delay=10.0)
    fixed = {f"fixed {n}": article for n in range(1, 11)}
    rows = {"learned": good, "article": article, **fixed}
    assert broken({"lognormal": rows}) == []
    worse = {**rows, "learned": replace(good, cold_delay=11.0)}
    assert len(broken({"narrow": worse})) == 1
    beaten = {**rows, "fixed 7": replace(good, polls=2.9, cold_polls=3.1)}
    assert broken({"narrow": beaten}) == ["narrow, warm: fixed 7 beats it on both counts"]
    assert broken({"drift_down": beaten}) == []
    late = {**rows, "learned": replace(good, makespan=1.2)}
    assert broken({"lognormal": late}) == ["makespan warm / oracle's: 1.200 > 1.14"]
    capsys.readouterr()


def test_the_benchmark_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """One law, few jobs: a table and a verdict."""
    assert main(["--laws", "fast", "--jobs", "100", "--seeds", "1"]) in (0, 1)
    printed = capsys.readouterr().out
    assert "| fast | learned |" in printed
    assert "hold" in printed


def test_an_oracle_is_never_beaten() -> None:
    """It would be no oracle: the simulation would be wrong."""
    for name in ("article", "fixed 1", "learned"):
        row = measure(POLICIES[name], "fast", jobs=100, seeds=1)
        assert min(row.makespan, row.cold_makespan) >= 1.0


def test_a_plan_is_made_in_three_milliseconds() -> None:
    """Ten times less is usual; a machine that is busy is given the median's benefit."""
    assert planning_ms()[0] <= 3.0
