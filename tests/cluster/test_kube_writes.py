"""Leases, tokens and writes against a real API."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from api_parts import Place, place_in, relayed, until
from kubelab.cluster import Cluster

from tulle.kube.access import Access
from tulle.kube.discovery import Resource
from tulle.kube.errors import KubeError, Unreachable
from tulle.kube.leases import Leadership, Timing
from tulle.kube.resources import CONFIG_MAPS
from tulle.kube.reviewing import Reviewer, TokenRefused
from tulle.kube.writing import Ref, Writer, delete_labelled

pytestmark = [pytest.mark.cluster, pytest.mark.long]

PODS = Resource("", "v1", "pods", "Pod")
QUICK = Timing(lease_s=8, renew_by_s=6.0, retry_s=0.3)


@pytest.fixture
async def access(cluster: Cluster) -> AsyncIterator[Access]:
    async with Access.from_kubeconfig(cluster.kubeconfig) as access:
        yield access


@asynccontextmanager
async def running(*coroutines: Any) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(one) for one in coroutines]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# --- leases -----------------------------------------------------------------------------------------------------------


async def test_one_leads_and_when_it_goes_the_other_does(access: Access) -> None:
    async with place_in(access) as place:
        one, two = (Leadership(access, place.name, "who", name, timing=QUICK) for name in ("one", "two"))
        async with running(one.run()) as first:
            await until(lambda: one.is_leader)
            async with running(two.run()):
                await until(lambda: two.holder == "one")
                await asyncio.sleep(QUICK.lease_s + 1)
                assert one.is_leader, "renewed"
                assert not two.is_leader
                first[0].cancel()
                await until(lambda: two.is_leader, wait_s=QUICK.lease_s - 2)  # no need to wait for its end
                assert not one.is_leader


async def test_who_loses_the_api_leads_no_longer_before_another_does(
    cluster: Cluster, access: Access, tmp_path: Path
) -> None:
    async with (
        place_in(access) as place,
        relayed(cluster.kubeconfig, tmp_path) as relay,
        Access.from_kubeconfig(relay.kubeconfig) as through,
    ):
        said: list[bool] = []
        cut_off = Leadership(through, place.name, "who", "cut off", timing=QUICK, on_change=said.append)
        other = Leadership(access, place.name, "who", "other", timing=QUICK)
        async with running(cut_off.run()):
            await until(lambda: cut_off.is_leader)
            async with running(other.run()):
                await until(lambda: other.holder == "cut off")
                await relay.cut()
                both = 0
                async with asyncio.timeout(20):
                    while not other.is_leader:
                        both += cut_off.is_leader and other.is_leader
                        await asyncio.sleep(0.01)
                assert not both
                assert not cut_off.is_leader
                await until(lambda: said == [True, False])


# --- tokens -----------------------------------------------------------------------------------------------------------


class Bearer:
    """A pod and its token."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.uid = ""
        self.token = ""

    async def make(self, audience: str = "tulle") -> "Bearer":
        self.uid = await self.place.pod("bearer")
        self.token = await self.place.token(audience, ("bearer", self.uid))
        return self

    def is_alive(self, namespace: str, pod: str, uid: str) -> bool:
        return (namespace, pod, uid) == (self.place.name, "bearer", self.uid)


async def test_a_token_says_whose_pod_it_is(access: Access) -> None:
    async with place_in(access) as place:
        bearer = await Bearer(place).make()
        reviewer = Reviewer(access, "tulle", bearer.is_alive)
        proven = await reviewer.review(bearer.token)
        assert (proven.namespace, proven.pod, proven.uid) == (place.name, "bearer", bearer.uid)
        assert proven.service_account == "default"
        assert await reviewer.review(bearer.token) == proven
        assert reviewer.reviews == 1, "the second was remembered"


async def test_tokens_that_prove_nothing(access: Access) -> None:
    async with place_in(access) as place:
        bearer = await Bearer(place).make()
        reviewer = Reviewer(access, "tulle", bearer.is_alive)
        foreign = await place.token("another", ("bearer", bearer.uid))
        loose = await place.token("tulle", None)
        head, body, tail = bearer.token.split(".")
        forged = f"{head}.{body}.{tail[:-8]}AAAAAAAA"
        for token, reason in ((foreign, "audience|know it|invalid"), (loose, "bound to no pod"), (forged, ".")):
            with pytest.raises(TokenRefused, match=reason):
                await reviewer.review(token)
        asked = reviewer.reviews
        with pytest.raises(TokenRefused):
            await reviewer.review(forged)
        assert reviewer.reviews == asked, "a refusal is remembered for a while"


