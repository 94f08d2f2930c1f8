"""A mesh without isolation: the same supervisor, with less to offer and honest about it.

Only what differs: no sidecars, no gateways, no name server, a forward proxy instead of the edge.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from tulle.dialects.kubernetes.injection import Role
from tulle.local import forwarding, published
from tulle.local.desired import Workload
from tulle.local.forward import Forward
from tulle.local.forwarding import Target
from tulle.local.manifests import Service
from tulle.local.supervisor import Supervisor


class UnfencedSupervisor(Supervisor):
    """For machines where user namespaces are not allowed."""

    isolation = "none"
    _forward: Forward | None = None

    def runnable(self, workload: Workload) -> Workload | None:
        """Without its sidecar; a gateway is nothing but a sidecar, so it does not run."""
        if workload.role is Role.GATEWAY:
            return None
        return replace(workload, role=Role.NONE, because="isolation none")

    async def start_dns(self) -> None:
        """Programs keep the machine's resolver; names of the mesh are the forward proxy's."""

    async def open_edge(self, envoy: Path, gate: asyncio.Semaphore) -> None:
        """Start the forward proxy."""
        del gate
        await self._proxy(envoy).start()

    def _proxy(self, envoy: Path) -> Forward:
        if self._forward is None:
            self._forward = Forward(self.places, envoy)
            self.publish_edge()
        return self._forward

    def publish_edge(self) -> None:
        """Tell the forward proxy which services there are."""
        if self._forward is None:
            return
        targets = []
        for item in self.services():
            service: Service = item.spec
            behind = published.selected(item, self.seen())
            for port in service.spec.ports or ():
                found = tuple((pod.ip, published.target_port(port, pod.workload)) for pod in behind)
                targets.append(Target(item.key.namespace, item.key.name, port.port, found))
        self._forward.publish(targets)

    async def close_edge(self) -> None:
        """End the forward proxy."""
        if self._forward is not None:
            await self._forward.stop()

    def extra_environment(self, ip: str) -> Mapping[str, str]:
        """Where the proxy is, and which address is the pod's own."""
        return {} if self._forward is None else forwarding.environment(self._forward.port, ip)

    def links(self) -> list[str]:
        """How to reach a service from here."""
        if self._forward is None:
            return []
        return [
            f"every service by its name: http_proxy=http://localhost:{self._forward.port} curl http://NAME.NAMESPACE:PORT"
        ]
