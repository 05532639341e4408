"""Which listed prediction is which lost submit's, and what proves that there is none."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest

from asyncpipe.engine.find import LostSubmit, Matches, Own, Reading, match, same_json
from asyncpipe.providers import Listed

MODEL = "m/text-to-image"
MUG = {"model": MODEL, "prompt": "杯子", "seed": 1}
JUG = {"model": MODEL, "prompt": "壶", "seed": 1}
NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def lost(job: int, body: Mapping[str, Any] | None = MUG, **more: Any) -> LostSubmit:
    said: dict[str, Any] = {"intended_at": at(0), "lost_at": at(60), "ripe": True, **more}
    return LostSubmit(place=(job, 1), body=body, **said)


def row(id_: str, body: Mapping[str, Any] | None = MUG, when: float = 1, **more: Any) -> Listed:
    said: dict[str, Any] = {"model": MODEL, **more}
    return Listed(id=id_, created=at(when), body=body, **said)


WITNESS = row("ours", JUG, 70)
OURS = {"ours": Own(body=JUG, intended_at=at(69))}


def read(*listed: Listed, **more: Any) -> Reading:
    said: dict[str, Any] = {"claimed": {"ours"}, "own": OURS, **more}
    return Reading(at=at(300), listed=listed, **said)


def found(matches: Matches) -> dict[int, str]:
    return {job: row.id for (job, _), row in matches.adopted.items()}


@pytest.mark.parametrize(
    "body",
    [
        MUG,
        {"seed": 1.0, "prompt": "杯子", "model": MODEL},
        {**MUG, "size": "1024*1024", "num_images": 1},
        {"prompt": "杯子", "seed": 1},  # its model stands beside it
    ],
)
def test_a_prediction_with_all_that_was_sent_is_adopted(body: dict[str, Any]) -> None:
    """Whatever the order of its fields, and whatever the provider added."""
    assert found(match([lost(1)], read(row("p1", body)))) == {1: "p1"}


@pytest.mark.parametrize(
    "body",
    [None, {}, {**MUG, "seed": 2}, {**MUG, "seed": True}, {**MUG, "seed": "1"}, JUG]
    + [{name: value for name, value in MUG.items() if name != left} for left in ("prompt", "seed")],
)
def test_what_is_not_surely_it_is_neither_adopted_nor_proof(body: dict[str, Any] | None) -> None:
    """An unclaimed one of the model may be the lost one, shown wrongly: it is not absent."""
    matches = match([lost(1)], read(WITNESS, row("p1", body)))
    assert (found(matches), matches.absent, matches.ambiguous) == ({}, set(), {})


def test_an_id_that_a_job_has_is_nobody_elses() -> None:
    """Claimed once, whatever its body."""
    assert found(match([lost(1)], read(row("p1"), claimed={"p1"}))) == {}


@pytest.mark.parametrize(
    ("when", "adopted"), [(-119, {1: "p"}), (-121, {}), (421, {}), (419, {1: "p"})]
)
def test_only_those_made_between_the_intent_and_now(when: float, adopted: dict[int, str]) -> None:
    """The provider's clock may be off by two minutes."""
    assert found(match([lost(1)], read(row("p", when=when)))) == adopted


def test_equal_bodies_are_interchangeable() -> None:
    """n lost submits take n predictions; fewer predictions leave some open, not ambiguous."""
    three = [lost(1), lost(2), lost(3, JUG)]
    for rows in permutations([row("a"), row("b", when=5), row("c", JUG)]):
        matches = match(three, read(*rows))
        assert sorted(matches.adopted) == [(1, 1), (2, 1), (3, 1)]
        assert {each.id for each in matches.adopted.values()} == {"a", "b", "c"}
    assert len(match([lost(1), lost(2)], read(row("a"))).adopted) == 1


def test_each_takes_one_that_is_not_older_than_its_intent() -> None:
    """However many of them there are, none is left for want of order."""
    late = lost(2, intended_at=at(1000), lost_at=at(1060))
    reading = Reading(at=at(2000), listed=[row("new", when=1001), row("old", when=2)])
    for both in ([lost(1), late], [late, lost(1)]):
        assert found(match(both, reading)) == {1: "old", 2: "new"}
    assert found(match([late], reading)) == {2: "new"}


def test_more_predictions_than_lost_submits_of_a_body_are_ambiguous() -> None:
    """Another program may use the key: nobody can tell, and the ids are said."""
    matches = match([lost(1), lost(2, JUG)], read(row("a"), row("b"), row("c", JUG)))
    assert (found(matches), matches.ambiguous) == ({2: "c"}, {(1, 1): ("a", "b")})
    assert matches.absent == set()


def test_a_job_that_waits_goes_before_an_attempt_that_was_left_behind() -> None:
    """The one can use its prediction, of the other only the money is known."""
    left = lost(1, waits=False, intended_at=at(-9))
    assert found(match([left, lost(2)], read(row("a")))) == {2: "a"}
    assert found(match([left, lost(2)], read(row("a"), row("b")))) == {2: "a", 1: "b"}


def test_what_may_be_a_submits_that_is_under_way_is_left() -> None:
    """Its answer will say; nor is the lost one absent as long as nobody knows."""
    for body in (MUG, {"model": MODEL, "prompt": "杯子"}):
        matches = match([lost(1)], read(WITNESS, row("a")), [body])
        assert (found(matches), matches.absent) == ({}, set())
    assert found(match([lost(1)], read(row("a")), [JUG])) == {1: "a"}


