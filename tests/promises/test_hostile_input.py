"""Names, files, answers and addresses made to do harm: they do none, and are said to be wrong."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from asyncpipe import Job, Pipeline, load_jobs
from asyncpipe._fs import safe_stem
from asyncpipe._text import printable
from asyncpipe.cli.app import run_command
from asyncpipe.errors import DownloadError, JobFileError, UsageError
from asyncpipe.http.hosts import PublicResolver, check_host, is_public
from asyncpipe.jobfile.problems import MOST_PROBLEMS
from asyncpipe.jobs.settings import Polling
from asyncpipe.ledger.folder import make_folders
from asyncpipe.media.downloader import Downloader, Target
from asyncpipe.testing import FakeProvider, run_virtual
from tests.support import ROOT

FLUX = "black-forest-labs/flux-2-pro/text-to-image"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)
TARGET = Target(stem="images/x", part="1_0.part", default_extension="png")

HOSTILE = [
    "../../etc/passwd",
    "..\\..\\windows\\system32",
    "/absolute/path",
    "C:\\boot.ini",
    "a\x00b",
    "\x1b[2J\x1b[1;31mred\x1b]0;title\x07",
    "\x9b31mC1",
    "bell\x07 back\x08\x08 return\rover",
    "line\nbreak\u2028and\u2029more\x85",
    "\u202etxt.exe",
    "\u2066isolated\u2069 \u200emarks\u200f",
    "👩\u200d🚀 rocket 🇨🇳",
    "CON",
    "nul.png",
    "COM1.tar.gz",
    "lpt¹",
    "...",
    " ",
    "-rf",
    "~",
    "$(touch x)`id`;|&",
    "<script>alert(1)</script>",
    "%2e%2e%2f%00",
    "Z\u0351\u0352\u0353" * 300,
    "字" * 5000,
    "\ufdd0\ufffe\U0010ffff",
    "﷽" * 300,
]

# What a terminal obeys: C0 but line break and tab, DEL, C1, and marks that turn the direction.
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


# -- addresses ----------------------------------------------------------------------------------

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
]  # fmt: skip

OUTSIDE = [
    "8.8.8.8", "198.18.0.7", "198.19.255.254", "atlas-media.oss-us-west-1.aliyuncs.com",
    "static.atlascloud.ai.", "a_b.example.com", "例え.jp", "1.example.com", "0x7f.example",
    "2001:4860:4860::8888", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8", "::ffff:198.18.0.1",
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


class Seen(list[str]):
    """The request lines a server got; ``port`` is where it listens."""

    port = 0


@asynccontextmanager
async def serving(answer: Callable[[web.Request], web.Response]) -> AsyncIterator[Seen]:
    """A server on loopback, which may be asked as a proxy, too."""
    seen = Seen()

    async def respond(request: web.BaseRequest) -> web.StreamResponse:
        seen.append(f"{request.method} {request.raw_path}")
        assert isinstance(request, web.BaseRequest)
        return answer(request)  # type: ignore[arg-type]

    runner = web.ServerRunner(web.Server(respond, access_log=None), shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    seen.port = runner.addresses[0][1]
    try:
        yield seen
    finally:
        await runner.cleanup()


def media(request: web.Request) -> web.Response:
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
        async with serving(media) as seen, Downloader(tmp_path, public_only=True) as downloader:
            with pytest.raises(DownloadError, match="not a public address"):
                await downloader.fetch(f"http://{host}:{seen.port}/a.png", TARGET)
        assert seen == []

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
        def moved(request: web.Request) -> web.Response:
            return web.Response(status=302, headers={"Location": location.format(port=seen.port)})

        async with serving(moved) as seen, Downloader(tmp_path, public_only=True) as downloader:
            monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{seen.port}")
            with pytest.raises(DownloadError):
                await downloader.fetch("http://media.example/a.png", TARGET)
        assert set(seen) == {"GET http://media.example/a.png"}

    asyncio.run(main())


def test_a_proxy_may_be_on_this_machine_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``localhost`` and the names of company proxies lead inside: that is the user's own wish."""

    async def main() -> None:
        async with serving(media) as seen, Downloader(tmp_path, public_only=True) as downloader:
            monkeypatch.setenv("HTTP_PROXY", f"http://localhost:{seen.port}")
            stored = await downloader.fetch("http://media.example/a.png", TARGET)
            assert (tmp_path / stored.path).read_bytes() == PNG
            with pytest.raises(DownloadError, match="not a public address"):
                await downloader.fetch(f"http://localhost:{seen.port}/a.png", TARGET)
        assert seen == ["GET http://media.example/a.png"]

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


