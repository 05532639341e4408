"""What makes two jobs the same one, so that the second is not bought."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest

from asyncpipe.jobfile import parse_jobs
from tests.support.job_files import FLUX


def keys(**said: Any) -> list[str]:
    return [job.key("atlas") for job in parse_jobs([{"model": FLUX, "prompt": "a mug", **said}])]


def twin_hashes(**said: Any) -> list[int]:
    return [job.twin_hash for job in parse_jobs([{"model": FLUX, "prompt": "a mug", **said}])]


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"prompt": "Tasse für Café"}, {"prompt": nfd("Tasse für Café")}),
        ({"name": "がぎぐ 杯"}, {"name": nfd("がぎぐ 杯")}),
        ({"params": {"style": {"é": ["ü"]}}}, {"params": {"style": {nfd("é"): [nfd("ü")]}}}),
        ({"params": {"a": 1, "b": 2}}, {"params": {"b": 2, "a": 1}}),
        ({"params": {"scale": 7}}, {"params": {"scale": 7.0}}),
        ({"params": {"x": [1.0, {"y": 2}]}}, {"params": {"x": [1, {"y": 2.0}]}}),
        ({"prompt": "第一行\n第二行"}, {"prompt": "第一行\r\n第二行\n"}),
        ({"prompt": "a\nb"}, {"prompt": " a\rb"}),
        ({"name": "杯子"}, {"name": " 杯子 "}),
        ({}, {"count": 1}),
        ({}, {"type": "image"}),
        ({"width": 512}, {"params": {"width": 512}}),
    ],
)
def test_the_same_job_written_in_another_way_is_the_same(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    """Normal forms, line breaks, blanks, order of keys, whole numbers; by its quick hash, too."""
    assert keys(**one) == keys(**other)
    assert twin_hashes(**one) == twin_hashes(**other)


@pytest.mark.parametrize("name", ["mug", "杯子", None])
def test_a_larger_count_keeps_the_jobs_there_were(name: str | None) -> None:
    """The first is the job without ``count``, each further one is one more."""
    said = {"name": name} if name else {}
    one, two, three = keys(**said), keys(**said, count=2), keys(**said, count=3)
    assert one == two[:1]
    assert two == three[:2]
    assert len(set(three)) == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"params": {"seed": 1}}, {"params": {"seed": "1"}}),
        ({"params": {"on": True}}, {"params": {"on": 1}}),
        ({"params": {"scale": 7.5}}, {"params": {"scale": 7}}),
        ({"prompt": "a  mug"}, {"prompt": "a mug"}),
        ({"prompt": "A mug"}, {"prompt": "a mug"}),
        ({"prompt": "Ａ"}, {"prompt": "A"}),
        ({}, {"width": 1024}),
        ({"name": "mug"}, {"name": "mug-1"}),
    ],
)
def test_what_may_be_meant_differently_is_another_job(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    """Numbers and text, blanks inside, letters, a field written out."""
    assert keys(**one) != keys(**other)
    if one.get("params") != {"on": True}:  # True == 1: the key tells them apart
        assert twin_hashes(**one) != twin_hashes(**other)
