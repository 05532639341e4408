"""``asyncpipe estimate``: by tables without a key, by the provider's own quotes with one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from asyncpipe.cli.app import run_command
from asyncpipe.commands.estimate import Costs
from asyncpipe.commands.survey import Survey
from asyncpipe.jobfile.load import open_jobs
from asyncpipe.jobs.job import Job
from asyncpipe.pricing.price import Price, Prices
from asyncpipe.providers.atlas.prices import built_in
from asyncpipe.simulator.books import Books
from asyncpipe.simulator.server import Simulator
from tests.support import CONFIGS
from tests.support.servers import serving
from tests.support.simulator_client import beside_simulator

FLUX = "black-forest-labs/flux-2-pro/text-to-image"
VEO = "google/veo3.1/text-to-video"
SEEDANCE2 = "bytedance/seedance-2.0/text-to-video"
TABLE = "built-in table of 2026-02-28"
LIVE = ("--simulate", "--simulate-catalog", "live")


def write(folder: Path, *rows: dict[str, Any], **top: Any) -> str:
    path = folder / "jobs.json"
    path.write_text(json.dumps({**top, "jobs": list(rows)}), encoding="utf-8")
    return str(path)


def veo(count: int = 1, **fields: Any) -> dict[str, Any]:
    return {"model": VEO, "prompt": "city", "duration": 8, "count": count, **fields}


@pytest.fixture
def estimate(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def run(path: str, *options: str) -> Any:
        assert run_command(["estimate", path, "--json", *options]) == 0
        return json.loads(capsys.readouterr().out, parse_float=Decimal)

    return run


def foreign(
    answer: Callable[[web.BaseRequest], Awaitable[web.Response]],
    steps: Callable[[str], Awaitable[None]],
) -> None:
    """Let one function answer every request."""

    async def main() -> None:
        async with serving(answer) as origin:
            await steps(origin)

    asyncio.run(main())


def test_without_a_key_tables_tell(tmp_path: Path, estimate: Callable[..., Any]) -> None:
    """And it says so; the same as with --offline."""
    path = write(tmp_path, veo())
    found = estimate(path)
    assert (found["total_cost"], found["price_sources"]) == (Decimal("0.24"), {TABLE: [VEO]})
    assert (found["quotes_asked"], found["balance"]) == (0, None)
    assert found["remarks"] == ["by tables only, nothing was asked: there is no key"]
    offline = estimate(path, "--offline")
    assert {**offline, "remarks": 0} == {**found, "remarks": 0}


def test_offline_nobody_is_asked_whatever_key_there_is(
    tmp_path: Path, estimate: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATLASCLOUD_API_KEY", "apikey-1")
    monkeypatch.setenv("ATLASCLOUD_BASE_URL", "http://127.0.0.1:9")
    found = estimate(write(tmp_path, veo()), "--offline")
    assert found["remarks"] == ["by tables only, nothing was asked: as --offline asks"]
    assert "no connection could be made" in estimate(write(tmp_path, veo()))["remarks"][0]


def test_the_live_catalogue_shows_the_quoted_truth(
    tmp_path: Path, estimate: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Veo 3.1 makes sound at 0.40 USD/s: 3.20 for 8 s, not 0.24; the source is named."""
    path = write(tmp_path, veo(2), {**veo(), "params": {"generate_audio": False}})
    assert estimate(path, "--offline")["total_cost"] == Decimal("0.72")
    found = estimate(path, *LIVE)
    assert found["total_cost"] == Decimal("8.0")
    (source,) = found["price_sources"]
    assert source.startswith("provider quote of 20")
    assert (found["quotes_asked"], found["simulated"], found["remarks"]) == (2, True, [])
    assert run_command(["estimate", path, *LIVE]) == 0
    out = capsys.readouterr().out
    assert f"prices of 1 model(s) from: {source}" in out
    assert "8.00 USD" in out
    assert "balance: 1000000.00 USD (simulated)" in out
    assert "prices change" not in out


def test_500_like_jobs_ask_for_one_quote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, estimate: Callable[..., Any]
) -> None:
    """By the simulator's own count, for the estimate and for a run; and nothing is sold."""

    async def steps(simulator: Simulator) -> None:
        url = simulator.base_url
        catalog = str(CONFIGS / "catalog_500.yaml")
        found = await asyncio.to_thread(estimate, catalog, "--base-url", url)
        assert (found["jobs"], found["quotes_asked"]) == (500, 1)
        assert simulator.books.summary()["quotes"] == 1
        assert simulator.books.submits() == 0

    beside_simulator(steps)


