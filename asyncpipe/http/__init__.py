"""HTTP without any API in it: one client, hosts, headers, bodies, multipart forms.

It knows what was surely not sent, which hosts may be asked, and through which proxy; which API it
talks to is its caller's affair.
"""

from asyncpipe.http.body import Body, check_answer, check_coding
from asyncpipe.http.client import (
    DEFAULT_TIMEOUTS,
    MAY_SEND,
    USER_AGENT,
    HttpAnswer,
    HttpClient,
    Timeouts,
    json_of,
)
from asyncpipe.http.coding import coding_of
from asyncpipe.http.headers import (
    Entity,
    ask_for_rest,
    header,
    is_rest,
    retry_after_s,
    source_of,
    told_total,
    validator,
)
from asyncpipe.http.hosts import check_host, connector_options, is_loopback, on_loopback, proxy_for
from asyncpipe.http.multipart import FilePart, WholeFile
from asyncpipe.http.redirects import follow

__all__ = [
    "DEFAULT_TIMEOUTS",
    "MAY_SEND",
    "USER_AGENT",
    "Body",
    "Entity",
    "FilePart",
    "HttpAnswer",
    "HttpClient",
    "Timeouts",
    "WholeFile",
    "ask_for_rest",
    "check_answer",
    "check_coding",
    "check_host",
    "coding_of",
    "connector_options",
    "follow",
    "header",
    "is_loopback",
    "is_rest",
    "json_of",
    "on_loopback",
    "proxy_for",
    "retry_after_s",
    "source_of",
    "told_total",
    "validator",
]