async def test_the_token_of_a_pod_that_is_gone(access: Access) -> None:
    async with place_in(access) as place:
        bearer = await Bearer(place).make()
        watched = Reviewer(access, "tulle", bearer.is_alive)
        await watched.review(bearer.token)
        await access.send("DELETE", place.path("pods", "bearer"), query={"gracePeriodSeconds": "0"})
        blind = Reviewer(access, "tulle", lambda *_: True)
        await asyncio.sleep(1)
        with suppress(TimeoutError):
            async with asyncio.timeout(30):  # the API itself remembers reviews for some seconds
                while await _passes(blind, bearer.token):
                    blind = Reviewer(access, "tulle", lambda *_: True)
                    await asyncio.sleep(0.5)
        assert not await _passes(blind, bearer.token)
        bearer.uid = "another of that name"
        with pytest.raises(TokenRefused, match="not there"):
            await watched.review(bearer.token)


async def _passes(reviewer: Reviewer, token: str) -> bool:
    try:
        await reviewer.review(token)
    except TokenRefused:
        return False
    return True


async def test_while_the_api_is_away_memory_and_keys_speak(cluster: Cluster, access: Access, tmp_path: Path) -> None:
    async with (
        place_in(access) as place,
        relayed(cluster.kubeconfig, tmp_path) as relay,
        Access.from_kubeconfig(relay.kubeconfig) as through,
    ):
        bearer = await Bearer(place).make()
        now = [0.0]
        knows = Reviewer(through, "tulle", bearer.is_alive, clock=lambda: now[0])
        keyed, blank = (Reviewer(through, "tulle", bearer.is_alive) for _ in range(2))
        proven = await knows.review(bearer.token)
        await keyed.read_keys()
        foreign = await place.token("another", ("bearer", bearer.uid))
        loose = await place.token("tulle", None)
        await relay.cut()
        now[0] = 1000.0
        assert await knows.review(bearer.token) == proven
        assert knows.fallbacks == 1
        by_key = await keyed.review(bearer.token)
        assert (by_key.namespace, by_key.pod, by_key.uid) == (proven.namespace, proven.pod, proven.uid)
        assert by_key.service_account == proven.service_account
        head, body, tail = bearer.token.split(".")
        for token in (foreign, loose, f"{head}.{body}.{tail[:-8]}AAAAAAAA"):
            with pytest.raises(TokenRefused):
                await keyed.review(token)
        with pytest.raises(Unreachable):
            await blank.review(bearer.token)


# --- writes -----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def writing(access: Access, **named: Any) -> AsyncIterator[tuple[Writer, list[Ref]]]:
    refused: list[Ref] = []

    def note(ref: Ref, error: KubeError) -> None:
        assert error.problem().code.startswith("TUL10")
        refused.append(ref)

    writer = Writer(access, named.pop("may_write", lambda: True), note, **named)
    async with running(writer.run()):
        yield writer, refused


async def idle(writer: Writer) -> None:
    async with asyncio.timeout(20):
        await writer.idle()


