"""What is remembered of endpoints that are gone is little: a mesh whose pods come and go for weeks does not grow."""

import tracemalloc

from tulle.compile.endpoints import fragment
from tulle.model.intent import Endpoint
from tulle.model.keys import WorkloadKey

MOST_BYTES = 4_000_000


def test_pods_that_came_and_went_leave_little_behind() -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(10_000):
            address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
            pod = WorkloadKey("c", "shop", f"web-{number}")
            assert fragment(_endpoint(address, pod))
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < MOST_BYTES, f"{grown / 1e6:.1f} MB"


def _endpoint(address: str, pod: WorkloadKey) -> Endpoint:
    return Endpoint(
        address=address,
        port=80,
        workload=pod,
        labels=(("app", "web"),),
        has_sidecar=True,
        is_ready=True,
        service_account="default",
        owner="web",
    )
