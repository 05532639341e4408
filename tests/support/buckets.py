"""An object store over a real socket, and a gate before it that does what it is told."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from aiohttp import web
from moto.server import ThreadedMotoServer

from asyncpipe.jobs import BucketUrl
from asyncpipe.media import bucket as edge
from tests.support.servers import serving

KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"

_numbers = itertools.count(1)


@lru_cache(maxsize=1)
def _server() -> str:
    """One server for the whole process: its buckets are told apart by their names."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    return f"http://127.0.0.1:{port}"


@dataclass(frozen=True, kw_only=True)
class S3:
    """A bucket of the server's, and what is in it."""

    endpoint: str
    bucket: str
    client: Any = field(repr=False)

    @property
    def place(self) -> BucketUrl:
        return BucketUrl(scheme="s3", bucket=self.bucket, prefix="shop/week 1".replace(" ", "-"))

    def names(self) -> list[str]:
        """What everybody sees, by its name in the output place."""
        found = self.client.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return [each["Key"].removeprefix(f"{self.place.prefix}/") for each in found]

    def unfinished(self) -> list[str]:
        """Uploads in parts that nobody ended, which only lists of uploads show."""
        found = self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        return [each["Key"] for each in found]

    def put(self, path: str, body: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"{self.place.prefix}/{path}", Body=body)

    def get(self, path: str) -> tuple[bytes, str]:
        """The bytes of an object and what it is served as."""
        found = self.client.get_object(Bucket=self.bucket, Key=f"{self.place.prefix}/{path}")
        return found["Body"].read(), found["ContentType"]


@contextmanager
def a_bucket(monkeypatch: pytest.MonkeyPatch, name: str = "") -> Iterator[S3]:
    """A new bucket, and the environment that leads to it; the library tries again at once."""
    endpoint = _server()
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
    )
    s3 = S3(endpoint=endpoint, bucket=name or f"media-{next(_numbers)}", client=client)
    client.create_bucket(Bucket=s3.bucket)
    for variable, value in environment(endpoint).items():
        monkeypatch.setenv(variable, value)
    impatient = edge._retries()
    impatient["backoff"]["init_backoff"] /= 1000
    impatient["backoff"]["max_backoff"] /= 1000
    monkeypatch.setattr(edge, "_retries", lambda: dict(impatient))
    with closing(client):
        yield s3


def environment(endpoint: str) -> dict[str, str]:
    """What leads to a store, as people set it."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }


Meddle = Callable[[web.BaseRequest, bytes], Awaitable[web.StreamResponse | None]]


class Gate:
    """Passes requests on to the store, those apart that ``meddle`` answers itself."""

    def __init__(self, s3: S3) -> None:
        self.s3 = s3
        self.lines: list[str] = []
        self.meddle: Meddle = _pass

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.content.read()  # request.read() takes 1 MiB
        self.lines.append(f"{request.method} {request.raw_path}")
        if (own := await self.meddle(request, body)) is not None:
            return own
        return await self.forward(request, body)

    async def forward(self, request: web.BaseRequest, body: bytes) -> web.Response:
        """Ask the store, in a thread: whoever asked may be killed, and this is to go on."""
        return await asyncio.to_thread(self._forward, request, body)

    def _forward(self, request: web.BaseRequest, body: bytes) -> web.Response:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOPS}
        with closing(HTTPConnection(urlsplit(self.s3.endpoint).netloc)) as connection:
            connection.request(request.method, request.raw_path, body, headers)
            answer = connection.getresponse()
            told = {k: v for k, v in answer.getheaders() if k.lower() not in _HOPS}
            if request.method == "HEAD":
                told["Content-Length"] = answer.headers["Content-Length"]
            return web.Response(status=answer.status, body=answer.read(), headers=told)


_HOPS = {"host", "content-length", "connection", "transfer-encoding", "date", "server"}


async def _pass(request: web.BaseRequest, body: bytes) -> None:
    await asyncio.sleep(0)


@asynccontextmanager
async def gated(s3: S3, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gate]:
    """The same store behind a gate, which the environment leads to."""
    gate = Gate(s3)
    async with serving(gate.answer) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        yield gate


def refusal(status: int, code: str, more: str = "") -> web.Response:
    """An error as S3 writes it."""
    text = f"<Error><Code>{code}</Code><Message>no {KEY}</Message>{more}</Error>"
    return web.Response(status=status, text=text, content_type="application/xml")


def is_part(request: web.BaseRequest, number: int | None = None) -> bool:
    """Whether a request brings a part of an upload, that one or any."""
    part = request.query.get("partNumber")
    return request.method == "PUT" and part is not None and number in (None, int(part))


def film(size: int) -> bytes:
    """A film of so many bytes with all that a whole one has."""
    head = b"\x00\x00\x00\x18ftypisom" + bytes(12) + b"\x00\x00\x00\x08moov"
    rest = size - len(head)
    return head + rest.to_bytes(4, "big") + b"mdat" + random.Random(7).randbytes(rest - 8)