def test_a_run_asks_for_one_quote_too(tmp_path: Path) -> None:
    """And charges by it; a second run into the folder asks for none."""
    job = {"model": FLUX, "prompt": "mug", "width": 64, "height": 64, "count": 40}
    path = write(tmp_path, job, max_workers=20)
    out = tmp_path / "out"
    run = ["run", path, "--simulate", "--simulate-speed", "1000", "-o", str(out), "--json"]
    for _ in range(2):
        assert run_command(run) == 0
        books = Books(out / ".asyncpipe" / "simulator.sqlite3")
        assert books.counter("quotes") == 1
        books.close()
    rows = json.loads((out / "manifest.json").read_text("utf-8"))["results"]
    assert {row["cost_source"][:17] for row in rows} == {"provider quote of"}


def test_without_a_key_a_base_url_is_asked_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, estimate: Callable[..., Any]
) -> None:
    """Quotes need none; the balance does, and is asked for only with a key."""
    seen: list[tuple[str, str | None]] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        seen.append((request.path, request.headers.get("Authorization")))
        if request.path.endswith("/balance"):
            return web.json_response({"available": {"value": "0.03", "currency": "usd"}})
        return web.json_response({"code": "200", "data": {"price": "0.05"}})

    async def steps(url: str) -> None:
        path = write(tmp_path, {"model": FLUX, "prompt": "mug"})
        found = await asyncio.to_thread(estimate, path, "--base-url", url)
        assert (found["total_cost"], found["balance"]) == (Decimal("0.05"), None)
        monkeypatch.setenv("ATLAS_CLOUD_API_KEY", "apikey-1")
        found = await asyncio.to_thread(estimate, path, "--base-url", url)
        assert found["balance"] == Decimal("0.03")

    foreign(answer, steps)
    calculate, balance = "/api/v1/model/calculate", "/public/v1/balance"
    key = "Bearer apikey-1"
    assert seen == [(calculate, None), (calculate, key), (balance, key)]


def test_an_api_that_repeats_the_key_does_not_get_it_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, estimate: Callable[..., Any]
) -> None:
    """Neither in the reason for a missing quote nor in that for a missing balance."""
    key = "sk-0123456789abcdef"
    monkeypatch.setenv("ATLASCLOUD_API_KEY", key)

    async def answer(request: web.BaseRequest) -> web.Response:
        said = f"no, {request.headers['Authorization']} and \x1b[31m{key}"
        body = {"code": 400, "msg": said, "error": {"message": said}}
        return web.json_response(body, status=400)

    async def steps(url: str) -> None:
        path = write(tmp_path, veo())
        found = await asyncio.to_thread(estimate, path, "--base-url", url)
        assert len(found["remarks"]) == 2
        assert "no, Bearer" in found["remarks"][0]
        assert key not in str(found)
        assert "\x1b" not in str(found["remarks"])

    foreign(answer, steps)


def test_a_quote_that_is_not_to_be_had_falls_back_and_says_so(
    tmp_path: Path, estimate: Callable[..., Any]
) -> None:
    """Seven seconds of Veo are refused today: the table's price counts, with the reason."""
    path = write(tmp_path, veo(3, duration=7), veo(name="ok"))
    found = estimate(path, *LIVE)
    assert found["total_cost"] == 3 * Decimal("0.21") + Decimal("3.2")
    assert TABLE in found["price_sources"]
    assert found["remarks"] == [
        f"no quote for {VEO}, priced from files, tables and lists instead: "
        "the API gives no quote (HTTP 400: Invalid request parameters)"
    ]


def test_a_dead_api_costs_no_estimate(tmp_path: Path, estimate: Callable[..., Any]) -> None:
    found = estimate(write(tmp_path, veo()), "--base-url", "http://127.0.0.1:9")
    assert found["total_cost"] == Decimal("0.24")
    assert "no connection could be made" in found["remarks"][0]


