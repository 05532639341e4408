"""Replicate's list of predictions: what it shows, and what it proves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from asyncpipe.engine.find import LostSubmit, Reading, match
from asyncpipe.errors import HistoryUnavailable, PollFailed, ProviderError
from asyncpipe.http import HttpAnswer
from asyncpipe.jobs import Job, JobType
from asyncpipe.providers import Listed
from asyncpipe.providers.replicate import Replicate
from asyncpipe.providers.replicate.history import pages, read_history

AT = datetime(2026, 1, 14, 10, 15, 30, tzinfo=UTC)
VERSION = "0f" * 32


def row(name: str, seconds: float = 0, **fields: Any) -> dict[str, Any]:
    at = AT + timedelta(seconds=seconds)
    return {
        "id": name,
        "model": "a/b",
        "version": VERSION,
        "created_at": at.isoformat().replace("+00:00", "Z"),
        "status": "succeeded",
        "source": "api",
        "data_removed": False,
        "input": {"prompt": "a mug"},
        **fields,
    }


def answer(*rows: Any, following: str | None = None, status: int = 200) -> HttpAnswer:
    document = {"next": following, "previous": None, "results": [*rows]}
    return HttpAnswer(status=status, headers={}, body=json.dumps(document).encode())


class Pages:
    """Answers page after page, and notes what was asked."""

    def __init__(self, *answers: HttpAnswer) -> None:
        self.answers, self.asked = [*answers], list[str]()

    async def ask_history(self, query: str) -> HttpAnswer:
        self.asked.append(query)
        return self.answers.pop(0)


def read(*answers: HttpAnswer, since: datetime = AT) -> tuple[list[Listed], list[str]]:
    api = Pages(*answers)

    async def main() -> list[Listed]:
        return [each async for page in pages(api, since) for each in page]

    return asyncio.run(main()), api.asked


NEXT = "https://api.replicate.com/v1/predictions?cursor=cD0yMDIy"


def test_pages_follow_until_one_is_old_enough() -> None:
    """By the query of ``next`` alone: the key goes to no address that an answer names."""
    listed, asked = read(
        answer(row("p3", 20), row("p2", 10), following=NEXT),
        answer(row("p1", 0), row("p0", -1), following="https://evil.example/x?cursor=never"),
    )
    assert [each.id for each in listed] == ["p3", "p2", "p1", "p0"]
    assert asked == ["", "cursor=cD0yMDIy"]
    assert (listed[0].created, listed[0].model) == (AT + timedelta(seconds=20), "a/b")


def test_the_last_page_ends_it() -> None:
    listed, asked = read(answer(row("p1", 5)))
    assert ([each.id for each in listed], asked) == (["p1"], [""])


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([answer(row("p1", 9), following=NEXT), answer(row("p2", 8), following=NEXT)], "circles"),
        ([answer(row("p1", 0), row("p2", 500))], "newest first"),
        ([answer(row("p1", 9), row("", 8))], "name no prediction or no time"),
        ([answer(row("p1", 9), row("p2", 8, created_at="yesterday"))], "no time"),
        ([answer(row("p1", 9), row("p2", 8, created_at="2026-01-14T10:15:30"))], "no time"),
        ([answer(row("p1", 9), 7)], "name no prediction"),
    ],
)
def test_a_list_with_a_hole_proves_nothing(answers: Sequence[HttpAnswer], why: str) -> None:
    with pytest.raises(ProviderError, match=why):
        read(*answers)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (404, b'{"detail":"x"}', HistoryUnavailable),
        (403, b"", HistoryUnavailable),
        (429, b'{"detail":"x","retry_after":2}', PollFailed),
        (500, b"", PollFailed),
        (200, b'{"results":null}', PollFailed),
        (200, b'{"results":[],"next":7}', PollFailed),
    ],
)
def test_what_is_no_page(status: int, body: bytes, error: type[ProviderError]) -> None:
    with pytest.raises(error):
        read_history(status, {}, body)


# -- what a row says of a submit ----------------------------------------------------------------


def job(model: str = "a/b", **params: Any) -> Job:
    return Job(model=model, prompt="a mug", type=JobType.IMAGE, params=params)


def found(sent: Job, *rows: dict[str, Any]) -> str | None:
    """The id that a lost submit of ``sent`` is found by."""
    lost = LostSubmit(
        place=(1, 1),
        body=Replicate("r8_0123456789abcdef").body_of(sent),
        intended_at=AT,
        lost_at=AT + timedelta(seconds=1),
    )
    listed = read_history(200, {}, answer(*rows).body).listed
    matches = match([lost], Reading(at=AT + timedelta(seconds=60), listed=listed))
    adopted = matches.adopted.get((1, 1))
    return adopted.id if adopted is not None else None


@pytest.mark.parametrize("model", ["a/b", f"a/b:{VERSION}", VERSION])
def test_a_lost_submit_is_found_by_each_form_of_its_model(model: str) -> None:
    """A row tells model and version, and an input that may have defaults besides."""
    defaults = {"prompt": "a mug", "seed": 7, "go_fast": True}
    assert found(job(model, seed=7), row("p1", input=defaults)) == "p1"
    assert found(job(model), row("p1", input={"prompt": "a cup"})) is None
    assert found(job(model), row("p1", model="c/d", version="1f" * 32)) is None


def test_another_version_is_another_model() -> None:
    assert found(job(f"a/b:{VERSION}"), row("p1", version="1f" * 32)) is None
    assert found(job(f"a/b:{VERSION}"), row("p1", version="hidden")) is None


def test_an_input_may_have_a_field_named_version() -> None:
    assert found(job(version="v1.4"), row("p1", input={"prompt": "a mug", "version": "v1.4"}))
    assert not found(job(version="v1.4"), row("p1", input={"prompt": "a mug", "version": "v1.3"}))


def test_a_deployment_is_found_where_its_name_is_told() -> None:
    assert found(job("deployments/acme/mugs"), row("p1", deployment="acme/mugs")) == "p1"
    assert found(job("deployments/acme/mugs"), row("p1")) is None


def test_an_input_that_was_removed_is_nobodys() -> None:
    """An hour after its end a row may be of any submit, and proves that none is absent."""
    gone = row("p1", input={}, data_removed=True)
    assert read_history(200, {}, answer(gone).body).listed[0].body is None
    assert found(job(), gone) is None
