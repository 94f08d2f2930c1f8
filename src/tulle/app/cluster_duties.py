"""What a control plane in a cluster does beside serving: the trust root of every namespace, and telling other replicas how far it is.

Adapters with a `settle` each, called again and again; each writes only what changed. Who calls them, and when, is `cluster.py`'s.
"""

import base64
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

import msgspec
from msgspec import Struct

from tulle.installing.naming import REVISION, TAG
from tulle.kube.access import Access
from tulle.kube.discovery import Resource
from tulle.kube.errors import KubeError, Refused
from tulle.kube.writing import FIELD_OWNER, Writer
from tulle.serve import logs

ROOT_MAP = "tulle-ca-root-cert"
ROOT_FILE = "root-cert.pem"
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
INSTALL = "tulle.dev/install"
"""Label by which `tulle uninstall` finds what we made."""
OURS: Mapping[str, str] = {
    "app.kubernetes.io/managed-by": "tulle",
    "app.kubernetes.io/part-of": "tulle",
    INSTALL: "shared",
}
NO_ROOTS_IN = frozenset(("kube-system", "kube-public", "kube-node-lease"))
"""Nothing is injected there."""
REPLICA_LABEL = "tulle.dev/replica"
FRESH = timedelta(seconds=30)
_BUNDLE, _STREAMS = "tulle.dev/bundle", "tulle.dev/streams"
_APPLY = "application/apply-patch+yaml"
_LOOK_AGAIN_S = 15.0
"""An installation that is applied again may have taken the certificate away."""
_AGAIN_S = 600.0
"""What was written is written again after this, for those who deleted it."""


