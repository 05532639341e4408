"""What an object store's error means, and what people are told: pure."""

from __future__ import annotations

import re
from enum import Enum

from asyncpipe.errors import AsyncpipeError, DiskError, DownloadError
from asyncpipe.jobs import BucketUrl


class StoreTrouble(Enum):
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
    "NoSuchBucket": StoreTrouble.NO_BUCKET,
    "ContainerNotFound": StoreTrouble.NO_BUCKET,
    "PermanentRedirect": StoreTrouble.REGION,
    "AuthorizationHeaderMalformed": StoreTrouble.REGION,
    "IllegalLocationConstraintException": StoreTrouble.REGION,
    "RequestTimeTooSkewed": StoreTrouble.CLOCK,
    "ExpiredToken": StoreTrouble.EXPIRED,
    "InvalidToken": StoreTrouble.EXPIRED,
    "RequestTimeout": StoreTrouble.AWAY,
    "SlowDown": StoreTrouble.AWAY,
}

_BY_KIND = {
    "FileNotFoundError": StoreTrouble.MISSING,
    "PermissionDeniedError": StoreTrouble.KEYS,
    "UnauthenticatedError": StoreTrouble.KEYS,
    "NotSupportedError": StoreTrouble.REFUSED,
}

_PASSING = frozenset({408, 409, 412, 425, 429})
"""Refusals that say nothing of rights: another moment may do."""


def trouble_of(text: str, kind: str) -> StoreTrouble:
    """What an error of the library means, by its text and the name of its class."""
    code = _found(_CODE, text)
    if code in _BY_CODE:
        return _BY_CODE[code]
    if "incorrectly configured region" in text:
        return StoreTrouble.REGION
    if kind in _BY_KIND:
        return _BY_KIND[kind]
    status = int(_found(_STATUS, text) or 0)
    if status in (401, 403):
        return StoreTrouble.KEYS
    refused = 400 <= status < 500 and status not in _PASSING
    return StoreTrouble.REFUSED if refused else StoreTrouble.AWAY


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
    StoreTrouble.NO_BUCKET: "{url}: there is no such bucket: make it, or correct its name",
    StoreTrouble.REGION: "{url} is in another region ({said}): set AWS_REGION to its own",
    StoreTrouble.CLOCK: "{url}: this machine's clock is off ({said}): set it",
    StoreTrouble.EXPIRED: "{url}: the keys in the environment have expired ({said}): get new ones, "
    "then run the same command again",
    StoreTrouble.KEYS: "{url} refuses the keys in the environment ({said}): they must be allowed "
    "to list the bucket, and to read, write and delete what is in it; {keys}",
    StoreTrouble.REFUSED: "{url} refuses what was asked of it ({said})",
}


def error_of(url: BucketUrl, trouble: StoreTrouble, text: str) -> AsyncpipeError:
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
