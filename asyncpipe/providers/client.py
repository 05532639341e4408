"""What every provider's client begins with: its place, its key, its connections."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from yarl import URL

from asyncpipe.http import DEFAULT_TIMEOUTS, HttpAnswer, HttpClient, Timeouts
from asyncpipe.providers.key import account_word, redactor_of, without_key


class ApiProvider:
    """A provider behind one JSON-over-HTTP API; a subclass has ``name``, ``submit`` and ``poll``.

    ``headers`` hold the key and go to ``base`` alone. What is asked through ``post``, ``get`` and
    ``ask`` comes back without the key, wherever the API repeats it.
    """

    name: str

    def __init__(
        self,
        base: URL,
        key: str,
        *,
        headers: Mapping[str, str],
        simulated: bool,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
    ) -> None:
        self._base = base
        self._simulated = simulated
        self._account = account_word(key)
        self._redactor = redactor_of(key)
        self._http = HttpClient(str(base), headers=headers, timeouts=timeouts)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.origin})"

    @property
    def origin(self) -> str:
        """``https://host``, or ``simulator``."""
        return "simulator" if self._simulated else str(self._base.origin())

    @property
    def simulated(self) -> bool:
        """Whether its pictures are made up and its money is not real."""
        return self._simulated

    @property
    def account(self) -> str:
        """A word that tells accounts apart: 12 hex digits of a hash of the key; empty without one.

        It names what is learned about an account in the user's cache folder.
        """
        return self._account

    async def __aenter__(self) -> Self:
        """Open its connections. Raises UsageError for a proxy that cannot be used."""
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.__aexit__(exc_type, exc, traceback)

    def _clean(self, answer: HttpAnswer) -> HttpAnswer:
        """The same answer, without the key where it repeats it."""
        return without_key(answer, self._redactor)