class TrustRoots:
    """The ConfigMap from which sidecars read whom to trust before they have met us."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._known: Mapping[str, str] = {}
        self._said_at = 0.0

    def settle(self, namespaces: Mapping[str, str], pem: bytes, now: float) -> None:
        """Wish it in every namespace (name -> uid) where something may be injected."""
        for name, uid in self._known.items():
            if namespaces.get(name) != uid:
                self._writer.forget(CONFIG_MAPS, name, ROOT_MAP)
        self._known = namespaces
        if now > self._said_at + _AGAIN_S:
            self._said_at = now
            for name in namespaces:
                self._writer.forget(CONFIG_MAPS, name, ROOT_MAP)
        for name in sorted(namespaces.keys() - NO_ROOTS_IN):
            metadata = {"name": ROOT_MAP, "namespace": name, "labels": OURS}
            self._writer.apply(CONFIG_MAPS, {"metadata": metadata, "data": {ROOT_FILE: pem.decode()}})


ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
SECRETS_ROLE = "tulle-gateway-secrets"


class SecretRights(Struct, frozen=True):
    """Our right to read the Secrets of a namespace: bound while a gateway is there, taken back when none is."""

    role: str
    binding: str
    account: str
    namespace: str
    """Of the account."""
    revision: str

    def settle(self, writer: Writer, holding: frozenset[str], before: frozenset[str]) -> None:
        """Wish the bindings of the namespaces that hold gateways."""
        for left in before - holding:
            writer.delete(ROLE_BINDINGS, left, self.binding)
        for name in sorted(holding):
            writer.apply(
                ROLE_BINDINGS,
                {
                    "metadata": {"name": self.binding, "namespace": name, "labels": {**OURS, INSTALL: self.revision}},
                    "roleRef": {"apiGroup": ROLE_BINDINGS.group, "kind": "ClusterRole", "name": self.role},
                    "subjects": [{"kind": "ServiceAccount", "name": self.account, "namespace": self.namespace}],
                },
            )


class _ClientConfig(Struct, rename="camel"):
    ca_bundle: str = ""


class _Webhook(Struct, rename="camel"):
    client_config: _ClientConfig


class _Configuration(Struct):
    webhooks: tuple[_Webhook, ...] = ()


class _TagMeta(Struct):
    name: str


class _Tag(Struct):
    metadata: _TagMeta


class _Named(Struct):
    items: tuple[_Tag, ...] = ()


_ADMISSION = "/apis/admissionregistration.k8s.io/v1"
_INJECTORS = "mutatingwebhookconfigurations"


class WebhookTrust:
    """What the API server expects of our admission server's certificate follows the CA's roots."""

    def __init__(self, access: Access, names: Sequence[tuple[str, str]], revision: str) -> None:
        """`names`: (plural, name) of the configurations that call us, beside those of tags on our revision."""
        self._access = access
        self._names = names
        self._tags = f"{TAG},{REVISION}={revision}"
        self._tagged: tuple[tuple[str, str], ...] = ()
        self._tagged_at = -_LOOK_AGAIN_S
        self._written: dict[tuple[str, str], tuple[bytes, float]] = {}

    async def settle(self, pem: bytes, now: float) -> None:
        """Bring the configurations up to date; one that is not there is passed over. Raises Refused and Unreachable."""
        wanted = base64.b64encode(pem).decode()
        if now >= self._tagged_at + _LOOK_AGAIN_S:
            body = await self._access.get(f"{_ADMISSION}/{_INJECTORS}", {"labelSelector": self._tags})
            found_tags = msgspec.json.decode(body, type=_Named).items
            self._tagged = tuple((_INJECTORS, one.metadata.name) for one in found_tags)
            self._tagged_at = now
        for plural, name in (*self._names, *self._tagged):
            last, at = self._written.get((plural, name), (b"", 0.0))
            if last == pem and now < at + _LOOK_AGAIN_S:
                continue
            path = f"{_ADMISSION}/{plural}/{name}"
            try:
                found = msgspec.json.decode(await self._access.get(path), type=_Configuration)
                patch = [
                    {"op": "add", "path": f"/webhooks/{position}/clientConfig/caBundle", "value": wanted}
                    for position, one in enumerate(found.webhooks)
                    if one.client_config.ca_bundle != wanted
                ]
                if patch:
                    await self._access.send(
                        "PATCH", path, body=msgspec.json.encode(patch), content_type="application/json-patch+json"
                    )
            except Refused as refused:
                if refused.status != HTTPStatus.NOT_FOUND:
                    raise
            self._written[plural, name] = (pem, now)


class _Meta(Struct, frozen=True):
    name: str = ""
    annotations: dict[str, str] = {}


class _LeaseSpec(Struct, rename="camel", frozen=True):
    renew_time: datetime | None = None


class _Lease(Struct, frozen=True):
    metadata: _Meta = _Meta()
    spec: _LeaseSpec = _LeaseSpec()


class _Leases(Struct):
    items: tuple[_Lease, ...] = ()


class Replicas:
    """What each replica says of its own proxies: how many they are and which bundle all of them trust. Kept in Leases."""

    def __init__(self, access: Access, namespace: str, name: str) -> None:
        self._access = access
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._lease = f"tulled-replica-{name}"
        self._namespace = namespace
        self._said: tuple[str, int] | None = None
        self._said_at = datetime.fromtimestamp(0, UTC)
        self._others: tuple[tuple[str, int], ...] = ()

    def trusting(self, version: str) -> int:
        """How many proxies of other replicas trust this bundle; -1 while one of them does not, or is not known to."""
        if any(bundle != version for bundle, _ in self._others):
            return -1
        return sum(streams for _, streams in self._others)

    async def settle(self, bundle: str, streams: int) -> None:
        """Say how far we are, if that changed or was said long ago, and hear the others. Raises Refused and Unreachable."""
        now = datetime.now(UTC)
        if (bundle, streams) != self._said or now > self._said_at + FRESH / 3:
            query = {"fieldManager": FIELD_OWNER, "force": "true"}
            body = msgspec.json.encode(self._document(bundle, streams, now))
            await self._access.send("PATCH", f"{self._path}/{self._lease}", query=query, body=body, content_type=_APPLY)
            self._said, self._said_at = (bundle, streams), now
        body = await self._access.get(self._path, {"labelSelector": f"{REPLICA_LABEL}=true"})
        self._others = tuple(
            (lease.metadata.annotations.get(_BUNDLE, ""), int(lease.metadata.annotations.get(_STREAMS, "0")))
            for lease in msgspec.json.decode(body, type=_Leases).items
            if lease.metadata.name != self._lease
            and lease.spec.renew_time is not None
            and lease.spec.renew_time > now - FRESH
        )

    async def leave(self) -> None:
        """We end: nobody shall wait for us."""
        try:
            await self._access.send("DELETE", f"{self._path}/{self._lease}")
        except KubeError as error:
            logs.event(logging.INFO, "replica's lease stays until it is old", error=str(error))

    def _document(self, bundle: str, streams: int, now: datetime) -> Mapping[str, object]:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self._lease,
                "namespace": self._namespace,
                "labels": {**OURS, REPLICA_LABEL: "true"},
                "annotations": {_BUNDLE: bundle, _STREAMS: str(streams)},
            },
            "spec": {
                "holderIdentity": self._lease,
                "leaseDurationSeconds": int(FRESH.total_seconds()),
                "renewTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            },
        }
