"""How a simulator behaves: speed, wire, faults."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

from asyncpipe.errors import UsageError

WIRES = ("canonical", "article")


@dataclass(frozen=True, kw_only=True, slots=True)
class Faults:
    """What goes wrong, each with a probability from 0 to 1, drawn from the simulator's seed.

    ``rate_limited``: a submit is answered 429 and sells nothing. ``not_found_first``: the first two
    polls of a prediction are answered 404. ``failed``: it ends failed, its money returned.
    ``moderated``: it ends failed with error code 1039. ``dropped``: a submit is taken and charged,
    and its connection closed without an answer. ``cut``: an output's first download breaks off.
    """

    rate_limited: float = 0.0
    not_found_first: float = 0.0
    failed: float = 0.0
    moderated: float = 0.0
    dropped: float = 0.0
    cut: float = 0.0

    def __post_init__(self) -> None:
        for fault in fields(self):
            if not 0 <= getattr(self, fault.name) <= 1:
                raise UsageError(f"fault {fault.name}: its probability must be from 0 to 1")

    @classmethod
    def parse(cls, text: str) -> Faults:
        """Read ``rate_limited=0.1,cut=0.2``; raises UsageError naming what is wrong."""
        known = [fault.name for fault in fields(cls)]
        values: dict[str, float] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = part.partition("=")
            if name.strip() not in known:
                raise UsageError(f"there is no fault {name!r}; there are {', '.join(known)}")
            try:
                values[name.strip()] = float(value)
            except ValueError:
                raise UsageError(f"fault {part!r}: write it like {name}=0.1") from None
        return cls(**values)


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulatorSettings:
    """One simulator.

    ``speed`` divides generation times. ``wire`` is ``canonical`` or ``article``. ``books`` is a
    file that survives the process; None keeps them in memory. ``api_key`` is the only key accepted;
    None accepts any. ``generation_s`` overrides the time a prediction takes (before ``speed``);
    None: 8-20 s for an image, 30-90 s for a video. ``body_bytes`` makes media of that size instead
    of drawing them. Port 0 takes a free one.
    """

    seed: int = 0
    speed: float = 20.0
    wire: str = "canonical"
    faults: Faults = field(default_factory=Faults)
    books: Path | None = None
    host: str = "127.0.0.1"
    port: int = 0
    api_key: str | None = None
    generation_s: tuple[float, float] | None = None
    body_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.wire not in WIRES:
            raise UsageError(f"wire {self.wire!r}: there are {', '.join(WIRES)}")
        if not self.speed > 0:
            raise UsageError(f"speed {self.speed!r} must be above 0")
