"""Small worlds of Kubernetes objects, written as YAML, put into a database."""

from typing import Any

import msgspec
import yaml

from tulle.dialects.inputs import objects
from tulle.dialects.istio.schema_services import ServiceEntry, WorkloadEntry
from tulle.dialects.kubernetes.kinds import KINDS
from tulle.engine import Database
from tulle.model.keys import ObjectKey, labels_of
from tulle.model.objects import Object

C = "Kubernetes"
ISTIO = {"ServiceEntry": ServiceEntry, "WorkloadEntry": WorkloadEntry}


def as_object(raw: dict[str, Any]) -> Object:
    group = raw["apiVersion"].rpartition("/")[0]
    meta = raw["metadata"]
    key = ObjectKey(
        C, group, raw["kind"], meta.get("namespace", "" if raw["kind"] == "Namespace" else "shop"), meta["name"]
    )
    if raw["kind"] in ISTIO:
        spec: Any = msgspec.convert(raw["spec"], ISTIO[raw["kind"]])
    else:
        kind = next(one for one in KINDS if (one.group, one.kind) == (group, raw["kind"]))
        part = raw.get("spec", {}) if kind.part else raw
        spec = kind.digest(raw) if kind.digest else msgspec.convert(part, kind.struct)
    annotations = labels_of(meta.get("annotations"))
    return Object(key, spec, labels_of(meta.get("labels")), annotations, created=meta.get("creationTimestamp", ""))


def put(db: Database, text: str) -> None:
    with db.edit() as edit:
        for raw in yaml.safe_load_all(text):
            found = as_object(raw)
            edit.set(objects, found.key, found)


def world(*texts: str) -> Database:
    db = Database(check_purity=True)
    for text in texts:
        put(db, text)
    return db


def pod(
    name: str,
    ip: str,
    *,
    ready: bool = True,
    labels: str = "app: web",
    extra: str = "",
    status: str = "",
    ns: str = "shop",
) -> str:
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {ns}, labels: {{{labels}}}{extra}}}
spec: {{serviceAccountName: web, containers: [{{name: web, ports: [{{containerPort: 8080, name: http}}]}}]}}
status: {{podIP: {ip}, phase: Running, conditions: [{{type: Ready, status: "{ready}"}}]{status}}}
"""


def service(name: str, spec: str, extra: str = "", ns: str = "shop") -> str:
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {ns}{extra}}}
spec: {{{spec}}}
"""
