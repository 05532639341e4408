"""Names of jobs as file names."""

from __future__ import annotations

import asyncio
import json
import shutil
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpipe import Job, Pipeline
from asyncpipe._fs import STEM_BYTES, folded, safe_stem
from asyncpipe.engine.verify import verify
from asyncpipe.ledger import asset_names as stems
from asyncpipe.testing import PIXEL, FakeProvider, Script, run_virtual

FLUX = "black-forest-labs/flux-2-pro/text-to-image"


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("Hero 视频 Veo", "hero_视频_veo"),
        ("产品主图", "产品主图"),
        ("a/b\\c:d*e?f", "abcdef"),
        ("../../etc/passwd", "etcpasswd"),
        ("..", ""),
        ("!!!", ""),
        ("CON", "con_"),
        ("com1.png", "com1_.png"),
        ("Cafe\u0301", "café"),
        ("\u202egnp.exe", "gnp.exe"),
        ("tab\tand\nline", "tab_and_line"),
        ("\x1b[31mred", "31mred"),
        ("emoji 🎬 clip", "emoji__clip"),
        (".hidden.", "hidden"),
        ("नमस्ते", "नमस्ते"),
    ],
)
def test_names_become_safe_stems(name: str, stem: str) -> None:
    """Every script keeps its letters; nothing that a file system or terminal reads stays."""
    assert safe_stem(name) == stem


@given(st.text(max_size=400))
def test_stems_stay_inside_the_folder_and_short(name: str) -> None:
    """Whatever the name: no separators, no dots at the ends, at most STEM_BYTES and one ``_``."""
    stem = safe_stem(name)
    assert not set(stem) & set('/\\:*?"<>|\0\n\r\t ')
    assert not stem.startswith(".")
    assert not stem.endswith(".")
    assert len(stem.encode()) <= STEM_BYTES + 1
    assert stem == unicodedata.normalize("NFC", stem)


def test_stems_fold_like_the_strictest_file_system() -> None:
    """Case and Unicode form do not make two files."""
    assert folded("STRASSE") == folded("straße")
    assert folded("cafe\u0301") == folded("café")


def test_long_chinese_names_are_cut_between_characters() -> None:
    """A name of 400 characters becomes a stem of whole characters within the limit."""
    stem = safe_stem("字" * 400)
    assert set(stem) == {"字"}
    assert len(stem.encode()) <= STEM_BYTES


def jobs(count: int) -> list[Job]:
    return [Job(name=f"杯 {n}", model=FLUX, prompt="p") for n in range(count)]


def run(folder: Path, count: int, provider: FakeProvider) -> list[str]:
    async def main() -> None:
        async with Pipeline(provider, folder, seed=1) as pipeline:
            await pipeline.batch_generate(jobs(count))

    run_virtual(main())
    rows = json.loads((folder / "manifest.json").read_bytes())["results"]
    paths = [asset["local_path"] for row in rows for asset in row["assets"]]
    assert all((folder / path).is_file() for path in paths)
    return sorted(paths)


def test_a_grown_folder_keeps_its_files_and_puts_new_ones_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three lie flat; the fourth makes too many, and goes where its number says."""
    monkeypatch.setattr(stems, "FLAT_UP_TO", 3)
    monkeypatch.setattr(stems, "PER_SUBFOLDER", 2)
    provider = FakeProvider(scripts={"杯 4": Script(outputs=(PIXEL, PIXEL))})
    flat = [f"images/杯_{n}.png" for n in range(3)]
    assert run(tmp_path, 3, provider) == flat
    below = ["images/0002/杯_3.png", "images/0003/杯_4_1.png", "images/0003/杯_4_2.png"]
    assert run(tmp_path, 5, provider) == sorted([*flat, *below])
    shutil.rmtree(tmp_path / "images" / "0003")
    found = asyncio.run(verify(tmp_path))
    assert (found.checked, found.bad_count) == (6, 2)
    assert run(tmp_path, 5, provider) == sorted([*flat, *below])
    assert len(provider.sold) == 5


@pytest.mark.parametrize("listed_from", [1, 100])
def test_a_strangers_file_in_a_subfolder_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed_from: int
) -> None:
    """Whether the subfolder is read once for all its jobs, or each looks for its own files."""
    monkeypatch.setattr(stems, "FLAT_UP_TO", 1)
    monkeypatch.setattr(stems, "LISTED_FROM", listed_from)
    mine = tmp_path / "images" / "0001" / "杯_1.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    found = run(tmp_path, 3, FakeProvider())
    assert (found[0], found[2]) == ("images/0001/杯_0.png", "images/0001/杯_2.png")
    assert found[1].startswith("images/0001/杯_1-")
    assert mine.read_bytes() == b"mine"


def test_ten_thousand_jobs_lie_flat(tmp_path: Path) -> None:
    """The limit is what people were told; nobody's small folder changes its shape."""
    assert (stems.FLAT_UP_TO, stems.PER_SUBFOLDER) == (10_000, 1000)
    assert run(tmp_path, 2, FakeProvider()) == ["images/杯_0.png", "images/杯_1.png"]
