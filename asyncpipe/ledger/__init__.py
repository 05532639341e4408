"""The durable record of an output folder."""

from __future__ import annotations
