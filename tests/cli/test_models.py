"""``asyncpipe models``: the catalogue on the command line."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from pathlib import Path

import pytest

from asyncpipe._text import width
from asyncpipe.cli.app import run_command
from asyncpipe.cli.models import choose, table
from asyncpipe.providers.catalog.models import CatalogModel
from asyncpipe.simulator.server import Simulator
from tests.support.catalog import MODELS
from tests.support.command_line import asyncpipe
from tests.support.simulator_client import beside_simulator


def models(*arguments: str, catalog: str = "live") -> int:
    """Run ``asyncpipe models`` against a simulator."""

    async def ask(simulator: Simulator) -> int:
        command = ["models", "--base-url", simulator.base_url, *arguments]
        return await asyncio.to_thread(run_command, command)

    return int(beside_simulator(ask, catalog=catalog))


def test_models_lists_the_catalogue_without_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert models("--type", "video") == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].startswith("3 models at http://127.0.0.1:")
    assert "google/veo3.1/text-to-video" in out
    assert "0.20 USD" in out
    assert "imagen" not in out


def test_models_as_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert models("--json", "--search", "ULTRA google") == 0
    document = json.loads(capsys.readouterr().out)
    (model,) = document["models"]
    assert document["source"] == "live"
    assert (model["id"], model["base_price"]) == ("google/imagen4-ultra", 0.06)
    assert model["schema_url"].endswith("/schemas/google/imagen4-ultra.json")


def test_models_without_network_shows_what_is_built_in(tmp_path: Path) -> None:
    """Its date and the reason are said; exit 0."""
    folder = str(tmp_path / "cache")
    base = "http://127.0.0.1:9"
    done = asyncpipe("models", "--base-url", base, cwd=tmp_path, XDG_CACHE_HOME=folder)
    assert done.returncode == 0
    assert "5 models of the built-in list of 2026-09-29" in done.stdout
    assert "google/imagen4-ultra " in done.stdout
    assert "cannot be had now: it got no answer: no connection" in done.stderr


def test_models_are_chosen_by_type_and_words() -> None:
    """Every word, in id or name, in any case; hidden ones never."""
    named = CatalogModel(id="a/b", type="audio", name="通用 Voice")
    assert [m.id for m in choose([*MODELS, named], search="GOOGLE fast")] == [
        "google/veo3.1-fast/text-to-video"
    ]
    assert choose([*MODELS, named], search="通用") == [named]
    assert len(choose(MODELS, kind="image")) == 3


def test_columns_line_up_with_chinese_and_hostile_names() -> None:
    """By terminal cells; no escape of a name reaches the terminal."""
    models = [
        CatalogModel(id="模型/图像", type="image", name="\x1b[31mred", base_price=Decimal("0.04")),
        CatalogModel(id="some/longer-id", type="video", name="plain"),
    ]
    first, second = table(models)
    assert "\x1b" not in first
    assert width(first[: first.index("0.04")]) == width("  image  some/longer-id  ") + 4
    assert width(second[: second.index("plain")]) == width(first[: first.index("�")])


def test_an_id_is_never_cut_and_never_obeyed() -> None:
    """People copy it; a terminal must not read it."""
    (line,) = table([CatalogModel(id="\x1b[2J" + "x" * 99, type="\x1b[2J", name="wide")])
    assert "\x1b" not in line
    assert "x" * 99 in line
