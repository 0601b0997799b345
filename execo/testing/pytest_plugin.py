"""Fixtures for pytest. In a ``conftest.py``::

    pytest_plugins = ["execo.testing.pytest_plugin"]

Then a test that has a parameter ``cluster`` gets a :class:`~execo.testing.Cluster` of four hosts,
which is started once for all tests. A test that gives it a fault heals it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .cluster import Cluster

__all__ = ["cluster"]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Four SSH hosts on loopback."""
    with Cluster(4) as cluster:
        yield cluster
