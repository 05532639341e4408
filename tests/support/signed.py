"""Deliveries signed with the first key of RFC 8032, each checked against OpenSSL, as literals."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

AT = 1_764_342_000
NOW = datetime(2025, 11, 28, 15, tzinfo=UTC)
assert NOW.timestamp() == AT

SEED = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
X = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
WHPK = "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
JWKS = json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": X}]}).encode()

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # the one of the standard's own examples
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"

STANDARD_BODY = b'{"id":"p1","status":"succeeded"}'
STANDARD = {
    "webhook-id": "msg_1",
    "webhook-timestamp": str(AT),
    "webhook-signature": "v1,5rikjzhrgW3OuwNDpiFA10i0Ymg1KNmwYj/wRKdexJI=",
}
V1A = "v1a,TOLbR3WzzyCz8oiuv9PzMve+uCp1HtqgH8aIbvhgq1Uvg6TCjv26KPdp2b3HCY3oyYglPxONGuG4JesV6sRmCQ=="


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)
