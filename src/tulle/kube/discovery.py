"""What the API serves: which version and plural of a kind, and whether it has namespaces.

The table is pure; `Discovery` asks for it, again and again, and pays for an unchanged one with a `304`. Reads only discovery, which every
authenticated user may; so CustomResourceDefinitions that come later are seen without a right to read them.
Source: aggregated discovery (apidiscovery.k8s.io/v2, Kubernetes 1.30 and later), served at /api and /apis.
"""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct, field

from tulle.kube.access import Access
from tulle.kube.errors import Refused

_ACCEPT = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_ROOTS = ("/api", "/apis")


class Resource(Struct, frozen=True):
    """A kind as the API serves it."""

    group: str
    """Empty for the core group."""
    version: str
    plural: str
    kind: str
    is_namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As objects say it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The path of all its objects, of those of a namespace, of one of them, or of a part of one."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        place = f"/namespaces/{namespace}" if namespace and self.is_namespaced else ""
        rest = "".join(f"/{part}" for part in (name, subresource) if part)
        return f"{root}{place}/{self.plural}{rest}"


class _Kind(Struct):
    kind: str


class _Resource(Struct, rename="camel"):
    resource: str
    response_kind: _Kind | None = None
    scope: str = "Namespaced"
    verbs: tuple[str, ...] = ()


class _Version(Struct):
    version: str
    resources: tuple[_Resource, ...] = ()


class _Meta(Struct):
    name: str = ""


class _Group(Struct):
    metadata: _Meta = field(default_factory=_Meta)
    versions: tuple[_Version, ...] = ()


class _Groups(Struct):
    items: tuple[_Group, ...] = ()


_DECODER = msgspec.json.Decoder(_Groups)

Table = Mapping[tuple[str, str], tuple[Resource, ...]]
"""By (group, kind); the version the API prefers first."""


def table_of(*documents: bytes) -> Table:
    """The table of discovery documents; only what can be listed and watched."""
    found: dict[tuple[str, str], list[Resource]] = {}
    for document in documents:
        for group in _DECODER.decode(document).items:
            for version in group.versions:
                for one in version.resources:
                    if one.response_kind is not None and {"list", "watch"} <= set(one.verbs):
                        key = (group.metadata.name, one.response_kind.kind)
                        is_namespaced = one.scope == "Namespaced"
                        resource = Resource(group.metadata.name, version.version, one.resource, key[1], is_namespaced)
                        found.setdefault(key, []).append(resource)
    return {key: tuple(resources) for key, resources in found.items()}


def chosen(table: Table, group: str, kind: str, versions: Sequence[str]) -> Resource | None:
    """The served version that comes first among `versions`; None where none of them is served."""
    served = {resource.version: resource for resource in table.get((group, kind), ())}
    return next((served[version] for version in versions if version in served), None)


class Discovery:
    """The table, kept fresh by asking."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._documents: dict[str, tuple[str, bytes]] = {}
        self.table: Table = {}

    async def refresh(self) -> bool:
        """Ask again; whether the table changed. Raises as `Access.send`."""
        is_changed = False
        for root in _ROOTS:
            etag, before = self._documents.get(root, ("", b""))
            answer = await self._access.send("GET", root, accept=_ACCEPT, etag=etag)
            if answer.status == 304 or answer.body == before:  # not modified
                continue
            self._documents[root] = (answer.etag, answer.body)
            is_changed = True
        if is_changed:
            try:
                self.table = table_of(*(document for _, document in self._documents.values()))
            except msgspec.MsgspecError as error:
                self._documents.clear()
                raise Refused("GET", _ROOTS[-1], 0, "Unreadable", str(error)) from None
        return is_changed
