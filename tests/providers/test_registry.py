"""Providers by name: folders, entry points of other packages, and what is said of a wrong one."""

from __future__ import annotations

import csv
from contextlib import closing
from datetime import date
from decimal import Decimal
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import asyncpipe._registry
from asyncpipe.cli.app import run_command
from asyncpipe.errors import JobFileError, UsageError
from asyncpipe.jobfile import load_jobs
from asyncpipe.providers import connect, has_key, key_variable, provider_named
from asyncpipe.report.purchases import bill_of
from asyncpipe.simulator.books import Books
from tests.support import keyed_api
from tests.support.batches import FLUX

VALUE = "tests.support.keyed_api"

MODEL = "demo/text-to-image"


def install(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    """Entry points of these names and values, as if a package had been installed."""
    group = asyncpipe._registry.GROUP
    points = [EntryPoint(name, value, group) for name, value in values.items()]

    def entry_points(*, group: str, name: str | None = None) -> list[EntryPoint]:
        return [each for each in points if each.group == group and name in (None, each.name)]

    monkeypatch.setattr(asyncpipe._registry, "entry_points", entry_points)


@pytest.fixture
def keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, keyed=VALUE)


@pytest.mark.usefixtures("keyed")
def test_a_provider_of_another_package_is_found_by_its_entry_point(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert key_variable("keyed") == "KEYED_API_KEY"
    assert not has_key("keyed")
    with pytest.raises(UsageError, match="set KEYED_API_KEY"):
        connect("keyed")
    monkeypatch.setenv("KEYED_API_KEY", "k-0123456789abcdef")
    assert has_key("keyed")
    assert isinstance(connect("keyed"), keyed_api.KeyedApi)


@pytest.mark.usefixtures("keyed")
def test_a_name_that_nobody_has_is_said_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="there is no provider 'keyd': did you mean 'keyed'"):
        connect("keyd")
    with pytest.raises(UsageError, match=r"there are atlas, .*keyed"):
        connect("zzzzzz")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("tests.support.nowhere", "'odd' of some package cannot be loaded: ModuleNotFoundError"),
        ("tests.support.batches", "'odd' of some package has no connect, has_key, KEY_VARIABLES"),
    ],
)
def test_one_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, value: str, said: str
) -> None:
    install(monkeypatch, odd=value)
    with pytest.raises(UsageError, match=said):
        connect("odd", simulated=True)


def test_one_that_bears_another_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folders would be nobody's."""
    install(monkeypatch, other=VALUE)
    with pytest.raises(UsageError, match="'other' calls itself 'keyed'"):
        connect("other", simulated=True, base_url="http://127.0.0.1:1")


def test_a_folder_goes_before_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, atlas=VALUE)
    assert type(connect("atlas", simulated=True, base_url="http://127.0.0.1:1")).__name__ == (
        "AtlasCloud"
    )


def test_the_first_that_names_one_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The option, the job file, the environment, the usual one."""
    assert provider_named(None, None) == "atlas"
    monkeypatch.setenv("ASYNCPIPE_PROVIDER", "keyed")
    assert provider_named(None, None) == "keyed"
    assert provider_named(None, "replicate") == "replicate"
    assert provider_named("atlas", "replicate") == "atlas"


@pytest.mark.usefixtures("keyed")
def test_a_job_file_names_its_provider(tmp_path: Path) -> None:
    path = tmp_path / "jobs.yaml"
    job = "{name: a, model: demo/text-to-image, prompt: mug}"
    path.write_text(f"provider: keyed\njobs: [{job}]\n")
    assert load_jobs(path).settings.provider == "keyed"
    path.write_text(f"max_workers: 2\nprovider: keyd\njobs: [{job}]\n")
    with pytest.raises(JobFileError, match=r"jobs\.yaml:2: .*'keyd': did you mean 'keyed'"):
        load_jobs(path)


# -- the command line works with every one --------------------------------------------------------


@pytest.fixture
def folder(keyed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a simulated run of the provider ``keyed``."""
    monkeypatch.chdir(tmp_path)
    jobs = "".join(f"  - {{name: m{n}, model: {MODEL}, prompt: mug {n}}}\n" for n in range(3))
    Path("jobs.yaml").write_text(
        f"provider: keyed\noutput_dir: out\nprices: {{{MODEL}: {{per_image: 0.05}}}}\njobs:\n{jobs}"
    )
    run = ["run", "jobs.yaml", "--simulate", "--simulate-speed", "400", "-q", "--yes"]
    assert run_command(run) == 0
    return tmp_path / "out"


def test_every_command_works_with_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["run", "jobs.yaml", "--simulate", "--provider", "keyed", "-q", "--yes"],
        ["collect", "out", "-q"],
        ["verify", "out"],
        ["status", "out", "--provider", "keyed"],
        ["validate", "jobs.yaml"],
        ["estimate", "jobs.yaml"],
        ["estimate", "jobs.yaml", "--simulate"],
        ["models", "--provider", "keyed"],
        ["export", "out", "--format", "csv"],
    ):
        assert run_command(words) == 0, words
    told = capsys.readouterr()
    assert "the provider lists no models" in told.err
    assert "0 models" in told.out


