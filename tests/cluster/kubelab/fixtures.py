"""The fixture `cluster`: one cluster for the session, one node, gone with the session. Two nodes: `start_cluster`.

TULLE_CLUSTER=<name> takes one that runs already (`make cluster DETACH=1`) and leaves it running: for the inner loop.
"""

import os
from collections.abc import Callable, Iterator

import pytest

from . import cluster as clusters
from .builds import UnavailableError
from .cluster import Choice, Cluster

Start = Callable[[Choice], Cluster]


@pytest.fixture(scope="session")
def start_cluster() -> Iterator[Start]:
    """Starts clusters that end with the session. Skips the test where the machine cannot."""
    started: list[str] = []

    def start(choice: Choice) -> Cluster:
        try:
            found = clusters.up(choice)
        except UnavailableError as error:
            pytest.skip(str(error))
        started.append(choice.name)
        return found

    yield start
    for name in started:
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
