"""Small worlds of Kubernetes objects, written as YAML, put into a database."""

from typing import Any

import yaml

from tulle.dialects.inputs import objects
from tulle.dialects.reading import read
from tulle.engine import Database
from tulle.model.objects import Object

C = "Kubernetes"


def as_object(raw: dict[str, Any]) -> Object:
    decoded = read(raw, C, "shop")
    assert decoded.problems == ()
    assert decoded.object is not None
    return decoded.object


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