def config_map(place: Place, name: str, **entries: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": place.name, "labels": {"mine": "yes"}}, "data": entries}


async def test_an_object_is_applied_changed_and_deleted_only_when_wanted_otherwise(access: Access) -> None:
    async with place_in(access) as place, writing(access) as (writer, refused):
        for entries in ({"a": "1", "b": "2"}, {"a": "1", "b": "2"}, {"a": "3"}, {"a": "3"}):
            writer.apply(CONFIG_MAPS, config_map(place, "one", **entries))
            await idle(writer)
        assert writer.writes == 2
        found = json.loads(await access.get(place.path("configmaps", "one")))
        assert found["data"] == {"a": "3"}, "what we no longer name is gone"
        writer.delete(CONFIG_MAPS, place.name, "one")
        writer.delete(CONFIG_MAPS, place.name, "never was")
        await idle(writer)
        assert not refused
        listed = json.loads(await access.get(place.path("configmaps"), {"labelSelector": "mine=yes"}))
        assert listed["items"] == []


async def test_a_status_is_written_only_when_it_changes_and_keeps_what_others_said(access: Access) -> None:
    async with place_in(access) as place, writing(access) as (writer, _):
        await place.pod("one")
        theirs = {"type": "Theirs", "status": "True"}
        await place.merge(place.path("pods", "one/status"), {"status": {"conditions": [theirs]}})

        def build(word: str) -> Any:
            def built(current: dict[str, Any]) -> dict[str, Any]:
                status = current["status"]
                others = [one for one in status.get("conditions", []) if one["type"] != "Ours"]
                return {**status, "conditions": [*others, {"type": "Ours", "status": word}]}

            return built

        for word in ("False", "False", "True"):
            writer.status(PODS, place.name, "one", word, build(word))
            await idle(writer)
        assert writer.writes == 2
        conditions = json.loads(await access.get(place.path("pods", "one")))["status"]["conditions"]
        assert {one["type"]: one["status"] for one in conditions} == {"Theirs": "True", "Ours": "True"}
        writer.forget_written()
        writer.status(PODS, place.name, "one", "True", lambda current: current["status"])
        await idle(writer)
        assert writer.writes == 2, "a new leader that finds what it wants writes nothing"


async def test_who_does_not_lead_writes_nothing_until_it_does(access: Access) -> None:
    leads = [False]
    async with place_in(access) as place, writing(access, may_write=lambda: leads[0]) as (writer, _):
        for number in range(3):
            writer.apply(CONFIG_MAPS, config_map(place, "one", a=str(number)))
        await asyncio.sleep(0.7)
        assert (writer.writes, writer.backlog) == (0, 1)
        leads[0] = True
        await idle(writer)
        assert writer.writes == 1
        assert json.loads(await access.get(place.path("configmaps", "one")))["data"] == {"a": "2"}


async def test_writes_keep_to_their_rate(access: Access) -> None:
    async with place_in(access) as place, writing(access, per_second=20.0, burst=5.0) as (writer, _):
        began = asyncio.get_running_loop().time()
        for number in range(25):
            writer.apply(CONFIG_MAPS, config_map(place, f"m{number}"))
        await idle(writer)
        assert writer.writes == 25
        assert asyncio.get_running_loop().time() - began >= 20 / 20.0 * 0.95


async def test_what_the_api_never_takes_is_told_once_and_does_not_stop_the_rest(access: Access) -> None:
    async with place_in(access) as place, writing(access) as (writer, refused):
        writer.apply(CONFIG_MAPS, config_map(place, "Not_A_Name"))
        writer.apply(CONFIG_MAPS, config_map(place, "fine"))
        writer.status(PODS, place.name, "nobody", 1, lambda current: current["status"])
        await idle(writer)
        assert [ref.name for ref in refused] == ["Not_A_Name"]
        assert await access.get(place.path("configmaps", "fine"))


async def test_writes_wait_for_an_api_that_is_away(cluster: Cluster, access: Access, tmp_path: Path) -> None:
    async with (
        place_in(access) as place,
        relayed(cluster.kubeconfig, tmp_path) as relay,
        Access.from_kubeconfig(relay.kubeconfig) as through,
        writing(through) as (writer, refused),
    ):
        await relay.cut()
        writer.apply(CONFIG_MAPS, config_map(place, "one", a="1"))
        await asyncio.sleep(1)
        assert writer.backlog == 1
        await relay.mend()
        await idle(writer)
        assert not refused
        assert await access.get(place.path("configmaps", "one"))


async def test_an_event_is_said_once(access: Access) -> None:
    async with place_in(access) as place, writing(access) as (writer, refused):
        uid = await place.pod("one")
        about = {"apiVersion": "v1", "kind": "Pod", "namespace": place.name, "name": "one", "uid": uid}
        for note in ("no", "no", "still no"):
            writer.event(about, reason="Refused", note=note, action="Translate")
            await idle(writer)
        async with writing(access) as (replica, _):
            replica.event(about, reason="Refused", note="no", action="Translate")
            await idle(replica)
        assert not refused
        events = json.loads(await access.get(place.path("events", root="/apis/events.k8s.io/v1")))["items"]
        assert sorted(one["note"] for one in events if one["reason"] == "Refused") == ["no", "still no"]


async def test_deleting_by_label_takes_ours_alone(access: Access) -> None:
    async with place_in(access) as place, writing(access) as (writer, _):
        for name in ("one", "two"):
            writer.apply(CONFIG_MAPS, config_map(place, name))
        await idle(writer)
        await place.post(place.path("configmaps"), {"metadata": {"name": "theirs"}})
        assert await delete_labelled(access, CONFIG_MAPS, "mine=yes", place.name) == 2
        names = {one["metadata"]["name"] for one in json.loads(await access.get(place.path("configmaps")))["items"]}
        assert "theirs" in names
        assert not names & {"one", "two"}
        with pytest.raises(ValueError):
            await delete_labelled(access, CONFIG_MAPS, "", place.name)
