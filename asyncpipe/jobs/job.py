"""What to make: one job, and its identity."""

from __future__ import annotations

import hashlib
import json
import unicodedata
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import Any

import orjson

from asyncpipe.errors import UsageError
from asyncpipe.jobs.inputs import LocalFile, with_media


class JobType(StrEnum):
    """What kind of media a job makes; it picks the endpoint and the folder."""

    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"

    @property
    def folder(self) -> str:
        """The folder its assets go to, below the output folder."""
        return self.value if self is JobType.AUDIO else f"{self.value}s"


BODY_FIELDS = ("width", "height", "duration", "resolution")
"""Fields of a job that are the model's own, and go into the request as they stand."""

_TOLD_BY = {
    "-to-image": JobType.IMAGE,
    "-to-video": JobType.VIDEO,
    "-to-audio": JobType.AUDIO,
    "-to-speech": JobType.AUDIO,
    "-to-music": JobType.AUDIO,
}


@lru_cache(maxsize=1000)
def type_of_model(model: str) -> JobType | None:
    """Tell the job type from a model id such as ``google/veo3.1/text-to-video``; None if it can't.

    Only the ``…-to-image``, ``…-to-video`` and ``…-to-audio``, ``-speech``, ``-music`` forms tell
    it (the endpoint is chosen by it).
    """
    return next((kind for mark, kind in _TOLD_BY.items() if mark in model.lower()), None)


def any_type() -> str:
    """The types there are, as messages offer them."""
    *most, last = [kind.value for kind in JobType]
    return f"{', '.join(most)} or {last}"


MOST_PRIORITY = 1_000_000
"""Priorities go from this one below zero up to it."""

LONGEST_KEY = 255
"""So many characters an idempotency key may have."""


def check_priority(priority: Any) -> None:
    """Raise UsageError for what is no priority."""
    if type(priority) is not int or abs(priority) > MOST_PRIORITY:
        raise UsageError(
            f"priority: {priority!r} must be a whole number from {-MOST_PRIORITY} to "
            f"{MOST_PRIORITY}: the highest goes first, and 0 is usual"
        )


def as_fallback(given: Any) -> tuple[str, ...]:
    """What may be given as a job's fallback; raises UsageError for what is no list of models."""
    if isinstance(given, list | tuple) and all(isinstance(each, str) and each for each in given):
        return tuple(given)
    raise UsageError(f"fallback: {given!r} must be a list of models, each MODEL or PROVIDER:MODEL")


def check_max_cost(max_cost: Any) -> None:
    """Raise UsageError for what is no amount of USD."""
    if max_cost is None:
        return
    if not isinstance(max_cost, Decimal) or not max_cost.is_finite() or max_cost < 0:
        raise UsageError(f"max_cost: {max_cost!r} must be an amount of USD as Decimal, at least 0")


