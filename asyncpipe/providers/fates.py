"""What became of a request that broke: whether it may have been sent, and in which words."""

from __future__ import annotations

from dataclasses import dataclass

import aiohttp


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """A request without an answer: whether it may have reached the API, and what happened."""

    sent: bool
    text: str


# Every public exception of aiohttp and what it says of the request, (may have been sent, words);
# by name, since versions differ in which they have. The nearest class of an exception counts.
_FATES: dict[str, tuple[bool, str]] = {
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


def lost(exc: Exception, *, started: bool) -> Lost:
    """Tell a request's fate from the exception and from how far it had come."""
    sent, text = next(
        _FATES[kind.__name__] for kind in type(exc).__mro__ if kind.__name__ in _FATES
    )
    if not started and isinstance(exc, TimeoutError):
        text = "no connection was made in time"
    reason = _reason(exc)
    return Lost(sent=sent and started, text=f"{text} ({reason[:200]})" if reason else text)


def _reason(exc: Exception) -> str:
    """The system's own words where they hold nothing but addresses; else the exception's name."""
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return getattr(exc.certificate_error, "verify_message", "")
    if isinstance(exc, OSError):
        return exc.strerror or ""
    return "" if isinstance(exc, aiohttp.ClientError) else type(exc).__name__
