"""The simulator's uploads: what it took is served, paths are refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from asyncpipe import AtlasCloud
from asyncpipe.errors import Rejected
from asyncpipe.simulator.server import Simulator
from tests.support.photos import job, photo, simulated

KEY = "apikey-a-secret-that-must-not-travel"


@contextmanager
def suppress_into(said: list[str]) -> Iterator[None]:
    try:
        yield
    except Rejected as exc:
        said.append(str(exc))


def test_the_simulator_refuses_paths_and_serves_what_it_took(tmp_path: Path) -> None:
    """A path in a request is an error; an upload comes back byte for byte, until it is cleaned."""
    path = photo(tmp_path, "a.png")

    async def steps(simulator: Simulator) -> None:
        async with AtlasCloud(KEY, base_url=simulator.base_url) as provider:
            with pytest.raises(Rejected, match="image must be a URL"):
                await provider.submit(job("x", "a.png"))
            url = await provider.upload(path)
            gone = url.replace("/uploads/", "/uploads/0")
            said: list[str] = []
            for _ in range(50):  # refused at once, or sold and failed: by dice
                with suppress_into(said):
                    await provider.submit(job("x", gone))
            assert 10 < len(said) < 40
            assert all("cannot be fetched" in text for text in said)
            assert {p.outcome for p in simulator.books.predictions()} == {"unreachable"}
            async with aiohttp.ClientSession() as session:
                async with session.get(url) as answer:
                    assert await answer.read() == path.read_bytes()
                    assert answer.content_type == "image/png"
                simulator.books.expire_uploads()
                async with session.get(url) as answer:
                    assert answer.status == 404

    simulated(tmp_path, steps)


def test_the_simulator_takes_larger_files_of_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the API does: ten times as much, and by their type."""
    monkeypatch.setattr("asyncpipe.simulator.upload.LARGEST", 1000)
    monkeypatch.setattr("asyncpipe.simulator.upload.LARGEST_AUDIO", 10_000)
    picture, sound = photo(tmp_path, "a.png"), tmp_path / "a.opus"
    picture.write_bytes(picture.read_bytes().ljust(2000, b"\0"))
    sound.write_bytes(b"OggS".ljust(9000, b"\0"))

    async def steps(simulator: Simulator) -> None:
        async with AtlasCloud(KEY, base_url=simulator.base_url) as provider:
            with pytest.raises(Rejected, match="larger than the API takes"):
                await provider.upload(picture)
            assert (await provider.upload(sound)).endswith(".opus")
            sound.write_bytes(b"OggS".ljust(10_001, b"\0"))
            with pytest.raises(Rejected, match="larger than the API takes"):
                await provider.upload(sound)

    simulated(tmp_path, steps)
