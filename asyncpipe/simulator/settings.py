"""How a simulator behaves: speed, wire, faults, money."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from asyncpipe.errors import UsageError
from asyncpipe.simulator.faults import Faults

WIRES = ("canonical", "article")

CATALOGS = ("article", "live")

_HANG_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulatorSettings:
    """One simulator.

    ``profile`` is the provider whose API it looks like. ``speed`` divides generation times.
    ``wire`` is ``canonical`` or ``article``. ``books`` is a file that survives the process; None
    keeps them in memory. ``api_key`` is the only key accepted; None accepts any. ``accounts`` are
    ids of accounts by key, each with predictions, money and a history of its own; every other key
    has the account ``acct-simulated``. ``generation_s`` overrides the time a prediction takes
    (before ``speed``); None: 8-20 s for an image, 30-90 s for a video. ``body_bytes`` makes media
    of that size instead of drawing them. ``hang_s`` is how long a hung poll and a slow download
    last, in seconds; None: 60 divided by ``speed``. ``history_lag_s`` is how long the fault
    ``history_lag`` hides a prediction, and ``late_sale`` puts a sale off, in seconds.
    ``balance_usd`` is the account's money before the first prediction in the books: submits beyond
    it are answered 402; None: no end of it. Port 0 takes a free one; ``media_port`` is that of the
    second site, which is there with the fault ``redirected``. ``catalog`` ``article`` sells the
    article's ids at its prices, and any other model; ``live`` today's models alone, at today's
    prices, and refuses what their schemas do not allow. ``in_flight`` is the most predictions of
    one model at once, ``requests_per_second`` the most submits and polls in any second, refused
    ones counted: beyond either comes a 429 without a hint, as from the real API; None: no limit.
    Raises UsageError for what cannot be.
    """

    profile: str = "atlas"
    seed: int = 0
    speed: float = 20.0
    wire: str = "canonical"
    faults: Faults = field(default_factory=Faults)
    books: Path | None = None
    host: str = "127.0.0.1"
    port: int = 0
    media_port: int = 0
    api_key: str | None = None
    generation_s: tuple[float, float] | None = None
    body_bytes: int | None = None
    hang_s: float | None = None
    history_lag_s: float = 5.0
    accounts: Mapping[str, str] = field(default_factory=dict)
    balance_usd: Decimal | None = None
    catalog: str = "article"
    in_flight: int | None = None
    requests_per_second: float | None = None

    def __post_init__(self) -> None:
        if self.wire not in WIRES:
            raise UsageError(f"wire {self.wire!r}: there are {', '.join(WIRES)}")
        if self.catalog not in CATALOGS:
            raise UsageError(f"catalog {self.catalog!r}: there are {', '.join(CATALOGS)}")
        if not self.speed > 0:
            raise UsageError(f"speed {self.speed!r} must be above 0")
        for name in ("in_flight", "requests_per_second"):
            limit = getattr(self, name)
            if limit is not None and not limit > 0:
                raise UsageError(f"{name} {limit!r} must be above 0")
        if self.hang_s is not None and not self.hang_s >= 0:
            raise UsageError(f"hang_s {self.hang_s!r} must be at least 0")
        if not self.history_lag_s >= 0:
            raise UsageError(f"history_lag_s {self.history_lag_s!r} must be at least 0")
        if self.balance_usd is not None and not (
            self.balance_usd.is_finite() and self.balance_usd >= 0
        ):
            raise UsageError(f"balance_usd {self.balance_usd} must be at least 0")

    @property
    def held_s(self) -> float:
        """How long a hung poll and a slow download last, in seconds."""
        return _HANG_S / self.speed if self.hang_s is None else self.hang_s
