"""JSON over HTTP: one answer per request, and the truth about whether a request was sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson
from yarl import URL

from asyncpipe.errors import (
    CannotConnect,
    NotAccepted,
    NotSent,
    PollFailed,
    Rejected,
    SubmitUnknown,
    UsageError,
)
from asyncpipe.http.hosts import proxy_for
from asyncpipe.http.multipart import FilePart, WholeFile
from asyncpipe.http.trust import remedy_for, tls_context

USER_AGENT = f"asyncpipe/{version('asyncpipe')}"
"""Always sent: Cloudflare refuses some libraries' own."""

LARGEST_ANSWER = 64 * 1024 * 1024
"""Bytes of an answer that are read at most; base64 outputs make large ones."""

SUBMIT_KEEP_ALIVE_S = 1.0
"""A submit whose reused connection is reset is unknown, so connections are reused only while the
server surely keeps them."""

_POOL = 100
"""Connections per pool: measured, more cost memory and time and bring nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeouts:
    """How long one request may take, in seconds; ``connect_s`` counts the wait for a free one.

    Raises UsageError for one that is not above 0.
    """

    connect_s: float = 15.0
    submit_s: float = 60.0
    poll_s: float = 30.0
    upload_s: float = 300.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise UsageError(f"timeouts: {field.name} must be above 0 seconds")


DEFAULT_TIMEOUTS = Timeouts()


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpAnswer:
    """An answer, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """Ask one API; entered twice, the last exit closes its connections.

    ``headers`` go with every request, and to no other host: redirects are not followed, .netrc
    is not read, cookies are not kept. ``base_url`` is taken as it is, percent-encoding included.
    They are no defaults of a session: those aiohttp tells a proxy as well, the key among them.
    Until the API's first answer every request raises CannotConnect where the way to it is set up
    wrongly; later that is like any other trouble.
    """

    def __init__(
        self, base_url: str, *, headers: Mapping[str, str], timeouts: Timeouts = DEFAULT_TIMEOUTS
    ) -> None:
        self._base_url = base_url
        self._headers = {**headers}
        self._defaults = {
            "User-Agent": USER_AGENT,
            "Accept": "application/json",
            # A compressed answer could unpack to far more than LARGEST_ANSWER before it is counted.
            "Accept-Encoding": "identity",
        }
        self._timeouts = timeouts
        self._entered = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._exit = AsyncExitStack()
        self._proxy: str | None = None
        self._answered = False  # since it was entered
        self._posting = self._polling = asyncio.Semaphore(_POOL)
        self._submits: aiohttp.ClientSession | None = None
        self._polls: aiohttp.ClientSession | None = None
        self._uploads: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the sessions.

        Raises UsageError for a proxy or certificates that cannot be used, and where it is open in
        another event loop.
        """
        if self._loop is not None and self._loop.is_closed():
            self._forget()  # with the loop went all that was open
        self._check_loop()
        if self._entered == 0:
            self._loop = asyncio.get_running_loop()
            self._proxy, tls = proxy_for(self._base_url), tls_context()
            self._answered = False
            submits = aiohttp.TCPConnector(
                limit=_POOL, keepalive_timeout=SUBMIT_KEEP_ALIVE_S, ssl=tls
            )
            polls = aiohttp.TCPConnector(limit=_POOL, ttl_dns_cache=60, ssl=tls)
            # Who waits for a connection waits here: in aiohttp each would hold 8 KB meanwhile.
            self._posting, self._polling = asyncio.Semaphore(_POOL), asyncio.Semaphore(_POOL)
            self._submits = self._session(submits, self._timeouts.submit_s)
            self._polls = self._session(polls, self._timeouts.poll_s)
            # Their own: a file on its way must not hold up a submit or a poll.
            uploads = aiohttp.TCPConnector(
                limit=_POOL, keepalive_timeout=SUBMIT_KEEP_ALIVE_S, ssl=tls
            )
            self._uploads = self._session(uploads, self._timeouts.upload_s)
            self._exit.push_async_callback(self._submits.close)
            self._exit.push_async_callback(self._polls.close)
            self._exit.push_async_callback(self._uploads.close)
        self._entered += 1
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._entered -= 1
        if self._entered == 0:
            self._submits = self._polls = self._uploads = self._loop = None
            # Apart from self, so that entering again meanwhile opens what this does not close.
            await self._exit.pop_all().aclose()

    @property
    def is_open(self) -> bool:
        """Whether it was entered and not yet left by everybody."""
        return self._entered > 0

    def _forget(self) -> None:
        self._entered, self._loop, self._exit = 0, None, AsyncExitStack()

    def _check_loop(self) -> None:
        """Raise UsageError in another loop than the one it is open in: its answers came never."""
        if self._loop is not None and self._loop is not asyncio.get_running_loop():
            raise UsageError(
                f"the connections to {URL(self._base_url).host} are open in another event loop: "
                "make one provider for each loop"
            )

    def _session(self, connector: aiohttp.TCPConnector, total_s: float) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._defaults,
            timeout=aiohttp.ClientTimeout(total=total_s, connect=self._timeouts.connect_s),
            trust_env=False,  # it would let a .netrc entry replace the key
        )

    async def post(
        self, path: str, body: Mapping[str, Any], *, headers: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        """Send ``body`` once, with ``headers`` besides, and return the answer, whatever its status.

        Raises NotSent when it surely did not reach the API, SubmitUnknown when it may have, and
        Rejected for a body JSON cannot hold.
        """
        self._check_loop()
        result = await self._submit_in_turn(path, body, headers or {})
        if isinstance(result, HttpAnswer):
            return result
        self._check_way(result)
        if result.sent:
            raise SubmitUnknown(f"the submit was sent, and {result.text}: it may have been taken")
        raise NotSent(f"{URL(self._base_url).host} cannot be reached: {result.text}")

    async def send_file(self, path: str, part: FilePart) -> HttpAnswer:
        """Send one file as a form and return the answer, whatever its status.

        Raises NotAccepted without an answer: nothing is bought by a file, so it may be sent again;
        Rejected when the file cannot be read.
        """
        async with AsyncExitStack() as stack:
            try:
                size, pieces = await part.open(stack)
            except OSError as exc:
                raise Rejected(f"{part.path} cannot be read: {exc.strerror or exc}") from exc
            headers = {"Content-Type": part.content_type, "Content-Length": str(size)}
            result = await self._exchange(self._uploads, "POST", path, pieces, headers=headers)
        if isinstance(result, HttpAnswer):
            return result
        self._check_way(result)
        raise NotAccepted(f"the upload of {part.path.name} got no answer: {result.text}")

    async def put_file(self, url: str, file: WholeFile) -> HttpAnswer:
        """Send one file to a place that was told, and without ``headers``: the key stays home.

        Returns the answer, whatever its status; raises as ``send_file`` does.
        """
        async with AsyncExitStack() as stack:
            try:
                size, pieces = await file.open(stack)
            except OSError as exc:
                raise Rejected(f"{file.path} cannot be read: {exc.strerror or exc}") from exc
            headers = {"Content-Type": file.content_type, "Content-Length": str(size)}
            result = await self._exchange(
                self._uploads, "PUT", "", pieces, base_url=url, headers=headers, elsewhere=True
            )
        if isinstance(result, HttpAnswer):
            return result
        raise NotAccepted(f"the upload of {file.path.name} got no answer: {result.text}")

    async def put(self, path: str, *, what: str) -> HttpAnswer:
        """Send a PUT without a body, which buys nothing; raises PollFailed without an answer."""
        result = await self._exchange(self._polls, "PUT", path, None)
        if isinstance(result, HttpAnswer):
            return result
        self._check_way(result)
        raise PollFailed(f"{what} got no answer: {result.text}")

    async def get(
        self, path: str, *, base_url: str | None = None, what: str = "a poll"
    ) -> HttpAnswer:
        """Ask once and return the answer, whatever its status; raises PollFailed without one.

        On a reused connection that turns out dead aiohttp asks a second time: a GET is free.
        ``base_url`` is another base on the same host; ``what`` names the request in the error.
        """
        self._check_loop()
        async with self._polling:
            result = await self._exchange(self._polls, "GET", path, None, base_url=base_url)
        if isinstance(result, HttpAnswer):
            return result
        self._check_way(result)
        raise PollFailed(f"{what} got no answer: {result.text}")

    async def ask(self, path: str, body: Mapping[str, Any], *, what: str) -> HttpAnswer:
        """Send ``body`` to a path that buys nothing; raises PollFailed without an answer."""
        result = await self._exchange(self._polls, "POST", path, json_of(body))
        if isinstance(result, HttpAnswer):
            return result
        self._check_way(result)
        raise PollFailed(f"{what} got no answer: {result.text}")

    def _check_way(self, result: NoAnswer) -> None:
        if result.remedy is not None:
            host = URL(self._base_url).host
            raise CannotConnect(f"{host} cannot be reached: {result.text}. {result.remedy}")

    async def _submit_in_turn(
        self, path: str, body: Mapping[str, Any], more: Mapping[str, str]
    ) -> HttpAnswer | NoAnswer:
        """Wait for a free connection as long as for a new one, then send."""
        if self._posting.locked():
            try:
                async with asyncio.timeout(self._timeouts.connect_s):
                    await self._posting.acquire()
            except TimeoutError:
                return NoAnswer(sent=False, text="no connection was free in time")
        else:
            await self._posting.acquire()  # at once
        try:
            # Written only now: the JSON of a submit that waits would hold 4 KB, however short.
            once = OnceBody(json_of(body))
            headers = {**more, **once.headers}
            return await self._exchange(self._submits, "POST", path, once, headers=headers)
        finally:
            self._posting.release()

    async def _exchange(
        self,
        session: aiohttp.ClientSession | None,
        method: str,
        path: str,
        data: bytes | OnceBody | AsyncIterator[bytes] | None,
        *,
        base_url: str | None = None,
        headers: dict[str, str] | None = None,
        elsewhere: bool = False,
    ) -> HttpAnswer | NoAnswer:
        """Make one request; ``elsewhere``: to a host that gets none of our headers.

        What went wrong is returned, not raised: a foreign exception may hold the request's
        headers, and must not hang on ours even as a context.
        """
        self._check_loop()
        if session is None:
            raise RuntimeError("the provider is not open: enter it with `async with` first")
        if headers is None:
            headers = {"Content-Type": "application/json"} if data else {}
        try:
            response = await session.request(
                method,
                URL((base_url or self._base_url) + path, encoded=True),
                data=data,
                headers=headers if elsewhere else self._headers | headers,
                allow_redirects=False,
                proxy=proxy_for(base_url or "") if elsewhere else self._proxy,
            )
            self._answered = self._answered or not elsewhere
            body = _whole_already(response)
            if body is None:
                async with response:
                    body = await _read_bounded(response)
            if body is None:
                return NoAnswer(sent=True, text="the answer is larger than 64 MiB")
            return HttpAnswer(status=response.status, headers=response.headers, body=body)
        # Everything: whatever broke, a submit that was sent may have been bought.
        except Exception as exc:
            if isinstance(data, OnceBody) and data.held_back:
                return NoAnswer(sent=False, text="the lease of this worker ends: nothing was sent")
            result = no_answer(exc, started=data.begun if isinstance(data, OnceBody) else True)
            if self._answered or result.sent:
                return result
            return replace(result, remedy=remedy_for(exc, self._proxy))


def json_of(body: Mapping[str, Any]) -> bytes:
    """A request's body; raises Rejected for what JSON cannot hold."""
    try:
        return orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS)
    except TypeError as exc:
        raise Rejected(f"the job cannot be sent as JSON: {exc}") from None


