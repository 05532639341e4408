"""What a provider says beside a job's outputs, and people should see."""

from __future__ import annotations

from typing import Any

Notes = dict[str, Any]
"""By what it is: ``nsfw`` (a flag per output), ``error`` (words beside outputs), ``status`` (a word
that is not known). JSON types only."""
