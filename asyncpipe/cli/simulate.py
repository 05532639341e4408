"""``asyncpipe simulate``: the simulator as a server."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path

import anyio
import click

from asyncpipe.errors import UsageError
from asyncpipe.simulator import Faults, Simulator, SimulatorSettings


def serve(
    *,
    host: str,
    port: int,
    profile: str | None,
    speed: float,
    seed: int,
    wire: str,
    faults: str,
    books: Path | None,
    hang: float | None,
    balance: Decimal | None,
    catalog: str,
    in_flight: int | None,
    requests_per_second: float | None,
) -> None:
    """Serve until interrupted."""
    settings = SimulatorSettings(
        host=host,
        port=port,
        profile=profile or SimulatorSettings().profile,
        speed=speed,
        seed=seed,
        wire=wire,
        faults=Faults.parse(faults),
        books=books,
        hang_s=hang,
        balance_usd=balance,
        catalog=catalog,
        in_flight=in_flight,
        requests_per_second=requests_per_second,
    )
    try:
        asyncio.run(_serve(settings))
    except OSError as exc:
        raise UsageError(
            f"the simulator cannot listen on {host}:{port} ({exc.strerror or exc}): "
            "choose another with --port, or 0 for a free one"
        ) from exc


async def _serve(settings: SimulatorSettings) -> None:
    async with Simulator(settings) as simulator:
        named = settings.profile != SimulatorSettings().profile
        of = f" --provider {settings.profile}" if named else ""
        click.echo(f"simulator at {simulator.base_url} (any key will do); Ctrl-C ends it")
        click.echo(f"  asyncpipe run JOBFILE{of} --base-url {simulator.base_url}")
        await anyio.sleep_forever()


def print_faults() -> None:
    """Print every fault: its name, whether a client can recover, what it does."""
    rows = [(kind.name, "yes" if kind.recoverable else "no", kind.text) for kind in Faults.kinds()]
    rows.insert(0, ("fault", "recoverable", "what happens"))
    width, middle = (max(len(row[column]) for row in rows) for column in (0, 1))
    for name, recoverable, text in rows:
        click.echo(f"{name:{width}}  {recoverable:{middle}}  {text}")
    click.echo(
        "\nRecoverable: a client that waits and tries again gets every output it paid for. all=0.1 "
        "sets\nthese; later entries override, as in all=0.1,cut=0. The others must be named."
    )
