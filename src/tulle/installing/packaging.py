"""The Helm chart as texts by file name, written from the blueprint.

Pure; `tools/make_chart.py` writes them into `chart/`, a test compares, `tulle manifest chart` copies them out. What Helm does with
`crds/` is what `tulle install` does: definitions are made where there are none, and never changed or removed.
"""

import json
from typing import Any, Final

import msgspec
import yaml

from tulle.installing.chart import template
from tulle.installing.crds import definitions
from tulle.installing.installation import parts
from tulle.installing.release import VERSION
from tulle.installing.values import PROFILES, Values, plain, values_of

_KUBERNETES: Final = ">=1.30.0-0"
_NOTES: Final = """\
tulle {{ $.Chart.AppVersion }} is installed in {{ $.Release.Namespace }}.

  kubectl -n {{ $.Release.Namespace }} rollout status deploy/tulled{{ if $.Values.revision }}-{{ $.Values.revision }}{{ end }}
  kubectl label namespace default {{ if $.Values.revision }}istio.io/rev={{ $.Values.revision }}{{ else }}istio-injection=enabled{{ end }}
"""
_HEAD: Final = "# Written by tools/make_chart.py from src/tulle/installing; edit there.\n"


def files() -> dict[str, str]:
    """The chart: text by path inside it."""
    made = {
        "Chart.yaml": _HEAD + _yaml(_chart()),
        "values.yaml": _HEAD + _yaml(plain(values_of("default"))),
        "values.schema.json": json.dumps(_schema(), indent=2) + "\n",
        "templates/NOTES.txt": _NOTES,
        "crds/istio.yaml": "---\n".join(_yaml(one) for one in definitions()),
    }
    for name, nodes in parts().items():
        made[f"templates/{name}.yaml"] = template(nodes)
    for name in PROFILES:
        made[f"profiles/{name}.yaml"] = _HEAD + _yaml(plain(values_of(name)))
    return made


def _chart() -> dict[str, Any]:
    return {
        "apiVersion": "v2",
        "name": "tulle",
        "description": "A service mesh: Envoy underneath, Istio's YAML on top.",
        "type": "application",
        "version": VERSION,
        "appVersion": VERSION,
        "kubeVersion": _KUBERNETES,
    }


def _schema() -> dict[str, Any]:
    schema = msgspec.json.schema(Values)
    # Helm adds these on its own.
    values = schema["$defs"]["Values"]
    values["properties"]["global"] = {"type": "object"}
    return {"$schema": "http://json-schema.org/draft-07/schema#", **schema}


def _yaml(document: Any) -> str:
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)
