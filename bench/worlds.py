"""A mesh of N services as manifests, and the files that edit it by being renamed into place. Pure text; `write` puts it down.

Every service has K endpoints of two versions; every third one a DestinationRule with two subsets and a VirtualService with a
90/10 split, retries and a timeout: what a mesh that is used has. The shape is the one istiod was measured with.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

Object = dict[str, Any]
EDITS = 8
SERVICES_PER_NAMESPACE = 25
WEIGHT = 90
PORT = 80
SERVICE_CIDR = "240.0.0.0/8"
"""Where the services' addresses lie: sidecars on demand ask for what is in the mesh's ranges."""


class World(NamedTuple):
    """Where a written mesh lies."""

    config: Path
    """The folder a control plane watches."""
    edits: Path
    """Files to be renamed over those of `config`."""

    def weight(self, number: int) -> tuple[Path, Path]:
        """The `number`th edit (from 1) of a weight: from, to."""
        return self.edits / f"weight{number}.yaml", self.config / "weight.yaml"

    def endpoint(self, number: int) -> tuple[Path, Path]:
        """One more endpoint."""
        return self.edits / f"endpoint{number}.yaml", self.config / "endpoint.yaml"

    def unchanged(self, number: int) -> tuple[Path, Path]:
        """The file of `endpoint(number)` once more: written, nothing changed."""
        return self.edits / f"unchanged{number}.yaml", self.config / "endpoint.yaml"

    def service(self, number: int) -> tuple[Path, Path]:
        """One more service."""
        return self.edits / f"service{number}.yaml", self.config / "service.yaml"


def address(network: int, number: int) -> str:
    """The `number`th address of a /8, without its first."""
    number += 1
    return f"{network}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def weights(edit: int) -> str:
    """What the edited route says after an edit, as `adsload` prints it."""
    return f"{WEIGHT - edit}/{100 - WEIGHT + edit}"


class Shape(NamedTuple):
    """How big the mesh is."""

    services: int
    endpoints: int = 10

    @property
    def namespaces(self) -> int:
        """How many namespaces the services are spread over."""
        return max(1, self.services // SERVICES_PER_NAMESPACE)

    def host(self, service: int) -> str:
        """Full name of a service."""
        return f"svc-{service}.{self.namespace(service)}.svc.cluster.local"

    def namespace(self, service: int) -> str:
        """Its namespace."""
        return f"ns-{service % self.namespaces}"

    def entry(self, service: int, further: int = 0) -> Object:
        """The service with its endpoints, and `further` ones."""
        places = [(address(10, service * self.endpoints + at), 1 + at % 2) for at in range(self.endpoints)]
        places += [(f"11.0.9.{at + 1}", 1) for at in range(further)]
        spec = {
            "hosts": [self.host(service)],
            "addresses": [address(240, service)],
            "location": "MESH_INTERNAL",
            "resolution": "STATIC",
            "ports": [{"number": PORT, "name": "http", "protocol": "HTTP"}],
            "endpoints": [_endpoint(service, place, version) for place, version in places],
        }
        return self._object("ServiceEntry", service, spec)

    def split(self, service: int, weight: int = WEIGHT) -> Object:
        """The VirtualService."""
        shares = (("v1", weight), ("v2", 100 - weight))
        host = self.host(service)
        route = [{"destination": {"host": host, "subset": subset}, "weight": share} for subset, share in shares]
        retries = {"attempts": 2, "perTryTimeout": "2s", "retryOn": "connect-failure,refused-stream,503"}
        spec = {"hosts": [host], "http": [{"timeout": "5s", "retries": retries, "route": route}]}
        return self._object("VirtualService", service, spec)

    def rule(self, service: int) -> Object:
        """The DestinationRule."""
        outliers = {"consecutive5xxErrors": 5, "interval": "10s", "baseEjectionTime": "30s"}
        policy = {"connectionPool": {"http": {"http2MaxRequests": 1000}}, "outlierDetection": outliers}
        subsets = [{"name": version, "labels": {"version": version}} for version in ("v1", "v2")]
        spec = {"host": self.host(service), "trafficPolicy": policy, "subsets": subsets}
        return self._object("DestinationRule", service, spec)

    def _object(self, kind: str, service: int, spec: Object) -> Object:
        metadata = {"name": f"svc-{service}", "namespace": self.namespace(service)}
        return {"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


def _endpoint(service: int, place: str, version: int) -> Object:
    labels = {"app": f"svc-{service}", "version": f"v{version}", "security.istio.io/tlsMode": "istio"}
    return {"address": place, "labels": labels, "serviceAccount": "default", "ports": {"http": 8080}}


def configuration(shape: Shape) -> dict[str, str]:
    """File name -> YAML; the objects that are edited lie in files of their own."""
    found: dict[str, list[Object]] = {f"ns-{number}.yaml": [] for number in range(shape.namespaces)}
    for service in range(shape.services):
        here = found[f"{shape.namespace(service)}.yaml"]
        if service:
            here.append(shape.entry(service))
        if service % 3 == 0:
            here += [shape.split(service), shape.rule(service)] if service else [shape.rule(service)]
    found["endpoint.yaml"] = [shape.entry(0)]
    found["weight.yaml"] = [shape.split(0)]
    return {**{name: documents(objects) for name, objects in found.items()}, "service.yaml": ""}


def edits(shape: Shape) -> dict[str, str]:
    """File name -> YAML of every edit."""
    found = {}
    for number in range(1, EDITS + 1):
        found[f"weight{number}.yaml"] = documents([shape.split(0, WEIGHT - number)])
        found[f"endpoint{number}.yaml"] = documents([shape.entry(0, number)])
        found[f"unchanged{number}.yaml"] = found[f"endpoint{number}.yaml"]
        found[f"service{number}.yaml"] = documents([shape.entry(shape.services + at) for at in range(number)])
    return found


def write(shape: Shape, folder: Path) -> World:
    """Put a mesh into a folder."""
    world = World(folder / "config", folder / "edits")
    for place, texts in ((world.config, configuration(shape)), (world.edits, edits(shape))):
        place.mkdir(parents=True)
        for name, text in texts.items():
            (place / name).write_text(text)
    return world


def documents(objects: list[Object]) -> str:
    """Block YAML as people write it, which is also what parsing costs most for."""
    return "".join(f"{_block(found, 0)}---\n" for found in objects)


def _block(value: Any, depth: int) -> str:
    lines = []
    for name, found in value.items():
        if isinstance(found, dict) and any(isinstance(part, dict | list) for part in found.values()):
            lines.append(f"{'  ' * depth}{name}:\n{_block(found, depth + 1)}")
        elif isinstance(found, list) and name in ("endpoints", "http", "subsets", "route"):
            lines.append(f"{'  ' * depth}{name}:\n" + "".join(_item(part, depth) for part in found))
        else:
            lines.append(f"{'  ' * depth}{name}: {_flow(found)}\n")
    return "".join(lines)


def _item(value: Object, depth: int) -> str:
    text = _block(value, depth + 1)
    return f"{'  ' * depth}- {text[2 * (depth + 1) :]}"


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_flow(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return json.dumps(value) if isinstance(value, str) and set(value) & set(",:{}[]#&*") else str(value)


def documents_as_json(objects: list[Object]) -> str:
    """The same as JSON, which is YAML too."""
    return "\n---\n".join(json.dumps(found) for found in objects) + "\n"
