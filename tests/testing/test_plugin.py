"""The testing kit as strangers use it: in projects of their own, with whatever plugin they have."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from textwrap import dedent

import pytest

from tests.support import ROOT

COMMON = """
    from asyncpipe import Pipeline, Polling
    from asyncpipe.testing import VirtualTimeLoop, virtual_time

    JOB = {"name": "mug", "model": "anybody/any-model", "type": "image", "prompt": "a mug"}


    async def made(provider, folder, **options):
        async with Pipeline(provider, folder, storage={"min_free_bytes": 0}, **options) as pipeline:
            return await pipeline.generate(JOB)
"""

PLAIN = (
    COMMON
    + """
    import asyncio
    import pytest
    from decimal import Decimal

    from asyncpipe import LedgerError, Rate, SpendingLimits
    from asyncpipe.testing import FakeProvider, Script

    def test_the_first_test_of_everybody(fake_provider, tmp_path):
        result = asyncio.run(made(fake_provider, tmp_path))
        assert (result.outcome, fake_provider.sold) == ("succeeded", ["mug"])
        assert result.cost > 0

    @virtual_time
    async def test_an_hour_takes_no_time(tmp_path):
        provider = FakeProvider(default=Script(generation_s=3000.0))
        assert (await made(provider, tmp_path)).outcome == "pending"  # its deadline has passed

    def test_a_loop_of_ones_own(virtual_loop, fake_provider, tmp_path):
        virtual_loop.run_until_complete(asyncio.sleep(3600))
        assert virtual_loop.run_until_complete(made(fake_provider, tmp_path)).outcome == "succeeded"

    @virtual_time
    async def test_a_disk_that_breaks(fake_provider, failing_ledger, tmp_path):
        async with Pipeline(fake_provider, tmp_path, storage={"min_free_bytes": 0}) as pipeline:
            with failing_ledger(pipeline), pytest.raises(LedgerError, match="disk I/O"):
                await pipeline.generate(JOB)
        assert fake_provider.sold == []

    PRICED = SpendingLimits(prices={"anybody/any-model": Rate(per_job=Decimal("0.05"))})

    @pytest.mark.parametrize("profile", [
        pytest.param(each, marks=pytest.mark.simulator(profile=each))
        for each in ("atlas", "fal", "replicate")
    ])
    def test_each_api_there_is(simulator, profile, tmp_path):
        options = {"polling": simulator.polling, "spending": PRICED}
        result = asyncio.run(made(simulator.provider(), tmp_path, **options))
        assert (result.outcome, simulator.profile) == ("succeeded", profile)
        assert [each.model for each in simulator.predictions()] == ["anybody/any-model"]
        assert simulator.charged() > 0
"""
)

ASYNCIO = (
    COMMON
    + """
    import pytest, pytest_asyncio

    pytestmark = pytest.mark.asyncio

    @pytest_asyncio.fixture
    async def pipeline(fake_provider, tmp_path):
        async with Pipeline(fake_provider, tmp_path, storage={"min_free_bytes": 0}) as pipeline:
            yield pipeline

    async def test_a_pipeline_as_a_fixture(pipeline, fake_provider):
        assert (await pipeline.generate(JOB)).outcome == "succeeded"
        assert fake_provider.sold == ["mug"]

    async def test_real_sockets(simulator, tmp_path):
        result = await made(simulator.provider(), tmp_path, polling=simulator.polling)
        assert result.outcome == "failed, not charged" or simulator.predictions()
"""
)

ANYIO = (
    COMMON
    + """
    import pytest

    pytestmark = pytest.mark.anyio

    @pytest.fixture(params=[
        pytest.param(("asyncio", {}), id="real"),
        pytest.param(("asyncio", {"loop_factory": VirtualTimeLoop}), id="virtual"),
    ])
    def anyio_backend(request):
        return request.param

    @pytest.fixture
    async def pipeline(fake_provider, tmp_path, anyio_backend):
        async with Pipeline(fake_provider, tmp_path, storage={"min_free_bytes": 0}) as pipeline:
            yield pipeline

    async def test_a_pipeline_as_a_fixture(pipeline, fake_provider):
        assert (await pipeline.generate(JOB)).outcome == "succeeded"
        assert fake_provider.sold == ["mug"]
"""
)


def strangers(folder: Path, text: str, *options: str) -> str:
    """Run a test file in a project that has nothing of ours but the package."""
    (folder / "test_theirs.py").write_text(dedent(text), encoding="utf-8")
    (folder / "pytest.ini").write_text(
        "[pytest]\nfilterwarnings = error\naddopts = --strict-markers\n", encoding="utf-8"
    )
    plugin = ("-p", MODULE)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugin, *options, "-p", "no:cacheprovider"],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


MODULE = "asyncpipe.pytest_plugin"
NO_ASYNCIO, NO_ANYIO = ("-p", "no:asyncio"), ("-p", "no:anyio")
FUNCTION = ("-o", "asyncio_default_fixture_loop_scope=function")


@pytest.mark.parametrize(
    ("text", "options", "count"),
    [
        (PLAIN, (*NO_ASYNCIO, *NO_ANYIO), 7),
        (ASYNCIO, (*NO_ANYIO, *FUNCTION), 2),
        (ANYIO, NO_ASYNCIO, 2),
        (PLAIN, ("-o", "asyncio_mode=auto", *FUNCTION), 7),
    ],
    ids=["plain", "pytest-asyncio", "anyio", "auto mode"],
)
def test_a_strangers_project(
    tmp_path: Path, text: str, options: tuple[str, ...], count: int
) -> None:
    """Whatever runs its coroutines; not a warning, and no plugin is needed."""
    assert f"{count} passed" in strangers(tmp_path, text, *options)


def test_what_readme_shows(tmp_path: Path) -> None:
    """Copied into a file of a project that has nothing else, it passes."""
    readme = (ROOT / "README.md").read_text("utf-8").partition("## Testing")[2]
    shown = readme.partition("```python\n")[2].partition("```")[0]
    assert "3 passed" in strangers(tmp_path, shown, *NO_ASYNCIO)


def test_pytest_finds_the_plugin_by_itself() -> None:
    """Under the name that ``-p`` has for it, so that nobody loads it twice."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {MODULE: MODULE}


def test_the_plugin_is_light() -> None:
    """It is loaded into every run of everybody's tests: nothing of ours comes with it."""
    code = (
        "import sys, asyncpipe.pytest_plugin\n"
        "print([m for m in sys.modules if m == 'aiohttp' or m.startswith('asyncpipe.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout.strip() == "['asyncpipe.pytest_plugin']"
