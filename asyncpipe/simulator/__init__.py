"""An Atlas Cloud look-alike with its own books, real pictures and clips, and faults on demand.

It shares no code with the client, so that it cannot share its mistakes. For tests of your own::

    async with Simulator(SimulatorSettings(speed=100)) as simulator:
        provider = AtlasCloud("any", base_url=simulator.base_url)
        ...
        assert simulator.books.charged() == Decimal("0.04")

``SimulatorSettings(faults=Faults.parse("all=0.1"))`` makes everything go wrong now and then that a
careful client recovers from: run your pipeline against it and see that it still gets every output,
that ``books.predictions()`` holds each one once, and that ``books.media_credentials()`` is 0. What
cannot be recovered has names of its own (``dropped``, ``lost_media`` …): then see that your
pipeline says so. ``Faults.kinds()``, or ``asyncpipe simulate --list-faults``, lists them all.
"""

from asyncpipe.simulator.books import BookedPrediction, Books
from asyncpipe.simulator.faults import Faults
from asyncpipe.simulator.server import Simulator
from asyncpipe.simulator.settings import SimulatorSettings

__all__ = ["BookedPrediction", "Books", "Faults", "Simulator", "SimulatorSettings"]
