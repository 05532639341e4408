"""Servers that the tests of the queues share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.cluster import Cluster, a_cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """PostgreSQL, Valkey and a simulator; every test has places of its own."""
    with a_cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made
