"""Webhooks, coming in and going out: who signed what, and when; nothing here starts a task.

Coming in: a verifier (``StandardWebhooks``, or a provider's own) makes a ``Delivery`` of headers
and raw body, in any framework; ``receiver`` is a sub-application for aiohttp. A delivery only wakes
the next poll: money and outputs are what the poll says.
"""

from asyncpipe.webhooks.address import callback_url
from asyncpipe.webhooks.app import receiver
from asyncpipe.webhooks.delivery import (
    MALFORMED,
    Delivery,
    Headers,
    RawHeaders,
    Signed,
    at_of,
    from_base64,
    from_hex,
    id_in,
    word_in,
)
from asyncpipe.webhooks.keys import KeyRing, fetch_keys
from asyncpipe.webhooks.notice import Notice, NoticeFormat, Notify, Occasion, Recipient
from asyncpipe.webhooks.secret import FetchedSecret
from asyncpipe.webhooks.send import post_notice, run_command
from asyncpipe.webhooks.standard import StandardWebhooks, sign
from asyncpipe.webhooks.verifier import Claim, PublishedKeys, Verifier

__all__ = [
    "MALFORMED",
    "Claim",
    "Delivery",
    "FetchedSecret",
    "Headers",
    "KeyRing",
    "Notice",
    "NoticeFormat",
    "Notify",
    "Occasion",
    "PublishedKeys",
    "RawHeaders",
    "Recipient",
    "Signed",
    "StandardWebhooks",
    "Verifier",
    "at_of",
    "callback_url",
    "fetch_keys",
    "from_base64",
    "from_hex",
    "id_in",
    "post_notice",
    "receiver",
    "run_command",
    "sign",
    "word_in",
]
