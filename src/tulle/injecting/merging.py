"""What a pod's own container `istio-proxy` says, laid over the one that injection makes: what the pod says wins.

Maps are merged, lists of named things by their names, other lists replaced. Source: Istio, "Customizing injection".
"""

from __future__ import annotations

from typing import Any, Final

Json = dict[str, Any]

_KEYS: Final = {"env": "name", "volumeMounts": "mountPath", "ports": "containerPort"}
AUTO: Final = "auto"


def overlaid(made: Json, own: Json) -> Json:
    """`made` with the fields of `own` in place of its own; an image named `auto` is none.

    Nor is its pull policy: the API server set `Always` for an image without a tag.
    """
    unsaid = ("image", "imagePullPolicy") if is_auto(own.get("image")) else ()
    said = {name: value for name, value in own.items() if name not in unsaid}
    return {**made, **{name: _merged(name, made.get(name), value) for name, value in said.items()}}


def is_auto(image: object) -> bool:
    """Whether an image stands for the one that injection chooses."""
    return isinstance(image, str) and image.rpartition("/")[2] in (AUTO, f"{AUTO}:latest")


def _merged(name: str, made: object, own: object) -> object:
    if isinstance(made, dict) and isinstance(own, dict):
        return {**made, **{field: _merged(field, made.get(field), value) for field, value in own.items()}}
    if name in _KEYS and isinstance(made, list) and isinstance(own, list):
        key = _KEYS[name]
        named = {one[key]: one for one in own if isinstance(one, dict) and key in one}
        kept = [_merged("", one, named.pop(one[key])) if one[key] in named else one for one in made]
        return [*kept, *(one for one in own if not isinstance(one, dict) or one.get(key) in named or key not in one)]
    return own
