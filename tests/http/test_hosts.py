"""Addresses and redirects made to lead inside the user's network: they do not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from asyncpipe.errors import DownloadError, UsageError
from asyncpipe.http.hosts import PublicResolver, check_host, is_public, proxy_for
from asyncpipe.media.downloader import Downloader
from asyncpipe.media.source import Target
from tests.support.servers import PNG, noting

TARGET = Target(stem="images/x", part="1_0.part", default_extension="png")
INSIDE = [
    "127.0.0.1", "127.1", "127.0.1", "2130706433", "017700000001", "0x7f000001", "0x7f.1",
    "0177.0.0.1", "0x7f.0x0.0x0.0x1", "127.0.0.1.", "127.000.000.001", "0", "0.0.0.0", "0x0",
    "１２７.０.０.１", "127。0。0。1", "①②⑦.⓪.⓪.①", "localhost", "LOCALHOST", "localhost.",
    "ⓛocalhost", "api.localhost", "router", "nas.local", "metadata.google.internal",
    "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.100.100.200", "224.0.0.1",
    "240.0.0.1", "255.255.255.255", "3232235521", "0xa9fea9fe", "%31%32%37.0.0.1", "1.2.3",
    "256.1.1.1", "1.2.3.4.5", "127.0.0.1\u200b", "a b", "", "..", "::", "::1", "::127.0.0.1",
    "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::10.0.0.1",
    "2002:7f00:1::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00::1", "fec0::1", "ff02::1",
    "2001:db8::1", "2001::7f00:1",
    # What clouds tell their own machines, however it is spelled.
    "192.0.0.192", "192.0.0.8", "::ffff:192.0.0.192", "64:ff9b::c000:c0", "3221225664",
    "168.63.129.16", "168.63.129.16.", "2822734096", "0xa83f8110", "0250.077.0201.020",
    "168.63.33040", "１６８.６３.１２９.１６", "::ffff:168.63.129.16", "64:ff9b::a83f:8110",
    "2002:a83f:8110::1", "metadata.tencentyun.com", "METADATA.GOOGLE.INTERNAL.", "192.88.99.1",
    # Names that a proxy would resolve unseen by us.
    "127.0.0.1.nip.io", "nip.io", "app.10-0-0-1.nip.io", "7f000001.nip.io", "127-0-0-1.SSLIP.io",
    "www.localtest.me", "localtest.me.", "a.lvh.me", "nas.lan", "NAS.LAN.", "x.home.arpa",
    "home.arpa", "nas.ｌａｎ", "nas。lan", "printer.home", "git.corp", "db.default.svc",
    "kubernetes.default.svc.cluster.local", "x.internal", "a.localdomain", "fritz.box",
    "127.0.0.1.example.com", "a.192-168-1-1.rebound.example",
]  # fmt: skip
OUTSIDE = [
    "8.8.8.8", "198.18.0.7", "198.19.255.254", "atlas-media.oss-us-west-1.aliyuncs.com",
    "static.atlascloud.ai.", "a_b.example.com", "例え.jp", "1.example.com", "0x7f.example",
    "168.63.129.17", "192.0.1.192", "lan.example.com", "home.example", "internal.example.com",
    "nip.io.example.com", "mynip.io", "54.239.28.85.example.com", "ec2-54-1-2-3.example.com",
    "v1.2.3.cdn.example.com", "wlan.example", "2001:4860:4860::8888",
    "64:ff9b::8.8.8.8", "::ffff:8.8.8.8", "::ffff:198.18.0.1",
]  # fmt: skip


@pytest.mark.parametrize("host", INSIDE)
def test_no_spelling_of_an_inner_address_passes(host: str) -> None:
    """aiohttp connects to ``127.1`` and wide digits directly: no resolver would see them."""
    with pytest.raises(DownloadError, match="not a public address"):
        check_host(host)


@pytest.mark.parametrize("host", OUTSIDE)
def test_public_hosts_pass(host: str) -> None:
    """Ordinary names and addresses, and those that local proxies stand in for them."""
    check_host(host)


def test_an_embedded_address_is_the_one_that_counts() -> None:
    """An IPv4 address inside an IPv6 one is judged as itself, both ways."""
    assert is_public("64:ff9b::1.1.1.1")
    assert not is_public("64:ff9b::192.168.1.1")
    assert not is_public("2002:c0a8:0101::1")


async def media(request: web.BaseRequest) -> web.Response:
    return web.Response(body=PNG)


@pytest.mark.parametrize(
    "host",
    [
        "127.1",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "127.0.0.1.",
        "１２７.０.０.１",
        "127。0。0。1",
    ],
)
def test_a_guarded_download_never_reaches_this_machine(tmp_path: Path, host: str) -> None:
    """With the real connector: the server beside us is never asked."""

    async def main() -> None:
        async with noting(media) as api, Downloader(tmp_path, public_only=True) as downloader:
            with pytest.raises(DownloadError, match="not a public address"):
                await downloader.fetch(f"http://{host}:{api.port}/a.png", TARGET)
        assert api.lines == []

    asyncio.run(main())


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{port}/x", "http://127.1:{port}/x", "//2130706433:{port}/x",
        "http://[::1]:{port}/x", "http://[::ffff:127.0.0.1]:{port}/x", "http://localhost:{port}/x",
        "http://169.254.169.254/latest", "file:///etc/passwd", "ftp://media.example/x",
        "javascript:alert(1)", "data:image/png;base64,AAAA", "gopher://127.0.0.1:{port}/x", "http:",
        "http://[::", "",
    ],
)  # fmt: skip
def test_redirects_lead_only_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    """A public host, reached through a proxy, sends us inside: one request, and no more."""

    async def main() -> None:
        async def moved(request: web.BaseRequest) -> web.Response:
            return web.Response(status=302, headers={"Location": location.format(port=api.port)})

        async with noting(moved) as api, Downloader(tmp_path, public_only=True) as downloader:
            monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{api.port}")
            with pytest.raises(DownloadError):
                await downloader.fetch("http://media.example/a.png", TARGET)
        assert set(api.lines) == {"GET http://media.example/a.png"}

    asyncio.run(main())


def test_a_proxy_may_be_on_this_machine_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``localhost`` and the names of company proxies lead inside: that is the user's own wish."""

    async def main() -> None:
        async with noting(media) as api, Downloader(tmp_path, public_only=True) as downloader:
            monkeypatch.setenv("HTTP_PROXY", f"http://localhost:{api.port}")
            stored = await downloader.fetch("http://media.example/a.png", TARGET)
            assert (tmp_path / stored.path).read_bytes() == PNG
            with pytest.raises(DownloadError, match="not a public address"):
                await downloader.fetch(f"http://localhost:{api.port}/a.png", TARGET)
        assert api.lines == ["GET http://media.example/a.png"]

    asyncio.run(main())


