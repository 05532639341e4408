"""A way to the API that is set up wrongly is told at once, with the remedy: real TLS, proxies."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from asyncpipe import AtlasCloud, Job, Pipeline
from asyncpipe.errors import CannotConnect, DownloadError, NotSent, PollFailed, UsageError
from asyncpipe.media.downloader import Downloader
from asyncpipe.media.source import Target
from asyncpipe.pricing import Quotes
from asyncpipe.providers.catalog import get_catalogue
from asyncpipe.simulator import Simulator, SimulatorSettings
from tests.support.proxies import HOST, KEY, command, proxied

FLUX = "black-forest-labs/flux-2-pro/text-to-image"
UNPRICED = "nobody/knows-its-price/text-to-image"
TRUST = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
NEEDS_LOGIN = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"


class Place:
    """A folder with a job file, the variables that lead through a proxy, and the CA of the test."""

    def __init__(self, folder: Path, port: int, ca: Path) -> None:
        self.folder, self.port, self.ca = folder, port, str(ca)
        self.jobs = str(folder / "jobs.yaml")
        self.write(FLUX)

    def write(self, model: str) -> None:
        text = f"jobs:\n  - {{name: 杯, model: {model}, prompt: a mug}}\n"
        Path(self.jobs).write_text(text, encoding="utf-8")

    async def run(self, *arguments: str, proxy: str = "", **variables: str) -> tuple[int, str]:
        kept = {name: value for name, value in os.environ.items() if name not in TRUST}
        environment = {
            **kept,
            "HTTPS_PROXY": proxy or f"http://127.0.0.1:{self.port}",
            "ATLASCLOUD_API_KEY": KEY,
            "ATLASCLOUD_BASE_URL": f"https://{HOST}/api/v1",
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "HOME": str(self.folder),
            **variables,
        }
        return await asyncio.wait_for(command(environment, *arguments), 250)

    @property
    def asking(self) -> list[tuple[str, ...]]:
        """Every command that asks the API before it knows of any folder."""
        out = str(self.folder / "out")
        return [
            ("run", self.jobs, "-o", out, "--max-cost", "1"),
            ("estimate", self.jobs),
            ("models",),
        ]


def at_a_proxy(
    tmp_path: Path, steps: Callable[[Place, Simulator, list[str]], Any], answer: bytes | None = None
) -> None:
    """Run ``steps`` behind a proxy whose tunnels end at TLS with a certificate of our own CA."""
    ca, trusted = trustme.CA(), tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(trusted))

    async def main() -> None:
        async with Simulator(SimulatorSettings(speed=1000.0)) as simulator:
            port = int(simulator.base_url.split(":")[2].split("/")[0])
            async with proxied(port, ca, answer) as (at, heads):
                await steps(Place(tmp_path, at, trusted), simulator, heads)

    asyncio.run(main())


@pytest.mark.parametrize("model", [FLUX, UNPRICED])
def test_a_certificate_that_is_not_trusted_ends_every_command(tmp_path: Path, model: str) -> None:
    """Exit 2 that names SSL_CERT_FILE, and never "no known price"; with it they go well."""

    async def steps(place: Place, simulator: Simulator, _: list[str]) -> None:
        place.write(model)
        for arguments in place.asking:
            code, said = await place.run(*arguments)
            assert code == 2, (arguments, said)
            assert "certificate" in said
            assert "SSL_CERT_FILE" in said
            assert "no known price" not in said
            assert "trying again" not in said
        assert simulator.books.predictions() == []
        code, said = await place.run(*place.asking[1], SSL_CERT_FILE=place.ca)
        assert code == 0, said

    at_a_proxy(tmp_path, steps)


def test_a_folder_with_paid_work_is_told_at_once_too(tmp_path: Path) -> None:
    """Not after the deadline of what is in flight: by run, collect, reconcile and resolve."""

    async def steps(place: Place, simulator: Simulator, _: list[str]) -> None:
        run = (*place.asking[0], "--patience", "1")
        # The media are on this machine, where none may be: refused, so 75, and paid work is left.
        code, said = await place.run(*run, SSL_CERT_FILE=place.ca)
        assert code == 75, said
        out = str(tmp_path / "out")
        for arguments in (
            run,
            ("collect", out),
            ("reconcile", out),
            ("resolve", out, "--find"),
        ):
            code, said = await place.run(*arguments)
            assert code == 2, (arguments, said)
            assert "SSL_CERT_FILE" in said
        assert len(simulator.books.predictions()) == 1

    at_a_proxy(tmp_path, steps)


def test_what_other_programs_read_for_certificates_counts_and_ours_goes_first(
    tmp_path: Path,
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))

    async def steps(place: Place, _: Simulator, __: list[str]) -> None:
        ours, estimate = place.ca, place.asking[1]
        for good in (
            {"REQUESTS_CA_BUNDLE": ours},
            {"CURL_CA_BUNDLE": ours},
            {"REQUESTS_CA_BUNDLE": ours, "CURL_CA_BUNDLE": str(other)},
            {"SSL_CERT_FILE": ours, "REQUESTS_CA_BUNDLE": str(other)},
            {"SSL_CERT_FILE": ours, "REQUESTS_CA_BUNDLE": "/no/such/file"},
            {"SSL_CERT_FILE": "", "REQUESTS_CA_BUNDLE": ours},
        ):
            code, said = await place.run(*estimate, **good)
            assert code == 0, (good, said)
        for bad, name in (
            ({"SSL_CERT_FILE": str(other), "REQUESTS_CA_BUNDLE": ours}, "SSL_CERT_FILE"),
            ({"REQUESTS_CA_BUNDLE": str(other)}, "SSL_CERT_FILE"),
            ({"REQUESTS_CA_BUNDLE": "/no/such/file"}, "REQUESTS_CA_BUNDLE"),
            ({"CURL_CA_BUNDLE": place.jobs}, "CURL_CA_BUNDLE"),
            ({"SSL_CERT_FILE": "/no/such/file"}, "/no/such/file"),
        ):
            code, said = await place.run(*estimate, **bad)
            assert (code, name in said) == (2, True), (bad, said)

    at_a_proxy(tmp_path, steps)


def test_a_proxy_that_wants_a_password_is_told_at_once(tmp_path: Path) -> None:
    """With how to write one; the password that was given is never said."""

    async def steps(place: Place, _: Simulator, heads: list[str]) -> None:
        for arguments in place.asking:
            proxy = f"http://user:secret-word@127.0.0.1:{place.port}"
            code, said = await place.run(*arguments, proxy=proxy, SSL_CERT_FILE=place.ca)
            assert code == 2, (arguments, said)
            assert "407" in said
            assert "%40" in said
            assert "%23" in said
            assert "secret-word" not in said
            assert "no known price" not in said
        assert heads

    at_a_proxy(tmp_path, steps, NEEDS_LOGIN)


@pytest.mark.parametrize(
    "proxy",
    [
        "http://user:sec#ret@127.0.0.1:{port}",
        "http://user:9#ret@127.0.0.1:{port}",
        "http://user:sec/ret@127.0.0.1:{port}",
        "http://user:sec?ret@127.0.0.1:{port}",
        "http://user:sec[ret@127.0.0.1:{port}",
        "http://用户:密码@127.0.0.1:{port}",
        "http://127.0.0.1:{port}x",
        "socks5://127.0.0.1:{port}",
        "http://",
    ],
)
def test_a_proxy_that_cannot_be_used_is_told_at_once(tmp_path: Path, proxy: str) -> None:
    async def steps(place: Place, _: Simulator, heads: list[str]) -> None:
        for arguments in place.asking:
            spelled = proxy.format(port=place.port)
            code, said = await place.run(*arguments, proxy=spelled, SSL_CERT_FILE=place.ca)
            assert code == 2, (arguments, said)
            assert "HTTPS_PROXY" in said
            assert "socks5" in said or "%23" in said
            assert "ret@" not in said
        assert heads == []

    at_a_proxy(tmp_path, steps)


def test_an_at_in_a_password_is_understood(tmp_path: Path) -> None:
    """As curl does: the last one ends it."""

    async def steps(place: Place, _: Simulator, heads: list[str]) -> None:
        proxy = f"http://user:p@ss@127.0.0.1:{place.port}"
        code, said = await place.run("models", proxy=proxy, SSL_CERT_FILE=place.ca)
        assert code == 0, said
        assert heads

    at_a_proxy(tmp_path, steps)


def test_in_the_library_it_is_raised_by_whatever_asks_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By opening a pipeline, by a quote, the catalogue and the balance."""

    async def steps(place: Place, simulator: Simulator, _: list[str]) -> None:
        for name in TRUST:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{place.port}")
        provider = AtlasCloud(KEY, base_url=f"https://{HOST}")
        job = Job(name="杯", model=FLUX, prompt="a mug")
        with pytest.raises(CannotConnect, match="SSL_CERT_FILE") as caught:
            async with Pipeline(provider, tmp_path / "out"):
                pass
        assert isinstance(caught.value, UsageError)
        async with provider:
            quoting = Quotes(provider)
            quoting.want(job)
            for asking in (
                quoting.fill(),
                get_catalogue(provider, refresh=True),
                provider.balance(),
                provider.submit(job),
                provider.poll("p"),
            ):
                with pytest.raises(CannotConnect):
                    await asking
        assert simulator.books.predictions() == []

    at_a_proxy(tmp_path, steps)


def test_after_the_first_answer_it_is_trouble_like_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy whose session ran out in mid-run is waited for; media hosts are from the start."""

    async def steps(place: Place, _: Simulator, heads: list[str]) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", place.ca)
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{place.port}")
        async with AtlasCloud(KEY, base_url=f"https://{HOST}") as provider:
            await provider.balance()
            refusing = await asyncio.start_server(_refuse, "127.0.0.1", 0)
            async with refusing:
                at = refusing.sockets[0].getsockname()[1]
                provider._http._proxy = f"http://127.0.0.1:{at}"
                with pytest.raises(NotSent):
                    await provider.submit(Job(name="杯", model=FLUX, prompt="a mug"))
                with pytest.raises(PollFailed):
                    await provider.poll("p")
                monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{at}")
                async with Downloader(tmp_path, public_only=True) as downloader:
                    target = Target(stem="x", part="1.part", default_extension="png")
                    with pytest.raises(DownloadError):
                        await downloader.fetch("https://media.example.com/x.png", target)
        assert heads

    at_a_proxy(tmp_path, steps)


async def _refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(NEEDS_LOGIN)
    await writer.drain()
    writer.close()
