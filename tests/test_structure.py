"""The shape of the house: who may import whom, what a room exports, what is kept where."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import asyncpipe

PACKAGE = Path(asyncpipe.__file__).parent
PROJECT = PACKAGE.parent

# Each room with its floor and the rooms it may import, those that every room may apart. A room
# imports from lower floors only, never sideways; whoever adds a line here changes the plan.
EVERYBODYS = {"errors", "_fs", "_text", "_tasks"}
BELOW_THE_TOP = {"jobs", "pricing", "http", "media", "flow", "ledger", "providers", "report"}
BELOW_THE_TOP |= {"webhooks"}
HOUSE: dict[str, tuple[int, set[str]]] = {
    "errors": (1, set()),
    "_text": (1, set()),
    "_fs": (1, set()),
    "_tasks": (2, set()),
    "_registry": (2, set()),
    "jobs": (2, set()),
    "http": (2, set()),
    "simulator": (2, set()),
    "pricing": (3, {"jobs"}),
    "media": (3, {"jobs", "http"}),
    "flow": (3, {"jobs"}),
    "ledger": (3, {"jobs"}),
    "webhooks": (3, {"http"}),
    "providers": (4, {"_registry", "jobs", "pricing", "media", "http", "webhooks"}),
    "jobfile": (4, {"_registry", "jobs", "pricing", "media", "webhooks"}),
    "metrics": (4, {"jobs", "pricing", "flow"}),
    "traces": (4, {"jobs", "pricing"}),
    "report": (4, {"jobs", "ledger", "pricing", "flow", "media"}),
    "engine": (5, BELOW_THE_TOP | {"jobfile"}),
    "testing": (6, BELOW_THE_TOP | {"engine", "simulator"}),
    "pytest_plugin": (7, {"testing"}),
    "commands": (6, BELOW_THE_TOP | {"jobfile", "engine"}),
    "__init__": (7, BELOW_THE_TOP | {"jobfile", "engine", "commands"}),
    "sync": (7, BELOW_THE_TOP | {"jobfile", "engine", "commands"}),
    "queues": (7, BELOW_THE_TOP | {"jobfile", "engine"}),
    "cli": (8, BELOW_THE_TOP | {"jobfile", "engine", "simulator", "testing", "queues", "commands"}),
    "__main__": (9, {"cli"}),
}
ROOMS = [room for room in HOUSE if (PACKAGE / room).is_dir()]


def modules(below: Path = PACKAGE) -> list[Path]:
    return sorted(below.rglob("*.py"))


def name_of(path: Path) -> str:
    """The module at ``path``, as imports call it."""
    inside = path.relative_to(PACKAGE.parent).with_suffix("")
    return ".".join(inside.parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    """The room, or the file at the root, that a module belongs to."""
    return module.split(".")[1] if "." in module else "__init__"


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Each module of ours that a file imports from, and the name that it takes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide who imports whom"
            for alias in node.names:
                module, name = node.module or "", alias.name
                if (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir():
                    module = f"{module}.{name}" if module == "asyncpipe" else module
                if module.split(".")[0] == "asyncpipe":
                    yield module, name
        elif isinstance(node, ast.Import):
            yield from ((a.name, "") for a in node.names if a.name.split(".")[0] == "asyncpipe")


def wrong_imports(path: Path, own: str) -> list[str]:
    """What a file of the room ``own`` imports against the plan."""
    floor, allowed = HOUSE[own]
    found = []
    for module, name in imports(path):
        room = room_of(module)
        if room == own:
            continue
        lower = room in HOUSE and HOUSE[room][0] < floor
        if own == "simulator":
            allowed, lower = {"errors"}, lower and room == "errors"
        if not lower or room not in allowed | EVERYBODYS:
            found.append(f"{path.name} imports {name} of {module}")
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_module_has_a_room_and_imports_from_lower_floors_only(path: Path) -> None:
    """A reader can take the rooms floor by floor; none reaches for one that builds on it."""
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert own in HOUSE, f"{own} is no room of the house"
    assert wrong_imports(path, own) == []


def test_the_plan_is_seen_to_be_broken(tmp_path: Path) -> None:
    """Upwards, sideways, unplanned, and as a module of the package: each is found."""
    path = tmp_path / "module.py"
    for line, own in [
        ("from asyncpipe.engine import Pipeline", "report"),
        ("from asyncpipe.media import sniff", "ledger"),
        ("from asyncpipe import ledger", "jobs"),
        ("import asyncpipe.cli.app", "engine"),
        ("from asyncpipe import Pipeline", "cli"),
        ("from asyncpipe.jobs import Job", "simulator"),
        ("from asyncpipe.nowhere import x", "engine"),
    ]:
        path.write_text(line, encoding="utf-8")
        assert wrong_imports(path, own) != [], line
    path.write_text("from asyncpipe.jobs import Job\nfrom asyncpipe import errors\n")
    assert wrong_imports(path, "ledger") == []


def test_the_root_stays_small() -> None:
    """At most nine files; everything else lives in one of eighteen rooms."""
    assert len(list(PACKAGE.glob("*.py"))) <= 9
    assert len(ROOMS) == 18


def cycle(arrows: dict[str, set[str]]) -> list[str]:
    """One way from a place back to itself; empty where there is none."""
    done: set[str] = set()

    def walk(place: str, way: list[str]) -> list[str]:
        if place in way:
            return [*way[way.index(place) :], place]
        if place in done:
            return []
        for each in sorted(arrows.get(place, ())):
            if found := walk(each, [*way, place]):
                return found
        done.add(place)
        return []

    for place in sorted(arrows):
        if found := walk(place, []):
            return found
    return []


def file_arrows() -> dict[str, set[str]]:
    """Which file needs which, a room's own ``__init__`` followed to where the name is defined."""
    homes: dict[tuple[str, str], str] = {}
    for path in modules():
        if path.name == "__init__.py":
            for module, name in imports(path):
                homes[name_of(path), name] = module
    arrows: dict[str, set[str]] = {}
    for path in modules():
        if path.name != "__init__.py":
            own = name_of(path)
            arrows[own] = {homes.get(pair, pair[0]) for pair in imports(path)} - {own}
    return arrows