def test_a_folder_belongs_to_its_provider(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whichever command names another one."""
    for words in (
        ["collect", "out"],
        ["verify", "out"],
        ["status", "out"],
        ["reconcile", "out"],
        ["resolve", "out", "--find"],
        ["resolve", "out", "--lost-free"],
        ["resolve", "out", "m1", "--prediction", "x"],
    ):
        assert run_command([*words, "--provider", "atlas"]) == 2, words
        said = capsys.readouterr().err
        assert "out holds predictions of simulator (keyed), and --provider says atlas" in said
        assert "leave it out" in said
    assert run_command(["run", "jobs.yaml", "--simulate", "--provider", "atlas", "--yes"]) == 2
    assert "keyed" in capsys.readouterr().err


def test_one_without_a_profile_cannot_be_simulated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, lonely=VALUE)
    monkeypatch.chdir(tmp_path)
    Path("jobs.yaml").write_text(
        f"prices: {{{MODEL}: {{per_image: 0.04}}}}\njobs: [{{model: {MODEL}, prompt: mug}}]\n"
    )
    assert run_command(["run", "jobs.yaml", "--simulate", "--provider", "lonely"]) == 2
    assert "the simulator has no profile 'lonely': it has atlas, " in capsys.readouterr().err


def test_reconcile_compares_with_what_each_prediction_was_charged(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["reconcile", "out"]) == 0
    assert "0.15 USD        0.00 USD        0.15 USD" in capsys.readouterr().out
    with closing(Books(folder / ".asyncpipe" / "simulator.sqlite3")) as books:
        books.reprice(MODEL, Decimal(2))
    assert run_command(["reconcile", "out"]) == 1
    assert "+0.15 USD" in capsys.readouterr().out


def test_a_bill_is_made_of_its_predictions() -> None:
    """A day of which something is not told may still grow."""
    day, next_day = date(2026, 11, 27), date(2026, 11, 28)
    predictions = {"a": ("x", day), "b": ("x", day), "c": ("y", day), "d": ("x", next_day)}
    bill = bill_of({"a": Decimal("0.1"), "b": Decimal("0.2"), "c": Decimal(0)}, predictions)
    assert bill.days[day].amounts == {"x": Decimal("0.3"), "y": Decimal(0)}
    assert (bill.days[day].partial, bill.days[next_day].partial) == (False, True)


def test_reconcile_says_plainly_that_there_is_no_bill(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(keyed_api, "KeyedApi", keyed_api.Unbilled)
    assert run_command(["reconcile", "out"]) == 3
    assert "keyed tells no bill: there is nothing to compare with" in capsys.readouterr().err


def test_workers_of_a_queue_take_its_key(
    keyed: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["work", "--queue", "rq", "--broker", "redis://x", "--ledger", "postgresql://x"]
    assert run_command([*words, "--provider", "keyed"]) == 2
    assert "set KEYED_API_KEY" in capsys.readouterr().err


def test_a_job_file_falls_back_to_another_provider(
    keyed: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Simulated: the first fails every job, and is not charged for one."""
    monkeypatch.chdir(tmp_path)
    jobs = "".join(f"  - {{name: m{n}, prompt: mug {n}}}\n" for n in range(3))
    Path("jobs.yaml").write_text(
        "output_dir: out\nretries: 0\n"
        f"defaults: {{model: {FLUX}, fallback: ['keyed:demo/text-to-image']}}\n"
        f"prices: {{demo/text-to-image: {{per_image: 0.03}}}}\njobs:\n{jobs}"
    )
    options = ["--simulate", "--simulate-speed", "400", "-q", "--yes"]
    assert run_command(["run", "jobs.yaml", *options, "--simulate-faults", "failed=1"]) == 0
    for command in (["collect", "out", "-q"], ["verify", "out"]):
        assert run_command(command) == 0
    capsys.readouterr()
    assert run_command(["export", "out", "--format", "csv", "--rows", "attempts"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert sorted((row["provider"], row["bought_as"], row["charged_usd"]) for row in rows) == [
        *[("atlas", FLUX, "0")] * 3,
        *[("keyed", "demo/text-to-image", "0.03")] * 3,
    ]
    assert run_command(["reconcile", "out"]) == 0  # with the first one's bill, of its own


@pytest.mark.parametrize("said", ["7", "[]", "['a b']", "['']", "[7]", "''"])
def test_what_is_no_fallback_is_said_with_its_line(tmp_path: Path, said: str) -> None:
    path = tmp_path / "jobs.yaml"
    path.write_text(f"jobs:\n- model: demo/text-to-image\n  prompt: mug\n  fallback: {said}\n")
    with pytest.raises(JobFileError, match=r"jobs\.yaml:4: .*must be a list of models"):
        load_jobs(path)


def test_a_fallback_may_be_one_text(tmp_path: Path) -> None:
    """As a cell of a table is."""
    path = tmp_path / "jobs.csv"
    path.write_text('model,prompt,fallback\ndemo/text-to-image,mug,"a/b, fal:c/d"\n')
    (job,) = load_jobs(path).jobs
    assert job.fallback == ("a/b", "fal:c/d")