# -- job files ----------------------------------------------------------------------------------


def problems(folder: Path, text: str, name: str = "jobs.yaml") -> list[str]:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(JobFileError) as caught:
        load_jobs(path)
    return [problem.message for problem in caught.value.problems]


LONG = "9" * 400


@pytest.mark.parametrize(
    "field",
    ["width", "duration", "resolution", "retries", "deadline_s", "count", "name", "model", "type"],
)
def test_numbers_beyond_any_float_are_told(tmp_path: Path, field: str) -> None:
    """400 digits are valid JSON, and more than a float holds."""
    job = f'{{"model": "{FLUX}", "prompt": "p", "{field}": {LONG}}}'
    found = problems(tmp_path, job, "a.jsonl")
    assert found
    assert all(len(message) < 300 for message in found)


@pytest.mark.parametrize(
    "top",
    [
        f'"max_workers": {LONG}', f'"retries": {LONG}', f'"deadline_s": {LONG}',
        f'"polling": {{"initial_s": {LONG}}}', f'"polling": {{"factor": {LONG}}}',
        f'"prices": {{"m": {LONG}}}', f'"prices": {{"m": {{"per_image": {LONG}}}}}',
        f'"output_dir": {LONG}', f'"defaults": {{"params": {{"seed": {LONG}}}}}',
    ],
)  # fmt: skip
def test_huge_numbers_on_top_are_told(tmp_path: Path, top: str) -> None:
    """The same for everything beside the jobs."""
    text = f'{{{top}, "jobs": [{{"model": "{FLUX}", "prompt": "p"}}]}}'
    assert all(len(message) < 300 for message in problems(tmp_path, text, "a.json"))


def test_settings_made_by_hand_refuse_them_too() -> None:
    """``Polling(initial_s=10**400)`` is a usage error, not an OverflowError."""
    with pytest.raises(UsageError, match="initial_s"):
        Polling(initial_s=10**400)


@pytest.mark.parametrize("value", ["0x" + "f" * 450, "0b" + "1" * 450, "1_" * 200 + "1"])
def test_long_numbers_in_other_bases_are_told(tmp_path: Path, value: str) -> None:
    """YAML's hexadecimal integers may have more digits than Python will print."""
    text = f"jobs:\n- {{model: {FLUX}, prompt: p, resolution: {value}, width: {value}}}"
    assert len(problems(tmp_path, text)) == 2


@pytest.mark.parametrize(
    "root", ["!!foo bar", "007", "2026-01-01", "yes", "!!python/object:os.system [x]"]
)
def test_a_file_that_is_one_unclear_word_is_not_an_empty_run(tmp_path: Path, root: str) -> None:
    """It was read as a file of no jobs, and so as a success."""
    assert len(problems(tmp_path, root)) == 1


