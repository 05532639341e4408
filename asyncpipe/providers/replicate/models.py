"""How a model may be named, and where each form is submitted to: pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from asyncpipe.errors import Rejected

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"

_MODEL = re.compile(rf"(?P<owner>{_NAME})/(?P<name>{_NAME})(?::(?P<version>[A-Za-z0-9]+))?")

_DEPLOYMENT = re.compile(rf"deployments/({_NAME})/({_NAME})")

_VERSION = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelName:
    """What a model's name says: the path of its submits, and what goes with the input.

    ``model`` and ``deployment`` are ``owner/name``, ``version`` is a version's id; "" where it is
    not named. ``told`` is what the request's ``version`` has to say, "" for none.
    """

    path: str
    model: str = ""
    version: str = ""
    deployment: str = ""
    told: str = ""


def read_model(text: str) -> ModelName:
    """Read a model's name; raises Rejected for what Replicate has no form of.

    ``owner/name`` is an official model, ``owner/name:version`` or a version's 64 digits any other,
    ``deployments/owner/name`` a deployment.
    """
    if found := _DEPLOYMENT.fullmatch(text):
        name = f"{found[1]}/{found[2]}"
        return ModelName(path=f"/deployments/{name}/predictions", deployment=name)
    if _VERSION.fullmatch(text):
        return ModelName(path="/predictions", version=text, told=text)
    if (found := _MODEL.fullmatch(text)) is None:
        raise Rejected(
            f"Replicate has no model {text[:200]!r}: write it as owner/name, as "
            "owner/name:version, as a version's 64 digits, or as deployments/owner/name"
        )
    model, version = f"{found['owner']}/{found['name']}", found["version"] or ""
    if version:
        return ModelName(path="/predictions", model=model, version=version, told=text)
    return ModelName(path=f"/models/{model}/predictions", model=model)
