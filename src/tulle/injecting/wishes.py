"""What a pod says about its proxy, read from its annotations: Istio's words, and two of ours.

A word that is not understood is a problem and changes nothing; what would weaken capture is never guessed. Knows no
container. Source: Istio, "Resource Annotations".
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import yaml
from msgspec import Struct

from tulle.injecting.settings import InjectionSettings, Resources
from tulle.model.origin import Origin
from tulle.model.problems import Problem, problem

Json = dict[str, Any]
Read = TypeVar("Read")

DRAIN: Final = "tulle.dev/drain-seconds"
INIT_CONTAINERS: Final = "tulle.dev/init-containers"
_SIDECAR: Final = "sidecar.istio.io/"
_READINESS: Final = "readiness.status.sidecar.istio.io/"
_TRAFFIC: Final = "traffic.sidecar.istio.io/"
_STATUS_PORT: Final = "status.sidecar.istio.io/port"
_PROXY_CONFIG: Final = "proxy.istio.io/config"
_REROUTED: Final = "istio.io/reroute-virtual-interfaces"
_QUANTITY = re.compile(r"^(\d+(?:\.\d+)?|\.\d+)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$")
_LEVELS: Final = ("trace", "debug", "info", "warning", "warn", "error", "critical", "off")
_LONGEST_LINK: Final = 15
_LAST_PORT: Final = 65535
_MOST_THREADS: Final = 128
_LONGEST_DRAIN: Final = 3600


class Readiness(Struct, frozen=True):
    """How the kubelet asks whether the proxy is ready."""

    is_asked: bool = True
    initial_delay_s: int = 0
    period_s: int = 15
    failures: int = 4


class Wishes(Struct, frozen=True, kw_only=True):
    """One pod's proxy."""

    image: str
    resources: Resources
    log_level: str
    component_log_level: str
    concurrency: int
    rewrites_probes: bool
    readiness: Readiness
    captures: bool
    capture: Json
    """capture/settings.go."""
    drain_seconds: int
    init_containers_first: bool
    volumes: list[Json]
    mounts: list[Json]


def wishes(
    annotations: Mapping[str, str], settings: InjectionSettings, origin: Origin
) -> tuple[Wishes, tuple[Problem, ...]]:
    """What the annotations of a pod ask for, over the installation's settings. `origin`: of the pod's annotations."""
    said = _Said(annotations, origin)
    resources = settings.resources
    limit = said.quantity("proxyCPULimit", resources.cpu_limit)
    threads = settings.concurrency
    if f"{_SIDECAR}proxyCPULimit" in annotations and limit:
        threads = max(1, math.ceil(_cpus(limit)))
    mode = said.choice(f"{_SIDECAR}interceptionMode", ("REDIRECT", "NONE"), "REDIRECT")
    made = Wishes(
        image=annotations.get(f"{_SIDECAR}proxyImage", "").strip() or settings.proxy_image,
        resources=Resources(
            cpu=said.quantity("proxyCPU", resources.cpu),
            memory=said.quantity("proxyMemory", resources.memory),
            cpu_limit=limit,
            memory_limit=said.quantity("proxyMemoryLimit", resources.memory_limit),
        ),
        log_level=said.choice(f"{_SIDECAR}logLevel", _LEVELS, settings.log_level),
        component_log_level=annotations.get(f"{_SIDECAR}componentLogLevel", "").strip(),
        concurrency=_threads(said, threads),
        rewrites_probes=said.flag(f"{_SIDECAR}rewriteAppHTTPProbers", settings.rewrite_probes),
        readiness=Readiness(
            is_asked=annotations.get(_STATUS_PORT, "").strip() != "0",
            initial_delay_s=said.number(f"{_READINESS}initialDelaySeconds", 0, 0, _LONGEST_DRAIN),
            period_s=said.number(f"{_READINESS}periodSeconds", 15, 1, _LONGEST_DRAIN),
            failures=said.number(f"{_READINESS}failureThreshold", 4, 1, _LONGEST_DRAIN),
        ),
        captures=mode == "REDIRECT",
        capture=_capture(said, settings),
        drain_seconds=said.number(DRAIN, settings.drain_seconds, 0, _LONGEST_DRAIN),
        init_containers_first=said.choice(INIT_CONTAINERS, ("after", "before"), settings.init_containers) == "before",
        volumes=said.volumes("userVolume"),
        mounts=said.volumes("userVolumeMount"),
    )
    return made, tuple(said.problems)


def _threads(said: _Said, threads: int) -> int:
    """`concurrency` of `proxy.istio.io/config`, the one field of it that is obeyed; the rest is named."""
    text = said.annotations.get(_PROXY_CONFIG, "")
    if not text.strip():
        return threads
    try:
        config = yaml.load(text, yaml.CSafeLoader)
    except yaml.YAMLError as error:
        said.refuse(_PROXY_CONFIG, str(error).partition("\n")[0])
        return threads
    if not isinstance(config, dict):
        said.refuse(_PROXY_CONFIG, "not a map")
        return threads
    for name in config:
        if name not in ("concurrency", "holdApplicationUntilProxyStarts"):
            said.problems.append(problem("TUL1202", said.at(_PROXY_CONFIG), annotation=_PROXY_CONFIG, value=name))
    wanted = config.get("concurrency", threads)
    if not isinstance(wanted, int) or isinstance(wanted, bool) or not 0 <= wanted <= _MOST_THREADS:
        said.refuse(_PROXY_CONFIG, f"concurrency is {wanted}")
        return threads
    return wanted


