"""Faults of polls: what arrives, how long at most, and that the outputs come in the end."""

from __future__ import annotations

import asyncio
import base64
import time
from pathlib import Path
from typing import Any

import pytest

from asyncpipe.errors import UsageError
from asyncpipe.simulator import server
from asyncpipe.simulator.faults import Faults
from asyncpipe.simulator.poll import FLAGGED, LYRICS
from asyncpipe.simulator.settings import SimulatorSettings
from tests.support.clock import until
from tests.support.simulator_client import FLUX, PNG, SEEDANCE, Client, Reply, run

RUNNING = {"processing", "created", "starting", "queued", "pending", "running"}
RUNNING |= {"in_progress", "submitted"}
SPELLINGS = {
    "processing": RUNNING,
    "completed": {"completed", "succeeded", "success", "done", "complete"},
    "failed": {"failed", "error", "canceled", "cancelled", "timeout"},
}
LONG = {"generation_s": (9e3, 9e3)}


def is_good(reply: Reply) -> bool:
    """Whether a poll was answered as it should be."""
    try:
        return reply.status == 200 and reply.data["status"] in ("processing", "completed")
    except (ValueError, TypeError, KeyError):
        return False


def test_poll_errors_come_in_every_status_and_as_json_or_page() -> None:
    """Five statuses, both kinds of body, no more than three in a row."""

    async def steps(client: Client) -> None:
        seen = set()
        for _ in range(30):
            prediction = await client.buy()
            replies = [await client.poll(prediction) for _ in range(4)]
            assert [is_good(reply) for reply in replies] == [False] * 3 + [True]
            for reply in replies[:3]:
                kind = reply.headers["Content-Type"].split(";")[0]
                assert kind == "text/html" or reply.json["code"] == reply.status
                seen.add((reply.status, kind))
        kinds = ("application/json", "text/html")
        assert seen == {(status, kind) for status in (429, 500, 502, 503, 504) for kind in kinds}

    run(steps, faults=Faults(poll_error=1.0))


@pytest.mark.parametrize(
    ("fault", "settings", "expected"),
    [
        ("garbage", LONG, "bbbgbggggg"),  # 3 in a row, 4 in all
        ("garbage", {}, "bbbgbggggg"),  # outputs told: 1 in a row, but 4 are reached
        ("no_status", LONG, "bbbgbggggg"),
        ("odd_status", LONG, "bbbgbggggg"),
    ],
)
def test_faulty_polls_are_bounded(fault: str, settings: dict[str, Any], expected: str) -> None:
    """A deadline is not outlasted."""

    async def steps(client: Client) -> str:
        prediction = await client.buy()
        return "".join(["bg"[is_good(await client.poll(prediction))] for _ in range(10)])

    assert run(steps, faults=Faults(**{fault: 1.0}), **settings) == expected


def test_after_the_outputs_were_told_polls_are_hardly_faulty() -> None:
    """A client that asks for a fresh URL must not run out of tries: never two faults in a row."""

    async def steps(client: Client) -> None:
        longest_before = longest_after = 0
        for _ in range(60):
            prediction, row, told = await client.buy(), 0, False
            for _ in range(12):
                good = is_good(await client.poll(prediction))
                row = 0 if good else row + 1
                told = told or good
                longest_after = max(longest_after, row if told else 0)
                longest_before = max(longest_before, 0 if told else row)
        assert (longest_before, longest_after) == (3, 1)

    run(steps, faults=Faults(garbage=0.7))


def test_garbage_is_no_json_object_of_the_api() -> None:
    """200 every time; six kinds of bodies."""

    async def steps(client: Client) -> None:
        bodies = []
        for _ in range(30):
            reply = await client.poll(await client.buy())
            assert (reply.status, is_good(reply)) == (200, False)
            bodies.append(reply.body)
        assert {b"", b"null", b'["ok"]', b"OK", b"\xff\xfe\x00{"} < set(bodies)
        assert any(body.startswith(b'{"code": 200, "data": {"id"') for body in bodies)

    run(steps, faults=Faults(garbage=1.0))


def test_a_poll_is_reset() -> None:
    """The system says reset, not end of file; the fourth poll is answered."""

    async def steps(client: Client) -> None:
        prediction = await client.buy()
        for _ in range(3):
            with pytest.raises(ConnectionResetError):
                await client.raw_poll(prediction)
        assert is_good(await client.poll(prediction))
        assert client.books.polls() == 4

    run(steps, faults=Faults(poll_reset=1.0))


def test_a_hung_poll_is_held_then_closed_once() -> None:
    """No answer for hang_s; then the prediction has had its share."""

    async def steps(client: Client) -> float:
        prediction, started = await client.buy(), time.monotonic()
        assert await client.raw_poll(prediction) == b""
        held_s = time.monotonic() - started
        assert [is_good(await client.poll(prediction)) for _ in range(3)] == [True] * 3
        return held_s

    assert 0.2 <= run(steps, faults=Faults(hung_poll=1.0), hang_s=0.2) < 10


