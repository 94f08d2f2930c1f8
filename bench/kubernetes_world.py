"""A mesh of N services as objects of a real cluster: made through its API, and taken away again. No kubelet is needed.

Every service has K pods of two versions with two containers, a slice of K endpoints, and every third one a DestinationRule and a
VirtualService where the cluster serves them. Pods are bound to no node and wait for no scheduler; their status says that they run.
Namespaces are `PREFIX-0...`: what is deleted is these, and nothing else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from tulle.installing.crds import definitions
from tulle.kube.access import Access
from tulle.kube.discovery import Discovery, Resource, chosen
from tulle.kube.errors import Refused, Unreachable

Object = dict[str, Any]
PREFIX = "tulle-scale"
SERVICES_PER_NAMESPACE = 50
AT_ONCE = 16
ATTEMPTS = 5
_ISTIO = "networking.istio.io"
_DEFINITIONS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", is_namespaced=False
)
_NAMESPACES = Resource("", "v1", "namespaces", "Namespace", is_namespaced=False)
_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
_SERVICES = Resource("", "v1", "services", "Service")
_PODS = Resource("", "v1", "pods", "Pod")
_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")


class Shape(NamedTuple):
    """How big."""

    services: int
    pods_each: int = 5

    @property
    def namespaces(self) -> int:
        """Of `PREFIX`."""
        return -(-self.services // SERVICES_PER_NAMESPACE)


def namespace_of(service: int) -> str:
    """Where a service lives."""
    return f"{PREFIX}-{service // SERVICES_PER_NAMESPACE}"


def _address(number: int) -> str:
    return f"10.{128 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def service(number: int) -> Object:
    """A service without selector: its slice is ours, no controller makes another."""
    name = f"s{number}"
    return {
        "metadata": {"name": name, "namespace": namespace_of(number), "labels": {"app": name}},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "grpc", "port": 9090}]},
    }


def pod(number: int, index: int, each: int) -> Object:
    """A pod as a Deployment with a sidecar makes it."""
    name, version = f"s{number}", f"v{index % 2 + 1}"
    environment = [{"name": f"SETTING_{at}", "value": f"value of setting {at}"} for at in range(6)]
    probe = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10}
    return {
        "metadata": {
            "name": f"{name}-{index}",
            "namespace": namespace_of(number),
            "labels": {"app": name, "version": version, "pod-template-hash": f"{number * 7919 + index:08x}"},
            "annotations": {
                "sidecar.istio.io/status": '{"containers":["istio-proxy"]}',
                "prometheus.io/scrape": "true",
            },
        },
        "spec": {
            "schedulerName": "nobody",
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "app",
                    "image": f"registry.example/{name}:{version}",
                    "ports": [{"containerPort": 8080, "name": "http"}],
                    "env": environment,
                    "readinessProbe": probe,
                    "livenessProbe": probe,
                    "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
                }
            ],
            "initContainers": [
                {
                    "name": "istio-proxy",
                    "image": "tulle/proxy:dev",
                    "restartPolicy": "Always",
                    "args": ["--config-yaml", "x" * 1200],
                    "ports": [{"containerPort": 15090, "name": "metrics"}],
                }
            ],
        },
        "status": {
            "phase": "Running",
            "podIP": _address(number * each + index),
            "podIPs": [{"ip": _address(number * each + index)}],
            "conditions": [
                {"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
                for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
            ],
        },
    }


def endpoints(number: int, each: int) -> Object:
    """The slice of a service."""
    name, place = f"s{number}", namespace_of(number)
    found = [
        {
            "addresses": [_address(number * each + index)],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "targetRef": {"kind": "Pod", "name": f"{name}-{index}", "namespace": place},
        }
        for index in range(each)
    ]
    return {
        "metadata": {
            "name": f"{name}-slice",
            "namespace": place,
            "labels": {
                "kubernetes.io/service-name": name,
                "endpointslice.kubernetes.io/managed-by": "tulle-bench",
            },
        },
        "addressType": "IPv4",
        "endpoints": found,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "grpc", "port": 9090, "protocol": "TCP"}],
    }


def route(number: int, weight: int = 90) -> Object:
    """A 90/10 split with retries and a timeout."""
    name = f"s{number}"
    return {
        "metadata": {"name": name, "namespace": namespace_of(number)},
        "spec": {
            "hosts": [name],
            "http": [
                {
                    "timeout": "5s",
                    "retries": {"attempts": 2, "perTryTimeout": "2s", "retryOn": "5xx"},
                    "route": [
                        {"destination": {"host": name, "subset": "v1"}, "weight": weight},
                        {"destination": {"host": name, "subset": "v2"}, "weight": 100 - weight},
                    ],
                }
            ],
        },
    }


def rule(number: int) -> Object:
    """Two subsets."""
    name = f"s{number}"
    subsets = [{"name": version, "labels": {"version": version}} for version in ("v1", "v2")]
    return {
        "metadata": {"name": name, "namespace": namespace_of(number)},
        "spec": {"host": name, "subsets": subsets},
    }


async def create(access: Access, shape: Shape) -> list[str]:
    """Make it all; the CustomResourceDefinitions that had to be made. Objects that are there already stay."""
    discovery = Discovery(access)
    await discovery.refresh()
    made = []
    if (_ISTIO, "VirtualService") not in discovery.table:
        made = await _define(access, discovery)
    istio = [chosen(discovery.table, _ISTIO, kind, ("v1",)) for kind in ("DestinationRule", "VirtualService")]
    places = [f"{PREFIX}-{number}" for number in range(shape.namespaces)]
    await _each(places, lambda name: _made(access, _NAMESPACES, {"metadata": {"name": name}}))
    # The controllers make it too; a pod is refused before it is there.
    account: Callable[[str], Object] = lambda place: {"metadata": {"name": "default", "namespace": place}}  # noqa: E731
    await _each(places, lambda place: _made(access, _ACCOUNTS, account(place)))

    there = {kind: await _names(access, kind) for kind in (_SERVICES, _SLICES)}

    async def whole(number: int) -> None:
        for index in range(shape.pods_each):
            document = pod(number, index, shape.pods_each)
            if f"s{number}-slice" not in there[_SLICES]:
                await _made(access, _PODS, document)
                await _say(access, _PODS, document)
        if f"s{number}" not in there[_SERVICES]:  # an address is allocated before the API sees that the name is taken
            await _made(access, _SERVICES, service(number))
        await _made(access, _SLICES, endpoints(number, shape.pods_each))
        for kind, document in zip(istio, (rule(number), route(number)), strict=True):
            if kind is not None and number % 3 == 0:
                await _made(access, kind, document)

    await _each(range(shape.services), whole)
    return made


async def _define(access: Access, discovery: Discovery) -> list[str]:
    wanted = [one for one in definitions() if one["spec"]["names"]["kind"] in ("DestinationRule", "VirtualService")]
    for one in wanted:
        await _made(access, _DEFINITIONS, {"metadata": one["metadata"], "spec": one["spec"]})
    for _ in range(300):
        await discovery.refresh()
        if (_ISTIO, "VirtualService") in discovery.table and (_ISTIO, "DestinationRule") in discovery.table:
            break
        await asyncio.sleep(0.1)
    return [one["metadata"]["name"] for one in wanted]


async def remove(access: Access, shape: Shape, defined: Sequence[str] = ()) -> None:
    """Delete the definitions, the namespaces, and what no kubelet would ever confirm: the pods, at once."""
    for name in defined:
        await _gone(access, _DEFINITIONS.path("", name), {})

    async def emptied(place: str) -> None:
        query = {"gracePeriodSeconds": "0"}
        for kind in (_PODS, _SLICES):
            await _gone(access, kind.path(place), query)
        await _gone(access, _NAMESPACES.path("", place), query)

    await _each([f"{PREFIX}-{number}" for number in range(shape.namespaces)], emptied)


async def churn(access: Access, shape: Shape, per_second: float, seconds: float, stamp: str) -> tuple[int, float]:
    """Change one slice after the other, an endpoint of it ready or not, at a rate; how many, and in how many seconds.

    It takes longer than asked for where the API does not keep up. The last change says `end`.
    """
    loop = asyncio.get_running_loop()
    count = int(per_second * seconds)
    began = loop.time()

    async def change(at: int) -> None:
        await asyncio.sleep(max(0.0, began + at / per_second - loop.time()))
        document = endpoints(at % shape.services, shape.pods_each)
        document["endpoints"][0]["conditions"]["ready"] = bool(at // shape.services % 2)
        document["metadata"]["annotations"] = {stamp: f"{time.time():.4f}"}
        await _merge(access, document)

    await _each(range(count), change)
    took = loop.time() - began
    await asyncio.sleep(2)
    await _merge(access, {**endpoints(0, shape.pods_each), "metadata": {**_placed(0), "annotations": {stamp: "end"}}})
    return count, took


def _placed(number: int) -> Object:
    return {"name": f"s{number}-slice", "namespace": namespace_of(number)}


async def _merge(access: Access, document: Object) -> None:
    metadata = document["metadata"]
    path = _SLICES.path(metadata["namespace"], metadata["name"])
    await access.send("PATCH", path, body=msgspec.json.encode(document), content_type="application/merge-patch+json")


async def _names(access: Access, resource: Resource) -> set[str]:
    found = msgspec.json.decode(await access.get(resource.path()))
    return {one["metadata"]["name"] for one in found["items"]}


async def _made(access: Access, resource: Resource, document: Object) -> None:
    body = {"apiVersion": resource.api_version, "kind": resource.kind, **document}
    path = resource.path(document["metadata"].get("namespace", ""))
    try:
        await access.send("POST", path, body=msgspec.json.encode(body))
    except Refused as refused:
        if refused.status != 409:
            raise


async def _say(access: Access, resource: Resource, document: Object) -> None:
    metadata = document["metadata"]
    path = resource.path(metadata["namespace"], metadata["name"], "status")
    body = msgspec.json.encode({"status": document["status"]})
    await access.send("PATCH", path, body=body, content_type="application/merge-patch+json")


async def _gone(access: Access, path: str, query: dict[str, str]) -> None:
    try:
        await access.send("DELETE", path, query=query)
    except Refused as refused:
        if refused.status != 404:
            raise


async def _each(items: Any, task: Callable[[Any], Awaitable[None]]) -> None:
    waiting: Iterator[Any] = iter(items)

    async def works() -> None:
        for item in waiting:
            for left in reversed(range(ATTEMPTS)):
                try:
                    await task(item)
                    break
                except Unreachable:  # an API server on a busy machine takes its time
                    if not left:
                        raise

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(works())