def _capture(said: _Said, settings: InjectionSettings) -> Json:
    """What the capture program is told. "Include" is left out where it means everything."""
    inbound = said.ports("includeInboundPorts", None)
    without = (settings.exclude_outbound_ranges, settings.exclude_outbound_ports, settings.exclude_inbound_ports)
    ranges = said.ranges("includeOutboundIPRanges", _ranges_of(settings.include_outbound_ranges))
    if said.annotations.get(f"{_TRAFFIC}includeOutboundPorts", "").strip() == "*":
        ranges = None
    told: Json = {
        "includeInboundPorts": inbound,
        "excludeInboundPorts": said.ports("excludeInboundPorts", list(without[2])) if inbound is None else None,
        "includeOutboundRanges": ranges,
        "excludeOutboundRanges": said.ranges("excludeOutboundIPRanges", _ranges_of(without[0])),
        "includeOutboundPorts": said.ports("includeOutboundPorts", None),
        "excludeOutboundPorts": said.ports("excludeOutboundPorts", list(without[1])),
        "excludeInterfaces": said.links(f"{_TRAFFIC}excludeInterfaces"),
        "virtualInterfaces": [*said.links(f"{_TRAFFIC}kubevirtInterfaces"), *said.links(_REROUTED)],
    }
    includes = ("includeInboundPorts", "includeOutboundRanges")
    return {name: value for name, value in told.items() if value or (name in includes and value is not None)}


def _ranges_of(words: tuple[str, ...]) -> list[str] | None:
    return None if "*" in words else [_range_of(word) for word in words]


def _range_of(word: str) -> str:
    return str(ipaddress.ip_network(word, strict=False))


def _port_of(word: str) -> int:
    if not word.isdecimal() or not 1 <= (port := int(word)) <= _LAST_PORT:
        raise ValueError(f"{word} is no port")
    return port


def _link_of(word: str) -> str:
    if len(word) > _LONGEST_LINK:
        raise ValueError(f"{word} is no interface")
    return word


def _cpus(quantity: str) -> float:
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity.rstrip("kMGTPEi"))


class _Said:
    """The annotations, and what is wrong with them."""

    def __init__(self, annotations: Mapping[str, str], origin: Origin) -> None:
        self.annotations = annotations
        self.origin = origin
        self.problems: list[Problem] = []

    def at(self, name: str) -> Origin:
        """The place of one annotation."""
        return self.origin.at(name)

    def refuse(self, name: str, reason: str) -> None:
        """Say that a value is not understood."""
        self.problems.append(problem("TUL1201", self.at(name), annotation=name, reason=reason))

    def quantity(self, name: str, otherwise: str) -> str:
        """`100m`, `64Mi`; the word `0` or an empty value means none."""
        whole = f"{_SIDECAR}{name}"
        text = self.annotations.get(whole, otherwise).strip()
        if text in ("", "0"):
            return ""
        if not _QUANTITY.match(text):
            self.refuse(whole, f"{text} is no quantity")
            return otherwise
        return text

    def choice(self, name: str, choices: tuple[str, ...], otherwise: str) -> str:
        """One of some words."""
        text = self.annotations.get(name, "").strip()
        if text and text not in choices:
            self.problems.append(problem("TUL1202", self.at(name), annotation=name, value=text))
            return otherwise
        return text or otherwise

    def flag(self, name: str, otherwise: bool) -> bool:
        """`true` or `false`."""
        return self.choice(name, ("true", "false"), str(otherwise).lower()) == "true"

    def number(self, name: str, otherwise: int, least: int, most: int) -> int:
        """A number within bounds."""
        text = self.annotations.get(name, "").strip()
        if not text:
            return otherwise
        if not text.isdecimal() or not least <= int(text) <= most:
            self.refuse(name, f"{text} is no number from {least} to {most}")
            return otherwise
        return int(text)

    def ports(self, name: str, otherwise: list[int] | None) -> list[int] | None:
        """Ports; None for `*`."""
        return self._listed(f"{_TRAFFIC}{name}", _port_of, otherwise)

    def ranges(self, name: str, otherwise: list[str] | None) -> list[str] | None:
        """CIDR ranges or addresses; None for `*`."""
        return self._listed(f"{_TRAFFIC}{name}", _range_of, otherwise)

    def links(self, name: str) -> list[str]:
        """Names of interfaces."""
        return self._listed(name, _link_of, []) or []

    def _listed(self, name: str, read: Callable[[str], Read], otherwise: list[Read] | None) -> list[Read] | None:
        if name not in self.annotations:
            return otherwise
        text = self.annotations[name].strip()
        if text == "*":
            return None
        try:
            return [read(word.strip()) for word in text.split(",") if word.strip()]
        except ValueError as error:
            self.refuse(name, str(error))
            return otherwise

    def volumes(self, name: str) -> list[Json]:
        """Istio's form: a JSON map of volume name to source (or mount), or a list of volumes (or mounts)."""
        found = self._json(f"{_SIDECAR}{name}")
        if isinstance(found, dict):
            return [{"name": volume, **source} for volume, source in found.items() if isinstance(source, dict)]
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []

    def _json(self, name: str) -> object:
        text = self.annotations.get(name, "").strip()
        if not text:
            return None
        try:
            return json.loads(text)
        except ValueError as error:
            self.refuse(name, str(error))
            return None