def test_a_hung_poll_lasts_60_s_by_the_simulators_clock() -> None:
    assert SimulatorSettings(speed=20).held_s == 3
    assert SimulatorSettings(speed=20, hang_s=1.5).held_s == 1.5
    with pytest.raises(UsageError, match="hang_s"):
        SimulatorSettings(hang_s=-1)


def test_a_hung_poll_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a client that went nor one that waits delays the simulator's end."""

    async def steps(client: Client) -> float:
        polls = [asyncio.create_task(client.raw_poll(await client.buy())) for _ in range(2)]
        await until(lambda: client.books.polls() == 2)
        polls[0].cancel()
        started = time.monotonic()
        await client.simulator.__aexit__(None, None, None)
        took_s = time.monotonic() - started
        assert await polls[1] == b""
        with pytest.raises(asyncio.CancelledError):
            await polls[0]
        return took_s

    monkeypatch.setattr(server, "SHUTDOWN_S", 60.0)  # so long would aiohttp wait
    assert run(steps, faults=Faults(hung_poll=1.0), hang_s=600.0) < 30


@pytest.mark.parametrize("wire", ["canonical", "article"])
def test_no_status_and_odd_ones(wire: str) -> None:
    """Nothing that could be taken for an end: neither status nor outputs; or a word of its own."""

    async def steps(client: Client) -> list[Any]:
        words = []
        for _ in range(10):
            tail = "/get" if wire == "article" else ""
            reply = await client.poll(await client.buy(), tail=tail)
            answer = reply.json if wire == "article" else reply.data
            assert reply.status == 200
            assert not answer.get("outputs")
            assert not answer.get("output")
            words.append(answer.get("status"))
        return words

    assert set(run(steps, wire=wire, faults=Faults(no_status=1.0))) == {None}
    odd = run(steps, wire=wire, faults=Faults(odd_status=1.0))
    assert len(set(odd)) > 3
    assert all(odd)
    assert not set(odd) & set().union(*SPELLINGS.values())


@pytest.mark.parametrize("status", SPELLINGS)
def test_every_spelling_in_every_case(status: str) -> None:
    """Each word of a status comes; in lower, upper, title and mixed case."""
    faults = Faults(spelled=1.0, failed=float(status == "failed"))
    long = LONG if status == "processing" else {}

    async def steps(client: Client) -> list[str]:
        predictions = [await client.buy() for _ in range(12)]
        return [(await client.poll(p)).data["status"] for p in predictions for _ in range(5)]

    words = run(steps, faults=faults, **long)
    assert {word.lower() for word in words} == SPELLINGS[status]
    assert any(word.isupper() for word in words)
    assert any(word.islower() for word in words)
    assert any(not word.isupper() and not word.islower() and not word.istitle() for word in words)


def test_the_status_goes_backwards() -> None:
    """processing, then queued or the like, and again; completed is never taken back."""

    async def steps(client: Client) -> list[str]:
        prediction = await client.buy()
        return [(await client.poll(prediction)).data["status"] for _ in range(6)]

    words = run(steps, faults=Faults(backwards=1.0), **LONG)
    assert words[::2] == ["processing"] * 3
    assert set(words[1::2]) <= {"queued", "pending", "created", "starting"}
    assert run(steps, faults=Faults(backwards=1.0)) == ["completed"] * 6


def test_outputs_fill_a_few_polls_later() -> None:
    """completed, completed, and then with outputs."""

    async def steps(client: Client) -> list[Any]:
        prediction = await client.buy()
        answers = [(await client.poll(prediction)).data for _ in range(4)]
        assert {answer["status"] for answer in answers} == {"completed"}
        return [bool(answer["outputs"]) for answer in answers]

    assert run(steps, faults=Faults(empty_first=1.0)) == [False, False, True, True]


def shape_of(answer: dict[str, Any]) -> tuple[str, list[str]]:
    """Where an answer has its outputs, and which they are."""
    if answer.get("outputs"):
        return "objects", [url for item in answer["outputs"] for url in item.values()]
    if isinstance(output := answer.get("output"), dict):
        found = output["image_url"]
        return "output.url", [found] if isinstance(found, str) else found
    if output is not None:
        return "output", [output] if isinstance(output, str) else output
    if "images" in answer:
        return "images", [item["url"] for item in answer["images"]]
    return "url", [answer["image_url"]]


@pytest.mark.parametrize("wire", ["canonical", "article"])
@pytest.mark.parametrize("count", [1, 3])
def test_outputs_in_every_shape(wire: str, count: int) -> None:
    """Objects, a bare string, output.image_url, image_url, images; every URL in order."""

    async def steps(client: Client) -> None:
        shapes, tail = set(), "/get" if wire == "article" else ""
        for _ in range(25):
            prediction = await client.buy(num_images=count)
            reply = await client.poll(prediction, tail=tail)
            shape, urls = shape_of(reply.json if wire == "article" else reply.data)
            names = [url.rpartition("/")[2] for url in urls]
            assert names == [f"{index}.png" for index in range(count)]
            shapes.add(shape)
        assert shapes == {"objects", "output", "output.url", "url" if count == 1 else "images"}

    run(steps, wire=wire, faults=Faults(odd_outputs=1.0))


