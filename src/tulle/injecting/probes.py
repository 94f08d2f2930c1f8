"""The kubelet's probes of a workload whose ports speak mTLS: asked at the proxy instead, which asks the workload.

The kubelet has no certificate, so a STRICT port would refuse it. HTTP probes are passed on; for TCP and gRPC probes the proxy
looks itself and answers by HTTP; exec probes run in the container and stay. Hooks that are HTTP requests go the same way.
How the proxy does it is `compile.envoy.cluster_bootstrap`. Source: Kubernetes, "Configure Liveness, Readiness and Startup
Probes"; Istio, "Health Checking of Istio Services".
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, Final

from tulle.compile.envoy.cluster_bootstrap import PROBE_PORT, ConnectProbe, HttpProbe, Probe
from tulle.model.origin import Origin
from tulle.model.problems import Problem, problem

Json = dict[str, Any]

_PROBES: Final = {"startupProbe": "startupz", "readinessProbe": "readyz", "livenessProbe": "livez"}
_HOOKS: Final = {"postStart": "poststart", "preStop": "prestop"}
_HOOK_SECONDS: Final = 30


class Rewriting:
    """Containers one after the other, and what the proxy has to answer for them."""

    def __init__(self) -> None:
        self.probes: list[Probe] = []
        self.problems: list[Problem] = []

    def container(self, container: Json, origin: Origin) -> Json:
        """The container with its probes and hooks asked at the proxy; the given one is not touched."""
        made = copy.deepcopy(container)
        name = str(made.get("name", ""))
        for field, word in _PROBES.items():
            probe = made.get(field)
            if isinstance(probe, dict):
                made[field] = self._probe(made, probe, f"/app-health/{name}/{word}", origin.at(field))
        hooks = made.get("lifecycle")
        for field, word in _HOOKS.items():
            hook = hooks.get(field) if isinstance(hooks, dict) else None
            if isinstance(hook, dict) and isinstance(hook.get("httpGet"), dict):
                path = f"/app-lifecycle/{name}/{word}"
                made["lifecycle"][field] = self._http(made, hook, path, _HOOK_SECONDS, origin.at("lifecycle", field))
        return made

    def _probe(self, container: Json, probe: Json, path: str, origin: Origin) -> Json:
        timeout = _seconds(probe.get("timeoutSeconds"), 1)
        if isinstance(probe.get("httpGet"), dict):
            return self._http(container, probe, path, timeout, origin)
        for field in ("tcpSocket", "grpc"):
            asked = probe.get(field)
            if isinstance(asked, dict) and not asked.get("host"):
                return self._connected(container, probe, field, path, origin)
        return probe

    def _http(self, container: Json, probe: Json, path: str, timeout: int, origin: Origin) -> Json:
        asked: Json = probe["httpGet"]
        port = self._port(container, asked.get("port"), origin.at("httpGet", "port"))
        if asked.get("host") or port is None:
            return probe  # of another host, or of none
        headers = asked.get("httpHeaders") or []
        target = str(asked.get("path") or "/")
        self.probes.append(
            HttpProbe(
                path=path,
                port=port,
                target=target if target.startswith("/") else f"/{target}",
                timeout_s=timeout,
                is_https=str(asked.get("scheme", "HTTP")).upper() == "HTTPS",
                names_host=any(str(header.get("name", "")).lower() == "host" for header in headers),
            )
        )
        here = {"path": path, "port": PROBE_PORT, **({"httpHeaders": headers} if headers else {})}
        return {**probe, "httpGet": here}

    def _connected(self, container: Json, probe: Json, field: str, path: str, origin: Origin) -> Json:
        asked: Json = probe[field]
        port = self._port(container, asked.get("port"), origin.at(field, "port"))
        if port is None:
            return probe
        self.probes.append(
            ConnectProbe(
                path=path,
                port=port,
                period_s=_seconds(probe.get("periodSeconds"), 10),
                timeout_s=_seconds(probe.get("timeoutSeconds"), 1),
                service=None if field == "tcpSocket" else str(asked.get("service") or ""),
            )
        )
        rest = {name: value for name, value in probe.items() if name != field}
        return {**rest, "httpGet": {"path": path, "port": PROBE_PORT}}

    def _port(self, container: Json, port: object, origin: Origin) -> int | None:
        """The number; None for a port that nothing is known of, and for the proxy's own."""
        if isinstance(port, str) and port.isdecimal():
            port = int(port)
        if isinstance(port, int):
            return None if port == PROBE_PORT else port
        found = next((one for one in _declared(container) if one.get("name") == port), {}).get("containerPort")
        if not isinstance(found, int):
            self.problems.append(problem("TUL1204", origin, container=container.get("name", ""), port=port))
            return None
        return found


def _declared(container: Json) -> Iterable[Json]:
    return [one for one in container.get("ports") or [] if isinstance(one, dict)]


def _seconds(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) and value > 0 else otherwise
