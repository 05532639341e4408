"""Names of jobs as file names."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpipe._fs import STEM_BYTES, folded, safe_stem


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
