"""A job as a mapping, for type checkers: the keys that a job file has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Required, TypedDict


class JobDict(TypedDict, total=False):
    """A job as a mapping, with a job file's keys.

    Fields of a model that are not here belong into ``params``. A mapping of any other type will do
    as well: what is in it is looked at when it is taken.
    """

    model: Required[str]
    prompt: str
    name: str
    type: str
    params: Mapping[str, Any]
    width: int
    height: int
    duration: float
    resolution: str
    image: str
    image_url: str
    image_urls: Sequence[str]
    images: Sequence[str]
    end_image: str
    last_image: str
    reference_images: Sequence[str]
    video: str
    audio: str
    count: int
    retries: int
    deadline_s: float
    labels: Mapping[str, str]
    priority: int
    max_cost: Decimal | float
    store: bool
    fallback: Sequence[str]