MAY_SEND: ContextVar[Callable[[], bool] | None] = ContextVar("MAY_SEND", default=None)
"""Whether a submit may go out now, asked when its body is; None: any may."""


class OnceBody:
    """The body of a submit: ``begun`` from when it is first asked for, and handed out once.

    Its bytes are nowhere else, so no version of aiohttp can send them unmarked: while nobody has
    asked, nothing that could be bought has left. Nor can any send them a second time, whatever it
    makes of a redirect or of a connection that was closed.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._may_send = MAY_SEND.get()
        self.begun = self.held_back = False

    @property
    def headers(self) -> dict[str, str]:
        """With its length told beforehand it is sent in one piece, and not in chunks."""
        return {"Content-Type": "application/json", "Content-Length": str(len(self._data))}

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self.begun:
            raise RuntimeError("a submit is sent once")
        if self._may_send is not None and not self._may_send():
            self.held_back = True
            raise RuntimeError("a submit is not sent any more")
        self.begun = True
        yield self._data


def _whole_already(response: aiohttp.ClientResponse) -> bytes | None:
    """The body, if it came with its head, as most do; its connection is free by now."""
    length = response.content_length
    if length is None or length > LARGEST_ANSWER or "Content-Encoding" in response.headers:
        return None
    return response.content.read_nowait() if response.content.is_eof() else None


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes | None:
    """The body, or None if it is larger than LARGEST_ANSWER."""
    if (response.content_length or 0) > LARGEST_ANSWER:
        response.close()
        return None
    if response.content_length is not None and "Content-Encoding" not in response.headers:
        return await response.read()
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > LARGEST_ANSWER:
            response.close()  # not read to its end, so the connection is of no more use
            return None
        chunks.append(chunk)
    return b"".join(chunks)


@dataclass(frozen=True, kw_only=True, slots=True)
class NoAnswer:
    """A request without an answer: whether it may have reached the API, and what happened.

    ``remedy`` is what the user can do about it; None: it may come right by itself.
    """

    sent: bool
    text: str
    remedy: str | None = None


# Every public exception of aiohttp and what it says of the request, (may have been sent, words);
# by name, since versions differ in which they have. The nearest class of an exception counts.
_MEANINGS: dict[str, tuple[bool, str]] = {
    "ClientConnectorCertificateError": (False, "its TLS certificate is not accepted"),
    "ClientConnectorSSLError": (False, "the TLS handshake failed"),
    "ClientSSLError": (False, "the TLS handshake failed"),
    "ServerFingerprintMismatch": (False, "its TLS certificate is not the expected one"),
    "ClientConnectorDNSError": (False, "its name cannot be resolved"),
    "ClientProxyConnectionError": (False, "the proxy cannot be reached"),
    "ClientHttpProxyError": (False, "the proxy refuses to connect to it"),
    "UnixClientConnectorError": (False, "no connection could be made"),
    "ClientConnectorError": (False, "no connection could be made"),
    "ConnectionTimeoutError": (False, "no connection was made in time"),
    "InvalidURL": (False, "its address cannot be asked"),
    "InvalidUrlClientError": (False, "its address cannot be asked"),
    "NonHttpUrlClientError": (False, "its address cannot be asked"),
    "RedirectClientError": (True, "it redirects to nowhere"),
    "InvalidUrlRedirectClientError": (True, "it redirects to nowhere"),
    "NonHttpUrlRedirectClientError": (True, "it redirects to nowhere"),
    "TooManyRedirects": (True, "it redirects in circles"),
    "SocketTimeoutError": (True, "no answer came in time"),
    "ServerTimeoutError": (True, "no answer came in time"),
    "TimeoutError": (True, "no answer came in time"),
    "ServerDisconnectedError": (True, "the connection was closed without an answer"),
    "ClientConnectionResetError": (True, "the connection was reset"),
    "ClientOSError": (True, "the connection was lost"),
    "ServerConnectionError": (True, "the connection was lost"),
    "ClientConnectionError": (True, "the connection was lost"),
    "UploadAbortedError": (True, "the request was cut off"),
    "ClientPayloadError": (True, "the answer broke off"),
    "ContentTypeError": (True, "the answer is not HTTP as it should be"),
    "WSServerHandshakeError": (True, "the answer is not HTTP as it should be"),
    "ClientResponseError": (True, "the answer is not HTTP as it should be"),
    "WSMessageTypeError": (True, "the answer is not HTTP as it should be"),
    "ClientError": (True, "the request broke off"),
    "OSError": (True, "the connection was lost"),
    "Exception": (True, "the request broke off"),
}


def no_answer(exc: Exception, *, started: bool) -> NoAnswer:
    """Tell a request's fate from the exception and from whether its body was asked for."""
    sent, text = next(
        _MEANINGS[kind.__name__] for kind in type(exc).__mro__ if kind.__name__ in _MEANINGS
    )
    if not started and isinstance(exc, TimeoutError):
        text = "no connection was made in time"
    reason = _reason(exc)
    return NoAnswer(sent=sent and started, text=f"{text} ({reason[:200]})" if reason else text)


def _reason(exc: Exception) -> str:
    """The system's own words where they hold nothing but addresses; else the exception's name."""
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return getattr(exc.certificate_error, "verify_message", "")
    if isinstance(exc, OSError):
        return exc.strerror or ""
    return "" if isinstance(exc, aiohttp.ClientError) else type(exc).__name__
