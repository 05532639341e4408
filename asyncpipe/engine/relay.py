"""A pipeline's provider, and those that its jobs may fall back to: who makes what in which lane."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from asyncpipe.errors import PollFailed, Rejected, UsageError
from asyncpipe.jobs import Job, in_lane, read_lane
from asyncpipe.pricing import HasQuotes, Quote
from asyncpipe.providers import HasKeys, Prediction, Provider

_MARK = "@"
"""Begins the route of another provider's prediction: its name, and its own route, follow."""


def told_apart(prediction_id: str, route: str) -> str:
    """A prediction's id, which no other provider's prediction has."""
    if not route.startswith(_MARK):
        return prediction_id
    name = route.split(_MARK, 2)[1]
    return f"{_MARK}{name}{_MARK}{prediction_id}"


class Relay:
    """Submits each job to the provider of its lane, and polls where it was submitted.

    ``others`` are the providers besides; ``main`` is the pipeline's own, and its routes are kept as
    they are. Raises UsageError for two of one name.
    """

    def __init__(self, main: Provider, others: Iterable[Provider] = ()) -> None:
        self.main = main
        self._others: dict[str, Provider] = {}
        for each in others:
            if each.name in (main.name, *self._others):
                raise UsageError(f"two providers are named {each.name!r}: give one of each")
            self._others[each.name] = each

    def __iter__(self) -> Iterator[Provider]:
        return iter((self.main, *self._others.values()))

    @property
    def others(self) -> tuple[Provider, ...]:
        """The providers besides the pipeline's own."""
        return tuple(self._others.values())

    def has(self, name: str) -> bool:
        """Whether there is a provider of this name."""
        return name in ("", self.main.name, *self._others)

    def maker(self, job: Job) -> Provider:
        """Who makes a job that is in its lane."""
        return self._named(read_lane(job.model).provider)

    def plain(self, job: Job) -> Job:
        """The job as its maker knows it: the model without the provider's name."""
        lane = read_lane(job.model)
        return in_lane(job, lane.model) if self._is_others(lane.provider) else job

    def _is_others(self, name: str) -> bool:
        return name in self._others

    def _named(self, name: str) -> Provider:
        # A model of the main one may look like a lane: it is its own where nobody has that name.
        return self._others.get(name, self.main)

    def bought_from(self, route: str) -> Provider | None:
        """Who made a prediction of this route; None: a provider that is not here."""
        if not route.startswith(_MARK):
            return self.main
        return self._others.get(route.split(_MARK, 2)[1])

    async def submit(self, job: Job, key: str | None = None) -> Prediction:
        """Buy one prediction, as ``Provider.submit`` says."""
        maker, job = self.maker(job), self.plain(job)
        if key is not None and isinstance(maker, HasKeys):
            answer = await maker.submit(job, key=key)
        else:
            answer = await maker.submit(job)
        if maker is self.main:
            return answer
        return replace(answer, route=f"{_MARK}{maker.name}{_MARK}{answer.route}")

    async def poll(self, prediction_id: str, *, route: str = "") -> Prediction:
        """Ask for a prediction once, as ``Provider.poll`` says."""
        if not route.startswith(_MARK):
            return await self.main.poll(prediction_id, route=route)
        _, name, own = route.split(_MARK, 2)
        maker = self._others.get(name)
        if maker is None:
            raise PollFailed(f"it was bought from {name}, which this pipeline does not have")
        return replace(await maker.poll(prediction_id, route=own), route=route)


class QuoteRelay:
    """Asks the provider of a job's lane what it costs."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    async def quote(self, job: Job) -> Quote:
        """Ask, as ``HasQuotes`` says; raises Rejected where that provider gives none."""
        maker = self._relay.maker(job)
        if not isinstance(maker, HasQuotes):
            raise Rejected(f"{maker.name} gives no quotes", status=404)
        return await maker.quote(self._relay.plain(job))