def test_prices_come_in_their_order(tmp_path: Path, estimate: Callable[..., Any]) -> None:
    """Quote, job file, price file, built-in table."""
    own = tmp_path / "own.yaml"
    own.write_text(
        'as_of: "2026-11-01"\n'
        f"prices:\n  {VEO}: {{per_second: 0.5}}\n  {FLUX}: {{per_image: 0.05}}\n"
    )
    jobs = (veo(), {"model": FLUX, "prompt": "mug"})
    path = write(tmp_path, *jobs, prices={VEO: {"per_second": 0.30}})
    files = ("--price-file", str(own))
    assert estimate(path, "--offline", *files)["price_sources"] == {
        "job file": [VEO],
        "price file own.yaml of 2026-11-01": [FLUX],
    }
    assert estimate(path, "--offline", *files)["total_cost"] == Decimal("2.45")
    (source,) = estimate(path, *files, *LIVE)["price_sources"]
    assert source.startswith("provider quote")


def test_an_estimated_quote_shows_what_will_be_reserved(
    tmp_path: Path, estimate: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Seedance 2.0 is billed by tokens: 0.976 quoted, 1.22 reserved, by a factor of one's own 1."""
    job = {"model": SEEDANCE2, "prompt": "city", "duration": 5, "resolution": "720p"}
    path = write(tmp_path, job)
    found = estimate(path, *LIVE)
    assert (found["total_cost"], found["reserved"]) == (Decimal("0.976"), Decimal("1.22"))
    assert found["estimated_cost"] == Decimal("0.976")
    assert run_command(["estimate", path, *LIVE]) == 0
    out = capsys.readouterr().out
    assert "0.976 USD of it the provider only estimates: a run reserves 0.244 USD more" in out
    path = write(tmp_path, job, estimate_factor=1)
    assert estimate(path, *LIVE)["reserved"] == Decimal("0.976")


def test_a_job_without_any_price_names_line_and_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2, offline and where the provider has no quote."""
    path = tmp_path / "jobs.yaml"
    path.write_text("jobs:\n  - {prompt: p, model: new/model/text-to-image}\n")
    for options in ((), ("--offline",), LIVE):
        assert run_command(["estimate", str(path), *options]) == 2
        err = capsys.readouterr().err
        assert "jobs.yaml:2: model 'new/model/text-to-image' has no known price" in err
        assert "new/model/text-to-image: {per_image: 0.04}" in err
    assert run_command(["validate", str(path)]) == 0
    assert "no price is known for new/model/text-to-image" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options",
    [
        ("--offline", "--simulate"),
        ("--simulate", "--base-url", "http://x"),
        ("--price-file", "no.yaml"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    assert run_command(["estimate", write(tmp_path, veo()), *options]) == 2


def test_the_duration_is_rough_and_says_by_what(
    tmp_path: Path, estimate: Callable[..., Any]
) -> None:
    """Sums over the jobs at once; never less than the longest one."""
    found = estimate(write(tmp_path, veo(30)), "-j", "10")["duration_s"]
    assert (found["least"], found["most"]) == (180, 360)
    assert (found["max_workers"], found["by"]) == (10, "times stated for such models")
    found = estimate(write(tmp_path, veo(2)), "-j", "64")["duration_s"]
    assert (found["least"], found["most"]) == (60, 120)


def test_memory_follows_models_not_jobs() -> None:
    """A million jobs are a few counters."""
    costs = Costs()
    price = Price(amount=Decimal("0.04"), micro=40_000, source="test", assumed=("duration 5 s",))
    job = Job(model=FLUX, prompt="p")
    for _ in range(1000):
        costs.add(job, price)
    assert (len(costs.jobs), len(costs.assumed), costs.total) == (1, 1, 40_000_000)


def test_jobs_are_counted_by_kind_and_cost_the_same_as_one_by_one(tmp_path: Path) -> None:
    """One pass over the file; a row stands for all that differ in prompt and seed only."""
    rows = [
        {"model": VEO, "prompt": f"city {n}", "duration": 4 + 2 * (n % 3), "params": {"seed": n}}
        for n in range(60)
    ]
    file = open_jobs(write(tmp_path, *rows, {"model": VEO, "prompt": "no duration"}))
    prices = Prices(books=(built_in(),))
    together, alone = Costs(), Costs()
    found = Survey(file, prices)
    for row in file.rows:
        found.add(row)
    together.add_all(found.priced())
    for row in file.rows:
        alone.add(row.job, prices.of(row.job))
    assert [kind.count for kind in found.kinds] == [20, 20, 20, 1]
    assert orjson.dumps(together.document(4)) == orjson.dumps(alone.document(4))