@pytest.mark.parametrize(
    "text",
    [
        f"jobs:\n- {{model: {'m' * 200_000}, prompt: p}}",
        f"jobs:\n- model: {FLUX}\n  prompt: p\n  ? {'k' * 200_000}\n  : 1",
        f"? {'k' * 200_000}\n: 1",
        f"jobs:\n- *{'a' * 200_000}",
        f"!!{'t' * 200_000} 1",
        f"jobs:\n- {{model: {FLUX}, prompt: p, type: {'t' * 200_000}}}",
        "0" * 200_000,
    ],
)
def test_messages_never_repeat_the_file(tmp_path: Path, text: str) -> None:
    """What is long is cut where it is repeated."""
    found = problems(tmp_path, text)
    assert max(map(len, found)) <= 1001
    assert sum(map(len, found)) < 5000


def test_a_mistake_made_in_every_line_is_told_a_thousand_times_at_most(tmp_path: Path) -> None:
    """Two million wrong rows must not become hundreds of megabytes of messages."""
    assert len(problems(tmp_path, "- a\n" * 3000)) == MOST_PROBLEMS


MEASURE = """
import resource, sys, time
from asyncpipe import Job, Pipeline, load_jobs
from asyncpipe._fs import make_folders, safe_stem
from asyncpipe.cli.app import run_command
from asyncpipe.errors import JobFileError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.perf_counter()
try:
    load_jobs(sys.argv[1])
except JobFileError as exc:
    took_s = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    print((peak - before) * unit, took_s, len(str(exc)))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the resource module is POSIX's")
@pytest.mark.parametrize(
    ("start", "piece", "name"),
    [
        ("jobs: ", "x", "a.yaml"),
        ("jobs: ", "1:", "a.yaml"),
        ("", "7", "a.yaml"),
        ("", "[", "a.yaml"),
        ("", "- ", "a.yaml"),
        ("", "{a: ", "a.yaml"),
        ('"', "x", "a.json"),
        ("", "[", "a.json"),
        ("", '{"data":', "a.jsonl"),
    ],
)
def test_a_bomb_is_told_in_bounded_memory_and_time(
    tmp_path: Path, start: str, piece: str, name: str
) -> None:
    """50 MB of one thing: an error, within ten times its size and some seconds.

    ``1:1:1:…`` took 3 GB: YAML's pattern for numbers in sixties backtracks over all of it.
    """
    size = 50_000_000
    path = tmp_path / name
    path.write_text(start + piece * (size // len(piece)), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    grown, took_s, length = done.stdout.split()
    assert int(grown) < 10 * size
    assert float(took_s) < 30
    assert int(length) < 2000


# -- jobs made by hand --------------------------------------------------------------------------


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "\ud800"},
        {"name": "\udfff"},
        {"params": {"seed": 2**70}},
        {"params": {"seed": float("nan")}},
        {"params": {"\ud800": 1}},
        {"params": {"x": nested(300)}},
        {"params": {"x": nested(100_000)}},
        {"params": {"x": {1: 2}}},
        {"params": {"x": object()}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_job_that_cannot_be_sent_or_stored_is_a_usage_error(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    """Half a character or 70 bits broke the ledger's writer instead, and with it the run."""
    provider = FakeProvider()

    async def main() -> None:
        async with Pipeline(provider, tmp_path, seed=1) as pipeline:
            job = Job(**{"model": FLUX, "prompt": "p", "name": "n", **fields})
            with pytest.raises(UsageError):
                await pipeline.generate(job)
            with pytest.raises(UsageError):
                await pipeline.batch_generate([job])
            good = await pipeline.batch_generate([Job(model=FLUX, prompt="p", name="good")])
            assert good.totals.successful == 1

    run_virtual(main())
    assert provider.sold == ["good"]