def check_idempotency_key(key: Any) -> None:
    """Raise UsageError for what is no idempotency key."""
    if key is None:
        return
    if not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY or not key.isprintable():
        raise UsageError(
            f"idempotency_key: {key!r} must be a text of 1 to {LONGEST_KEY} printable characters"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One thing to generate.

    ``params`` are the model's own fields (``width``, ``duration``, ``seed`` …), sent as they are.
    ``prompt`` may be "" where ``params`` say it all (``text`` to speak, ``image`` to enlarge); then
    none is sent.
    ``type`` may be left out when the model id tells it. ``retries`` (submits after a failure the
    provider does not charge for) and ``deadline_s`` (seconds from submit) override the pipeline's;
    they, like the price, are not part of the job's identity. ``occurrence`` tells otherwise equal
    jobs apart; ``counted_from`` is the name that several of them were counted from, their own being
    ``name-1`` and so on. ``labels`` are the user's own words about it: kept in ledger, manifest and
    export, never sent, and no part of its identity. Nor are: ``fallback``, models (or
    ``provider:model``) that are tried one after the other where it failed and surely was not
    charged; ``priority``, by which jobs that wait
    go, the highest first; ``max_cost``, the most USD it may cost, or it is refused; ``store``, off
    when its outputs' URLs are all that is wanted; ``idempotency_key``, a word of yours: whatever
    bears it is the same job. ``inputs`` are the files of this machine that
    ``params`` name, by what is written there; whoever takes a job in fills them in. Raises
    UsageError when the type cannot be told or a field cannot be sent as JSON.
    """

    model: str
    prompt: str = ""
    name: str | None = None
    type: JobType | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    occurrence: int | str = 1
    counted_from: str | None = None
    retries: int | None = None
    deadline_s: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    fallback: tuple[str, ...] = ()
    max_cost: Decimal | None = None
    store: bool = True
    idempotency_key: str | None = None
    inputs: Mapping[str, LocalFile] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.model or not isinstance(self.model, str):
            raise UsageError(f"model: {self.model!r} is not a model id")
        job_type = self.type or type_of_model(self.model)
        if job_type is None:
            raise UsageError(
                f"model {self.model!r} does not tell what it makes: add type: {any_type()}"
            )
        if type(self.type) is not JobType:
            object.__setattr__(self, "type", JobType(job_type))
        self._check_wishes()
        if not self.prompt and not self.params:
            raise UsageError(f"a job of model {self.model!r} says nothing: give it a prompt")
        for key in ("model", "prompt"):
            if key in self.params:
                raise UsageError(f"params.{key}: {key} stands on the job itself already")

    def _check_wishes(self) -> None:
        """Raise UsageError for what cannot be meant by those fields that are not sent."""
        check_priority(self.priority)
        if type(self.fallback) is not tuple:
            object.__setattr__(self, "fallback", as_fallback(self.fallback))
        check_max_cost(self.max_cost)
        if self.store is not True and self.store is not False:
            raise UsageError(f"store: {self.store!r} must be True or False")
        check_idempotency_key(self.idempotency_key)

    @property
    def kind(self) -> JobType:
        """The job type; never None."""
        assert self.type is not None
        return self.type

    @property
    def body(self) -> dict[str, Any]:
        """The request body: what the job says and nothing invented."""
        prompt = {"prompt": self.prompt} if self.prompt else {}
        return {"model": self.model, **prompt, **self.params}

    @property
    def digest(self) -> str:
        """What tells this request body from others: 32 hex digits."""
        return hashlib.sha256(canonical_json(self.body)).hexdigest()[:32]

    @property
    def said(self) -> str:
        """The job's words for people: its prompt, or the text it has instead; may be ""."""
        text = self.params.get("text")
        return self.prompt or (text[:1000] if isinstance(text, str) else "")

    def key(self, provider: str = "") -> str:
        """The job's identity at ``provider``: 32 hex digits, the same on every machine and run.

        Without a provider it tells the jobs of one file apart.

        A file of this machine counts by its sha256: where it lies and what it is called does not.
        The same are: text in any Unicode normal form, line breaks of any system, blanks around name
        and prompt, 1 and 1.0, keys in any order. Not the same are a field that is left out and the
        model's default written out: models change theirs. The first of several that were counted
        is the job that it was without ``count``.
        """
        body = self.body
        if self.inputs:
            by = {text: f"sha256:{file.sha256}" for text, file in self.inputs.items()}
            body = with_media(body, by)
        name = self.counted_from or self.name
        identity = {
            "name": name.strip() if name else name,
            "provider": provider,
            "type": self.kind.value,
            "body": body,
            "occurrence": self.occurrence,
        }
        written = canonical_json(identity)
        if not _is_settled(written) or self.prompt[:1].isspace() or self.prompt[-1:].isspace():
            body |= {"prompt": self.prompt.strip()} if self.prompt else {}
            written = canonical_json(_settled(identity))
        return hashlib.sha256(written).hexdigest()[:32]

    @property
    def twin_hash(self) -> int:
        """A number that jobs of one ``key()`` share and others seldom do; of this process only.

        It costs a fifth of the key, for looking through a million jobs. Raises UsageError for a
        value that JSON does not have, where it is not on the surface.
        """
        params = []
        for field_name, value in self.params.items():
            if type(value) not in _FLAT:
                return int(self.key()[:16], 16)
            said = _composed(value) if type(value) is str else value
            params.append((_composed(field_name), said))
        name = self.counted_from or self.name
        return hash(
            (
                name and _composed(name.strip()),
                self.type,
                self.model,
                _composed(self.prompt.strip()),
                self.occurrence,
                frozenset(params),
            )
        )

    def sent_with(self, urls: Mapping[str, str]) -> Job:
        """The job as it is submitted: the URLs of its files, by what is written, in their place."""
        if not urls:
            return self
        return replace(self, params=with_media(self.params, urls), inputs={})

    def once(self) -> Job:
        """A copy that equals no other job: how a nameless job of the library becomes new.

        With an idempotency key it equals what bears the same, and says the same.
        """
        key = self.idempotency_key
        return replace(self, occurrence=uuid.uuid4().hex if key is None else f"key {key}")

    def title(self, key: str) -> str:
        """The name people see: the job's own, or a slug of its prompt and 6 digits of its key."""
        if self.name:
            return self.name
        words = unicodedata.normalize("NFC", self.said).split()
        slug = "_".join(words)[:40].strip("_")
        return f"{slug}-{key[:6]}" if slug else f"{self.kind.value}-{key[:6]}"


def canonical_json(value: Any) -> bytes:
    """Serialise ``value`` the one way a hash can stand on: sorted keys, no spaces, UTF-8.

    Raises UsageError for values JSON does not have.
    """
    try:
        if _plain(value):
            # The same bytes, several times as fast: the two differ in how they write floats.
            return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        text = json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        # The ledger and the request are written by orjson, which takes less than Python does:
        # no half characters, no integers beyond 64 bits, no keys but text.
        orjson.dumps(value)
        return text.encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise UsageError(f"a field of the job cannot be sent as JSON: {exc}") from exc


def _is_settled(written: bytes) -> bool:
    """Whether nothing in canonical JSON may be written in another way and mean the same."""
    if b"\\r" in written or b".0" in written:
        return False
    return written.isascii() or unicodedata.is_normalized("NFC", written.decode())


def _composed(text: str) -> str:
    """Text as it counts in a key: in Unicode's composed form, its line breaks LF."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _settled(value: Any) -> Any:
    """``value`` as it counts in a key: text composed, its line breaks LF, whole numbers whole."""
    if isinstance(value, str):
        return _composed(value)
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, Mapping):
        return {_settled(key): _settled(inner) for key, inner in value.items()}
    return [_settled(inner) for inner in value] if isinstance(value, list | tuple) else value


_SCALARS = frozenset({str, int, bool, type(None)})

_FLAT = _SCALARS | {float}


def _plain(value: Any) -> bool:
    """Whether there is nothing in ``value`` but text, whole numbers, truth, lists and mappings."""
    if type(value) is dict:
        for key, inner in value.items():
            if type(key) is not str or (type(inner) not in _SCALARS and not _plain(inner)):
                return False
        return True
    return type(value) in _SCALARS or (type(value) is list and all(map(_plain, value)))
