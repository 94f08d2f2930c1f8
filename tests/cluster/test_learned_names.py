"""What on-demand sidecars have called, shared by replicas through a real API."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import time

import pytest
from api_parts import Place, place_in, relayed, until
from kubelab.cluster import Cluster

from tulle.app.cluster.learned import RESOURCE, SharedMemory, name_of
from tulle.installing.crds import learned_names
from tulle.kube.access import Access
from tulle.kube.errors import Refused
from tulle.serve.learning import KEPT_S, Kept, Learning

pytestmark = [pytest.mark.cluster, pytest.mark.long]

WEB = "spiffe://cluster.local/ns/shop/sa/web Deployment/web"
BOT = "spiffe://cluster.local/ns/shop/sa/bot Deployment/bot"
A, B, C = "vip/10.96.0.1:80", "vip/10.96.0.2:80", "tcp|10.96.0.3:5432"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture
async def access(cluster: Cluster) -> AsyncIterator[Access]:
    async with Access.from_kubeconfig(cluster.kubeconfig) as access:
        await access.apply(f"{DEFINITIONS}/{RESOURCE.plural}.{RESOURCE.group}", json.dumps(learned_names()).encode())
        async with asyncio.timeout(20):  # a definition is served a moment later
            while not await is_served(access):
                await asyncio.sleep(0.1)
        yield access


async def is_served(access: Access) -> bool:
    try:
        await access.get(RESOURCE.path("default"))
    except Refused:
        return False
    return True


class Replica:
    """The memory of one, and what it has learned."""

    def __init__(self, memory: SharedMemory) -> None:
        self.memory = memory
        self.learning = Learning()

    def adopt(self, kept: Kept) -> None:
        self.learning.adopt(kept)

    async def learned(self, who: str, *names: str) -> bool:
        self.learning.learn(who, names, lambda _: True, now=time(), held=frozenset)
        return await self.memory.wrote(self.learning.kept())


@asynccontextmanager
async def replicas(*accesses: Access, namespace: str) -> AsyncIterator[tuple[Replica, ...]]:
    async with AsyncExitStack() as stack:
        found = tuple(Replica(SharedMemory(access, namespace)) for access in accesses)
        for replica in found:
            await replica.memory.start()
            stack.push_async_callback(replica.memory.close)
            replica.adopt(replica.memory.read())
            replica.memory.tell(replica.adopt)
        yield found


async def objects(place: Place) -> dict[str, dict[str, float]]:
    listed = json.loads(await place.access.get(RESOURCE.path(place.name)))["items"]
    return {one["spec"]["workload"]: one["spec"]["names"] for one in listed}


async def test_what_one_learned_the_other_knows(access: Access) -> None:
    async with place_in(access) as place, replicas(access, access, namespace=place.name) as (one, two):
        assert await one.learned(WEB, A, B)
        await until(lambda: two.learning.names(WEB) == {A, B})
        assert not two.learning.is_changed, "what came from there need not be written there"
        assert await two.learned(WEB, C)
        await until(lambda: one.learning.names(WEB) == {A, B, C})
        assert await two.learned(BOT, A)
        found = await objects(place)
        assert {who: set(names) for who, names in found.items()} == {WEB: {A, B, C}, BOT: {A}}
        async with replicas(access, namespace=place.name) as (fresh,):
            assert fresh.learning.names(WEB) == {A, B, C}, "known before the first proxy comes"


async def test_both_learn_at_once_and_nothing_is_lost(access: Access) -> None:
    async with place_in(access) as place, replicas(access, access, namespace=place.name) as (one, two):
        names = [f"vip/10.96.1.{number}:80" for number in range(20)]
        for at in range(0, 20, 2):
            assert await one.learned(WEB, names[at])
            assert await two.learned(WEB, names[at + 1])
        assert set((await objects(place))[WEB]) == set(names)


async def test_what_nobody_asks_for_goes_when_it_is_old(access: Access) -> None:
    async with place_in(access) as place, replicas(access, namespace=place.name) as (one,):
        old = time() - KEPT_S - 3 * 24 * 3600
        spec = {"workload": WEB, "names": {A: old, B: time()}}
        document = {"metadata": {"name": name_of(WEB)}, "spec": spec}
        await place.post(
            RESOURCE.path(place.name), {"apiVersion": RESOURCE.api_version, "kind": RESOURCE.kind, **document}
        )
        await until(lambda: one.learning.names(WEB) == {A, B})
        one.learning.forget_old(time(), lambda _: frozenset())
        assert one.learning.names(WEB) == {B}
        assert await one.memory.wrote(one.learning.kept())
        assert set((await objects(place))[WEB]) == {B}


async def test_while_the_api_is_away_nothing_is_forgotten(cluster: Cluster, access: Access, tmp_path: Path) -> None:
    async with (
        place_in(access) as place,
        relayed(cluster.kubeconfig, tmp_path) as relay,
        Access.from_kubeconfig(relay.kubeconfig) as through,
        replicas(through, namespace=place.name) as (one,),
    ):
        assert await one.learned(WEB, A)
        await relay.cut()
        assert not await one.learned(WEB, B), "asked again later"
        assert one.learning.names(WEB) == {A, B}
        await relay.mend()
        assert await one.memory.wrote(one.learning.kept())
        assert set((await objects(place))[WEB]) == {A, B}


async def test_without_the_kind_each_goes_by_its_own(access: Access) -> None:
    """An installation without our definitions: slower, not broken."""
    async with place_in(access) as place:
        await access.send("DELETE", f"{DEFINITIONS}/{RESOURCE.plural}.{RESOURCE.group}")
        async with replicas(access, namespace=place.name) as (one,):
            assert not await one.learned(WEB, A)
            assert one.learning.names(WEB) == {A}
