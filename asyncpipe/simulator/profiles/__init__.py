"""The APIs that the simulator looks like: a module each, found by its provider's name.

A profile is the wire alone: paths, keys, words. Media, books and faults are the simulator's, what
is sold goes through ``sales``. A new one is a module beside these with ``profile(service)``.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Protocol

from aiohttp import web

from asyncpipe.errors import UsageError
from asyncpipe.simulator.wire import Service


class Profile(Protocol):
    """One API on the wire; ``base_path`` is what its base URL has after host and port."""

    base_path: str

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add the API's paths; what is under /media, /uploads and /books is there already."""

    def refusal(self, request: web.Request) -> web.StreamResponse | None:
        """What is answered before any path is looked at: to a wrong key, beyond a rate.

        None: it may pass.
        """

    def elsewhere(self, request: web.Request) -> web.StreamResponse:
        """What is answered where there is no such path."""


def profiles() -> tuple[str, ...]:
    """The names of the profiles there are."""
    return tuple(sorted(module.name for module in iter_modules(__path__)))


def profile_of(name: str, service: Service) -> Profile:
    """Make the profile of this name; raises UsageError where there is none."""
    module = f"{__name__}.{name}"
    if not name.isidentifier() or find_spec(module) is None:
        raise UsageError(f"the simulator has no profile {name!r}: it has {', '.join(profiles())}")
    profile: Profile = import_module(module).profile(service)
    return profile
