"""Whom the rotation of the root waits for: proxies that run, and no pod that merely could have one."""

import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from tulle.identity.moves import Timing
from tulle.identity.office import Office
from tulle.identity.store import RootStore, utc
from tulle.model.keys import WorkloadKey
from tulle.serve.credentials import Credentials
from tulle.serve.fleet import Fleet
from tulle.serve.seats import Seat
from tulle.serve.vault import Vault

SEAT = Seat("uid-1", WorkloadKey("Kubernetes", "shop", "over-1"), "default", is_gateway=False)


class Nobody:
    """There is no proxy to bring secrets to."""

    def push_secrets(self, holders: Iterable[str] | None) -> None:
        """None is there."""


@pytest.mark.parametrize(
    ("runs", "elsewhere", "moves"),
    [(True, 0, False), (True, 1, True), (True, -1, False), (False, 0, True), (False, -1, False)],
    ids=("runs", "at-another-replica", "another-replica-lags", "does-not-run", "does-not-run-and-another-lags"),
)
async def test_a_root_signs_when_all_proxies_that_run_trust_it(
    tmp_path: Path, runs: bool, elsewhere: int, moves: bool
) -> None:
    store = RootStore.open(tmp_path / "ca", "cluster.local", utc(time.time()))
    (first,) = store.roots
    fleet = Fleet(lambda *_: ())
    fleet.seats = {SEAT.uid: SEAT}
    timing = Timing(leaf_ttl_s=60.0, bundle_settle_s=0.0, connection_age_s=0.0)
    credentials = Credentials(Office(store, timing, time.time()), Vault(), fleet, pytest.fail)
    credentials.runs = lambda _: runs
    credentials.trusted_elsewhere = lambda _: elsewhere
    credentials.start(Nobody())
    try:
        credentials.rotate()
        credentials.look_again()
        active = [one.fingerprint for one in credentials.roots if one.state == "active"]
        assert (active != [first.fingerprint]) is moves
    finally:
        credentials.close()
        store.close()
