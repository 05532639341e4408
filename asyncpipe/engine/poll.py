"""TODO."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from asyncpipe.engine.decide import limits_of
from asyncpipe.errors import ProviderError
from asyncpipe.flow import Traffic
from asyncpipe.jobs import Job
from asyncpipe.providers import Prediction, Provider


class Paced:
    """The same provider for whoever polls; admission has waited for the turns of submits."""

    def __init__(self, provider: Provider, traffic: Traffic, clock: Callable[[], float]) -> None:
        self._provider, self._traffic, self._clock = provider, traffic, clock

    @property
    def name(self) -> str:
        """That of the provider."""
        return self._provider.name

    @property
    def origin(self) -> str:
        """That of the provider."""
        return self._provider.origin

    @property
    def simulated(self) -> bool:
        """Whether the provider is."""
        return self._provider.simulated

    async def submit(self, job: Job) -> Prediction:
        """Submit at once."""
        return await self._provider.submit(job)

    async def poll(self, prediction_id: str, *, route: str = "") -> Prediction:
        """Poll when it is this poll's turn; cancelling gives its place up."""
        await self._traffic.gate.poll_turn()
        try:
            answer = await self._provider.poll(prediction_id, route=route)
        except ProviderError as exc:
            self._traffic.polled(limits_of(exc), self._clock())
            raise
        self._traffic.polled(limits_of(answer), self._clock())
        return answer

    async def __aenter__(self) -> Self:
        await self._provider.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._provider.__aexit__(exc_type, exc, traceback)
