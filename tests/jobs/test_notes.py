"""What a provider says beside outputs, in words and counted."""

from __future__ import annotations

import pytest

from asyncpipe.jobs.notes import MOST_KINDS, Noted, Notes, count_notes, phrases


@pytest.mark.parametrize(
    ("notes", "words"),
    [
        ({}, []),
        ({"extras": 2}, []),
        ({"nsfw": [False, True]}, ["NSFW"]),
        ({"given": 3, "asked": 4}, ["3 of 4 outputs"]),
        ({"error": "blocked"}, ["blocked"]),
        ({"status": "borked"}, ["'borked'"]),
        ({"raw": "/a.png"}, ["cannot be read"]),
        ({"nsfw": [True], "given": 0, "asked": 1}, ["NSFW", "0 of 1"]),
    ],
)
def test_notes_in_words(notes: Notes, words: list[str]) -> None:
    """A phrase for each thing that people should see, and none for what is only kept."""
    said = phrases(notes)
    assert len(said) == len(words)
    assert all(word in phrase for word, phrase in zip(words, said, strict=True))


def test_notes_are_counted_in_and_out() -> None:
    """With the first names; what is counted out leaves nothing."""
    counted: dict[str, Noted] = {}
    for n in range(5):
        count_notes(counted, f"杯 {n}", {"nsfw": [True]})
    (noted,) = counted.values()
    assert (noted.count, noted.names) == (5, ["杯 0", "杯 1", "杯 2"])
    for n in range(5):
        count_notes(counted, f"杯 {n}", {"nsfw": [True]}, -1)
    assert counted == {}


def test_an_api_that_says_something_else_of_every_job_does_not_fill_the_memory() -> None:
    """Beyond some kinds they are counted together, in and out."""
    counted: dict[str, Noted] = {}
    for n in range(3 * MOST_KINDS):
        count_notes(counted, "a", {"error": f"错误 {n}"})
    assert len(counted) == MOST_KINDS + 1
    assert sum(noted.count for noted in counted.values()) == 3 * MOST_KINDS
    for n in range(3 * MOST_KINDS):
        count_notes(counted, "a", {"error": f"错误 {n}"}, -1)
    assert counted == {}
