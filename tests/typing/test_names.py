"""The public names: all that users meet in a signature, documented, and known to type checkers."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import asyncpipe
from asyncpipe.jobfile import job_file_schema
from asyncpipe.jobs import JobDict

PROJECT = Path(asyncpipe.__file__).parent.parent

ALIASES = {"Ambiguous", "Hook", "JobLike", "Jobs", "OutputPlace", "PollingPolicy", "Tell"} | {
    "WindowKind"
}
"""Names of types that have no docstring of their own; the table tells what they are for."""

INSIDE = {
    "Committed",
    "Features",
    "Home",
    "JobRow",
    "InFlight",
    "InMemory",
    "Kind",
    "Latency",
    "Limiter",
    "Purse",
    "RunSettings",
    "SharedPlace",
    "Spending",
    "Sums",
    "Unsaid",
}
"""What only the rooms themselves hand to methods of public classes."""


def public() -> Iterator[tuple[str, Any]]:
    for name in asyncpipe.__all__:
        yield name, getattr(asyncpipe, name)


def test_the_table_of_names_is_whole() -> None:
    """Each name stands in the module's docstring once, in its group, and nothing else does."""
    doc = inspect.getdoc(asyncpipe) or ""
    table = doc.partition("::\n")[2].rpartition("\n``asyncpipe.testing``")[0]
    rows = [line for line in table.splitlines() if line.startswith(" " * 8)]
    found = re.findall(r"\w+", " ".join(rows))
    assert sorted(found) == sorted(asyncpipe.__all__)


@pytest.mark.parametrize("name", asyncpipe.__all__)
def test_every_name_says_what_it_is(name: str) -> None:
    """And does not merely inherit what another one says."""
    thing = getattr(asyncpipe, name)
    if name in ALIASES:
        return
    said: str = thing.__doc__ or ""
    assert said.strip()
    if inspect.isclass(thing) and dataclasses.is_dataclass(thing):
        assert not said.startswith(f"{name}("), "the one that dataclasses make"


def classes(hint: Any) -> Iterator[type]:
    """The classes of ours that an annotation names."""
    for part in hint if isinstance(hint, list) else typing.get_args(hint):
        yield from classes(part)
    origin = typing.get_origin(hint)
    for kind in (hint, origin):
        if inspect.isclass(kind) and kind.__module__.startswith("asyncpipe"):
            yield kind


def annotated(thing: Any) -> Iterator[Any]:
    """Of a function, or of a class's public methods, properties and fields."""
    if inspect.isfunction(thing):
        yield from hints(thing).values()
        return
    if not inspect.isclass(thing):
        yield thing
        return
    for name, member in inspect.getmembers(thing):
        if not name.startswith("_") or name in ("__init__", "__iter__"):
            found = member.fget if isinstance(member, property) else member
            found = getattr(found, "__func__", found)
            if inspect.isfunction(found) and found.__module__.startswith("asyncpipe"):
                yield from hints(found).values()
    if dataclasses.is_dataclass(thing):
        yield from (hint for name, hint in hints(thing).items() if not name.startswith("_"))


def hints(thing: Any) -> dict[str, Any]:
    """What is annotated; names that only type checkers import are all public, by mypy."""
    from asyncpipe.jobfile import settings

    names = {**vars(settings), **dict(public())}
    try:
        return typing.get_type_hints(thing)
    except NameError:
        return typing.get_type_hints(thing, localns=names)


@pytest.mark.parametrize("name", asyncpipe.__all__)
def test_what_a_signature_names_is_public(name: str) -> None:
    """Whoever reads it can look it up, import it, and annotate with it."""
    thing = getattr(asyncpipe, name)
    met = {kind for hint in annotated(thing) for kind in classes(hint)}
    ours = {kind for _, kind in public() if inspect.isclass(kind)}
    assert {kind.__name__ for kind in met - ours} - INSIDE == set()


def test_a_job_dict_has_the_keys_of_a_job_file() -> None:
    """Each key of the type is one of the schema, and each of the schema one of the type."""

    def jobs_in(part: Any) -> Iterator[set[str]]:
        if isinstance(part, dict):
            named = part.get("properties", {})
            if {"model", "prompt", "name", "count"} <= named.keys():
                yield set(named)
            part = list(part.values())
        if isinstance(part, list):
            for inner in part:
                yield from jobs_in(inner)

    assert set(JobDict.__annotations__) == next(jobs_in(job_file_schema()))


def pyright(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it as its wheel brings it: nothing is fetched."""
    pytest.importorskip("pyright")
    environment = {
        **os.environ,
        "PYTHONPATH": str(PROJECT),
        "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1",
        "PYRIGHT_PYTHON_USE_BUNDLED_PYRIGHT": "1",
    }
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, *arguments]
    return subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False
    )


def test_pyright_reads_the_api_as_mypy_does(tmp_path: Path) -> None:
    """No error in the file of uses; a misspelled name is one."""
    done = pyright(str(PROJECT / "tests" / "typing" / "api.py"))
    assert "0 errors" in done.stdout, done.stdout
    (tmp_path / "wrong.py").write_text("from asyncpipe import Pipelin\n", encoding="utf-8")
    done = pyright(str(tmp_path / "wrong.py"))
    assert '"Pipelin" is unknown import symbol' in done.stdout


def test_every_public_type_is_known() -> None:
    """By pyright's own measure for libraries, of all public names and ``asyncpipe.testing``."""
    done = pyright("--verifytypes", "asyncpipe", "--ignoreexternal", "--outputjson")
    symbols = json.loads(done.stdout)["typeCompleteness"]["symbols"]
    homes = {
        f"{thing.__module__}.{thing.__qualname__}"
        for _, thing in public()
        if inspect.isclass(thing) or inspect.isfunction(thing)
    }
    seen, unclear = set(), {}
    for symbol in symbols:
        name = symbol["name"]
        home = next((each for each in homes if f"{name}.".startswith(f"{each}.")), None)
        if home is None and not name.startswith("asyncpipe.testing."):
            continue
        seen.add(home)
        if not symbol["isTypeKnown"] or symbol["isTypeAmbiguous"]:
            unclear[name] = [each["message"] for each in symbol["diagnostics"]]
    assert unclear == {}
    assert seen - {None} == homes
