"""An Atlas Cloud look-alike with its own books, real pictures and clips, and faults on demand.

It shares no code with the client, so that it cannot share its mistakes. For tests of your own::

    async with Simulator(SimulatorSettings(speed=100)) as simulator:
        provider = AtlasCloud("any", base_url=simulator.base_url)
        ...
        assert simulator.books.charged() == Decimal("0.04")
"""

from asyncpipe.simulator.books import BookedPrediction, Books
from asyncpipe.simulator.server import Simulator
from asyncpipe.simulator.settings import Faults, SimulatorSettings

__all__ = ["BookedPrediction", "Books", "Faults", "Simulator", "SimulatorSettings"]
