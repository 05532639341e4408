"""The shape of the package: imports go one way, and the public names are what they say."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import asyncpipe

PACKAGE = Path(asyncpipe.__file__).parent

# A part may import from parts above it, never from those below.
LAYERS = [
    "errors",
    "_fs",
    "_leaving",
    "inputs",
    "media",
    "jobs",
    "states",
    "events",
    "pricing",
    "settings",
    "localfiles",
    "jobfile",
    "catalog",
    "providers",
    "quoting",
    "ledger",
    "flow",
    "ranges",
    "parts",
    "disk",
    "body",
    "reach",
    "memory",
    "schemas",
    "downloader",
    "collector",
    "results",
    "manifest",
    "entries",
    "resolve",
    "verify",
    "reconcile",
    "volume",
    "waiters",
    "stops",
    "funds",
    "spending",
    "latencies",
    "left",
    "handover",
    "backlog",
    "admission",
    "uploads",
    "fetcher",
    "driver",
    "attachments",
    "firstpass",
    "intake",
    "recording",
    "lookahead",
    "wiring",
    "settling",
    "pipeline",
    "report",
    "progress",
    "simulator",
    "testing",
    "cli",
    "__main__",
]


def part(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return {name for name in found if name.startswith("asyncpipe.")}


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_only_go_up_the_list(path: Path) -> None:
    """A reader can take the parts in this order; no part reaches for one that builds on it."""
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for name in imports(path):
        assert LAYERS.index(part(name)) <= LAYERS.index(own), f"{path.name} imports {name}"


def test_the_simulator_shares_no_code_with_the_client() -> None:
    """It would share its mistakes too."""
    for path in (PACKAGE / "simulator").rglob("*.py"):
        assert {part(name) for name in imports(path)} <= {"errors", "simulator"}


def test_public_names_are_few_sorted_and_there() -> None:
    """At most 25, and each can be imported."""
    names = asyncpipe.__all__
    assert names == sorted(names)
    assert len(names) <= 25
    for name in names:
        assert getattr(asyncpipe, name).__doc__, name
    assert set(names) | {"__version__"} == set(dir(asyncpipe))


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_stay_small(path: Path) -> None:
    """One idea per file: at most 400 lines, no function over 60."""
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 60, node.name


def test_every_test_that_readme_names_is_there() -> None:
    """A promise that names a test which is gone is an empty one."""
    root = PACKAGE.parent
    named = set(re.findall(r"`(test_\w+)`", (root / "README.md").read_text(encoding="utf-8")))
    written = "".join(path.read_text(encoding="utf-8") for path in (root / "tests").glob("*.py"))
    assert len(named) > 10
    assert {name for name in named if f"def {name}(" not in written} == set()
