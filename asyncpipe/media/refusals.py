"""What an object store's error means, and what people are told: pure."""

from __future__ import annotations

import re
from enum import Enum

from asyncpipe.errors import AsyncpipeError, DiskError, DownloadError
from asyncpipe.jobs import BucketUrl


class Refusal(Enum):
    """What a store's error means."""

    MISSING = "no such object"
    NO_BUCKET = "no such bucket"
    REGION = "another region"
    CLOCK = "the clocks differ"
    EXPIRED = "the keys have expired"
    KEYS = "the keys are refused"
    REFUSED = "refused"
    AWAY = "not reached"


_STATUS = re.compile(r"status code: (\d{3})")

_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,60})</Code>")

_BY_CODE = {
    "NoSuchBucket": Refusal.NO_BUCKET,
    "ContainerNotFound": Refusal.NO_BUCKET,
    "PermanentRedirect": Refusal.REGION,
    "AuthorizationHeaderMalformed": Refusal.REGION,
    "IllegalLocationConstraintException": Refusal.REGION,
    "RequestTimeTooSkewed": Refusal.CLOCK,
    "ExpiredToken": Refusal.EXPIRED,
    "InvalidToken": Refusal.EXPIRED,
    "RequestTimeout": Refusal.AWAY,
    "SlowDown": Refusal.AWAY,
}

_BY_KIND = {
    "FileNotFoundError": Refusal.MISSING,
    "PermissionDeniedError": Refusal.KEYS,
    "UnauthenticatedError": Refusal.KEYS,
    "NotSupportedError": Refusal.REFUSED,
}

_PASSING = frozenset({408, 409, 412, 425, 429})
"""Refusals that say nothing of rights: another moment may do."""


def refusal_of(text: str, kind: str) -> Refusal:
    """What an error of the library means, by its text and the name of its class."""
    code = _found(_CODE, text)
    if code in _BY_CODE:
        return _BY_CODE[code]
    if "incorrectly configured region" in text:
        return Refusal.REGION
    if kind in _BY_KIND:
        return _BY_KIND[kind]
    status = int(_found(_STATUS, text) or 0)
    if status in (401, 403):
        return Refusal.KEYS
    refused = 400 <= status < 500 and status not in _PASSING
    return Refusal.REFUSED if refused else Refusal.AWAY


KEYS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN, AWS_REGION, "
    "AWS_ENDPOINT_URL where they are needed)",
    "gs": "set GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS to the file with the key",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
"""Where each store's keys come from."""

_METADATA = ("169.254.169.254", "metadata.google.internal")


def without_keys(error: BaseException) -> bool:
    """Whether keys were looked for at the machine's own cloud, and there is none."""
    return any(place in str(error) for place in _METADATA)


_WORDS = {
    Refusal.NO_BUCKET: "{url}: there is no such bucket: make it, or correct its name",
    Refusal.REGION: "{url} is in another region ({said}): set AWS_REGION to its own",
    Refusal.CLOCK: "{url}: this machine's clock is off ({said}): set it",
    Refusal.EXPIRED: "{url}: the keys in the environment have expired ({said}): get new ones, then "
    "run the same command again",
    Refusal.KEYS: "{url} refuses the keys in the environment ({said}): they must be allowed to "
    "list the bucket, and to read, write and delete what is in it; {keys}",
    Refusal.REFUSED: "{url} refuses what was asked of it ({said})",
}


def error_of(url: BucketUrl, trouble: Refusal, text: str) -> AsyncpipeError:
    """What people are told; of the store's own words only its code: others may hold keys.

    DownloadError where waiting may help, else DiskError.
    """
    told = (_found(_STATUS, text), _found(_CODE, text))
    said = " ".join(filter(None, told)) or brief(text)
    if trouble in _WORDS:
        return DiskError(_WORDS[trouble].format(url=url, said=said, keys=KEYS[url.scheme]))
    return DownloadError(f"{url} cannot be reached ({said})")


def brief(text: str) -> str:
    """The first line of an error, without its request's query, and without a user's name in it."""
    return re.sub(r"\?\S*|(?<=//)[^/@\s]*@", "", text.partition("\n")[0])[:200]


def _found(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""
