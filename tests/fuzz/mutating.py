"""Good configurations made bad: the goldens' manifests with fields dropped, doubled, swapped, retyped and filled with oddities.

`mutations(seed, n)` gives n configurations, the same for the same seed. Each is a list of raw objects as a YAML parser
gives them. Nothing here knows what a field means, apart from the pods, which must run for anything to be compiled.
"""

import copy
import json
import random
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from golden.pem import filled

GOLDENS = Path(__file__).parent.parent / "golden" / "compile"
Raw = dict[str, Any]
Path_ = list[Any]

ODD_TEXT = (
    "", " ", "*", "*.", "**", "*.*", "a", "A.EXAMPLE.COM", "*.example.com", "example.com", "web.example.com", "web", "reviews",
    "reviews.default.svc.cluster.local", "web.default", "-a-", ".", "..", "a..b", "a_b.c", "x" * 64, "x" * 254, "x" * 70_000,
    "10.96.0.7", "10.96.0.0/24", "10.96.0.7/33", "0.0.0.0", "0.0.0.0/0", "::1", "::/0", "::ffff:10.0.0.1", "127.0.0.1", "256.1.1.1",
    "http://x/", "a b", "a\nb", "a\x00b", "ünïcode.example", "日本", "💥", "\u202e", "%", "%%", "%REQ(x)%", "%FOO%", "%PREFIX()%",
    "(", "[a-", "(?P<x>a)\\1", "a{1,2000}", "(a*)*b", ".*", "\\", "/", "//", "/../x", "?", "#", "/a?b#c", "{a}", "/{*}", "/{**}/x",
    "true", "null", "0", "-1", "1e9", "0x10", "1s", "1h30m", "0s", "-5s", "1ms", "0.5ms", "100000h", "5", "ms",
    "STRICT", "DISABLE", "ISTIO_MUTUAL", "SIMPLE", "MUTUAL", "PASSTHROUGH", "HTTP", "HTTPS", "TLS", "TCP", "UDP", "GRPC", "DNS", "NONE",
    "STATIC", "DNS_ROUND_ROBIN", "mesh", "./x", "default/one", "*/x", "~", ".", "istio-system", "spiffe://cluster.local/ns/a/sa/b",
    "host", ":authority", "connection", "x-envoy-max-retries", "content-length", "5xx,reset", "599,600", "503,503,abc",
)  # fmt: skip
ODD_NUMBERS = (
    0, 1, 2, -1, 79, 80, 443, 3306, 8080, 8443, 9080, 15001, 15006, 15021, 65535, 65536, 99, 100, 101, 599, 600, 1000, 2**31 - 1, 2**31,
    2**32 - 1, 2**32, 2**63, 10**30, 0.5, -0.1, 99.99, 100.01, 1e308,
)  # fmt: skip
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    [],
    {},
    [[]],
    [None],
    {"": ""},
    {"exact": "x", "prefix": "y"},
    ["*"],
    [80],
    "80",
)
LEFT_ALONE = frozenset(("caCertificates",))
"""Names a file of the proxy's machine: whether it exists is no property of a configuration."""


def mutations(seed: int, n: int) -> Iterator[list[Raw]]:
    """n configurations with one to six mutations each."""
    rng = random.Random(seed)
    scenes = good()
    for _ in range(n):
        objects = copy.deepcopy(rng.choice(scenes))
        if rng.random() < 0.3:
            objects += copy.deepcopy(rng.choice(scenes))
        for _ in range(rng.choice((1, 1, 2, 2, 3, 6))):
            rng.choice(MUTATORS)(rng, objects)
        yield objects


@cache
def good() -> list[list[Raw]]:
    """Every golden's objects, with the pods that its comments speak of and those that every view needs."""
    scenes = []
    for path in sorted(GOLDENS.glob("*/in.yaml")):
        scene = [raw for raw in yaml.load_all(filled(path.read_text()), yaml.CSafeLoader) if raw]
        scene += [
            _pod("client", "default", {"app": "client"}),
            _pod("web-1", "default", {"app": "web", "version": "v1"}),
        ]
        scene += [_pod("reviews-1", "default", {"app": "reviews", "version": "v1"}), _gateway()]
        scenes.append(scene)
    assert len(scenes) > 20, "the goldens are missing"
    return scenes


