"""Goldens of the compiler: one folder per case, what goes in and everything that must come out for a view.

The first line of `in.yaml` says what the case shows. Further comment lines set the scene:
`# pod: NAME IP label=value… [account=…] [port:name=80] [no-sidecar] [not-ready] [gateway] [in=NAMESPACE]` stands for a running Pod,
`# view: NAMESPACE/POD` (default `default/client`) whose configuration is shown,
`# mesh: {…}` changes settings, `# asks: NAME` is a name an on-demand sidecar asked for, `# show: TYPE PATTERN` names the
resources that are written out (default: everything but fixed ones).
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from compile.world import CLUSTER, World, mesh_settings, pod
from golden.pem import filled
from tulle.compile.explain import explain
from tulle.compile.readable import readable
from tulle.dialects.analysis import problems_of
from tulle.xds.names import TypeUrl
from tulle.xds.schema import any_to_dict

HERE = Path(__file__).parent / "compile"
CASES = sorted(path.parent for path in HERE.glob("*/in.yaml"))
OUTPUTS = ("plan.yaml", "envoy.yaml", "problems.txt", "why.txt")
REWRITE = os.environ.get("TULLE_GOLD") == "1"
FIXED = {"virtualOutbound", "PassthroughCluster", "BlackHoleCluster"}
_NOISE = ("access_log", "http_filters")
"""Fields that are the same everywhere, and long, as is the mesh's default retry; the case `whole` shows them once."""

_MESH_RETRY = {
    "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
    "num_retries": 2,
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
            },
        }
    ],
    "host_selection_retry_max_attempts": "5",
    "retriable_status_codes": [503],
}


class Case:
    """One folder, compiled."""

    def __init__(self, folder: Path, *, check_purity: bool = False) -> None:
        self.folder = folder
        self.text = (folder / "in.yaml").read_text()
        self.title = self.text.partition("\n")[0].removeprefix("# ")
        self.directives = list(directives(self.text))
        changes = [yaml.safe_load(words) for name, words in self.directives if name == "mesh"]
        mesh = mesh_settings(**(changes[0] if changes else {}))
        with tempfile.TemporaryDirectory() as scene:
            pods = Path(scene) / "pods.yaml"
            self._pods = str(pods)
            pods.write_text("".join(pod_of(words) for name, words in self.directives if name == "pod"))
            manifest = Path(scene) / "manifests" / "in.yaml"
            manifest.parent.mkdir()
            manifest.write_text(filled(self.text))
            files = [manifest, *([pods] if pods.stat().st_size else [])]
            self.world = World(*files, mesh=mesh, check_purity=check_purity)

    @property
    def views(self) -> list[tuple[str, str]]:
        named = [words for name, words in self.directives if name == "view"] or ["default/client"]
        return [(namespace, name) for namespace, _, name in (words.partition("/") for words in named)]

    def resources(self, namespace: str, name: str) -> Mapping[TypeUrl, Mapping[str, Any]]:
        """Everything a view holds."""
        return self.world.resources(namespace, name, *(words for word, words in self.directives if word == "asks"))

    def shown(self, namespace: str, name: str) -> Iterator[tuple[TypeUrl, str]]:
        """The resources that are written out, in the order they are sent."""
        patterns = [words.split(maxsplit=1) for name, words in self.directives if name == "show"] or [["*", "*"]]
        for kind, found in self.resources(namespace, name).items():
            for resource in found:
                is_fixed = resource in FIXED and not any(two == resource for _, two in patterns)
                if is_fixed or resource.endswith("/_") or resource.startswith("InboundPassthrough"):
                    continue
                if any(fnmatchcase(kind.name, one) and fnmatchcase(resource, two) for one, two in patterns):
                    yield kind, resource

    def outputs(self) -> dict[str, str]:
        """Every output file's text."""
        plans: dict[str, Any] = {}
        envoy: dict[str, Any] = {}
        why: list[str] = []
        for namespace, name in self.views:
            view = self.world.view(namespace, name)
            at = f"{namespace}/{name}: " if len(self.views) > 1 else ""
            resources = self.resources(namespace, name)
            for kind, resource in self.shown(namespace, name):
                found = explain(self.world.db, view, kind, resource)
                title = f"{at}{kind.name} {resource}"
                if kind is not TypeUrl.EDS and found.plan is not None:
                    plans[title] = readable(found.plan)
                envoy[title] = _short(any_to_dict(resources[kind][resource].body), is_whole=self.folder.name == "whole")
                why.append(title)
                why += [f"  {origin} at {self.place(origin)}" for origin in found.origins]
        return {
            "plan.yaml": _yaml(plans),
            "envoy.yaml": _yaml(envoy, sort_keys=True),
            "problems.txt": "".join(f"{line}\n" for line in self.problems()),
            "why.txt": "".join(f"{line}\n" for line in why),
        }

    def place(self, origin: Any) -> str:
        place = self.world.source.locate(origin)
        if place is None or place.file == self._pods:
            return "nowhere"
        return f"{Path(place.file).name}:{place.line}"

    def problems(self) -> Iterator[str]:
        """What is wrong with the objects, alone and together."""
        for found in self.world.source.problems:
            if found.place.file != self._pods:
                line = f"in.yaml:{found.place.line}" if found.place.line else "in.yaml"
                yield f"{line}: {found.problem.severity.value} {found.problem.code} {found.problem.text}"
        for key in self.world.source.objects:
            for problem in problems_of(self.world.db, key):
                yield f"{self.place(problem.origin)}: {problem.severity.value} {problem.code} {problem.text}"


def pod_of(words: str) -> str:
    """A running Pod from the words of a `# pod:` line."""
    name, ip, *rest = words.split()
    flags = {word for word in rest if "=" not in word}
    pairs = dict(word.split("=", 1) for word in rest if "=" in word)
    ports = {key.removeprefix("port:"): int(pairs.pop(key)) for key in [*pairs] if key.startswith("port:")}
    annotations = (
        {"inject.istio.io/templates": "gateway", "sidecar.istio.io/inject": "true"} if "gateway" in flags else {}
    )
    return pod(
        name,
        ip,
        namespace=pairs.pop("in", "default"),
        account=pairs.pop("account", "default"),
        labels=pairs or {"app": name},
        ports=ports,
        sidecar="no-sidecar" not in flags,
        ready="not-ready" not in flags,
        annotations=annotations,
    )


def directives(text: str) -> Iterator[tuple[str, str]]:
    """The comment lines after the first, as (name, words)."""
    for line in text.splitlines()[1:]:
        if not line.startswith("# "):
            return
        name, _, words = line.removeprefix("# ").partition(": ")
        yield name, words


def _short(value: Any, *, is_whole: bool) -> Any:
    if isinstance(value, Mapping):
        kept = {key: item for key, item in value.items() if is_whole or (key not in _NOISE and item != _MESH_RETRY)}
        return {key: _short(item, is_whole=is_whole) for key, item in kept.items()}
    return [_short(item, is_whole=is_whole) for item in value] if isinstance(value, list) else value


def _yaml(value: Any, *, sort_keys: bool = False) -> str:
    return yaml.safe_dump(json.loads(json.dumps(value)), sort_keys=sort_keys, width=120) if value else ""


__all__ = ["CASES", "CLUSTER", "HERE", "OUTPUTS", "REWRITE", "Case"]
