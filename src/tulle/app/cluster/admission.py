"""What the admission server answers: pods get their proxies, configuration is judged as `tulle apply` judges it.

Wiring between the envelope (`kube.webhook`) and the rooms that know: `injecting`, `dialects`. No state: what was chosen by the
selectors of the webhook's configuration is not judged again, so a namespace that is new to us is none the worse.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tulle.dialects.kubernetes.injection import REVISION
from tulle.dialects.reading import read
from tulle.injecting.patching import patch
from tulle.injecting.pods import injected
from tulle.injecting.settings import InjectionSettings, NamespaceFacts
from tulle.kube.webhook import Answered, Asked, Handler
from tulle.model.problems import Problem, Severity

NAMESPACED = "default"
"""Stands in for the namespace of objects that have none."""


def injector(settings: InjectionSettings) -> Handler:
    """The handler of `/inject`."""

    def handle(asked: Asked) -> Answered:
        if asked.object is None or asked.kind.kind != "Pod":
            return Answered()
        # Its namespace or its label brought the pod here; what is left is what the pod says against it.
        facts = NamespaceFacts(asked.namespace, {REVISION: settings.revision})
        answer = injected(asked.object, facts, settings)
        return Answered(patch=patch(asked.object, answer.pod), warnings=_sentences(answer.problems))

    return handle


def validator(cluster: str) -> Handler:
    """The handler of `/validate`: an object with an error is not accepted, warnings are shown."""

    def handle(asked: Asked) -> Answered:
        if asked.object is None:
            return Answered()
        found = read(_fresh(asked.object), cluster, asked.namespace or NAMESPACED).problems
        errors = [one for one in found if one.severity is Severity.ERROR]
        warnings = [one for one in found if one.severity is Severity.WARNING]
        if not errors or _is_old(asked):
            return Answered(warnings=_sentences((*errors, *warnings)))
        return Answered(is_allowed=False, reason="; ".join(_sentences(errors)), warnings=_sentences(warnings))

    return handle


def _is_old(asked: Asked) -> bool:
    """Whether nothing is said that was not stored before: labels may change and finalizers go, whatever the rest is."""
    new, old = asked.object or {}, asked.old_object
    if (new.get("metadata") or {}).get("deletionTimestamp"):
        return True
    return old is not None and _said(new) == _said(old)


def _said(raw: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in raw.items() if name not in ("apiVersion", "metadata", "status")}


def _fresh(raw: dict[str, Any]) -> dict[str, Any]:
    """Without what the API server writes."""
    return {name: value for name, value in raw.items() if name != "status"}


def _sentences(problems: Iterable[Problem]) -> list[str]:
    return [" ".join(part for part in (one.code, one.origin.path, one.text) if part) for one in problems]