def test_only_the_proxy_itself_is_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another port of the proxy's host is as private as ever."""
    monkeypatch.setenv("HTTP_PROXY", "localhost:3128")

    async def resolve(port: int) -> int:
        resolver = PublicResolver()
        try:
            return len(await resolver.resolve("localhost", port))
        finally:
            await resolver.close()

    assert asyncio.run(resolve(3128)) >= 1
    with pytest.raises(DownloadError):
        asyncio.run(resolve(3129))


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("198.18.0.7", True),
        ("2001:4860:4860::8888", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("::ffff:127.0.0.1", False),
    ],
)
def test_public_addresses_are_told_from_the_users_own_network(address: str, public: bool) -> None:
    """Including what a local proxy's DNS answers, which is no target."""
    assert is_public(address) is public


@pytest.mark.parametrize("proxy", ["http://代理:7890", "http://127.0.0.1：7890", "http://h:7x"])
def test_a_proxy_without_an_address_is_told_before_anything(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a run waits ten minutes for "its address cannot be asked"."""
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(UsageError, match="set HTTPS_PROXY to one like") as caught:
        proxy_for("https://api.atlascloud.ai/api/v1")
    assert proxy not in str(caught.value)  # it may hold a password


@pytest.mark.parametrize("proxy", ["127.0.0.1:7890", "http://u:p%40@proxy.corp", "http://[::1]:9"])
def test_a_proxy_with_an_address_is_taken(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    assert (proxy_for("https://api.atlascloud.ai/api/v1") or "").endswith(proxy)
