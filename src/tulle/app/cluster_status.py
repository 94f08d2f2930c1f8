"""What is said on objects of the cluster: conditions of Istio's kinds and of the Gateway API's, written where they changed.

The leader's duty. What a status says are pure questions of the dialects; how it is written is `kube.writing`'s. Conditions keep the
time of their last change, and what other controllers wrote stays.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from tulle.dialects.analysis import problems_of
from tulle.dialects.istio.kinds import KINDS as ISTIO_KINDS
from tulle.engine import Database
from tulle.model.keys import ObjectKey
from tulle.model.problems import Problem

Json = dict[str, Any]
ISTIO = frozenset((kind.group, kind.kind) for kind in ISTIO_KINDS)
ACCEPTED = "Accepted"
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
    """The status to write: what is wanted, with the time of each condition that says what it said, and foreign conditions kept."""
    time = (now or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")
    result = {**before, **wanted}
    for name in wanted:
        if name == "conditions":
            result[name] = _conditions(before.get(name) or (), wanted[name], time)
    return result


def _conditions(before: Iterable[Mapping[str, Any]], wanted: Iterable[Json], time: str) -> list[Json]:
    known = {one.get("type"): one for one in before}
    found = []
    for one in wanted:
        last = known.pop(one["type"], {})
        same = all(last.get(word) == one.get(word) for word in ("status", "reason"))
        found.append({**one, "lastTransitionTime": last.get("lastTransitionTime", time) if same else time})
    return [*found, *(dict(one) for one in known.values())]
