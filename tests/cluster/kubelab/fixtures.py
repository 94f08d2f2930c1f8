"""The fixture `cluster`: one cluster for the session, one node, gone with the session; `two_nodes`: one of two.

TULLE_CLUSTER=<name> takes one that runs already (`make cluster DETACH=1`) and leaves it running: for the inner loop.
"""

import os
from collections.abc import Callable, Iterator

import pytest

from . import cluster as clusters
from .builds import UnavailableError
from .cluster import Choice, Cluster

Start = Callable[[Choice], Cluster]


_started: dict[str, Cluster] = {}
"""By name; of the process, not of a fixture: folders of tests that import the fixtures share what runs."""


@pytest.fixture(scope="session")
def start_cluster() -> Iterator[Start]:
    """Starts clusters that end with the session. Skips the test where the machine cannot."""

    def start(choice: Choice) -> Cluster:
        if choice.name not in _started:
            try:
                _started[choice.name] = clusters.up(choice)
            except UnavailableError as error:
                pytest.skip(str(error))
        return _started[choice.name]

    yield start
    while _started:
        name, _ = _started.popitem()
        clusters.down(name)


@pytest.fixture(scope="session")
def cluster(start_cluster: Start) -> Cluster:
    """One node, with the image of test tools."""
    running = os.environ.get("TULLE_CLUSTER")
    if running:
        found = clusters.attach(running)
        found.load("test")
        return found
    return start_cluster(Choice(name=f"test-{os.getpid()}", images=("test",)))


@pytest.fixture(scope="session")
def two_nodes(start_cluster: Start) -> Cluster:
    """Two nodes, with the image of test tools; the one that runs already, if it has two."""
    running = os.environ.get("TULLE_CLUSTER")
    if running and len((found := clusters.attach(running)).layout.nodes) > 1:
        found.load("test")
        return found
    return start_cluster(Choice(name=f"two-{os.getpid()}", size=2, images=("test",)))
