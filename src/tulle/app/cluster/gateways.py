"""What runs for the Gateways of a cluster: their objects, and what became of them. The leader's duty.

Which objects a Gateway needs is `dialects.gateway_api.deployments`' answer; here they are wished, and their addresses and readiness go
back into the engine (`inputs.deployed`), where status reads them.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from tulle.app.control_plane import ControlPlane
from tulle.dialects.gateway_api.deployments import DeploymentSettings, ToDeploy, deployment_of, objects_for
from tulle.dialects.gateway_api.inputs import Deployed, GatewayAddress, deployed
from tulle.dialects.gateway_api.names import NAME_LABEL
from tulle.dialects.gateway_api.schema import GROUP
from tulle.dialects.inputs import by_kind
from tulle.dialects.kubernetes import workload
from tulle.engine import Database
from tulle.kube.access import Access
from tulle.kube.discovery import Resource
from tulle.kube.resources import DEPLOYMENTS
from tulle.kube.writing import Writer
from tulle.model.keys import ObjectKey

RESOURCES = {
    ("v1", "ServiceAccount"): Resource("", "v1", "serviceaccounts", "ServiceAccount"),
    ("v1", "Service"): Resource("", "v1", "services", "Service"),
    ("apps/v1", "Deployment"): DEPLOYMENTS,
    ("autoscaling/v2", "HorizontalPodAutoscaler"): Resource(
        "autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler"
    ),
    ("policy/v1", "PodDisruptionBudget"): Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget"),
}
"""What may be made for a Gateway."""
_SERVICES = RESOURCES["v1", "Service"]


class GatewayDuty:
    """Deploys Gateways and watches over what was deployed."""

    def __init__(self, access: Access, writer: Writer, settings: DeploymentSettings, cluster: str) -> None:
        self._access = access
        self._writer = writer
        self._settings = settings
        self._cluster = cluster
        self._made: dict[ObjectKey, frozenset[tuple[str, str, str]]] = {}
        """(apiVersion, kind, name) of what was wished for each Gateway."""

    async def settle(self, plane: ControlPlane) -> None:
        """Wish what is needed, and note what is there. Raises KubeError where the API is away."""
        found: dict[ObjectKey, Deployed] = {}
        keys = [key for key in by_kind(plane.db, (self._cluster, "Gateway")) if key.group == GROUP]
        for key in keys:
            wanted = deployment_of(plane.db, key)
            if wanted is not None:
                self._wish(wanted)
                found[key] = Deployed(await self._addresses(wanted), _is_programmed(plane, key))
        for gone in self._made.keys() - set(keys):
            # Its objects belong to it: the API deletes them with it.
            for api_version, kind, name in self._made.pop(gone):
                self._writer.forget(RESOURCES[api_version, kind], gone.namespace, name)
        _note(plane.db, keys, found)

    def _wish(self, wanted: ToDeploy) -> None:
        namespace = wanted.key.namespace
        made = set()
        for document in objects_for(wanted, self._settings):
            word = (document["apiVersion"], document["kind"])
            self._writer.apply(RESOURCES[word], document)
            made.add((*word, document["metadata"]["name"]))
        for api_version, kind, name in self._made.get(wanted.key, frozenset()) - made:
            self._writer.delete(RESOURCES[api_version, kind], namespace, name)
        self._made[wanted.key] = frozenset(made)

    async def _addresses(self, wanted: ToDeploy) -> tuple[GatewayAddress, ...]:
        body = await self._access.read(_SERVICES.path(wanted.key.namespace, wanted.name))
        return tuple(addresses_of(msgspec.json.decode(body))) if body is not None else ()


def addresses_of(service: dict[str, Any]) -> Iterable[GatewayAddress]:
    """Where clients reach a Service: what a load balancer gave it; for a Service that waits for none, its own address."""
    spec, status = service.get("spec") or {}, service.get("status") or {}
    ingress = (status.get("loadBalancer") or {}).get("ingress") or ()
    for one in ingress:
        if one.get("ip"):
            yield GatewayAddress("IPAddress", one["ip"])
        elif one.get("hostname"):
            yield GatewayAddress("Hostname", one["hostname"])
    for address in spec.get("externalIPs") or ():
        yield GatewayAddress("IPAddress", address)
    if spec.get("type") != "LoadBalancer" and spec.get("clusterIP") not in (None, "", "None"):
        yield GatewayAddress("IPAddress", spec["clusterIP"])


def _is_programmed(plane: ControlPlane, key: ObjectKey) -> bool:
    """Whether a proxy of it has what it means now: acknowledged here, or ready while it is another replica's."""
    for uid, seat in plane.fleet.seats.items():
        if not seat.is_gateway or seat.workload.namespace != key.namespace:
            continue
        pod = workload(plane.db, seat.workload)
        if pod is None or dict(pod.labels).get(NAME_LABEL) != key.name:
            continue
        streams = plane.fleet.of_seat(uid)
        if any(stream.is_synced for stream in streams) if streams else pod.is_ready:
            return True
    return False


def _note(db: Database, keys: Iterable[ObjectKey], found: dict[ObjectKey, Deployed]) -> None:
    changed = [key for key in keys if deployed(db, key) != found.get(key)]
    if not changed:
        return
    with db.edit() as tx:
        for key in changed:
            if key in found:
                tx.set(deployed, key, found[key])
            else:
                tx.delete(deployed, key)