def test_no_file_needs_one_that_needs_it() -> None:
    """Nor a file itself: every file can be read after those it stands on."""
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle(file_arrows()) == []


def test_rooms_are_entered_by_their_doors() -> None:
    """What others use of a room stands in its ``__init__``, and nothing else does."""
    doors = {name_of(path): path for path in modules() if path.name == "__init__.py"}
    used: dict[str, set[str]] = {door: set() for door in doors}
    for path in modules():
        own = name_of(path)
        for module, name in imports(path):
            door = max((d for d in doors if f"{module}.".startswith(f"{d}.")), key=len)
            if (path.name == "__init__.py" and own == door) or f"{own}.".startswith(f"{door}."):
                continue
            assert module == door, f"{path.name} climbs into {module}"
            used[door].add(name)
    users = {"asyncpipe", "asyncpipe.simulator", "asyncpipe.cli", "asyncpipe.webhooks"}
    users |= {"asyncpipe.metrics", "asyncpipe.traces", "asyncpipe.simulator.profiles"}
    users |= {"asyncpipe.simulator.profiles.fal", "asyncpipe.simulator.profiles.replicate"}
    users |= {"asyncpipe.providers.kit", "asyncpipe.testing"}
    for door in set(doors) - users:
        listed = [
            ast.literal_eval(node.value)
            for node in ast.parse(doors[door].read_text(encoding="utf-8")).body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        ]
        assert listed, f"{door} has no __all__"
        provider = "connect" in listed[0] and door != "asyncpipe.providers"
        by_name = FOUND_BY_NAME - (MAY_LACK - {*listed[0]}) if provider else set()
        assert set(listed[0]) == used[door] | by_name | OFFERED.get(door, set()), door


OFFERED = {
    "asyncpipe.providers": {
        "Cancelled",
        "HasBills",
        "HasCancel",
        "HasKeys",
        "media_s_of",
    }
}
"""What whoever writes a provider takes of a room, whether or not another room does."""


FOUND_BY_NAME = {"KEY_VARIABLES", "connect", "has_key", "known_prices"}
"""What ``providers.connect`` and its like take of a provider's folder, by the folder's name."""

MAY_LACK = {"known_prices"}
"""What a folder has only where there is anything to say."""

ATLAS = re.compile("atlas", re.IGNORECASE)


def knows_atlas(path: Path) -> list[str]:
    """Lines of a file that know Atlas Cloud; its public name in the package apart."""
    text = path.read_text(encoding="utf-8")
    if path == PACKAGE / "__init__.py":
        text = re.sub(r"\bAtlasCloud\b|\bproviders\.atlas\b", "", text)
    return [line.strip() for line in text.splitlines() if ATLAS.search(line)]


def test_one_provider_is_known_in_its_own_place_only() -> None:
    """Outside providers/ and simulator/ nobody knows Atlas Cloud: the next provider is a folder."""
    own = (PACKAGE / "providers", PACKAGE / "simulator")
    others = [path for path in modules() if not path.is_relative_to(own[0])]
    others = [path for path in others if not path.is_relative_to(own[1])]
    assert {path.name: found for path in others if (found := knows_atlas(path))} == {}


def test_a_name_of_one_provider_is_seen(tmp_path: Path) -> None:
    """In code, in a comment, in a message, in any case."""
    path = tmp_path / "module.py"
    for line in ['key("atlas")', "# see Atlas Cloud's notes", 'say("set ATLASCLOUD_API_KEY")']:
        path.write_text(f"x = 1\n{line}\n", encoding="utf-8")
        assert knows_atlas(path) == [line]


def test_no_two_classes_of_a_name() -> None:
    """Whoever reads a name in one room means the same by it in every other."""
    homes: dict[str, list[str]] = {}
    for path in modules():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(name_of(path))
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_is_for(room: str) -> None:
    """In a few lines, where whoever opens it looks first."""
    tree = ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8"))
    assert len((ast.get_docstring(tree) or "").splitlines()) >= 1