def test_hostile_names_become_files_inside_the_folder(tmp_path: Path) -> None:
    """All of them at once, a megabyte of name included: one file each, where it belongs."""
    names = [*HOSTILE, "名" * 300_000, "x" * 1_000_000]
    folder = tmp_path / "out"

    async def main() -> None:
        async with Pipeline(FakeProvider(), folder, seed=1, max_workers=8) as pipeline:
            jobs = [Job(name=name, model=FLUX, prompt="p") for name in names]
            manifest = await pipeline.batch_generate(jobs)
            assert manifest.totals.successful == len(names)

    run_virtual(main())
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    files = [path.name for path in (folder / "images").iterdir()]
    assert len({name.casefold() for name in files}) == len(names)
    for name in files:
        assert not OBEYED.search(name)
        assert name.split(".")[0].lower() not in ("con", "nul", "com1", "lpt¹")
        assert len(name.encode()) < 255
    rows = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["results"]
    assert {row["name"] for row in rows} == set(names)


@pytest.mark.parametrize("name", ["con", "CON.x", "nul.tar.gz", "com9.a", "lpt¹.b.c", "aux."])
def test_no_stem_is_a_device_whatever_follows(name: str) -> None:
    """Windows looks no further than the first dot."""
    first = f"{safe_stem(name)}-abc123.png".split(".")[0].split("-")[0]
    assert first.endswith("_")


def test_an_output_folder_with_a_nul_is_a_usage_error() -> None:
    """A job file may say so."""
    with pytest.raises(UsageError, match="cannot be used"):
        make_folders(Path("a\0b"), ["images"])


# -- what is printed ----------------------------------------------------------------------------

EVIL = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\r\b\x00\x7f\u2028"


def evil_file(folder: Path) -> Path:
    """A job file whose every field is hostile."""
    model = "evil\x1b[2J\x9b31m\u202e/text-to-image"
    jobs = [{"name": n, "model": model, "prompt": EVIL} for n in HOSTILE if n.strip()]
    document = {
        "output_dir": str(folder / "out\u202e\x9b31m"),
        "prices": {model: {"per_image": 0.04}},
        "deadline_s": 0.5,
        "polling": {"initial_s": 0.02, "maximum_s": 0.05},
        "max_workers": 8,
        "retries": 0,
        "jobs": jobs,
    }
    path = folder / "jobs\u202e\x9b.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


