"""Audio jobs: told by their model, submitted to their own endpoint, kept in their own folder."""

from __future__ import annotations

import asyncio
import io
import json
import wave
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import AtlasCloud, JobFileError, Pipeline, Polling, Rate, load_jobs
from asyncpipe.cli.validate import validate_jobs
from asyncpipe.errors import UsageError
from asyncpipe.jobs.job import Job, JobType, type_of_model
from asyncpipe.jobs.settings import Deadlines
from asyncpipe.pricing.price import price
from asyncpipe.pricing.rates import PriceBook
from asyncpipe.pricing.spending import SpendingLimits
from asyncpipe.providers.atlas.reader import TEXTS, read_poll, read_submit
from asyncpipe.simulator.server import Simulator
from asyncpipe.simulator.settings import SimulatorSettings
from tests.support.simulator_client import KEY, Client
from tests.support.simulator_client import run as run_simulator

SPEECH = "acme/voice/text-to-speech"
PRICES = {SPEECH: Rate(per_job=Decimal("0.05")), "acme/asr": Rate(per_job=Decimal("0.01"))}


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("elevenlabs/v3/text-to-speech", JobType.AUDIO),
        ("stability/stable-audio/text-to-audio", JobType.AUDIO),
        ("minimax/music-2.6/Text-to-Music", JobType.AUDIO),
        ("wan/speech-to-video", JobType.VIDEO),
        ("kling/video-to-audio", JobType.AUDIO),
        ("xai/stt-v1", None),
        ("minimax/music-2.6", None),
        ("whisper/speech-to-text", None),
    ],
)
def test_the_model_tells_the_type_only_where_it_is_certain(
    model: str, kind: JobType | None
) -> None:
    """An id without ``-to-…`` says nothing, however much it sounds like music."""
    assert type_of_model(model) is kind


def test_a_job_without_words_must_say_something_else() -> None:
    """``text`` or a recording stand for a prompt; nothing at all is a slip."""
    spoken = Job(model=SPEECH, params={"text": "你好, 世界"})
    assert spoken.body == {"model": SPEECH, "text": "你好, 世界"}
    assert spoken.title("abcdef99") == "你好,_世界-abcdef"
    assert Job(model=SPEECH, params={"audio": "https://x/a.mp3"}).title("abc") == "audio-abc"
    with pytest.raises(UsageError, match="says nothing: give it a prompt"):
        Job(model=SPEECH)


def test_a_job_file_has_audio_in_every_place(tmp_path: Path) -> None:
    """Type, defaults, deadline; a job needs a prompt unless it has fields of its own."""
    path = tmp_path / "jobs.yaml"
    path.write_text(
        "deadline_s: {audio: 90}\n"
        "defaults: {audio: {params: {format: wav}}}\n"
        f"jobs:\n  - {{model: {SPEECH}, params: {{text: hi}}}}\n"
        "  - {name: song, type: audio, model: acme/song, prompt: a waltz}\n",
        encoding="utf-8",
    )
    file = load_jobs(path)
    assert file.settings.deadlines == Deadlines(audio=90)
    assert file.settings.deadlines.of(JobType.AUDIO) == 90
    assert [job.body for job in file.jobs] == [
        {"model": SPEECH, "format": "wav", "text": "hi"},
        {"model": "acme/song", "prompt": "a waltz", "format": "wav"},
    ]
    path.write_text(
        f"jobs:\n  - {{model: {SPEECH}}}\n  - {{type: image, model: a/b, params: {{seed: 1}}}}\n",
        encoding="utf-8",
    )
    with pytest.raises(JobFileError) as caught:
        load_jobs(path)
    assert [(p.line, p.message[:15]) for p in caught.value.problems] == [
        (2, "prompt: missing"),
        (3, "prompt: missing"),
    ]


def test_audio_is_priced_by_job_or_by_the_seconds_it_says() -> None:
    """Nobody can assume how long a text is spoken: then no reservation could hold."""
    rate = PriceBook(rates={SPEECH: Rate(per_second=Decimal("0.01"))}, source="t")
    job = Job(model=SPEECH, params={"text": "x", "duration": 12})
    assert price(job, [rate]).micro == 120_000
    with pytest.raises(UsageError, match=r"makes audio and has no duration: give it per_job"):
        price(Job(model=SPEECH, prompt="x"), [rate])
    book = PriceBook(rates={SPEECH: Rate(per_image=Decimal("0.01"))}, source="t")
    with pytest.raises(UsageError, match="per_image, but the job makes audio"):
        price(Job(model=SPEECH, prompt="x"), [book])
    with pytest.raises(UsageError, match=r"acme/voice/text-to-speech: \{per_job: 0\.15\}"):
        price(Job(model=SPEECH, prompt="x"), [])


