"""When to submit, poll, wait, retry and give up: pure decisions."""

from __future__ import annotations