SQL = re.compile(
    r"\b(SELECT\s.+\sFROM|INSERT\s+(OR\s+\w+\s+)?INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM|PRAGMA\s"
    r"|CREATE\s+(TEMP\s+)?(TABLE|VIEW|INDEX))\b",
    re.DOTALL,
)


def sql_in(path: Path) -> list[str]:
    """What a file has of databases: the module, and texts that speak to one."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] == "sqlite3"]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sqlite3":
            found.append("sqlite3")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += [match[0][:40] for match in SQL.finditer(node.value)]
        elif isinstance(node, ast.JoinedStr):
            found += [match[0][:40] for match in SQL.finditer(ast.unparse(node))]
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_ledger_speaks_to_a_database(path: Path) -> None:
    """A second store is one file behind the same face; the simulator's own books apart."""
    if path.relative_to(PACKAGE).parts[0] not in ("ledger", "simulator"):
        assert sql_in(path) == []


def test_sql_outside_the_ledger_is_seen(tmp_path: Path) -> None:
    """The module, whatever is taken of it, and a query that begins on another line."""
    path = tmp_path / "module.py"
    for line in [
        "import sqlite3",
        "from sqlite3 import Connection",
        "def f():\n    import sqlite3",
        'Q = "SELECT id FROM jobs"',
        'Q = """\nSELECT j.id,\n j.name\nFROM jobs j"""',
        "Q = f'SELECT {1} FROM jobs'",
        "Q = 'INSERT OR REPLACE INTO assets VALUES(1)'",
        "Q = 'UPDATE jobs SET state=1'",
        "Q = 'DELETE FROM uploads'",
        "Q = 'PRAGMA user_version'",
    ]:
        path.write_text(line, encoding="utf-8")
        assert sql_in(path) != [], line
    path.write_text('"""Select what comes from the ledger; insert it into rows."""')
    assert sql_in(path) == []


def test_public_names_are_few_sorted_and_there() -> None:
    """No more than signatures need, sorted, and each can be imported; tests/typing has more."""
    names = asyncpipe.__all__
    assert names == sorted(names)
    assert len(names) <= 160
    assert set(names) | {"__version__"} == set(dir(asyncpipe))


def test_every_public_name_is_used_as_users_write_it() -> None:
    """In the file that only mypy reads: what a name's types promise is held to there."""
    tree = ast.parse((PROJECT / "tests" / "typing" / "api.py").read_text(encoding="utf-8"))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert set(asyncpipe.__all__) - used == set()


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_functions_stay_short(path: Path) -> None:
    """None over 60 lines; a file is as long as its one idea."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 60, node.name


def test_every_test_that_readme_names_is_there() -> None:
    """A promise that names a test which is gone is an empty one."""
    named = set(re.findall(r"`(test_\w+)`", (PROJECT / "README.md").read_text(encoding="utf-8")))
    tests = modules(PROJECT / "tests")
    written = "".join(path.read_text(encoding="utf-8") for path in tests)
    assert len(named) > 10
    assert {name for name in named if f"def {name}(" not in written} == set()


def test_no_test_file_is_made_of_another() -> None:
    """What tests share stands in ``tests/support``; a file of tests can be read, or go, alone.

    What a contract is stands beside the tests that hold providers or stores to it; so do examples.
    """
    contracts = ("tests.contract.provider.", "tests.contract.toy.")
    shared = ("tests.support.", "tests.examples.celery_shop.", *contracts)
    for path in modules(PROJECT / "tests"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if isinstance(node, ast.Import):
                named = [alias.name for alias in node.names]
            others = [name for name in named if f"{name}.".startswith("tests.")]
            assert [n for n in others if not f"{n}.".startswith(shared)] == [], path


def test_a_users_program_that_is_type_checked_has_every_public_name() -> None:
    """What is public and not in it could lose its types unseen."""
    tree = ast.parse((PROJECT / "tests" / "typing" / "api.py").read_text(encoding="utf-8"))
    taken = {
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == "asyncpipe"
        for alias in node.names
    }
    assert taken == set(asyncpipe.__all__)


def test_no_test_file_takes_from_another() -> None:
    """What several need lies in ``tests/support``."""
    for path in modules(PROJECT / "tests"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert not re.search(r"^tests\..*\btest_", node.module or ""), path.name


def test_each_promise_has_one_file_that_shows_it() -> None:
    """All tests that a row of README's guarantees names lie together in ``tests/promises``."""
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("| promise |")[2].partition("\n\n")[0]
    rows = [named for row in table.splitlines() if (named := re.findall(r"`(test_\w+)`", row))]
    files = {path: path.read_text("utf-8") for path in modules(PROJECT / "tests" / "promises")}
    homes = [
        [path for path, text in files.items() if all(f"def {name}(" in text for name in named)]
        for named in rows
    ]
    assert len(rows) > 5
    assert [len(found) for found in homes] == [1] * len(rows)
    assert len({found[0] for found in homes}) == len(rows)