def _pod(name: str, namespace: str, labels: dict[str, str]) -> Raw:
    number = sum(name.encode()) % 200
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": labels,
            "annotations": {"tulle.dev/sidecar": "true"},
        },
        "spec": {"containers": [{"name": "app", "image": "x", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {
            "phase": "Running",
            "podIP": f"10.244.9.{number}",
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def _gateway() -> Raw:
    made = _pod("gw", "istio-system", {"app": "gw", "istio": "ingressgateway"})
    made["metadata"]["annotations"] |= {"sidecar.istio.io/inject": "true", "inject.istio.io/templates": "gateway"}
    return made


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of everything within, apart from what is left alone."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if key not in LEFT_ALONE:
            yield (*path, key)
            yield from _places(item, (*path, key))


def _place(rng: random.Random, objects: list[Raw]) -> tuple[Any, Any]:
    """A container and a key in it; mostly within specs, seldom within what identifies an object or a pod."""
    chosen = rng.choice([raw for raw in objects if raw.get("kind") != "Pod" or rng.random() < 0.1] or objects)
    root = next((name for name in ("spec", "data", "stringData") if isinstance(chosen.get(name), dict)), None)
    start: Any = chosen[root] if root and rng.random() < 0.9 else chosen
    places = list(_places(start))
    if not places:
        return chosen, rng.choice(list(chosen) or ["spec"])
    *path, key = rng.choice(places)
    for step in path:
        start = start[step]
    return start, key


def _drop(rng: random.Random, objects: list[Raw]) -> None:
    container, key = _place(rng, objects)
    if isinstance(container, list) or key in container:
        del container[key]


def _double(rng: random.Random, objects: list[Raw]) -> None:
    container, key = _place(rng, objects)
    if isinstance(container, list):
        container.insert(rng.randrange(len(container) + 1), copy.deepcopy(container[key]))
    elif key in container and isinstance(container[key], list):
        container[key] = container[key] * rng.choice((2, 3))


def _swap(rng: random.Random, objects: list[Raw]) -> None:
    (one, first), (two, second) = _place(rng, objects), _place(rng, objects)
    if (isinstance(one, list) or first in one) and (isinstance(two, list) or second in two):
        left, right = copy.deepcopy(one[first]), copy.deepcopy(two[second])
        one[first] = right
        if isinstance(two, list):
            two[second if second < len(two) else -1] = left
        else:
            two[second] = left


def _retype(rng: random.Random, objects: list[Raw]) -> None:
    container, key = _place(rng, objects)
    container[key] = copy.deepcopy(rng.choice(ODD_VALUES))


def _replace(rng: random.Random, objects: list[Raw]) -> None:
    """Another value of the same type: the kind of mistake that passes a schema."""
    for _ in range(8):
        container, key = _place(rng, objects)
        value = container[key] if isinstance(container, list) else container.get(key)
        if isinstance(value, bool):
            container[key] = not value
        elif isinstance(value, str):
            container[key] = rng.choice(ODD_TEXT)
        elif isinstance(value, int | float):
            container[key] = rng.choice(ODD_NUMBERS)
        else:
            continue
        return


def _rename(rng: random.Random, objects: list[Raw]) -> None:
    container, key = _place(rng, objects)
    if isinstance(container, dict) and isinstance(key, str) and key in container:
        container[rng.choice((key.upper(), key + "s", key[:-1], rng.choice(ODD_TEXT)))] = container.pop(key)


def _graft(rng: random.Random, objects: list[Raw]) -> None:
    """A part of another object of the same kind, of any golden."""
    container, key = _place(rng, objects)
    donor = rng.choice(rng.choice(good()))
    places = [path for path in _places(donor.get("spec") or {}) if path[-1] == key] or list(
        _places(donor.get("spec") or {})
    )
    if places:
        value: Any = donor["spec"]
        path = rng.choice(places)
        for step in path:
            value = value[step]
        container[key if isinstance(container, list) else path[-1]] = copy.deepcopy(value)


def _twin(rng: random.Random, objects: list[Raw]) -> None:
    """An object again, under another name, in another namespace, or under the same name."""
    twin = copy.deepcopy(rng.choice(objects))
    metadata = twin.get("metadata")
    if isinstance(metadata, dict):
        metadata[rng.choice(("name", "namespace", "uid"))] = rng.choice(
            ("other", "default", "istio-system", "shop", "twin")
        )
    objects.append(twin)


def _clash(rng: random.Random, objects: list[Raw]) -> None:
    """Every port of an object becomes the same number."""
    text = json.dumps(rng.choice(objects))
    port = rng.choice((80, 443, 8080, 15001, 15006, 3306))
    for name in ("number", "port", "targetPort"):
        for other in (80, 443, 3306, 9080, 8080):
            text = text.replace(f'"{name}": {other}', f'"{name}": {port}')
    objects.append(json.loads(text))


Mutator = Callable[[random.Random, list[Raw]], None]
MUTATORS: tuple[Mutator, ...] = (
    _drop,
    _double,
    _swap,
    _retype,
    _replace,
    _replace,
    _replace,
    _replace,
    _rename,
    _graft,
    _graft,
    _twin,
    _clash,
)
