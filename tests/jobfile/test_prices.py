"""Price files, and prices in job files: what they may say, which one counts, and mistakes."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from asyncpipe import Job, JobFileError, JobType, Pipeline, Rate, UsageError, load_jobs
from asyncpipe.cli.app import run_command
from asyncpipe.jobfile.prices import load_price_file
from asyncpipe.pricing.price import price
from asyncpipe.pricing.rates import PriceBook, Tier, books_of
from asyncpipe.pricing.spending import SpendingLimits
from asyncpipe.providers.atlas.prices import built_in
from asyncpipe.testing import FakeProvider, run_virtual

VEO = "google/veo3.1/text-to-video"
D = Decimal
PRICES = """
as_of: "2026-11-20"
prices:
  google/veo3.1/text-to-video:
    per_second: 0.20
    tiers:
      - {resolution: 4k, audio: true, per_second: 0.60}
      - {audio: true, per_second: 0.40}
  some/painter: {per_image: 0.0123456789}
"""


def test_a_price_file_is_read_to_the_digit(tmp_path: Path) -> None:
    """Amounts are exactly what is written, the source names the file and its date."""
    path = tmp_path / "价格.yaml"
    path.write_text(PRICES, encoding="utf-8")
    book = load_price_file(path)
    assert (book.title, book.as_of) == ("price file 价格.yaml of 2026-11-20", date(2026, 11, 20))
    assert book.rates["some/painter"] == Rate(per_image=D("0.0123456789"))
    assert book.rates[VEO] == Rate(
        per_second=D("0.2"),
        tiers=(
            Tier(rate=Rate(per_second=D("0.6")), resolution="4k", audio=True),
            Tier(rate=Rate(per_second=D("0.4")), audio=True),
        ),
    )


def test_a_price_file_may_be_json(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text('{"prices": {"a/b": {"tiers": [{"size": "8x8", "per_job": 0.1}]}}}')
    book = load_price_file(path)
    assert (book.title, book.rates["a/b"].unit) == ("price file prices.json", None)


def test_the_order_is_job_file_price_file_built_in() -> None:
    """Each price names which it is from."""
    mine = PriceBook(rates={VEO: Rate(per_job=D(2))}, source="price file p.yaml")
    job = Job(model=VEO, prompt="p", type=JobType.VIDEO, params={"duration": 8})
    sources = [
        price(job, books_of({VEO: Rate(per_job=D(1))}, mine, built_in())).source,
        price(job, books_of({}, mine, built_in())).source,
        price(job, books_of(None, None, built_in())).source,
    ]
    assert sources == ["job file", "price file p.yaml", "built-in table of 2026-02-28"]


def test_a_pipeline_takes_a_price_file(tmp_path: Path) -> None:
    """Before the built-in table, after its own prices; what it charges says the file."""
    path = tmp_path / "prices.yaml"
    path.write_text(f"prices:\n  {VEO}: {{per_job: 0.7}}\n  a/b-to-image: {{per_job: 9}}\n")
    jobs = [Job(model=VEO, prompt="p"), Job(model="a/b-to-image", prompt="p")]

    async def main() -> list[tuple[Decimal, str]]:
        prices = {"a/b-to-image": Rate(per_job=D("0.2"))}
        async with Pipeline(
            FakeProvider(),
            tmp_path / "out",
            spending=SpendingLimits(prices=prices, price_book=load_price_file(path)),
        ) as pipeline:
            return [(result.cost, result.model) for result in await pipeline.batch_generate(jobs)]

    assert sorted(run_virtual(main())) == [(D("0.2"), "a/b-to-image"), (D("0.7"), VEO)]
    with pytest.raises(UsageError, match="there is no price file"):
        Pipeline(
            FakeProvider(),
            tmp_path / "out",
            spending=SpendingLimits(price_book=load_price_file(tmp_path / "none.yaml")),
        )


def test_the_job_files_that_init_writes_hold_when_uncommented(tmp_path: Path) -> None:
    """Their examples of prices are legal, in both languages."""
    for lang in ("en", "zh"):
        path = tmp_path / f"{lang}.yaml"
        assert run_command(["init", str(path), "--lang", lang]) == 0
        lines = path.read_text(encoding="utf-8").splitlines()
        start = next(n for n, line in enumerate(lines) if line.startswith("# max_cost"))
        end = next(n for n, line in enumerate(lines) if n > start and not line.startswith("#"))
        lines[start:end] = [line.removeprefix("# ") for line in lines[start:end]]
        lines[start:end] = [line.removeprefix("#") for line in lines[start:end]]
        path.write_text("\n".join(lines), encoding="utf-8")
        settings = load_jobs(path).settings
        assert (settings.max_cost, settings.min_balance) == (D(20), D(5))
        assert len(settings.prices["other/model"].tiers) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prices:\n  a/b: 0.04", "p.yaml:2: prices.a/b: 0.04 is no rate; give exactly one of per_"),
        (
            "prices:\n  a/b: {tiers: []}",
            "p.yaml:2: prices.a/b.tiers: is a list: write a list of ti",
        ),
        (
            "prices:\n  a/b: {per_image: 1, per_job: 2, tiers: [{audio: true, per_job: 1}]}",
            "has 3 k",
        ),
        (
            "prices:\n  a/b:\n    tiers:\n      - {audio: true, per_job: 1}\n      - {per_job: 1}",
            "p.yaml:5: prices.a/b.tiers[2]: a tier is at least one of resolution, audio, size and",
        ),
        ("prices: {a/b: {tiers: [0.4]}}", "prices.a/b.tiers[1]: 0.4 is no tier; a tier is at lea"),
        ("prices: {a/b: {tiers: [{audio: true}]}}", "exactly one of per_image, per_second, per_j"),
        ("prices: {a/b: {tiers: [{audio: 1, per_job: 1}]}}", "tiers[1].audio: 1 is neither true n"),
        ("prices: {a/b: {tiers: [{audio: on, per_job: 1}]}}", "YAML reads the bare word on as ye"),
        ("prices: {a/b: {tiers: [{resolution: 1080, per_job: 1}]}}", "resolution: 1080 is a numb"),
        ("prices: {a/b: {tiers: [{size: big, per_job: 1}]}}", "size: 'big' is no size: write wid"),
        ("prices: {a/b: {tiers: [{audio: true, per_job: -1}]}}", "per_job: -1 is less than 0"),
        ("prices: {a/b: {tiers: [{sound: true, per_job: 1}]}}", "tiers[1].sound: unknown key"),
        ("as_of: 2026-11-20\nprices: {}", 'YAML reads 2026-11-20 as a date: write "2026-11-20"'),
        ('as_of: "soon"\nprices: {}', "p.yaml:1: as_of: 'soon' is not a date: write it like"),
        ("price: {}", "there is no prices: in it; a price file looks like this"),
        ("- a/b", "there is no prices: in it"),
        ("", "there is no prices: in it"),
        ("prices: {a/b: {per_image: 1}", "p.yaml:1: not valid YAML"),
        ("prices: {}\njobs: []", "p.yaml:2: jobs: unknown key"),
    ],
)
def test_mistakes_in_a_price_file_are_named_with_line_and_remedy(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(JobFileError) as caught:
        load_price_file(path)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("none.yaml", None, "there is no price file"),
        ("p.txt", b"", "the ending tells a price file's format"),
        ("p.yaml", b"\xff\xfe", "is not UTF-8"),
    ],
)
def test_a_price_file_that_cannot_be_read_is_a_usage_error(
    tmp_path: Path, name: str, content: bytes | None, why: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=why):
        load_price_file(path)


def test_a_job_file_takes_tiers_and_the_keys_of_money(tmp_path: Path) -> None:
    """The same block as in a price file, and min_balance and estimate_factor beside it."""
    path = tmp_path / "jobs.yaml"
    block = PRICES.partition("prices:")[2]
    text = f"min_balance: 5.5\nestimate_factor: 1.1\nprices:{block}\njobs:\n"
    path.write_text(text + "  - {model: some/painter, type: image, prompt: p}\n", encoding="utf-8")
    settings = load_jobs(path).settings
    assert (settings.min_balance, settings.estimate_factor) == (D("5.5"), D("1.1"))
    assert len(settings.prices[VEO].tiers) == 2
    path.write_text(
        text.replace("1.1", "0.9") + "  - {model: some/painter, type: image, prompt: p}"
    )
    with pytest.raises(JobFileError, match=r"jobs.yaml:2: estimate_factor: 0.9 must be from 1 to"):
        load_jobs(path)
