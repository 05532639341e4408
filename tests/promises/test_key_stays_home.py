"""The API key reaches the API's host and nothing else, whatever the API does with it."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import re
import shutil
import ssl
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import pytest
import trustme
from aiohttp import web

import asyncpipe
from asyncpipe import AtlasCloud, Job, JobType, Pipeline, Polling
from asyncpipe.cli.app import app, run_command
from asyncpipe.errors import CannotConnect, DownloadError, ProviderError
from asyncpipe.jobs.events import Event
from asyncpipe.jobs.record import JobRecord
from asyncpipe.ledger.folder import ledger_path
from asyncpipe.media.downloader import Downloader
from asyncpipe.media.source import Target
from asyncpipe.providers.key import Redactor
from asyncpipe.simulator import Faults, Simulator, SimulatorSettings
from tests.support import ROOT
from tests.support.media import PNG, fetch
from tests.support.proxies import HOST, proxied
from tests.support.servers import REFUSALS, echoing, serving

FLUX = "black-forest-labs/flux-2-pro/text-to-image"
KEY = 'Zk7/qV+x9"PmW3<tR>8&yLd2sHf6=jNb5~cGa4Ue'
"""40 characters, not of the form ``apikey-…``; JSON and URLs spell it in several ways."""

PIECE = 10


def spellings(key: str) -> set[str]:
    """How JSON, URLs and reprs may write a key."""
    escaped = json.dumps(key)[1:-1]
    unicode = "".join(f"\\u{ord(c):04x}" for c in key)
    return {
        key, key.lower(), escaped, escaped.replace("/", "\\/"), unicode,
        quote(key, safe=""), quote(key), "".join(f"%{ord(c):02x}" for c in key),
        escaped.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"),
    }  # fmt: skip


def leaks(text: str | bytes) -> list[str]:
    """Pieces of the key in ``text``: any ten characters of it, recased or not."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    lower = text.lower()
    pieces = {KEY[n : n + PIECE].lower() for n in range(len(KEY) - PIECE + 1)}
    found = [piece for piece in pieces if piece in lower]
    return found + [form for form in spellings(KEY) if form.lower() in lower]


def test_the_probe_finds_what_it_should() -> None:
    """A probe that finds nothing proves nothing."""
    for form in spellings(KEY):
        assert leaks(f"x{form}y"), form
    assert leaks(b"\x00\xff" + KEY[3:20].encode())
    assert not leaks("Zk7/qV+x9")


@pytest.mark.parametrize("form", sorted(spellings(KEY)))
def test_every_spelling_is_taken_out(form: str) -> None:
    """And what stands around it stays."""
    secret = Redactor(KEY)
    assert secret.redact(f"<{form}>".encode()) == b"<[key]>"
    assert secret.redact_text(f"<{form}>{form}\udcff") == "<[key]>[key]\udcff"
    assert not leaks(repr(secret))


def test_what_holds_no_secret_is_left_alone() -> None:
    """Byte for byte, escapes and all."""
    for body in (b"", b"\xff\xfe", b'{"a":"\\u00e9\\/%20"}', KEY[:-1].encode(), b"A" * 10**6):
        assert Redactor(KEY).redact(body) == body


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, its path included in what is searched."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