class Evil:
    """A provider whose every word is hostile; each job meets another of its answers."""

    def __init__(self) -> None:
        self.submits = 0
        self.polls = 0

    def __call__(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            self.submits += 1
            return self.submit(self.submits % 8)
        return self.poll(request)

    def submit(self, kind: int) -> web.Response:
        data: dict[str, Any] = {"id": f"p{self.submits}{EVIL}", "status": "processing"}
        headers = {"X-Request-ID": "\u202e\x9b31m"}
        match kind:
            case 0:
                return web.json_response({"code": 400, "msg": EVIL + "m" * 2**20}, status=400)
            case 1:
                data |= {"status": "failed", "error": EVIL * 1000, "error_code": 10**30}
            case 2:
                return web.Response(body=EVIL.encode() * 1000, status=502, headers=headers)
            case 3:
                return web.Response(text=f"<html><title>{EVIL}</title>", status=403 + 100)
            case 4:
                data = {"id": {"id": EVIL}, "status": EVIL}
            case 5:
                return web.Response(status=307, headers={"Location": "http://x\u202e\x9b/"})
        return web.json_response({"code": 200, "data": data}, headers=headers)

    def poll(self, request: web.Request) -> web.Response:
        self.polls += 1
        if "p6" in request.raw_path or "p14" in request.raw_path:
            data: dict[str, Any] = {"status": EVIL, "error": EVIL}
        else:  # another URL each time: nobody waits before trying it
            urls = [f"javascript:{self.polls}", f"http://127.0.0.1:1/{EVIL}{self.polls}"]
            data = {"status": "completed", "outputs": [*urls, f"FTP://x/{EVIL}"]}
        return web.json_response({"code": 200, "msg": EVIL, "data": data})


async def run_cli(*arguments: str, folder: Path, **variables: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "asyncpipe", *arguments,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 50)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def test_a_hostile_provider_and_job_file_print_nothing_a_terminal_obeys(tmp_path: Path) -> None:
    """The whole way: screen, log, manifest, files."""

    async def run(folder: Path, *options: str) -> None:
        async with serving(Evil()) as seen:
            folder.mkdir()
            path = str(evil_file(folder))
            arguments = ["run", path, "--base-url", f"http://127.0.0.1:{seen.port}", *options]
            key = "hostile-provider-gets-this-key"
            ended = await run_cli(*arguments, folder=folder, ATLASCLOUD_API_KEY=key)
        harmless(folder, options, *ended)

    async def main() -> None:
        # All at once: what takes long is waiting between tries.
        options = {"a": ["--verbose"], "b": ["--json"], "c": []}
        await asyncio.gather(*(run(tmp_path / name, *some) for name, some in options.items()))

    asyncio.run(main())


def harmless(home: Path, options: tuple[str, ...], code: int, out: str, err: str) -> None:
    assert code in (1, 75)
    assert not OBEYED.findall(out + err)
    assert "Traceback" not in err
    assert max(map(len, err.splitlines())) < 5000
    (folder,) = (path for path in home.iterdir() if path.is_dir())
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    if "--json" in options:
        assert json.loads(out) == manifest
    assert manifest["total_jobs"] == len(HOSTILE) - 1
    errors = [row["error"] for row in manifest["results"] if row["error"]]
    assert len(errors) > 10
    assert max(map(len, errors)) < 700
    assert not any(OBEYED.search(row["request_id"] or "") for row in manifest["results"])
    assert not list((folder / "images").iterdir())


@pytest.mark.parametrize("command", ["validate", "estimate"])
def test_checking_a_hostile_file_prints_nothing_a_terminal_obeys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Also where nothing is run."""
    assert run_command([command, str(evil_file(tmp_path))]) == 0
    shown = capsys.readouterr()
    assert not OBEYED.findall(shown.out + shown.err)
    assert "evil" in shown.out


def test_mistakes_in_a_hostile_file_print_nothing_a_terminal_obeys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Keys, values and names that messages repeat."""
    job = {EVIL: EVIL, "name": EVIL, "model": EVIL, "type": EVIL, "width": EVIL}
    path = tmp_path / "jobs.json"
    path.write_text(json.dumps({EVIL: 1, "prices": {EVIL: EVIL}, "jobs": [job]}), encoding="utf-8")
    assert run_command(["validate", str(path)]) == 2
    shown = capsys.readouterr()
    assert not OBEYED.findall(shown.out + shown.err)
    assert len(shown.err.splitlines()) < 30


def test_a_bug_of_ours_prints_nothing_a_terminal_obeys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its message may repeat what the file says, with and without --verbose."""

    def broken(path: Path) -> None:
        raise RuntimeError(EVIL)

    for module in ("validate", "run"):
        monkeypatch.setattr(f"asyncpipe.cli.{module}.open_jobs", broken)
    assert run_command(["validate", "x.yaml"]) == 1
    assert run_command(["run", "x.yaml", "--verbose"]) == 1
    shown = capsys.readouterr().err
    assert shown.count("a bug of ours: RuntimeError") == 2
    assert shown.count("Traceback") == 1
    assert not OBEYED.findall(shown)


def test_a_simulated_run_into_an_impossible_folder_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The simulator's books are made first; that was a bug of ours there."""
    path = tmp_path / "jobs.json"
    path.write_text(json.dumps([{"model": FLUX, "prompt": "p"}]), encoding="utf-8")
    assert run_command(["run", str(path), "--simulate", "-o", str(path / "below a file")]) == 2
    assert "cannot be used" in capsys.readouterr().err


def test_what_is_printed_keeps_the_joiners_of_emoji_and_persian() -> None:
    """They are formatting to Unicode, and part of the word to readers."""
    assert printable("👩\u200d🚀 می\u200cخواهم") == "👩\u200d🚀 می\u200cخواهم"
    assert printable("a\u202eb\u200fc") == "a�b�c"
