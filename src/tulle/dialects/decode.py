"""One raw object (a mapping as YAML or JSON gives it) to a typed object, or to the list of everything that is wrong with it.

Pure. Knows the envelope every Kubernetes-shaped object has (apiVersion, kind, metadata); `fitting` knows schemas, the dialects
know kinds. Versions of a kind are one object: the key has no version.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from msgspec import Struct

from tulle.dialects.fitting import fitted
from tulle.dialects.kinds import KindRead, NameRule, Scope
from tulle.model.keys import ObjectKey, labels_of
from tulle.model.objects import Object
from tulle.model.origin import Origin
from tulle.model.problems import NOWHERE, Problem, problem

KindsRead = Mapping[tuple[str, str], KindRead]
"""By (group, kind)."""

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?\Z")
_VERSION = re.compile(r"v[0-9]+((alpha|beta)[0-9]+)?\Z")
_ENVELOPE = frozenset(("apiVersion", "kind", "metadata"))
_METADATA = frozenset(
    [
        "annotations",
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "labels",
        "managedFields",
        "name",
        "namespace",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    ]
)
_MAX_LABEL = 63
_MAX_SUBDOMAIN = 253


class Decoded(Struct, frozen=True):
    """An object, or None where it was refused; its key as far as it could be read."""

    object: Object | None
    key: ObjectKey | None
    problems: tuple[Problem, ...]
    private: Any = None
    """Secret bytes of the object: for the vault, never for the engine."""


class _Identity(NamedTuple):
    group: str
    version: str
    kind: str


def decoded(raw: Any, kinds: KindsRead, cluster: str, namespace: str) -> Decoded:
    """The object of a raw document. `namespace` is for objects that name none. Every error found is in the answer."""
    identity = _identity(raw)
    if isinstance(identity, Problem):
        return Decoded(None, None, (identity,))
    kind = kinds.get((identity.group, identity.kind))
    key, found = _key(raw, identity, kind, cluster, namespace)
    if key is None:
        return Decoded(None, None, tuple(found))
    origin = Origin(key)
    found += _metadata_problems(raw["metadata"], key, kind)
    if kind is None:
        return _foreign(raw, identity, kinds, key, found)
    if identity.version not in kind.versions:
        served = ", ".join(f"{kind.group}/{version}".removeprefix("/") for version in kind.versions)
        found.append(
            problem("TUL0105", origin.at("apiVersion"), version=raw["apiVersion"], kind=kind.kind, served=served)
        )
        return Decoded(None, key, tuple(found))
    return _of_kind(raw, kind, key, found)


def _identity(raw: Any) -> _Identity | Problem:
    if not isinstance(raw, dict):
        shape = "a list" if isinstance(raw, list) else "a single value"
        return problem("TUL0101", NOWHERE, found=shape)
    for code, field in (("TUL0102", "apiVersion"), ("TUL0103", "kind")):
        if not isinstance(raw.get(field), str) or not raw[field]:
            return problem(code, NOWHERE.at(field) if field in raw else NOWHERE)
    group, _, version = raw["apiVersion"].rpartition("/")
    if not _VERSION.match(version) or (group and not _SUBDOMAIN.match(group)):
        return problem("TUL0104", NOWHERE.at("apiVersion"), version=raw["apiVersion"][:80])
    return _Identity(group, version, raw["kind"])


def _key(
    raw: dict[str, Any], identity: _Identity, kind: KindRead | None, cluster: str, namespace: str
) -> tuple[ObjectKey | None, list[Problem]]:
    metadata = raw.get("metadata")
    if not isinstance(metadata, dict):
        return None, [
            problem("TUL0107", NOWHERE.at("metadata") if metadata is not None else NOWHERE, kind=identity.kind)
        ]
    name, place = metadata.get("name"), metadata.get("namespace")
    if not isinstance(name, str) or not name:
        where = NOWHERE.at("metadata", "name") if "name" in metadata else NOWHERE.at("metadata")
        return None, [problem("TUL0107", where, kind=identity.kind)]
    if place is not None and (not isinstance(place, str) or not _is_label(place)):
        return None, [problem("TUL0109", NOWHERE.at("metadata", "namespace"), namespace=str(place)[:80])]
    if kind is not None and kind.scope is Scope.CLUSTER:
        key = ObjectKey(cluster, identity.group, identity.kind, "", name)
        warned = [problem("TUL0110", Origin(key).at("metadata", "namespace"), kind=kind.kind)] if place else []
        return key, warned
    return ObjectKey(cluster, identity.group, identity.kind, place or namespace, name), []


def _is_label(text: str) -> bool:
    return len(text) <= _MAX_LABEL and bool(_LABEL.match(text))


def _metadata_problems(metadata: dict[str, Any], key: ObjectKey, kind: KindRead | None) -> list[Problem]:
    origin = Origin(key).at("metadata")
    found: list[Problem] = []
    is_short = kind is not None and kind.name_rule is NameRule.LABEL
    fits = _is_label(key.name) if is_short else len(key.name) <= _MAX_SUBDOMAIN and _SUBDOMAIN.match(key.name)
    if kind is not None and not fits:
        found.append(
            problem("TUL0108", origin.at("name"), name=key.name[:80], limit=_MAX_LABEL if is_short else _MAX_SUBDOMAIN)
        )
    for field in metadata.keys() - _METADATA if kind is not None and kind.is_strict else ():
        close = difflib.get_close_matches(str(field), _METADATA, n=1)
        hint = f" Did you mean `{close[0]}`?" if close else ""
        found.append(problem("TUL0113", origin.at(str(field)), field=field, hint=hint))
    for field in ("labels", "annotations"):
        found += _text_map_problems(metadata.get(field), origin.at(field), is_label=field == "labels")
    return found


def _text_map_problems(mapping: Any, origin: Origin, *, is_label: bool) -> Iterable[Problem]:
    if mapping is None:
        return
    if not isinstance(mapping, dict):
        yield problem("TUL0112", origin, field=origin.path.rpartition(".")[2])
        return
    for name, value in mapping.items():
        if value is not None and not isinstance(value, str):
            yield problem(
                "TUL0111", origin.at(name), name=name, value=str(value).lower() if isinstance(value, bool) else value
            )
        elif is_label and not _fits_label(name, value or ""):
            yield problem("TUL0106", origin.at(name), name=name[:120], value=(value or "")[:80])


def _fits_label(name: str, value: str) -> bool:
    prefix, slash, bare = name.rpartition("/")
    if slash and not (len(prefix) <= _MAX_SUBDOMAIN and _SUBDOMAIN.match(prefix)):
        return False
    if not (len(bare) <= _MAX_LABEL and _LABEL_NAME.match(bare)):
        return False
    return not value or (len(value) <= _MAX_LABEL and bool(_LABEL_NAME.match(value)))


def _foreign(
    raw: dict[str, Any], identity: _Identity, kinds: KindsRead, key: ObjectKey, found: list[Problem]
) -> Decoded:
    """A kind nobody here reads: kept as it is, unless its name is a slip of the pen or its group is one we read whole."""
    siblings = [name for group, name in kinds if group == identity.group]
    close = difflib.get_close_matches(identity.kind, siblings, n=1, cutoff=0.85)
    if close or identity.group.endswith(".istio.io"):
        hint = f" Did you mean {close[0]}?" if close else ""
        found.append(
            problem("TUL0121", Origin(key).at("kind"), kind=identity.kind, group=identity.group or "core", hint=hint)
        )
        return Decoded(None, key, tuple(found))
    found.append(problem("TUL0203", Origin(key), kind=identity.kind, group=identity.group or "core"))
    body = {field: value for field, value in raw.items() if field not in _ENVELOPE}
    return _finished(raw["metadata"], key, body, found, None)


def _of_kind(raw: dict[str, Any], kind: KindRead, key: ObjectKey, found: list[Problem]) -> Decoded:
    origin = Origin(key)
    if kind.make is not None:
        made = kind.make(raw, origin)
        return _finished(raw["metadata"], key, made.value, [*found, *made.problems], made.private)
    body: Any = raw
    if kind.root:
        found += _beside_root(raw, kind, origin)
        body = raw.get(kind.root)
        if body is None and kind.requires_root:
            found.append(problem("TUL0123", origin, kind=kind.kind, field=kind.root))
            return Decoded(None, key, tuple(found))
        body = {} if body is None else body
        origin = origin.at(kind.root)
    value, misfits = fitted(body, kind.schema, origin)
    found += misfits
    if not kind.is_enforced:
        found.append(problem("TUL0202", Origin(key), kind=kind.kind))
    if value is not None and kind.check is not None:
        found += kind.check(value, origin)
    generation = _count(raw["metadata"].get("generation")) if kind.counts_generation else 0
    return _finished(raw["metadata"], key, value, found, None, generation=generation)


def _beside_root(raw: dict[str, Any], kind: KindRead, origin: Origin) -> Iterable[Problem]:
    if not kind.is_strict:
        return
    for field in raw:
        if field not in (kind.root, "status") and field not in _ENVELOPE:
            known = [kind.root, "metadata", "apiVersion", "kind"]
            close = difflib.get_close_matches(str(field), known, n=1)
            hint = f" Did you mean `{close[0]}`?" if close else f" Does it belong into `{kind.root}`?"
            yield problem("TUL0113", origin.at(str(field)), field=field, hint=hint)


def _finished(
    metadata: dict[str, Any], key: ObjectKey, spec: Any, found: list[Problem], private: Any, *, generation: int = 0
) -> Decoded:
    if any(item.severity == "error" for item in found):
        return Decoded(None, key, tuple(found))
    labels, annotations = (_text_map(metadata.get(field)) for field in ("labels", "annotations"))
    return Decoded(
        Object(
            key=key,
            spec=spec,
            labels=labels_of(labels),
            annotations=labels_of(annotations),
            uid=_text(metadata.get("uid")),
            created=_text(metadata.get("creationTimestamp")),
            generation=generation,
        ),
        key,
        tuple(found),
        private,
    )


def _text_map(mapping: dict[str, str | None] | None) -> dict[str, str]:
    return {name: value or "" for name, value in (mapping or {}).items()}


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
