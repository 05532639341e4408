"""An output folder that came from somebody else may hold links: none is followed, and that is said.

The folder itself may be one: that is the user's own word.
"""

from __future__ import annotations

import asyncio
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from asyncpipe.cli.session import Exit, Simulated, connect, of_error
from asyncpipe.engine import Decision, resolve, verify
from asyncpipe.errors import AsyncpipeError, LedgerError
from asyncpipe.ledger import asset_names
from asyncpipe.providers import DEFAULT_PROVIDER
from asyncpipe.report import read_manifest, read_status
from asyncpipe.report.manifest import write_manifest
from asyncpipe.testing import FakeProvider, run_virtual
from tests.support.pipelines import job, opened

STATE = [".asyncpipe", ".asyncpipe/lock", ".asyncpipe/ledger.sqlite3", ".asyncpipe/ballast"]
ASIDE = [".asyncpipe/ledger.sqlite3-wal", ".asyncpipe/ledger.sqlite3-shm", ".asyncpipe/parts"]


def run(folder: Path, provider: FakeProvider, *names: str) -> None:
    async def work() -> None:
        async with opened(folder, provider) as pipeline:
            await pipeline.batch_generate([job(name) for name in names])
            if pipeline.stopped is not None:
                raise pipeline.stopped

    run_virtual(work())


def link(path: Path, elsewhere: Path) -> None:
    """Put what is at a path elsewhere, or a file of the user's, and a link in its place."""
    if path.exists():
        shutil.move(path, elsewhere)
    else:
        elsewhere.write_bytes(b"mine")
    path.symlink_to(elsewhere)


@pytest.mark.parametrize("name", [*STATE, *ASIDE, "images", "videos"])
def test_a_link_in_the_folder_is_refused_before_anything_is_bought(
    tmp_path: Path, name: str
) -> None:
    """Its path is named; what it leads to stays as it is."""
    folder, mine, provider = tmp_path / "out", tmp_path / "mine", FakeProvider()
    run(folder, provider, "杯")
    link(folder / name, mine)
    before = mine.read_bytes() if mine.is_file() else sorted(mine.rglob("*"))
    with pytest.raises(AsyncpipeError, match=f"{Path(name).name} is a symbolic link") as found:
        run(folder, provider, "杯", "茶")
    assert of_error(found.value) is Exit.STOPPED
    assert provider.sold == ["杯"]
    assert (mine.read_bytes() if mine.is_file() else sorted(mine.rglob("*"))) == before


@pytest.mark.parametrize("name", STATE)
def test_no_command_follows_one(tmp_path: Path, name: str) -> None:
    """Those that read as well as those that write."""
    folder = tmp_path / "out"
    run(folder, FakeProvider(), "杯")
    link(folder / name, tmp_path / "mine")
    with pytest.raises(LedgerError, match="symbolic link"):
        asyncio.run(verify(folder))
    with pytest.raises(LedgerError, match="symbolic link"):
        asyncio.run(resolve(folder, (), Decision(resubmit=True)))
    for read in (read_manifest, read_status, write_manifest):
        with pytest.raises(LedgerError, match="symbolic link"):
            read(folder)


def test_a_linked_folder_of_assets_is_refused_before_its_jobs_are_bought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large folders have folders of assets inside."""
    monkeypatch.setattr(asset_names, "FLAT_UP_TO", 0)
    folder, mine, provider = tmp_path / "out", tmp_path / "mine", FakeProvider()
    mine.mkdir()
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "0001").symlink_to(mine)
    with pytest.raises(LedgerError, match="0001 is a symbolic link"):
        run(folder, provider, "杯")
    assert (provider.sold, [*mine.iterdir()]) == ([], [])


def test_the_books_of_the_simulator_are_not_kept_behind_a_link(tmp_path: Path) -> None:
    """They are opened before the folder is locked."""
    mine, state = tmp_path / "mine", tmp_path / "out" / ".asyncpipe"
    state.mkdir(parents=True)
    (state / "simulator.sqlite3").symlink_to(mine)

    async def work() -> None:
        async with AsyncExitStack() as stack:
            await connect(
                stack,
                tmp_path / "out",
                provider=DEFAULT_PROVIDER,
                base_url=None,
                simulated=Simulated(),
            )

    with pytest.raises(LedgerError, match=r"simulator\.sqlite3 is a symbolic link"):
        asyncio.run(work())
    assert not mine.exists()


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    """As on a machine whose data are on another disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    run(tmp_path / "out", FakeProvider(), "杯")
    assert asyncio.run(verify(tmp_path / "out")).checked == 1
    assert (tmp_path / "disk" / "images" / "杯.png").is_file()


def test_a_link_where_the_manifest_is_written_is_not_followed(tmp_path: Path) -> None:
    """Neither in its own place nor in that of the file that becomes it."""
    folder, mine = tmp_path / "out", tmp_path / "mine"
    run(folder, FakeProvider(), "杯")
    mine.write_bytes(b"mine")
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").symlink_to(mine)
    write_manifest(folder)
    assert mine.read_bytes() == b"mine"
    assert not (folder / "manifest.json").is_symlink()
