"""CustomResourceDefinitions of the kinds we read, from the structs that read them.

Pure. Every served version has one schema: the versions of a kind are the same fields. Definitions that somebody else installed
are theirs; `is_ours` tells.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from tulle.dialects.istio.kinds import KINDS
from tulle.dialects.kinds import KindRead, Scope
from tulle.installing.kinds import CALLED, Called
from tulle.installing.naming import INSTALL, SHARED
from tulle.installing.openapi import schema_of
from tulle.installing.release import VERSION

_STATUS: Final = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


@cache
def definitions() -> tuple[dict[str, Any], ...]:
    """Every definition, by name."""
    return tuple(sorted((_definition(kind) for kind in KINDS), key=lambda one: str(one["metadata"]["name"])))


def is_ours(definition: Mapping[str, Any]) -> bool:
    """Whether an object of the cluster was installed by us."""
    return INSTALL in (definition.get("metadata", {}).get("labels") or {})


def _definition(kind: KindRead) -> dict[str, Any]:
    called = CALLED[kind.kind]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{called.plural}.{kind.group}",
            "labels": {
                "app.kubernetes.io/name": "tulle",
                "app.kubernetes.io/component": "kinds",
                "app.kubernetes.io/part-of": "tulle",
                "app.kubernetes.io/version": VERSION,
                INSTALL: SHARED,
            },
            "annotations": {"helm.sh/resource-policy": "keep"},
        },
        "spec": {
            "group": kind.group,
            "names": {
                "categories": ["istio-io", f"{kind.group.partition('.')[0]}-istio-io"],
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": called.plural,
                "singular": kind.kind.lower(),
                **({"shortNames": list(called.short)} if called.short else {}),
            },
            "scope": "Cluster" if kind.scope is Scope.CLUSTER else "Namespaced",
            "versions": [_version(kind, called, version) for version in kind.versions],
        },
    }


def _version(kind: KindRead, called: Called, version: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": version,
        "served": True,
        "storage": version == kind.versions[0],
        "subresources": {"status": {}},
        "schema": {
            "openAPIV3Schema": {
                "type": "object",
                "properties": {"spec": schema_of(kind.schema), "status": dict(_STATUS)},
                **({"required": [kind.root]} if kind.requires_root else {}),
            }
        },
    }
    if called.columns:
        made["additionalPrinterColumns"] = [
            {
                "name": column.title,
                "type": column.type,
                "jsonPath": column.path,
                **({"description": column.words} if column.words else {}),
            }
            for column in called.columns
        ]
    return made