def _answer(outputs: list[Any]) -> bytes:
    fields = {"id": "p1", "status": "completed", "outputs": outputs, "error": ""}
    return json.dumps({"code": 200, "message": "", "data": fields}).encode()


def test_recognised_speech_is_an_output_of_audio_alone() -> None:
    """The words stand where a URL would: for a picture that is no output, for audio it is."""
    words = "data:text/plain;charset=utf-8,"
    spoken = _answer(["你好 https://example.com is what she said"])
    said = read_poll(200, {}, spoken, texts=True).outputs
    assert len(said) == 1
    assert said[0].startswith(words)
    assert read_poll(200, {}, spoken).outputs == ()
    url = _answer(["https://media.example/a.mp3"])
    assert read_poll(200, {}, url, texts=True).outputs == ("https://media.example/a.mp3",)
    assert read_submit(200, {}, _answer([{"text": "hi"}])).outputs == (f"{words}hi",)
    assert read_submit(200, {}, _answer(["hi"]), texts=True).outputs == (f"{words}hi",)
    assert read_poll(200, {}, _answer([]), texts=True).outputs == ()


def test_audio_is_made_kept_and_recognised(tmp_path: Path) -> None:
    """A WAV of the asked length in ``audio/``, and a transcript as a text file beside it."""
    jobs: list[dict[str, Any]] = [
        {"name": "问候", "model": SPEECH, "params": {"text": "你好"}, "duration": 2},
        {
            "name": "heard",
            "type": "audio",
            "model": "acme/asr",
            "params": {"audio": "https://x/a.mp3"},
        },
    ]

    async def main() -> None:
        settings = SimulatorSettings(generation_s=(0.0, 0.1), books=tmp_path / "books")
        async with Simulator(settings) as simulator:
            provider = AtlasCloud("any", base_url=simulator.base_url)
            polling = Polling(initial_s=0.05, maximum_s=0.1)
            pipeline = Pipeline(
                provider,
                tmp_path,
                polling=polling,
                spending=SpendingLimits(prices=PRICES),
                storage={"min_free_bytes": 0},
            )
            async with pipeline:
                manifest = await pipeline.batch_generate(jobs)
            assert [p.type for p in simulator.books.predictions()] == ["audio", "audio"]
            results = {result.name: result for result in manifest}
            assert {r.status for r in results.values()} == {"success"}
            assert results["问候"].assets[0].name == "audio/问候.wav"
            with wave.open(str(tmp_path / "audio" / "问候.wav")) as sound:
                assert sound.getnframes() / sound.getframerate() == 2
            text = (tmp_path / "audio" / "heard.txt").read_text(encoding="utf-8")
            assert "says hello" in text
            assert {r.type for r in results.values()} == {JobType.AUDIO}

    asyncio.run(main())


def test_the_route_of_audio_is_kept_for_the_next_run() -> None:
    """A poll after a restart must know that an output may be text."""

    async def steps(client: Client) -> str:
        async with AtlasCloud("k", base_url=client.simulator.base_url) as provider:
            job = Job(model="acme/asr", type=JobType.AUDIO, params={"audio": "https://x/a.mp3"})
            sold = await provider.submit(job)
            assert sold.route == TEXTS
            return (await provider.poll(sold.id, route=sold.route)).outputs[0]

    assert run_simulator(steps).startswith("data:text/plain")


def test_two_requests_never_sound_the_same() -> None:
    """And the same one always does."""

    async def steps(client: Client) -> list[bytes]:
        bodies = []
        for text in ("a", "b", "a"):
            body = {"model": SPEECH, "text": text, "duration": 0.5}
            await client.ask("POST", "/model/generateAudio", json=body, headers=KEY)
            made = client.books.predictions()[-1].id
            url = (await client.poll(made)).data["outputs"][0]
            bodies.append((await client.get(url)).body)
        return bodies

    first, second, again = run_simulator(steps)
    assert first == again != second
    with wave.open(io.BytesIO(first)) as sound:
        assert sound.getnframes() == 4000


def test_validate_shows_what_is_spoken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An audio job has no prompt to show, but a text."""
    path = tmp_path / "jobs.yaml"
    path.write_text(
        f"prices: {{{SPEECH}: {{per_job: 0.05}}}}\n"
        f"jobs: [{{model: {SPEECH}, params: {{text: 欢迎光临}}}}]\n",
        encoding="utf-8",
    )
    validate_jobs(path, as_json=False)
    shown = capsys.readouterr().out
    assert "audio" in shown
    assert "\n    欢迎光临\n" in shown
