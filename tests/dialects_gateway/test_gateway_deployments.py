"""The objects that are made for a Gateway: who gets them, what they carry, and what parameters change."""

from typing import Any

import pytest

from compile.world import CLUSTER, World
from tulle.dialects.gateway_api.deployments import DeploymentSettings, deployment_of, objects_for
from tulle.dialects.gateway_api.inputs import Deployed, GatewayAddress, deployed
from tulle.dialects.gateway_api.names import NAME_LABEL, gateway_key
from tulle.dialects.gateway_api.status import status_of

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front, namespace: infra, uid: u-1, annotations: {networking.istio.io/service-type: ClusterIP}}
spec:
  gatewayClassName: tulle
  infrastructure: {labels: {team: edge}, annotations: {note: x}%s}
  listeners:
  - {name: a, port: 80, protocol: HTTP}
  - {name: b, port: 80, protocol: HTTP, hostname: b.test}
  - {name: c, port: 9000, protocol: TCP}
  - {name: d, port: 1111, protocol: STRANGE}
"""
PARAMETERS = """
apiVersion: v1
kind: ConfigMap
metadata: {name: wide, namespace: infra}
data:
  deployment: |
    spec:
      replicas: 3
      template:
        spec:
          containers:
          - name: istio-proxy
            resources: {requests: {cpu: 100m}}
  horizontalPodAutoscaler: "spec: {maxReplicas: 5}"
  podDisruptionBudget: "spec: {minAvailable: 1}"
  service: "%s"
"""


def asking(*addresses: str) -> str:
    """The Gateway with addresses that it asks for."""
    return (GATEWAY % "").replace("  listeners:", f"  addresses: [{', '.join(addresses)}]\n  listeners:")


def made(*texts: str, **settings: Any) -> dict[str, Any]:
    world = World.of("---\n".join(texts))
    wanted = deployment_of(world.db, gateway_key(CLUSTER, "infra", "front"))
    if wanted is None:
        return {}
    return {one["kind"]: one for one in objects_for(wanted, DeploymentSettings(**settings))}


def test_what_is_made() -> None:
    found = made(GATEWAY % "", revision="canary")
    assert list(found) == ["ServiceAccount", "Service", "Deployment"]
    for one in found.values():
        meta = one["metadata"]
        assert (meta["name"], meta["namespace"]) == ("front-tulle", "infra")
        assert meta["labels"][NAME_LABEL] == "front"
        assert (meta["labels"]["team"], meta["annotations"]["note"]) == ("edge", "x")
        assert meta["ownerReferences"][0]["uid"] == "u-1"
    service = found["Service"]["spec"]
    assert service["type"] == "ClusterIP"
    assert [one["port"] for one in service["ports"]] == [15021, 80, 9000]
    template = found["Deployment"]["spec"]["template"]
    assert (
        template["metadata"]["labels"].items()
        >= {NAME_LABEL: "front", "team": "edge", "istio.io/rev": "canary"}.items()
    )
    assert template["metadata"]["annotations"]["inject.istio.io/templates"] == "gateway"
    assert found["Deployment"]["spec"]["selector"]["matchLabels"] == service["selector"] == {NAME_LABEL: "front"}


def test_parameters_are_laid_over() -> None:
    ref = ", parametersRef: {group: '', kind: ConfigMap, name: wide}"
    found = made(GATEWAY % ref, PARAMETERS % "spec: {type: NodePort}")
    spec = found["Deployment"]["spec"]
    assert spec["replicas"] == 3
    (proxy,) = spec["template"]["spec"]["containers"]
    assert proxy["image"] == "auto"
    assert proxy["resources"] == {"requests": {"cpu": "100m"}}
    assert found["HorizontalPodAutoscaler"]["spec"]["maxReplicas"] == 5
    assert found["PodDisruptionBudget"]["spec"]["minAvailable"] == 1
    assert found["Service"]["spec"]["type"] == "NodePort"


@pytest.mark.parametrize("text", ["[unclosed", "a: &x {b: [*x, *x]}", "just text"])
def test_an_overlay_that_cannot_be_read_changes_nothing(text: str) -> None:
    ref = ", parametersRef: {group: '', kind: ConfigMap, name: wide}"
    assert made(GATEWAY % ref, PARAMETERS % text)["Service"] == made(GATEWAY % "")["Service"]


@pytest.mark.parametrize(
    "gateway",
    [
        (GATEWAY % "").replace("gatewayClassName: tulle", "gatewayClassName: other"),
        GATEWAY % ", parametersRef: {group: x.test, kind: Thing, name: wide}",
        GATEWAY % ", parametersRef: {group: '', kind: ConfigMap, name: nobody}",
        asking("{type: Hostname, value: mine.infra}"),
        asking("{type: strange.test/x, value: a}"),
        asking("{value: 192.0.2.1}", "{value: 192.0.2.2}"),
    ],
    ids=["of others", "strange parameters", "missing parameters", "by hand", "strange address", "two addresses"],
)
def test_who_gets_nothing(gateway: str) -> None:
    assert made(gateway) == {}


def test_an_address_is_asked_of_load_balancers() -> None:
    service = made(asking("{value: 192.0.2.1}").replace("ClusterIP", "LoadBalancer"))["Service"]["spec"]
    assert service["loadBalancerIP"] == "192.0.2.1"
    assert "loadBalancerIP" not in made(asking("{value: ''}").replace("ClusterIP", "LoadBalancer"))["Service"]["spec"]
    assert "loadBalancerIP" not in made(asking("{value: 192.0.2.1}"))["Service"]["spec"]


@pytest.mark.parametrize(
    ("addresses", "accepted", "programmed"),
    [
        (["{value: 192.0.2.1}"], "Accepted", "Programmed"),
        (["{value: 192.0.2.2}"], "Accepted", "AddressNotUsable"),
        (["{value: 192.0.2.1}", "{value: 192.0.2.2}"], "Accepted", "AddressNotUsable"),
        (["{value: 192.0.2.1}", "{type: strange.test/x, value: a}"], "UnsupportedAddress", "Invalid"),
    ],
)
def test_addresses_that_are_not_those_asked_for(addresses: list[str], accepted: str, programmed: str) -> None:
    world = World.of(asking(*addresses).replace("protocol: STRANGE", "protocol: HTTP"))
    key = gateway_key(CLUSTER, "infra", "front")
    with world.db.edit() as tx:
        tx.set(deployed, key, Deployed((GatewayAddress("IPAddress", "192.0.2.1"),), is_programmed=True))
    status = status_of(world.db, key)
    assert status is not None
    reasons = {one["type"]: one["reason"] for one in status["conditions"]}
    assert (reasons["Accepted"], reasons["Programmed"]) == (accepted, programmed)
