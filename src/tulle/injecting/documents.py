"""Manifests with their pods injected: the workload kinds of Kubernetes, and Lists of them.

Offline, so the namespace of a workload is what the manifests themselves say of it; where they are silent it asks for
injection, as with `istioctl kube-inject`. Knows no text; one pod is `pods`' business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from tulle.dialects.kubernetes.injection import NAMESPACE_INJECTION, REVISION
from tulle.injecting.pods import Injected, injected
from tulle.injecting.settings import InjectionSettings, NamespaceFacts
from tulle.model.keys import ObjectKey
from tulle.model.origin import Origin

Json = dict[str, Any]

_TEMPLATES: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("", "Pod"): (),
    ("", "ReplicationController"): ("spec", "template"),
    ("apps", "Deployment"): ("spec", "template"),
    ("apps", "ReplicaSet"): ("spec", "template"),
    ("apps", "StatefulSet"): ("spec", "template"),
    ("apps", "DaemonSet"): ("spec", "template"),
    ("batch", "Job"): ("spec", "template"),
    ("batch", "CronJob"): ("spec", "jobTemplate", "spec", "template"),
}
"""Group and kind -> where its pods are written."""
_MAX_LISTS: Final = 4


class Answer(NamedTuple):
    """One workload of a document."""

    key: ObjectKey
    steps: tuple[str | int, ...]
    """From the document to the object: empty, or the place within a List."""
    injected: Injected


class Document(NamedTuple):
    """A document with its pods injected; the same value where nothing was."""

    value: Any
    answers: tuple[Answer, ...]


class Namespaces:
    """What the manifests say of namespaces."""

    def __init__(self, documents: Iterable[Any], default: str = "default") -> None:
        self.default = default
        self._labels: dict[str, dict[str, str]] = {}
        for one in documents:
            for _, raw in _objects(one, ()):
                if raw.get("kind") == "Namespace":
                    metadata = raw.get("metadata") or {}
                    self._labels[str(metadata.get("name"))] = dict(metadata.get("labels") or {})

    def facts(self, name: str, settings: InjectionSettings) -> NamespaceFacts:
        """The namespace; with the label of the settings' revision where nobody says anything about injection."""
        labels = self._labels.get(name, {})
        if NAMESPACE_INJECTION in labels or REVISION in labels:
            return NamespaceFacts(name, labels)
        return NamespaceFacts(name, {**labels, REVISION: settings.revision})


def document(value: Any, namespaces: Namespaces, settings: InjectionSettings) -> Document:
    """A document as it should be applied."""
    answers: list[Answer] = []
    for steps, raw in _objects(value, ()):
        found = _object(raw, steps, namespaces, settings)
        if found is not None:
            answers.append(found[1])
            value = _replaced(value, steps, found[0])
    return Document(value, tuple(answers))


def _object(
    raw: Json, steps: tuple[str | int, ...], namespaces: Namespaces, settings: InjectionSettings
) -> tuple[Json, Answer] | None:
    kind = str(raw.get("kind"))
    group = str(raw.get("apiVersion", "")).rpartition("/")[0]
    path = _TEMPLATES.get((group, kind))
    template: Any = raw
    for step in path or ():
        template = template.get(step) if isinstance(template, dict) else None
    if path is None or not isinstance(template, dict):
        return None
    metadata = raw.get("metadata") or {}
    namespace = str(metadata.get("namespace") or namespaces.default)
    key = ObjectKey(settings.cluster, group, kind, namespace, str(metadata.get("name") or ""))
    answer = injected(
        template,
        namespaces.facts(namespace, settings),
        settings,
        owner="" if kind == "Pod" else key.name,
        origin=Origin(key).at(*path),
    )
    return _replaced(raw, path, answer.pod), Answer(key, steps, answer)


def _objects(raw: Any, steps: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Json]]:
    if not isinstance(raw, dict):
        return
    items = raw.get("items")
    if not (str(raw.get("kind", "")).endswith("List") and isinstance(items, list)):
        yield steps, raw
    elif len(steps) < 2 * _MAX_LISTS:
        for index, item in enumerate(items):
            yield from _objects(item, (*steps, "items", index))


def _replaced(value: Any, steps: tuple[str | int, ...], fresh: Any) -> Any:
    """A copy along the way to one place; all else is shared."""
    if not steps:
        return fresh
    first, *rest = steps
    made = value.copy()
    made[first] = _replaced(value[first], tuple(rest), fresh)
    return made