KINDS = [*REFUSALS, "failed", "named", "polls", "odd", "completed"]
POLLING = Polling(initial_s=0.01, maximum_s=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_an_api_that_repeats_the_key_does_not_get_it_kept_or_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """Events, records, results, reprs, all logs at DEBUG, ledger, WAL, manifest, other hosts."""
    caplog.set_level(logging.DEBUG)
    for name in list(logging.root.manager.loggerDict):
        caplog.set_level(logging.DEBUG, logger=name)
    seen: list[str] = []
    kept: dict[str, bytes] = {}

    def hook(event: Event, record: JobRecord) -> None:
        seen.append(f"{event!r} {record!r}")

    async def main() -> None:
        asyncio.get_running_loop().set_debug(True)
        async with echoing(kind) as (echo, reached):
            provider = AtlasCloud(KEY, base_url=echo.url)
            pipeline = Pipeline(
                provider,
                tmp_path,
                polling=POLLING,
                on_event=hook,
                recovery={"retries": 0, "search_s": 0.1, "patience_s": 0.0},
            )
            async with pipeline:
                jobs = [Job(name=n, model=FLUX, prompt="p", deadline_s=0.2) for n in "ab"]
                manifest = await pipeline.batch_generate(jobs)
                seen.extend(repr(part) for part in (provider, pipeline, manifest, pipeline.totals))
                seen.extend(map(repr, manifest))
                seen.append(f"{pipeline.stopped!r} {vars(pipeline.stopped or Exception())}")
                kept.update(files(tmp_path))
                assert f"{ledger_path(tmp_path)}-wal" in kept
            assert reached == []
            media = [request for request in echo.requests if request.path.startswith("/media")]
            assert bool(media) is (kind == "completed")
            for request in media:
                assert not leaks(f"{request.raw_path} {dict(request.headers)}")

    asyncio.run(main())
    kept |= files(tmp_path)
    assert len(seen) > 5
    assert caplog.records
    assert not leaks("\n".join(seen))
    for record in caplog.records:
        assert not leaks(f"{record.getMessage()} {record.args!r} {record.exc_text}")
    for path, body in kept.items():
        assert not leaks(body), path
        assert not leaks(path)
    manifest = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["total_jobs"] == 2


@pytest.mark.parametrize("kind", KINDS)
def test_no_exception_carries_the_key(kind: str) -> None:
    """Its text, its arguments, its attributes, its causes, and the frames a traceback shows."""

    async def ask(call: Any) -> BaseException | None:
        try:
            await call
        except ProviderError as exc:
            return exc
        return None

    async def main() -> list[BaseException | None]:
        job = Job(model=FLUX, prompt="p")
        async with echoing(kind) as (echo, _), AtlasCloud(KEY, base_url=echo.url) as provider:
            return [await ask(provider.submit(job)), await ask(provider.poll("p"))]

    errors = [error for error in asyncio.run(main()) if error is not None]
    assert len(errors) > 0 or kind in ("failed", "named", "odd", "completed")
    for error in errors:
        shown = "".join(traceback.format_exception(error))
        assert not leaks(f"{shown} {error.args!r} {vars(error)!r} {error.__context__!r}")


def test_no_public_object_shows_the_key() -> None:
    """By repr, whatever it is made of; found by walking what is alive, not by a list."""
    provider = AtlasCloud(KEY)
    shown = [repr(provider), str(provider), f"{provider}", repr(provider._http)]
    for thing in gc.get_objects():
        if str(type(thing).__module__).startswith("asyncpipe.providers"):
            shown.append(repr(thing))
    assert len(shown) > 4
    assert not leaks(" ".join(shown))


def environment(home: Path, **variables: str) -> dict[str, str]:
    return {
        **os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "HOME": str(home),
        "USERPROFILE": str(home), **variables,
    }  # fmt: skip


async def run_cli(home: Path, *arguments: str, **variables: str) -> tuple[int, str]:
    """Run the command and return its exit code and everything it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments,
        cwd=home,
        env=environment(home, **variables),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    if Path("/proc/self/cmdline").exists():
        assert not leaks(Path(f"/proc/{process.pid}/cmdline").read_bytes())
    out, _ = await asyncio.wait_for(process.communicate(), 250)
    assert process.returncode is not None
    return process.returncode, out.decode()


JOBS = f"""\
output_dir: out
deadline_s: 0.3
polling: {{initial_s: 0.02, maximum_s: 0.05}}
retries: 0
jobs:
- {{name: a, model: {FLUX}, prompt: p}}
- {{name: b, model: {FLUX}, prompt: p}}
"""


@pytest.mark.parametrize("kind", ["refused", "unauthorized", "completed"])
@pytest.mark.parametrize("where", ["environment", "env file"])
def test_the_command_prints_nothing_of_the_key(tmp_path: Path, kind: str, where: str) -> None:
    """With --verbose, asyncio's debug mode and a .netrc that has something else to say."""
    (tmp_path / "jobs.yaml").write_text(JOBS, encoding="utf-8")
    for name in (".netrc", "_netrc"):
        netrc = tmp_path / name
        netrc.write_text("machine 127.0.0.1 login eve password eve\n", encoding="utf-8")
        netrc.chmod(0o600)
    options, variables = [], {"PYTHONASYNCIODEBUG": "1", "PYTHONWARNINGS": "default"}
    if where == "environment":
        variables["ATLASCLOUD_API_KEY"] = KEY
    else:
        (tmp_path / ".env").write_text(f"ATLASCLOUD_API_KEY='{KEY}'\n", encoding="utf-8")
        options = ["--env-file", ".env"]

    async def main() -> tuple[int, str]:
        async with echoing(kind) as (echo, reached):
            command = ["-m", "asyncpipe", "run", "jobs.yaml", "--verbose", *options]
            answer = await run_cli(tmp_path, *command, "--base-url", echo.url, **variables)
            asked = [r for r in echo.requests if not r.path.startswith("/media")]
            assert {r.headers["Authorization"] for r in asked} == {f"Bearer {KEY}"}
            assert reached == []
        return answer

    code, printed = asyncio.run(main())
    assert code == {"refused": 1, "unauthorized": 3, "completed": 0}[kind], printed
    assert "intended" in printed
    assert not leaks(printed)
    for path, body in files(tmp_path / "out").items():
        assert not leaks(body), path


BUG = """
import sys
from asyncpipe.providers.atlas import client as atlas
def broken(*args, **kwargs):
    raise RuntimeError("a bug")
setattr(atlas, sys.argv.pop(1), broken)
from asyncpipe.cli import main
main()
"""


@pytest.mark.parametrize("broken", ["read_submit", "_base"])
def test_the_traceback_of_a_bug_shows_nothing_of_the_key(tmp_path: Path, broken: str) -> None:
    """A bug in the provider's own code, while it has the key in its hands."""
    (tmp_path / "jobs.yaml").write_text(JOBS, encoding="utf-8")

    async def main() -> str:
        async with echoing("completed") as (echo, _):
            command = ["-c", BUG, broken, "run", "jobs.yaml", "--verbose", "--base-url", echo.url]
            command += ["--search-s", "0.1"]
            return (await run_cli(tmp_path, *command, ATLASCLOUD_API_KEY=KEY))[1]

    printed = asyncio.run(main())
    assert "RuntimeError: a bug" in printed
    assert "Traceback" in printed
    assert not leaks(printed)


def test_a_netrc_in_the_home_folder_does_not_replace_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it go to media hosts."""
    for name in (".netrc", "_netrc"):
        netrc = tmp_path / name
        netrc.write_text("default login eve password eve\n", encoding="utf-8")
        netrc.chmod(0o600)
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))

    async def main() -> None:
        async with echoing("completed") as (echo, _):
            provider = AtlasCloud(KEY, base_url=echo.url)
            async with Pipeline(provider, tmp_path / "out", polling=POLLING) as pipeline:
                await pipeline.generate({"name": "a", "model": FLUX, "prompt": "p"})
            sent = {r.path[:6]: r.headers.get("Authorization") for r in echo.requests}
            key = f"Bearer {KEY}"
            assert sent == {"/api/v": key, "/publi": key, "/media": None}

    asyncio.run(main())


def test_no_command_takes_a_key() -> None:
    """An argument stands in every list of processes."""
    commands = [app, *app.commands.values()]
    options = {o for c in commands for p in c.params if isinstance(p, click.Option) for o in p.opts}
    assert "--env-file" in options
    assert not [o for o in options if "key" in o or "token" in o or "secret" in o]


def test_an_env_file_that_is_not_text_shows_nothing_of_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A UnicodeDecodeError carries the whole file; it must not get as far as a message."""
    path = tmp_path / ".env"
    path.write_bytes(b"ATLASCLOUD_API_KEY=" + KEY.encode() + b"\xff\xfe\n")
    assert run_command(["run", "jobs.yaml", "--env-file", str(path), "--verbose"]) == 2
    shown = capsys.readouterr()
    assert "must be UTF-8 lines of NAME=value" in shown.err
    assert not leaks(shown.out + shown.err)
    with pytest.raises(click.BadParameter) as caught:
        app.main(["run", "jobs.yaml", "--env-file", str(path)], standalone_mode=False)
    error: BaseException | None = caught.value
    while error is not None:
        assert not leaks(repr(error.args))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


OPENSSL = shutil.which("openssl")


def certify(folder: Path) -> None:
    """Make a certificate authority and a certificate for 127.0.0.1 by it."""

    def openssl(*arguments: str) -> None:
        assert OPENSSL is not None
        subprocess.run([OPENSSL, *arguments], cwd=folder, check=True, capture_output=True)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    (folder / "ca.cnf").write_text(
        "[req]\ndistinguished_name=dn\nx509_extensions=ca\nprompt=no\n[dn]\nCN=test CA\n"
        "[ca]\nbasicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign\n"
        "subjectKeyIdentifier=hash\n",
        encoding="utf-8",
    )
    (folder / "leaf.cnf").write_text(
        "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:false\n"
        "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n"
        "authorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n",
        encoding="utf-8",
    )
    ca = ["-x509", "-config", "ca.cnf", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem"]
    openssl("req", *curve, *ca)
    openssl("req", *curve, "-config", "ca.cnf", "-keyout", "leaf.key", "-out", "leaf.csr")
    sign = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"]
    openssl("x509", "-req", "-in", "leaf.csr", *sign, "-extfile", "leaf.cnf", "-out", "leaf.pem")


ASK = """
import asyncio, sys
from asyncpipe import AtlasCloud, Job
async def main():
    async with AtlasCloud(base_url=sys.argv[1]) as provider:
        print((await provider.submit(Job(model="m/text-to-image", prompt="p"))).id)
asyncio.run(main())
"""


@pytest.mark.skipif(OPENSSL is None, reason="nothing in Python itself makes certificates")
def test_the_users_own_certificate_authority_is_honoured(tmp_path: Path) -> None:
    """SSL_CERT_FILE is how company proxies are trusted; without it, the key stays here."""
    certify(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "leaf.pem", tmp_path / "leaf.key")
    keys: list[str] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        keys.append(request.headers["Authorization"])
        return web.json_response({"code": 200, "data": {"id": "p1", "status": "processing"}})

    async def main() -> None:
        async with serving(answer, tls=context) as url:
            ask = ["-c", ASK, url]
            code, printed = await run_cli(tmp_path, *ask, ATLASCLOUD_API_KEY=KEY)
            assert code == 1
            assert CannotConnect.__name__ in printed
            assert "certificate is not accepted" in printed
            assert keys == []
            ca = str(tmp_path / "ca.pem")
            code, printed = await run_cli(tmp_path, *ask, ATLASCLOUD_API_KEY=KEY, SSL_CERT_FILE=ca)
            assert (code, printed.strip()) == (0, "p1")
            assert keys == [f"Bearer {KEY}"]

    asyncio.run(main())


PASSWORD = "hunter2secret"


async def refuse(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(status=407, text=request.headers.get("Proxy-Authorization", ""))


def chain(error: BaseException | None) -> str:
    """All that an exception and its causes show."""
    shown = ""
    while error is not None:
        shown += f"{error} {error!r} {error.args!r}"
        error = error.__cause__
    return shown


def test_the_apis_errors_show_no_proxy_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that refuses answers into errors that people send around."""

    async def main() -> None:
        async with serving(refuse) as url:
            monkeypatch.setenv("HTTPS_PROXY", url.replace("://", f"://user:{PASSWORD}@"))
            async with AtlasCloud(KEY, base_url="https://api.atlas.invalid") as provider:
                with pytest.raises(CannotConnect) as caught:
                    await provider.submit(Job(model="m", prompt="p", type=JobType.IMAGE))
                assert "the proxy refuses" in str(caught.value)
                assert PASSWORD not in chain(caught.value)

    asyncio.run(main())


def test_a_downloads_errors_show_no_proxy_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are kept in the ledger and the manifest."""

    async def main() -> None:
        async with serving(refuse) as url, Downloader(tmp_path, public_only=True) as downloader:
            monkeypatch.setenv("HTTPS_PROXY", url.replace("://", f"://user:{PASSWORD}@"))
            target = Target(stem="images/x", part="p", default_extension="png")
            with pytest.raises(DownloadError) as caught:
                await downloader.fetch("https://media.example/a.png", target)
            assert PASSWORD not in chain(caught.value)

    asyncio.run(main())


def test_the_package_never_logs_or_prints_headers() -> None:
    """The one header that holds a key is written in one module of each provider only."""
    package = Path(asyncpipe.__file__).parent
    users = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if re.search(r"\bAuthorization\b", path.read_text(encoding="utf-8"))
        and "simulator" not in path.parts
    }
    names = ("atlas", "fal", "replicate")
    assert users == {str(Path("providers", name, "client.py")) for name in names}


def test_media_requests_carry_no_credentials(tmp_path: Path) -> None:
    """No Authorization, no cookies, our own User-Agent."""
    seen: list[web.BaseRequest] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(body=PNG)

    fetch(tmp_path, answer, seen)
    headers = seen[0].headers
    assert "Authorization" not in headers
    assert "Cookie" not in headers
    assert headers["User-Agent"].startswith("asyncpipe/")


CHAOS = "all=0.15,dropped=0.05,server_error_submit=0.05,moderated=0.05,refused=0.05,nameless=0.05"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", ["direct", "through a proxy"])
def test_after_a_chaotic_run_the_key_is_nowhere(tmp_path: Path, way: str) -> None:
    """Written, printed with --verbose, or sent to proxies and media hosts: whatever went wrong."""
    ca, trusted, home = trustme.CA(), tmp_path / "ca.pem", tmp_path / "home"
    ca.cert_pem.write_to_path(str(trusted))
    home.mkdir()
    lines = [f"  - {{name: 杯 {n}, model: {FLUX}, prompt: mug {n}}}" for n in range(12)]
    text = "\n".join(["polling: {initial_s: 0.05, maximum_s: 0.2}", "jobs:", *lines, ""])
    (home / "jobs.yaml").write_text(text, encoding="utf-8")
    settings = SimulatorSettings(speed=1000.0, body_bytes=2000, faults=Faults.parse(CHAOS))

    async def main() -> None:
        async with (
            Simulator(settings) as simulator,
            proxied(int(simulator.base_url.split(":")[2].split("/")[0]), ca) as (port, heads),
        ):
            there = {"ATLASCLOUD_BASE_URL": simulator.base_url}
            if way != "direct":
                there = {
                    "HTTPS_PROXY": f"http://127.0.0.1:{port}",
                    "SSL_CERT_FILE": str(trusted),
                    "ATLASCLOUD_BASE_URL": f"https://{HOST}/api/v1",
                }
            run = ("-m", "asyncpipe", "run", "jobs.yaml", "-o", "out", "--max-cost", "9", "-v")
            options = ("--patience", "2", "--search-s", "1", "--allow-unknown-models")
            said, runs = "", 0
            while runs < 2 or (len(simulator.books.predictions()) < 8 and runs < 10):
                runs += 1  # a machine that is busy makes a run impatient before it has got far
                said += (await run_cli(home, *run, *options, ATLASCLOUD_API_KEY=KEY, **there))[1]
            status = ("-m", "asyncpipe", "status", "out")
            said += (await run_cli(home, *status, ATLASCLOUD_API_KEY=KEY, **there))[1]
            assert len(simulator.books.predictions()) >= 8
            assert simulator.books.media_credentials() == 0
            assert bool(heads) == (way != "direct")
            assert not leaks("\n".join(heads))
            assert not leaks(said)
            assert "Traceback" not in said

    asyncio.run(main())
    assert len(files(home)) > 4
    for path, body in files(home).items():
        assert not leaks(body), path
