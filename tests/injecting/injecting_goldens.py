"""The cases of golden/: a pod, its namespace's labels, settings that differ from the default ones, and what becomes of it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import NamedTuple

import msgspec
import yaml
from injecting_kubelet import Json, expanded, proxy_of

from tulle.dialects.kubernetes.injection import Role
from tulle.injecting.pods import Injected, injected
from tulle.injecting.settings import InjectionSettings, NamespaceFacts

HERE = Path(__file__).parent / "golden"


class Case(NamedTuple):
    """One folder."""

    folder: Path

    def __str__(self) -> str:
        return self.folder.name

    def written(self) -> Json:
        """in.yaml: `pod`, and if need be `namespace` (labels), `settings`, `owner`."""
        return yaml.safe_load((self.folder / "in.yaml").read_text())

    def answer(self, pod: Json | None = None) -> Injected:
        """What becomes of the pod (or of another in its place)."""
        raw = self.written()
        settings = msgspec.convert(raw.get("settings", {}), InjectionSettings)
        facts = NamespaceFacts("shop", raw.get("namespace", {}))
        return injected(raw["pod"] if pod is None else pod, facts, settings, owner=raw.get("owner", ""))


CASES = sorted(Case(path) for path in HERE.iterdir() if path.is_dir())
INJECTED = [case for case in CASES if case.answer().role is not Role.NONE]


def shown(found: Injected) -> str:
    """As it stands in out.yaml."""
    document: Json = {"role": found.role.value, "because": found.because}
    if found.problems:
        document["problems"] = [f"{one.code} {one.origin.path}: {one.text}" for one in found.problems]
    if found.role is not Role.NONE:
        pod = copy.deepcopy(found.pod)
        document |= {"pod": pod, "bootstrap": _own_of_bootstrap(pod)}
    return yaml.safe_dump(document, sort_keys=False, width=140, allow_unicode=True)


def bootstrap_of(pod: Json) -> Json:
    """The bootstrap in the proxy's arguments, its variables left as they are."""
    return json.loads(expanded(proxy_of(pod)["args"][1], {}))


def _own_of_bootstrap(pod: Json) -> Json:
    """What of the bootstrap is this pod's own; the arguments lose it."""
    bootstrap = bootstrap_of(pod)
    proxy_of(pod)["args"][1] = "<bootstrap>"
    own = bootstrap["static_resources"]
    made = {
        "clusters": [one for one in own["clusters"] if one["name"] not in ("xds-grpc", "prometheus_stats")],
        "listeners": [one for one in own["listeners"] if one["name"] not in ("prometheus", "readiness")],
    }
    return {"node": bootstrap["node"], **{name: one for name, one in made.items() if one}}
