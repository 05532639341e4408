"""Names of jobs as file names."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import tempfile
import unicodedata
from contextlib import closing
from functools import partial
from pathlib import Path, PurePosixPath
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpipe import Job, Pipeline
from asyncpipe._fs import STEM_BYTES, folded, safe_stem
from asyncpipe.engine.fetch import Fetcher
from asyncpipe.engine.verify import verify
from asyncpipe.jobs.record import JobRecord
from asyncpipe.ledger import asset_names as stems
from asyncpipe.ledger.asset_names import FolderNames, claim_parts, claim_stems
from asyncpipe.testing import PIXEL, FakeProvider, Script, run_virtual
from tests.support.events import MODELS, few, ledger_in_memory, with_jobs

NAMES = st.one_of(
    st.text(max_size=12),
    st.text("aAbB_1-. ", max_size=6),
    st.sampled_from(["a", "A", "a_1", "A_1", "a_2", "a_1_1", "ä", "a\u0308", "Ä", "ß", "SS"]),
    st.sampled_from(["con", "CON", "con_", "K", "\u212a", "İ", "i\u0307", "ﬁ", "fi", "ſs"]),
    st.sampled_from(["..", "", "/", ".", "a.", "a.png", "A.PNG", "-", "_", "_1", "µ", "μ"]),
    st.sampled_from(["ᾳ", "αι", "\u0345", "\u0390", "\u1fd3", "x" * 300, "x" * 301, "1", "١"]),
)

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


def test_a_strangers_file_in_a_subfolder_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each subfolder is read once for all its jobs."""
    monkeypatch.setattr(stems, "FLAT_UP_TO", 1)
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


def canonical_caseless(text: str) -> str:
    """What Unicode calls a canonical caseless match (D145): what the strictest systems do."""

    def nfd(s: str) -> str:
        return unicodedata.normalize("NFD", s)

    return nfd(nfd(nfd(text).casefold()).casefold())


@few(max_examples=300)
@given(one=NAMES, two=NAMES)
def test_stems_that_some_file_system_takes_for_one_fold_alike(one: str, two: str) -> None:
    """The ledger's comparison is no weaker than any file system's."""
    first, second = safe_stem(one), safe_stem(two)
    if canonical_caseless(first) == canonical_caseless(second):
        assert folded(first) == folded(second)
    if first.upper() == second.upper() or first.lower() == second.lower():
        assert folded(first) == folded(second)


class Asked:
    """A ledger that is asked at once."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def claim_parts(self, record: JobRecord, count: int) -> list[str]:
        return claim_parts(self._connection, record, count, Path("nowhere"))


def stems_of(connection: sqlite3.Connection, record: JobRecord, outputs: int) -> list[str]:
    """The stems that a fetcher takes for a job with so many outputs."""
    nothing: Any = None
    ledger: Any = Asked(connection)
    fetcher = Fetcher(
        inquiry=nothing,
        ledger=ledger,
        store=nothing,
        downloads=1,
        recorder=nothing,
        stop=nothing,
        clock=nothing,
        rng=Random(1),
        retention_s=1.0,
    )
    return asyncio.run(fetcher._stems(record, outputs))


@few(max_examples=120)
@given(
    wanted=st.lists(
        st.tuples(NAMES, st.sampled_from(MODELS), st.integers(1, 3)), min_size=1, max_size=8
    ),
    late=st.integers(0, 8),
)
def test_no_two_jobs_share_a_file(wanted: list[tuple[str, str, int]], late: int) -> None:
    """Whatever they are called, however many outputs they have, whoever comes first."""
    jobs = [Job(name=name, model=model, prompt=str(n)) for n, (name, model, _) in enumerate(wanted)]
    with tempfile.TemporaryDirectory() as empty, closing(ledger_in_memory()) as connection:
        claim = partial(claim_stems, connection, folder=Path(empty))
        records = with_jobs(connection, jobs)
        owners: dict[str, int] = {}
        for page in (range(late), range(late, len(records))):
            claimed = {n: claim([records[n]])[0] for n in page if n < len(records)}
            for n, record in claimed.items():
                for stem in stems_of(connection, record, wanted[n][2]):
                    check_place(stem, record)
                    assert owners.setdefault(canonical_caseless(stem), n) == n
    assert len(owners) == sum(outputs for _, _, outputs in wanted)


def check_place(stem: str, record: JobRecord) -> None:
    path = PurePosixPath(f"{stem}.png")
    assert path.parts[:-1] == (record.job.kind.folder,)
    assert len(path.name.encode()) < 255
    assert not path.name.startswith(".")
    assert not set(path.name) & set('\\/:*?"<>|')
    assert path.name.isprintable()


def test_names_made_to_take_every_stem_of_another_job() -> None:
    """A job's key is known beforehand, so others can be called what it falls back to."""
    victim = Job(name="x", model=MODELS[0], prompt="victim")
    key = victim.key("atlas")
    names = ["x", f"x-{key[:6]}", key]
    takers = [Job(name=name, model=MODELS[0], prompt="taker") for name in names]
    with tempfile.TemporaryDirectory() as empty, closing(ledger_in_memory()) as connection:
        records = with_jobs(connection, [*takers, victim])
        claimed = claim_stems(connection, records, Path(empty))
    assert len({record.stem for record in claimed}) == 4


def test_a_folder_whose_ledger_was_deleted_thrice_still_takes_its_jobs(tmp_path: Path) -> None:
    """``rm -r .asyncpipe`` to start anew leaves the files, which are strangers' then."""
    job = Job(name="x", model=MODELS[0], prompt="p")
    (tmp_path / "images").mkdir()
    for _ in range(4):
        with closing(ledger_in_memory()) as connection:
            (record,) = claim_stems(connection, with_jobs(connection, [job]), tmp_path)
            assert record.stem is not None
            (tmp_path / f"{record.stem}.png").write_bytes(b"x")


def test_numbered_stems_of_last_resort_are_claimed() -> None:
    """A job that comes later may be called what an earlier one fell back to."""
    first = Job(name="x", model=MODELS[0], prompt="first")
    key = first.key("atlas")
    names = ["x_1", f"x-{key[:6]}_1", f"{key}_1"]
    others = [Job(name=name, model=MODELS[0], prompt="other") for name in names]
    with tempfile.TemporaryDirectory() as empty, closing(ledger_in_memory()) as connection:
        records = with_jobs(connection, [*others[:2], first, others[2]])
        claimed = claim_stems(connection, records[:3], Path(empty))
        taken = stems_of(connection, claimed[2], 2)
        (later,) = claim_stems(connection, records[3:], Path(empty))
    assert later.stem not in taken


@pytest.mark.parametrize("ending", ["gif", "avif", "glb", "heic", "PSD", "xyz", "JPEG", "杯"])
def test_no_file_of_the_user_is_overwritten_whatever_its_ending(
    tmp_path: Path, ending: str
) -> None:
    """Any is looked for, those that no asset may get included."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / f"杯子.{ending}").write_bytes(b"mine")
    names = FolderNames(tmp_path)
    assert names.has_stranger("images/杯子")
    assert not names.has_stranger("images/碗")
    assert not names.has_stranger("images/杯")
