"""What is said on objects of the cluster: conditions of Istio's kinds and of the Gateway API's, written where they changed.

The leader's duty. What a status says are pure questions of the dialects; how it is written is `kube.writing`'s. Conditions keep the
time of their last change, and what other controllers wrote stays.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from tulle.dialects.analysis import problems_of
from tulle.dialects.gateway_api.names import CONTROLLER, ROUTE_KINDS
from tulle.dialects.gateway_api.schema import GROUP as GATEWAY_API
from tulle.dialects.gateway_api.status import status_of
from tulle.dialects.istio.kinds import KINDS as ISTIO_KINDS
from tulle.engine import Database
from tulle.kube.discovery import Resource
from tulle.kube.writing import Build, Writer
from tulle.model.keys import ObjectKey
from tulle.model.problems import Problem
from tulle.serve import logs
from tulle.sources.kubernetes import KubernetesSource

Json = dict[str, Any]
ISTIO = frozenset((kind.group, kind.kind) for kind in ISTIO_KINDS)
ACCEPTED = "Accepted"
_OURS = frozenset(
    (ACCEPTED, "Programmed", "ResolvedRefs", "PartiallyInvalid", "Conflicted", "InsecureFrontendValidationMode")
)
"""Conditions that are ours to take away."""
_PARTS = {"listeners": "name", "parents": "parentRef", "ancestors": "ancestorRef"}
"""Lists of a status that have conditions of their own, and what tells their entries apart."""
_ATTACHED = {**dict.fromkeys(ROUTE_KINDS, "parents"), "BackendTLSPolicy": "ancestors"}
"""Kinds that say something of each thing they are attached to; where nothing is ours any more, what we said goes."""
_LEVELS = {"error": "ERROR", "warning": "WARNING", "info": "INFO"}


def istio_status(db: Database, key: ObjectKey, of_text: Iterable[Problem], generation: int) -> Json:
    """The status of an object of Istio's kinds: one condition, and every problem as a validation message (Istio's words)."""
    found = list(dict.fromkeys((*of_text, *problems_of(db, key))))
    errors = [one for one in found if one.severity == "error"]
    first = errors[0] if errors else None
    condition = {
        "type": ACCEPTED,
        "status": "False" if first else "True",
        "reason": first.code if first else ACCEPTED,
        "message": f"{first.text} {first.advice}".strip() if first else "",
        "observedGeneration": generation,
    }
    return {
        "observedGeneration": generation,
        "conditions": [condition],
        "validationMessages": [
            {
                "type": {"code": one.code, "name": one.message.name},
                "level": _LEVELS[one.severity],
                "message": f"{one.origin.path}: {one.text}" if one.origin.path else one.text,
            }
            for one in found
        ],
    }


def merged(before: Mapping[str, Any], wanted: Json, now: datetime | None = None) -> Json:
    """The status to write: what is wanted, with the time of each condition that says what it said; what others wrote stays."""
    time = (now or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")
    result = {**before, **_timed(before, wanted, time)}
    if "conditions" in wanted:
        ours = {one["type"] for one in wanted["conditions"]} | _OURS
        result["conditions"] += [one for one in before.get("conditions") or () if one.get("type") not in ours]
    for part in ("parents", "ancestors"):
        if part in wanted or part in before:
            theirs = [one for one in before.get(part) or () if one.get("controllerName") != CONTROLLER]
            result[part] = [*(result[part] if part in wanted else ()), *theirs]
    return result


def _timed(before: Mapping[str, Any], wanted: Json, time: str) -> Json:
    """`wanted`, its conditions and those of its parts with times."""
    result = dict(wanted)
    if "conditions" in wanted:
        known = {one.get("type"): one for one in before.get("conditions") or ()}
        result["conditions"] = [_dated(known.get(one["type"], {}), one, time) for one in wanted["conditions"]]
    for part, named in _PARTS.items():
        if part in wanted:
            parts = {repr(one.get(named)): one for one in before.get(part) or () if _is_ours(one)}
            result[part] = [_timed(parts.get(repr(one[named]), {}), one, time) for one in wanted[part]]
    return result


def _is_ours(part: Mapping[str, Any]) -> bool:
    return bool(part.get("controllerName", CONTROLLER) == CONTROLLER)


def _dated(last: Mapping[str, Any], one: Json, time: str) -> Json:
    return {**one, "lastTransitionTime": last["lastTransitionTime"] if last.get("status") == one["status"] else time}


class Statuses:
    """The statuses of all objects, wished where one may have changed. The writer drops what is written already."""

    def __init__(self, db: Database, source: KubernetesSource, writer: Writer, cluster: str) -> None:
        self._db = db
        self._source = source
        self._writer = writer
        self._cluster = cluster
        self._said: set[ObjectKey] = set()

    def settle(self) -> None:
        """Look at every object that has a status of ours. Cost: a question per object, nearly all of them remembered answers."""
        keys = {key for key in self._source.told_of() if (key.group, key.kind) in ISTIO or key.group == GATEWAY_API}
        for gone in self._said - keys:
            if (resource := self._source.resource(gone.group, gone.kind)) is not None:
                self._writer.forget(resource, gone.namespace, gone.name)
        for key in sorted(keys):
            resource = self._source.resource(key.group, key.kind)
            wanted = self._wanted(key)
            if resource is not None and wanted is not None:
                found = self._source.get(key)
                # one that was deleted and made again says the same and was told nothing yet
                fingerprint = (found.uid if found is not None else "", _print_of(wanted))
                self._writer.status(resource, key.namespace, key.name, fingerprint, _building(wanted))
                self._tell(key, resource)
        self._said = keys

    def _wanted(self, key: ObjectKey) -> Json | None:
        try:
            if key.group == GATEWAY_API:
                found = status_of(self._db, key)
                if found is None and key.kind in _ATTACHED:
                    return {_ATTACHED[key.kind]: []}
                return dict(found) if found is not None else None
            return istio_status(self._db, key, self._source.problems_of(key), self._source.generation(key))
        except Exception:  # noqa: BLE001 - one object's status must not hide the others'
            logs.LOGGER.exception("no status for %s", key)
            return None

    def _tell(self, key: ObjectKey, resource: Resource) -> None:
        """An Event for each refusal."""
        for one in self._source.problems_of(key):
            if one.severity == "error":
                found = self._source.get(key)
                regarding = {
                    "apiVersion": resource.api_version,
                    "kind": key.kind,
                    "namespace": key.namespace,
                    "name": key.name,
                    "uid": found.uid if found is not None else "",
                }
                self._writer.event(regarding, reason=one.code, note=f"{one.text} {one.advice}", action="Refused")


def _building(wanted: Json) -> Build:
    def build(whole: Json) -> Json | None:
        before = whole.get("status") or {}
        parts = [one for part in _ATTACHED.values() for one in before.get(part) or ()]
        if not any(wanted.values()) and not any(one.get("controllerName") == CONTROLLER for one in parts):
            return None  # never was ours: others' objects are not touched
        return merged(before, wanted)

    return build


def _print_of(wanted: Json) -> bytes:
    return msgspec.json.encode(wanted)
