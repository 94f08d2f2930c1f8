"""Goldens of policy kinds: `<kind>/<case>.yaml` holds the specs, then, after `---`, every fragment they become.

The first line says what the case shows. `TULLE_GOLD=1` writes the second part anew.
"""

import json
import os
import typing
from pathlib import Path
from typing import Any

import msgspec
import yaml

from tulle.model.keys import ObjectKey
from tulle.model.origin import Origin
from tulle.policies import KINDS
from tulle.policies.fragments import Kind
from tulle.xds import api, schema

HERE = Path(__file__).parent
CASES = sorted(HERE.glob("*/*.yaml"))
REWRITE = bool(os.environ.get("TULLE_GOLD"))
ORIGIN = ["Kubernetes", "", "Test", "shop", "case"], "spec"


def kind_of(case: Path) -> Kind:
    return next(kind for kind in KINDS if kind.name == case.parent.name)


def parts(case: Path) -> tuple[str, str]:
    before, _, after = case.read_text().partition("\n---\n")
    return before.rstrip() + "\n", after


def specs_of(case: Path) -> list[Any]:
    kind = kind_of(case)
    return [msgspec.convert(with_origins(raw, kind.spec), kind.spec) for raw in yaml.safe_load(parts(case)[0])]


def with_origins(raw: Any, cls: Any, place: str = "spec") -> Any:
    """The raw value with an origin wherever its struct wants one and none is written."""
    arguments = [one for one in typing.get_args(cls) if one is not Ellipsis]
    if isinstance(raw, list) and arguments and typing.get_origin(cls) is tuple:
        return [with_origins(one, arguments[0], f"{place}[{index}]") for index, one in enumerate(raw)]
    struct = next((one for one in [cls, *arguments] if isinstance(one, type) and issubclass(one, msgspec.Struct)), None)
    if not isinstance(raw, dict) or struct is None:
        return raw
    hints = typing.get_type_hints(struct)
    filled = {name: with_origins(value, hints[name], f"{place}.{name}") for name, value in raw.items()}
    if hints.get("origin") is Origin:
        filled.setdefault("origin", [ORIGIN[0], place])
    if hints.get("key") is ObjectKey:
        filled.setdefault("key", ORIGIN[0])
    return filled


def cluster_of(target: Any) -> str:
    return f"outbound|{target.port or 80}|{target.subset}|{target.host}"


def rendered(kind: Kind, specs: list[Any]) -> dict[str, Any]:
    """Every hook's fragments as plain values."""
    shown: dict[str, Any] = {}
    if kind.on_route:
        shown["on_route"] = [shape(kind.on_route(spec, cluster_of)) for spec in specs]
    if kind.on_target:
        shown["on_target"] = [
            schema.to_dict(api.WeightedCluster.ClusterWeight(**kind.on_target(spec))) for spec in specs
        ]
    if kind.on_cluster:
        shown["on_cluster"] = [shape(kind.on_cluster(spec)) for spec in specs]
    if kind.on_inbound_route:
        shown["on_inbound_route"] = shape(kind.on_inbound_route(specs))
    if kind.inbound_network_filters:
        shown["inbound_network_filters"] = {
            name: schema.to_dict(one) for name, one in kind.inbound_network_filters(specs)
        }
    return shown


MESSAGES = {"route": "Route", "action": "RouteAction", "cluster": "Cluster", "http": "CoreHttpProtocolOptions"}


def shape(fragment: Any) -> dict[str, Any]:
    """A fragment, through the Envoy message its fields belong to: a wrong name or type cannot pass."""
    shown: dict[str, Any] = {}
    for part in fragment.__struct_fields__:
        fields = getattr(fragment, part)
        if part in MESSAGES and fields:
            shown[part] = schema.to_dict(getattr(api, MESSAGES[part])(**fields))
        elif fields:
            shown[part] = {name: schema.to_dict(one) for name, one in fields.items()}
    return shown


def written(shown: Any) -> str:
    return yaml.safe_dump(json.loads(json.dumps(shown)), sort_keys=True, width=120)
