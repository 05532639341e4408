"""Providers found by name: folders that are here, and entry points of other packages."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from asyncpipe._text import meant
from asyncpipe.errors import UsageError

GROUP = "asyncpipe.providers"
"""The group of entry points, and the package whose folders are the built-in ones."""

VARIABLE = "ASYNCPIPE_PROVIDER"
"""The environment variable that names the provider where nothing else does."""

_NEEDED = ("connect", "has_key", "KEY_VARIABLES")


def provider_names() -> list[str]:
    """The names of all providers there are, built-in ones and those of other packages."""
    loaded, spec = sys.modules.get(GROUP), find_spec(GROUP)
    places = loaded.__path__ if loaded else (spec and spec.submodule_search_locations) or []
    folders = {
        path.parent.name
        for place in places
        for path in Path(place).glob("*/__init__.py")
        if path.parent.name != "catalog"
    }
    return sorted(folders | {point.name for point in entry_points(group=GROUP)})


def find_provider(name: str) -> Any:
    """The module, or whatever else, that a provider is made by; a folder goes before a package's.

    It has ``connect``, ``has_key`` and ``KEY_VARIABLES``. Raises UsageError where there is none of
    this name, or it cannot be loaded.
    """
    module = f"{GROUP}.{name}"
    if name.isidentifier() and find_spec(module) is not None:
        folder = import_module(module)
        if hasattr(folder, "connect"):
            return folder
    found = _loaded(name)
    if found is None:
        raise UsageError(no_provider(name))
    return found


def no_provider(name: str) -> str:
    """What is said of a name that no provider has."""
    known = provider_names()
    near = meant(name, known)
    return f"there is no provider {name!r}{near or '; there are ' + ', '.join(known)}"


def _loaded(name: str) -> Any:
    for point in entry_points(group=GROUP, name=name):
        where = f"the provider {name!r} of {point.dist.name if point.dist else 'some package'}"
        try:
            found = point.load()
        except Exception as exc:  # whatever a stranger's module does when it is imported
            raise UsageError(f"{where} cannot be loaded: {exc!r}") from exc
        if lacking := [each for each in _NEEDED if not hasattr(found, each)]:
            raise UsageError(f"{where} has no {', '.join(lacking)}: {point.value} must have them")
        return found
    return None


def provider_of_environment() -> str | None:
    """The provider that the environment names, or None."""
    return os.environ.get(VARIABLE, "").strip() or None
