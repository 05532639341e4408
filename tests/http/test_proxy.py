"""Through a proxy that tunnels TLS: what it is told, by whole commands, with a CA of our own."""

from __future__ import annotations

import asyncio
import os
from base64 import b64encode
from pathlib import Path

import pytest
import trustme

from asyncpipe.simulator import Simulator, SimulatorSettings
from tests.support.proxies import HOST, KEY, command, proxied


@pytest.mark.parametrize("login", ["", "user:word@"])
def test_a_proxy_is_never_told_the_key(tmp_path: Path, login: str) -> None:
    """Not by a run, an estimate, the catalogue or the bill; the API behind it is told each time."""
    ca, trusted = trustme.CA(), tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(trusted))
    job = f"jobs:\n  - {{name: 杯, model: {MODEL}, prompt: a mug}}\n"
    (tmp_path / "jobs.yaml").write_text(job, encoding="utf-8")

    async def main() -> None:
        settings = SimulatorSettings(speed=1000.0)
        async with (
            Simulator(settings) as simulator,
            proxied(int(simulator.base_url.split(":")[2].split("/")[0]), ca) as (port, heads),
        ):
            environment = {
                **os.environ,
                "HTTPS_PROXY": f"http://{login}127.0.0.1:{port}",
                "SSL_CERT_FILE": str(trusted),
                "ATLASCLOUD_API_KEY": KEY,
                "ATLASCLOUD_BASE_URL": f"https://{HOST}/api/v1",
            }
            jobs, out = str(tmp_path / "jobs.yaml"), str(tmp_path / "out")
            code, said = await command(environment, "estimate", jobs)
            assert code == 0, said
            code, said = await command(environment, "models")
            assert code == 0, said
            # The media are where no proxy is asked for them, on this machine: refused, so 75.
            run = ("run", jobs, "-o", out, "--max-cost", "1", "--patience", "1")
            code, said = await command(environment, *run)
            assert code == 75, said
            await command(environment, "reconcile", out)
            assert len(simulator.books.predictions()) == 1
            assert len(heads) >= 4
            for head in heads:
                assert head.startswith(f"CONNECT {HOST}:443 ")
                assert KEY not in head
                assert "bearer" not in head.lower()
                password = f"Basic {b64encode(login[:-1].encode()).decode()}"
                assert ("Proxy-Authorization" in head) == (password in head) == bool(login)

    asyncio.run(main())


MODEL = "black-forest-labs/flux-2-pro/text-to-image"
