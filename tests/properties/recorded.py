"""The same objects as a cluster's API server lists them: with bookkeeping, owners and EndpointSlices.

What Kubernetes adds or fills in, and nothing that a user could have said otherwise. One JSON `List`, as `kubectl get -o json`
records it.
"""

import base64
import copy
import json
from collections.abc import Iterator
from typing import Any

Raw = dict[str, Any]
NAMESPACED_LABEL = "kubernetes.io/metadata.name"


def recorded(raws: list[Raw]) -> str:
    """A recorded list of the objects and of what controllers made of them."""
    objects = [_bookkept(copy.deepcopy(raw), number) for number, raw in enumerate(raws)]
    slices = [piece for raw in objects if raw["kind"] == "Service" for piece in _slices(raw, objects)]
    written = {raw["metadata"]["name"] for raw in objects if raw["kind"] == "Namespace"}
    named = {raw["metadata"]["namespace"] for raw in objects if raw["kind"] != "Namespace"}
    namespaces = [_namespace(name) for name in sorted(named - written)]
    items = [*namespaces, *objects, *slices]
    return json.dumps({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items})


def _bookkept(raw: Raw, number: int) -> Raw:
    metadata = raw["metadata"]
    metadata |= {
        "uid": f"00000000-0000-4000-8000-{number:012d}",
        "resourceVersion": str(1000 + number),
        "generation": 1,
        "managedFields": [
            {"manager": "kubectl", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {}}}
        ],
    }
    metadata.setdefault("creationTimestamp", "1970-01-01T00:00:00Z")
    metadata.setdefault("annotations", {})["kubectl.kubernetes.io/last-applied-configuration"] = "{}"
    match raw["kind"]:
        case "Pod":
            _pod(raw)
        case "Service":
            _service(raw)
        case "Secret":
            _secret(raw)
        case "Namespace":
            raw["metadata"].setdefault("labels", {})[NAMESPACED_LABEL] = metadata["name"]
            raw |= {key: value for key, value in _namespace(metadata["name"]).items() if key in ("spec", "status")}
        case _:
            raw["status"] = {"observedGeneration": 1, "conditions": []}
    return raw


def _pod(raw: Raw) -> None:
    """As a ReplicaSet's controller, the scheduler and the kubelet leave it."""
    name = raw["metadata"]["name"]
    raw["metadata"]["labels"]["pod-template-hash"] = "5d8f7b6c9d"
    raw["metadata"]["generateName"] = f"{name}-5d8f7b6c9d-"
    raw["metadata"]["ownerReferences"] = [
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{name}-5d8f7b6c9d", "uid": "x", "controller": True}
    ]
    raw["spec"] |= {"nodeName": "node-1", "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "tolerations": []}
    for port in raw["spec"]["containers"][0].get("ports", ()):
        port["protocol"] = "TCP"
    raw["status"] |= {"hostIP": "192.0.2.10", "podIPs": [{"ip": raw["status"]["podIP"]}], "qosClass": "BestEffort"}


def _service(raw: Raw) -> None:
    spec = raw["spec"]
    spec |= {"sessionAffinity": "None", "internalTrafficPolicy": "Cluster"}
    spec.setdefault("type", "ClusterIP")
    if "clusterIP" in spec:
        spec |= {"clusterIPs": [spec["clusterIP"]], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}
    for port in spec.get("ports", ()):
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port["port"])
    raw["status"] = {"loadBalancer": {}}


def _secret(raw: Raw) -> None:
    plain = raw.pop("stringData", {})
    raw["data"] = {
        **raw.get("data", {}),
        **{key: base64.b64encode(text.encode()).decode() for key, text in plain.items()},
    }


def _namespace(name: str) -> Raw:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "uid": f"namespace-{name}", "labels": {NAMESPACED_LABEL: name}},
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    }


def _slices(service: Raw, objects: list[Raw]) -> Iterator[Raw]:
    """What the EndpointSlice controller writes: ports resolved to numbers, pods not ready listed as such."""
    selector = service["spec"].get("selector")
    if not selector:
        return
    metadata = service["metadata"]
    pods = [
        raw
        for raw in objects
        if raw["kind"] == "Pod"
        and raw["metadata"]["namespace"] == metadata["namespace"]
        and selector.items() <= raw["metadata"]["labels"].items()
    ]
    for number, pod in enumerate(pods):
        name = pod["metadata"]["name"]
        is_ready = pod["status"]["conditions"][0]["status"] == "True"
        yield {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{metadata['name']}-{number}",
                "namespace": metadata["namespace"],
                "uid": f"slice-{metadata['name']}-{number}",
                "generateName": f"{metadata['name']}-",
                "labels": {
                    "kubernetes.io/service-name": metadata["name"],
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                },
            },
            "addressType": "IPv4",
            "endpoints": [
                {
                    "addresses": [pod["status"]["podIP"]],
                    "conditions": {"ready": is_ready, "serving": is_ready, "terminating": False},
                    "nodeName": "node-1",
                    "targetRef": {
                        "kind": "Pod",
                        "name": name,
                        "namespace": metadata["namespace"],
                        "uid": pod["metadata"]["uid"],
                    },
                }
            ],
            "ports": [
                {"name": port.get("name", ""), "port": number, "protocol": port["protocol"]}
                for port in service["spec"]["ports"]
                if (number := _number(pod, port["targetPort"])) is not None
            ],
        }


def _number(pod: Raw, target: int | str) -> int | None:
    declared = {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0].get("ports", ())}
    return target if isinstance(target, int) else declared.get(target)
