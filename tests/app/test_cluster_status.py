from datetime import UTC, datetime

from tulle.app.cluster.gateways import addresses_of
from tulle.app.cluster.status import _building, merged
from tulle.dialects.gateway_api.names import CONTROLLER

EARLY, LATE = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
NOW = datetime(2026, 2, 1, tzinfo=UTC)


def condition(name: str, status: str = "True", time: str = "", **rest: object) -> dict[str, object]:
    return {"type": name, "status": status, "reason": name, **rest, **({"lastTransitionTime": time} if time else {})}


def test_a_condition_keeps_its_time_until_its_status_changes():
    before = {"conditions": [condition("Accepted", time=EARLY), condition("Programmed", "False", EARLY)]}
    wanted = {"conditions": [condition("Accepted", observedGeneration=2), condition("Programmed")]}
    found = merged(before, wanted, NOW)["conditions"]
    assert [(one["type"], one["lastTransitionTime"]) for one in found] == [("Accepted", EARLY), ("Programmed", LATE)]
    assert found[0]["observedGeneration"] == 2


def test_what_others_wrote_stays_and_what_we_no_longer_say_goes():
    before = {
        "theirs": 1,
        "conditions": [condition("PartiallyInvalid", time=EARLY), condition("Foreign", time=EARLY)],
        "parents": [
            {"parentRef": {"name": "a"}, "controllerName": "other.example/c", "conditions": [condition("X")]},
            {
                "parentRef": {"name": "a"},
                "controllerName": CONTROLLER,
                "conditions": [condition("Accepted", time=EARLY)],
            },
            {"parentRef": {"name": "gone"}, "controllerName": CONTROLLER, "conditions": []},
        ],
    }
    ours = {"parentRef": {"name": "a"}, "controllerName": CONTROLLER, "conditions": [condition("Accepted")]}
    found = merged(before, {"conditions": [condition("Accepted")], "parents": [ours]}, NOW)
    assert found["theirs"] == 1
    assert [one["type"] for one in found["conditions"]] == ["Accepted", "Foreign"]
    assert [one["controllerName"] for one in found["parents"]] == [CONTROLLER, "other.example/c"]
    assert found["parents"][0]["conditions"][0]["lastTransitionTime"] == EARLY
    assert merged(found, {"conditions": [condition("Accepted")], "parents": [ours]}) == found, "written once"


def test_what_is_attached_to_nothing_of_ours_is_cleared_once_and_others_are_left_alone():
    theirs = {"parentRef": {"name": "a"}, "controllerName": "other.example/c", "conditions": []}
    ours = {"parentRef": {"name": "b"}, "controllerName": CONTROLLER, "conditions": []}
    build = _building({"parents": []})
    assert build({"status": {"parents": [ours, theirs]}}) == {"parents": [theirs]}
    assert build({"status": {"parents": [theirs]}}) is None
    assert build({}) is None


def test_a_load_balancer_without_address_has_none_and_other_services_their_own():
    balancer = {"spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1"}, "status": {"loadBalancer": {}}}
    assert [*addresses_of(balancer)] == []
    balancer["status"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "lb.example"}]}}
    assert [one.value for one in addresses_of(balancer)] == ["192.0.2.1", "lb.example"]
    assert [one.value for one in addresses_of({"spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1"}})] == ["10.0.0.1"]
