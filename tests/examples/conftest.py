"""One shop for all tests that only look at it."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from bookinfo_shop import Process, running


@pytest.fixture(scope="module")
def shop() -> Iterator[dict[str, Process]]:
    """details, ratings, reviews v1..v3, and one productpage before each version of reviews: page-v1, page-v2, page-v3."""
    with ExitStack() as stack:

        def start(module: str, listens: int = 1, **env: str) -> Process:
            return stack.enter_context(running(module, listens, **env))

        services = {"details": start("details"), "ratings": start("ratings", 2, LIVE_INTERVAL="0.05")}
        grpc = f"127.0.0.1:{services['ratings'].ports['grpc']}"
        for version in ("v1", "v2", "v3"):
            pod = f"reviews-{version}-pod"
            services[version] = start("reviews", VERSION=version, RATINGS_GRPC=grpc, POD_NAME=pod)
            services[f"page-{version}"] = start(
                "productpage",
                DETAILS_URL=services["details"].url,
                REVIEWS_URL=services[version].url,
                RATINGS_URL=services["ratings"].url,
            )
        yield services