def test_a_prediction_goes_to_the_body_that_says_most() -> None:
    """What a field says that was not sent is the provider's, unless another job sent it."""
    short = {"model": MODEL, "prompt": "杯子"}
    both = [lost(1, short), lost(2, MUG)]
    assert found(match(both, read(row("a", MUG)))) == {2: "a"}
    assert found(match(both, read(row("a", MUG), row("b", short)))) == {1: "b", 2: "a"}
    other = {"model": MODEL, "prompt": "杯子", "size": 2}
    matches = match([lost(1, MUG), lost(2, other)], read(row("a", {**MUG, **other})))
    assert (found(matches), matches.ambiguous) == ({}, {(1, 1): ("a",), (2, 1): ("a",)})


def test_one_id_for_two_predictions_is_nobodys() -> None:
    """A row that comes on two pages is one."""
    assert found(match([lost(1)], read(row("a"), row("a")))) == {1: "a"}
    matches = match([lost(1), lost(2, JUG)], read(row("a"), row("a", JUG), WITNESS))
    assert (found(matches), matches.absent) == ({}, set())


def test_where_ours_stand_for_what_we_never_sent_nothing_of_the_model_is_claimed() -> None:
    """Rows that have the id of the one before: each would bring another job's picture."""
    vase = {"model": MODEL, "prompt": "花瓶", "seed": 1}
    shifted = [row("ours", vase, 70), row("lost", MUG)]
    assert found(match([lost(1)], read(*shifted))) == {}
    other = row("lost", {**MUG, "model": "n/v"}, model="n/v")
    assert found(match([lost(1, {**MUG, "model": "n/v"})], read(shifted[0], other))) == {1: "lost"}
    assert found(match([lost(1)], read(row("ours", {"prompt": "壶"}, 70), row("a")))) == {1: "a"}


def test_absent_is_what_a_whole_list_with_a_witness_does_not_show() -> None:
    """A later prediction of ours with the body that was sent, of the same model."""
    assert match([lost(1)], read(WITNESS)).absent == {(1, 1)}
    assert match([lost(1), lost(2)], read(row("a"), WITNESS)).absent == {(2, 1)}


@pytest.mark.parametrize(
    ("which", "reading"),
    [
        (lost(1), read()),  # no witness
        (lost(1), read(WITNESS, lacking={"another of ours"})),
        (lost(1), read(WITNESS, row("x", None, model=""))),
        (lost(1), read(WITNESS, row("", None))),
        (lost(1), read(row("ours", MUG, 70))),  # not what was sent for it
        (lost(1), read(row("ours", {"prompt": "壶", "model": MODEL}, 70))),
        (lost(1), read(WITNESS, own={"ours": Own(body=JUG, intended_at=at(59))})),
        (lost(1), read(WITNESS, own={"ours": Own(body=None, intended_at=at(70))})),
        (lost(1), read(WITNESS, claimed=set(), own={})),
        (lost(1, {**MUG, "model": "n/other"}), read(WITNESS)),
        (lost(1, None), read(WITNESS)),
        (lost(1, ripe=False), read(WITNESS)),
        (lost(1, waits=False), read(WITNESS)),
    ],
)
def test_everything_else_proves_nothing(which: LostSubmit, reading: Reading) -> None:
    """No later prediction of ours, or not as we sent it; a list that lacks or mixes up some."""
    assert match([which], reading).absent == set()


def test_an_older_or_another_models_prediction_is_in_nobodys_way() -> None:
    """The account's other work does not keep a lost submit open."""
    others = [row("x", JUG, -200), row("y", {"model": "n/v"}, model="n/v")]
    assert match([lost(1)], read(WITNESS, *others)).absent == {(1, 1)}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (5, 5.0, True),
        (1, True, False),
        (0, False, False),
        (False, False, True),
        (None, 0, False),
        ([1, {"a": None}], [1.0, {"a": None}], True),
        ([1], [1, 2], False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ("1", 1, False),
        ("é", "e\u0301", False),
    ],
)
def test_values_are_compared_as_json(one: Any, other: Any, same: bool) -> None:
    """Numbers by their value; truth is no number."""
    assert same_json(one, other) is same
    assert same_json(other, one) is same


# -- lists of what has ended --------------------------------------------------------------------


def test_a_list_of_what_has_ended_proves_nothing_absent() -> None:
    """What it does not show may still be worked on, whatever else it shows."""
    assert match([lost(1)], read(WITNESS)).absent == {(1, 1)}
    assert match([lost(1)], read(WITNESS, ended_only=True)).absent == set()
    assert found(match([lost(1)], read(WITNESS, row("p1"), ended_only=True))) == {1: "p1"}


def test_what_may_be_another_of_ours_by_a_new_id_is_nobodys() -> None:
    """A request that the provider tried again is listed under the id of its last try."""
    reading = read(WITNESS, row("p1"), ended_only=True, hidden=[MUG])
    matches = match([lost(1)], reading)
    assert (found(matches), matches.ambiguous) == ({}, {(1, 1): ("p1",)})
    elsewhere = read(WITNESS, row("p1"), ended_only=True, hidden=[JUG])
    assert found(match([lost(1)], elsewhere)) == {1: "p1"}
