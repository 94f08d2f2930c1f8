"""CustomResourceDefinitions of the kinds we read, and of our own, from the structs that read them.

Pure. Every served version has one schema: the versions of a kind are the same fields. Definitions that somebody else installed
are theirs; `is_ours` tells.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from tulle.dialects.istio.kinds import KINDS
from tulle.dialects.kinds import KindRead, Scope
from tulle.installing.kinds import CALLED, LEARNED_NAMES, OWN_GROUP, Called, LearnedNamesSpec
from tulle.installing.naming import INSTALL, SHARED
from tulle.installing.openapi import schema_of
from tulle.installing.release import VERSION

_STATUS: Final = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


@cache
def definitions() -> tuple[dict[str, Any], ...]:
    """Every definition, by name."""
    found = (*(_definition(kind) for kind in KINDS), learned_names())
    return tuple(sorted(found, key=lambda one: str(one["metadata"]["name"])))


def is_ours(definition: Mapping[str, Any]) -> bool:
    """Whether an object of the cluster was installed by us."""
    return INSTALL in (definition.get("metadata", {}).get("labels") or {})


def learned_names() -> dict[str, Any]:
    """Our own kind: what the sidecars of one identity have called, where all replicas find it (decision 0008)."""
    version = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "schema": {
            "openAPIV3Schema": {
                "type": "object",
                "properties": {"spec": schema_of(LearnedNamesSpec)},
                "required": ["spec"],
            }
        },
        "additionalPrinterColumns": _columns(LEARNED_NAMES),
    }
    return _named(OWN_GROUP, "LearnedNames", LEARNED_NAMES, [version], categories=["tulle"])


def _definition(kind: KindRead) -> dict[str, Any]:
    called = CALLED[kind.kind]
    categories = ["istio-io", f"{kind.group.partition('.')[0]}-istio-io"]
    versions = [_version(kind, called, version) for version in kind.versions]
    return _named(kind.group, kind.kind, called, versions, categories=categories, scope=kind.scope)


def _named(
    group: str,
    kind: str,
    called: Called,
    versions: list[dict[str, Any]],
    *,
    categories: list[str],
    scope: Scope = Scope.NAMESPACED,
) -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{called.plural}.{group}",
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
            "group": group,
            "names": {
                "categories": categories,
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": called.plural,
                "singular": kind.lower(),
                **({"shortNames": list(called.short)} if called.short else {}),
            },
            "scope": "Cluster" if scope is Scope.CLUSTER else "Namespaced",
            "versions": versions,
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
        made["additionalPrinterColumns"] = _columns(called)
    return made


def _columns(called: Called) -> list[dict[str, str]]:
    return [
        {
            "name": column.title,
            "type": column.type,
            "jsonPath": column.path,
            **({"description": column.words} if column.words else {}),
        }
        for column in called.columns
    ]
