"""What the leader does beside serving: the trust root of every namespace, its own right to Secrets, whom the API server trusts.

Adapters with a `settle` each, called again and again; each writes only what changed. Who calls them, and when, is `plane.py`'s.
"""

import base64
from collections.abc import Iterable, Mapping

import msgspec
from msgspec import Struct

from tulle.compile.envoy.cluster_bootstrap import ROOT_CERTIFICATES, ROOT_RESOURCE, root_resource
from tulle.installing.naming import (
    CONTROL_PLANE,
    INJECTOR,
    INSTALL,
    REVISION,
    SHARED,
    TAG,
    TRUST_ROOT,
    VALIDATOR,
    Names,
)
from tulle.kube.access import Access
from tulle.kube.discovery import Resource
from tulle.kube.resources import CONFIG_MAPS
from tulle.kube.writing import Writer

OURS: Mapping[str, str] = {
    "app.kubernetes.io/managed-by": "tulle",
    "app.kubernetes.io/part-of": "tulle",
    INSTALL: SHARED,
}
NO_ROOTS_IN = frozenset(("kube-system", "kube-public", "kube-node-lease"))
"""Nothing is injected there."""
_LOOK_AGAIN_S = 15.0
"""An installation that is applied again may have taken the certificate away."""
_AGAIN_S = 600.0
"""What was written is written again after this, for those who deleted it."""


class TrustRoots:
    """The ConfigMap from which sidecars read whom to trust before they have met us."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._known: Mapping[str, str] = {}
        self._pem = b""
        self._said_at = 0.0

    def settle(self, namespaces: Mapping[str, str], pem: bytes, now: float) -> None:
        """Wish it in every namespace (name -> uid) where something may be injected."""
        is_due = now > self._said_at + _AGAIN_S
        if namespaces == self._known and pem == self._pem and not is_due:
            return
        for name, uid in self._known.items():
            if is_due or namespaces.get(name) != uid:
                self._writer.forget(CONFIG_MAPS, name, TRUST_ROOT)
        self._known, self._pem = namespaces, pem
        self._said_at = now if is_due else self._said_at
        roots = pem.decode()
        data = {ROOT_CERTIFICATES: roots, ROOT_RESOURCE: root_resource(roots)}
        for name in sorted(namespaces.keys() - NO_ROOTS_IN):
            metadata = {"name": TRUST_ROOT, "namespace": name, "labels": OURS}
            self._writer.apply(CONFIG_MAPS, {"metadata": metadata, "data": data})


ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")


class PlaceRights:
    """Our right to read a kind in a namespace: bound while there is a reason, taken back when there is none."""

    def __init__(self, writer: Writer, names: Names, role: str) -> None:
        """`role`: naming.SECRETS_RIGHT or naming.CONFIG_MAPS_RIGHT."""
        self._writer = writer
        self._names = names
        self._role = role
        self._bound: frozenset[str] = frozenset()

    def settle(self, holding: frozenset[str]) -> None:
        """Wish the bindings of these namespaces."""
        names, binding = self._names, self._names.revised(self._role)
        for left in self._bound - holding:
            self._writer.delete(ROLE_BINDINGS, left, binding)
        self._bound = holding
        for name in sorted(holding):
            labels = {**OURS, INSTALL: names.revision}
            account = {"kind": "ServiceAccount", "name": names.revised(CONTROL_PLANE), "namespace": names.namespace}
            role = {"apiGroup": ROLE_BINDINGS.group, "kind": "ClusterRole", "name": names.wide(self._role)}
            self._writer.apply(
                ROLE_BINDINGS,
                {
                    "metadata": {"name": binding, "namespace": name, "labels": labels},
                    "roleRef": role,
                    "subjects": [account],
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

    def __init__(self, access: Access, names: Names, tags: Iterable[str]) -> None:
        """`tags`: those that name us by the installation's word; those that users made are looked for."""
        self._access = access
        self._names = (
            (_INJECTORS, names.wide(INJECTOR)),
            ("validatingwebhookconfigurations", names.wide(VALIDATOR)),
            *((_INJECTORS, names.tag(tag)) for tag in tags),
        )
        self._tags = f"{TAG},{REVISION}={names.revision}"
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
            await self._trust(f"{_ADMISSION}/{plural}/{name}", wanted)
            self._written[plural, name] = (pem, now)

    async def _trust(self, path: str, wanted: str) -> None:
        body = await self._access.read(path)
        webhooks = msgspec.json.decode(body, type=_Configuration).webhooks if body is not None else ()
        patch = [
            {"op": "add", "path": f"/webhooks/{position}/clientConfig/caBundle", "value": wanted}
            for position, one in enumerate(webhooks)
            if one.client_config.ca_bundle != wanted
        ]
        if patch:
            await self._access.send(
                "PATCH", path, body=msgspec.json.encode(patch), content_type="application/json-patch+json"
            )