def test_outputs_come_inside_the_answer() -> None:
    """Data URIs and bare base64, each a picture; no two outputs are the same."""

    async def steps(client: Client) -> None:
        forms = set()
        for _ in range(8):
            outputs = (await client.poll(await client.buy(num_images=2))).data["outputs"]
            head, comma, _ = outputs[0].partition(",")
            assert head == "data:image/png;base64" or not comma
            bodies = [base64.b64decode(output.rpartition(",")[2]) for output in outputs]
            assert all(body.startswith(PNG) for body in bodies)
            assert bodies[0] != bodies[1]
            forms.add(bool(comma))
        assert forms == {True, False}

    run(steps, faults=Faults(inline=1.0), body_bytes=300)
    run(steps, faults=Faults(inline=1.0))


@pytest.mark.parametrize(("outcome", "code"), [("failed", 1), ("moderated", 1039)])
@pytest.mark.parametrize("wire", ["canonical", "article"])
def test_a_failed_prediction_may_come_with_http_500(outcome: str, code: int, wire: str) -> None:
    """The failed body as ever, whatever the status line says; also where words are mixed."""

    async def steps(client: Client) -> None:
        tail = "/get" if wire == "article" else ""
        for _ in range(5):
            reply = await client.poll(await client.buy(), tail=tail)
            answer = reply.json if wire == "article" else reply.data
            assert (reply.status, answer["status"].lower()) == (500, "failed")
            assert (answer["error_code"], bool(answer["error"])) == (code, True)

    faults = {outcome: 1.0, "failed_500": 1.0, "spelled": 1.0}
    run(steps, wire=wire, faults=Faults(**faults))


def test_a_request_fails_twice_in_a_row_at_most() -> None:
    """Below 1, so that two retries are enough; other requests do not count, and 1 means always."""

    async def steps(client: Client) -> list[str]:
        for _ in range(4):
            await client.submit()
            await client.submit(model=SEEDANCE, duration=1)
        return [p.outcome for p in client.books.predictions() if p.model == FLUX]

    assert run(steps, faults=Faults(failed=0.999999)) == ["failed", "failed", "completed", "failed"]
    assert run(steps, faults=Faults(failed=1.0)) == ["failed"] * 4


def test_what_a_prediction_has_met_outlives_the_process(tmp_path: Path) -> None:
    """Killed and gone on, polls go on as they would have: the rest of the faults, the outputs."""
    faults = Faults(garbage=1.0, empty_first=1.0, backwards=0.5)

    def life(books: str, polls: int, prediction: str | None = None) -> tuple[str, list[Any]]:
        async def steps(client: Client) -> tuple[str, list[Any]]:
            known = prediction or await client.buy()
            replies = [await client.poll(known) for _ in range(polls)]
            return known, [(is_good(r), b"/media/" in r.body, r.body[:9]) for r in replies]

        found: tuple[str, list[Any]] = run(steps, faults=faults, books=tmp_path / books)
        return found

    known, whole = life("whole", 8)
    same, parts = life("parts", 2)
    for polls in (1, 3, 2):
        parts += life("parts", polls, known)[1]
    assert (same, parts) == (known, whole)
    assert [good for good, _, _ in whole] == [False] * 3 + [True, False] + [True] * 3
    assert [told for _, told, _ in whole] == [False] * 6 + [True] * 2


@pytest.mark.parametrize("wire", ["canonical", "article"])
def test_what_may_be_said_beside_outputs(wire: str) -> None:
    """A flag and its reason, a cover and a text, one output less; none while it has none."""
    faults = Faults(flagged=1.0, beside=1.0, fewer_outputs=1.0, empty_first=1.0)

    async def steps(client: Client) -> None:
        prediction, tail = await client.buy(num_images=3), "/get" if wire == "article" else ""
        replies = [await client.poll(prediction, tail=tail) for _ in range(3)]
        empty, _, full = [reply.json.get("data", reply.json) for reply in replies]
        assert not {"cover_url", "lyrics_result"} & set(empty)
        assert not empty.get("error")
        assert not empty.get("has_nsfw_contents")
        assert full["has_nsfw_contents"] == [True, False]
        assert (full["error"], full["lyrics_result"]) == (FLAGGED, LYRICS)
        cover = await client.get(full["cover_url"])
        assert (cover.status, cover.headers["Content-Type"]) == (200, "image/png")
        assert cover.body.startswith(PNG)

    run(steps, wire=wire, faults=faults, body_bytes=2000)
