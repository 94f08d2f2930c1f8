"""The state of the mesh as the admin API tells it: model and fleet to wire types. Computes nothing that is not asked for.

Where fields are written (file and line) comes from outside: this room knows no files.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from hashlib import blake2b
from time import time
from typing import Any, NamedTuple

import msgspec

from tulle.compile import explain
from tulle.compile.snapshot import resources_of
from tulle.compile.views import View, given_everything
from tulle.dialects.inputs import objects
from tulle.dialects.istio.destination_rule import destination
from tulle.dialects.kubernetes import endpoints, namespaces, services_in, workloads_in
from tulle.dialects.routing import gateways, route_sets_in
from tulle.engine import Database
from tulle.identity.spiffe import SpiffeId
from tulle.model import problems as catalogue
from tulle.model.intent import Service, Workload
from tulle.model.keys import ObjectKey
from tulle.model.origin import Origin
from tulle.serve import wire
from tulle.serve.client import Client
from tulle.serve.credentials import Credentials
from tulle.serve.fleet import Fleet, Status
from tulle.xds import schema
from tulle.xds.names import PUSH_ORDER, TypeUrl
from tulle.xds.resource import Resource


class Written(NamedTuple):
    """Where something is written; line and column from 1, line 0: the file as a whole."""

    file: str
    line: int
    column: int


Locate = Callable[[Origin], tuple[str, int, int] | None]


def place(origin: Origin, locate: Locate) -> wire.Place:
    """An origin with its file and line."""
    written = Written(*(locate(origin) or ("", 0, 0)))
    key = origin.object
    return wire.Place(
        kind=key.kind,
        namespace=key.namespace,
        name=key.name,
        path=origin.path,
        file=written.file,
        line=written.line,
        column=written.column,
    )


def problem(found: catalogue.Problem, written: tuple[str, int, int] | None) -> wire.Problem:
    """A problem with its file and line."""
    key = found.origin.object
    file, line, column = written or ("", 0, 0)
    return wire.Problem(
        code=found.code,
        severity=found.severity.value,
        text=found.text,
        advice=found.advice,
        kind=key.kind,
        namespace=key.namespace,
        name=key.name,
        path=found.origin.path,
        file=file,
        line=line,
        column=column,
    )


class Showing:
    """Answers about one mesh."""

    def __init__(self, db: Database, fleet: Fleet, credentials: Credentials, locate: Locate, cluster: str) -> None:
        self._db = db
        self._fleet = fleet
        self._credentials = credentials
        self.locate = locate
        self._cluster = cluster

    # --- proxies -----------------------------------------------------------------------------------------------------

    def proxies(self) -> tuple[wire.Proxy, ...]:
        """Every proxy, connected or not."""
        return tuple(self._proxy(status) for status in self._fleet.statuses())

    def refused(self, client: Client, since: float = 0.0) -> tuple[wire.Refused, ...]:
        """What one client refuses now, said at Unix time `since` or later."""
        problems = self._fleet.refused_by(client)
        return tuple(
            wire.Refused(
                proxy=client.id,
                type_url=refusal.type_url,
                resource=refusal.name,
                message=refusal.detail,
                origin=place(found.origin, self.locate) if found.origin.object.kind else None,
            )
            for refusal, found in zip(self._fleet.refusals_of(client), problems, strict=True)
            if refusal.at >= since
        )

    def _proxy(self, status: Status) -> wire.Proxy:
        client = self._fleet.clients.get(status.stream)
        seat = status.seat
        return wire.Proxy(
            id=status.id,
            stream=status.stream,
            pod=seat.workload.name if seat else "",
            namespace=seat.workload.namespace if seat else status.view.outbound.namespace if status.view else "",
            uid=seat.uid if seat else "",
            is_gateway=seat.is_gateway if seat else bool(status.view and status.view.gateway),
            identity=status.identity,
            transport=status.transport,
            view=_word(status.view) if status.view else "",
            connected_at=status.connected_at,
            types={url.name: standing.value for url, standing in status.standings.items()},
            target_revision=status.target,
            synced_revision=status.synced,
            is_synced=bool(client and client.is_synced),
            is_on_demand=bool(status.view and status.view.outbound.is_on_demand),
            refused=self.refused(client) if client and status.refusals else (),
        )

    def held(self, client: Client, types: Iterable[TypeUrl] = PUSH_ORDER, name: str = "") -> tuple[wire.Held, ...]:
        """What a client acknowledged to hold, with content where that is the newest. Slow: JSON of every resource."""
        found = client.conversation.held
        return tuple(
            self._held(client, url, held, version)
            for url in types
            for held, version in found.get(url, {}).items()
            if not name or held == name
        )

    def _held(self, client: Client, url: TypeUrl, name: str, version: str) -> wire.Held:
        entry = client.snapshot.shelf(url).get(name)  # type: ignore[call-overload]
        is_newest = entry is not None and entry.version == version
        content = schema.any_to_dict(entry.body) if is_newest and isinstance(entry, Resource) else None
        return wire.Held(type=url.name, name=name, version=version, is_newest=is_newest, resource=content)

    # --- why ---------------------------------------------------------------------------------------------------------

    def explained(self, client: Client, url: TypeUrl, name: str) -> wire.Explained:
        """The plan and the lines behind one resource."""
        return self._explained(client, client.shown.view, url, name)

    def _explained(self, client: Client, view: View, url: TypeUrl, name: str) -> wire.Explained:
        found = explain.explain(self._db, view, url, name)
        return wire.Explained(
            proxy=client.id,
            type=url.name,
            name=name,
            plan=_plain(found.plan),
            origins=tuple(place(origin, self.locate) for origin in found.origins),
            note=found.note,
        )

    def plan(self, client: Client, *, is_whole: bool = False) -> wire.Plan:
        """Everything a client's view must do; `is_whole`: what a sidecar on demand may ask for, too, as if it were given it."""
        view = client.shown.view
        if not (is_whole and view.outbound.is_on_demand):
            return self._plan(client, view, client.snapshot.types)
        view = given_everything(view)
        with closing(self._db.root(resources_of, view)) as root:
            return self._plan(client, view, root.value())

    def _plan(self, client: Client, view: View, shelves: Mapping[Any, Iterable[str]]) -> wire.Plan:
        return wire.Plan(
            proxy=client.id,
            view=_plain(view),
            resources=tuple(
                self._explained(client, view, url, name)
                for url in (TypeUrl.CDS, TypeUrl.LDS, TypeUrl.RDS, TypeUrl.VHDS)
                for name in shelves.get(url, ())
            ),
        )

    # --- the mesh ----------------------------------------------------------------------------------------------------

    def objects(self, kind: str = "", namespace: str = "", name: str = "") -> tuple[wire.ObjectShown, ...]:
        """Objects, sorted by key; empty words select all."""
        found = []
        for key, value in sorted(objects.snapshot(self._db).items()):
            if _fits(key, kind, namespace, name):
                written = Written(*(self.locate(Origin(key)) or ("", 0, 0)))
                found.append(
                    wire.ObjectShown(
                        group=key.group,
                        kind=key.kind,
                        namespace=key.namespace,
                        name=key.name,
                        labels=dict(value.labels),
                        file=written.file,
                        line=written.line,
                    )
                )
        return tuple(found)

    def services(self) -> tuple[wire.ServiceShown, ...]:
        """Every service host."""
        return tuple(
            self._service(item) for place in self._namespaces for item in services_in(self._db, self._cluster, place)
        )

    def _service(self, item: Service) -> wire.ServiceShown:
        reached = {one.address for port in item.ports for one in endpoints(self._db, item.key, port.number)}
        ports = (
            wire.Port(number=port.number, name=port.name, protocol=port.protocol.value, target=port.target)
            for port in item.ports
        )
        return wire.ServiceShown(
            host=item.key.host,
            namespace=item.key.namespace,
            ports=tuple(ports),
            addresses=item.addresses,
            resolution=item.resolution.value,
            is_external=item.is_external,
            aliases=item.aliases,
            endpoints=len(reached),
            origin=place(item.origin, self.locate),
        )

    def workloads(self, trust_domain: str) -> tuple[wire.WorkloadShown, ...]:
        """Every running instance."""
        connected = {client.seat.workload for client in self._fleet.clients.values() if client.seat}
        return tuple(
            self._workload(item, trust_domain, is_connected=item.key in connected)
            for place in self._namespaces
            for item in workloads_in(self._db, self._cluster, place)
        )

    def _workload(self, item: Workload, trust_domain: str, *, is_connected: bool) -> wire.WorkloadShown:
        identity = SpiffeId(trust_domain, item.key.namespace, item.service_account)
        return wire.WorkloadShown(
            name=item.key.name,
            namespace=item.key.namespace,
            address=item.address,
            labels=dict(item.labels),
            service_account=item.service_account,
            identity=str(identity) if item.has_sidecar else "",
            owner=item.owner,
            has_sidecar=item.has_sidecar,
            is_gateway=item.is_gateway,
            is_ready=item.is_ready,
            is_connected=is_connected,
            origin=place(item.origin, self.locate),
        )

    def intent(self, namespace: str = "") -> dict[str, Any]:
        """What was meant, by kind; everywhere, or in one namespace."""
        spaces = [namespace] if namespace else list(self._namespaces)
        found: dict[str, Any] = {
            "services": [one for place in spaces for one in services_in(self._db, self._cluster, place)],
            "workloads": [one for place in spaces for one in workloads_in(self._db, self._cluster, place)],
            "gateways": [
                one for one in gateways(self._db, self._cluster) if not namespace or one.key.namespace == namespace
            ],
        }
        keys = sorted(objects.snapshot(self._db))
        routes = (one for place in spaces for one in route_sets_in(self._db, self._cluster, place))
        calls = (destination(self._db, key) for key in keys if _fits(key, "DestinationRule", namespace, ""))
        found["routes"] = sorted(routes, key=lambda one: one.key)
        found["destinations"] = [one for one in calls if one is not None]
        return {kind: _plain(items) for kind, items in found.items()}

    @property
    def _namespaces(self) -> Iterator[str]:
        yield from namespaces(self._db, self._cluster)

    # --- certificates ------------------------------------------------------------------------------------------------

    def authority(self, trust_domain: str) -> wire.Authority:
        """Roots and leafs, without keys."""
        now, ids = time(), {uid: seat.id for uid, seat in self._fleet.seats.items()}
        credentials = self._credentials
        roots = tuple(
            wire.RootShown(
                fingerprint=root.fingerprint,
                state=root.state.value,
                age_seconds=now - root.created_at,
                remaining_seconds=root.remaining_s(now),
                waits_for=tuple(ids.get(uid, uid) for uid in credentials.waited_for(root.fingerprint)),
            )
            for root in credentials.roots
        )
        leafs = tuple(
            wire.LeafShown(
                holder=leaf.holder,
                proxy=ids.get(leaf.holder, ""),
                identity=str(leaf.identity),
                serial=leaf.serial,
                root=leaf.root,
                age_seconds=leaf.age_s(now),
                remaining_seconds=leaf.remaining_s(now),
                renews_in_seconds=leaf.renew_at - now,
                is_acknowledged=leaf.is_acknowledged,
            )
            for leaf in credentials.leafs
        )
        lacking = tuple(ids.get(uid, uid) for uid in credentials.lacking_bundle)
        return wire.Authority(
            phase=credentials.phase, trust_domain=trust_domain, roots=roots, leafs=leafs, lacking_bundle=lacking
        )


def type_named(word: str) -> TypeUrl | None:
    """The type a person means: `cds`, `cluster`, `clusters`, or the URL."""
    lowered = word.lower()
    for url in TypeUrl:
        message = url.value.rpartition(".")[2].lower()
        if lowered in (url.value.lower(), url.name.lower(), message, f"{message}s", _WORDS[url], f"{_WORDS[url]}s"):
            return url
    return None


_WORDS = {
    TypeUrl.SDS: "secret",
    TypeUrl.CDS: "cluster",
    TypeUrl.EDS: "endpoint",
    TypeUrl.LDS: "listener",
    TypeUrl.RDS: "route",
    TypeUrl.VHDS: "host",
}


def _word(view: View) -> str:
    """A short name of a view: equal views, equal words."""
    return blake2b(repr(view).encode(), digest_size=4).hexdigest()


def _fits(key: ObjectKey, kind: str, namespace: str, name: str) -> bool:
    return (
        (not kind or kind.lower() == key.kind.lower())
        and (not namespace or namespace == key.namespace)
        and (not name or name == key.name)
    )


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value, enc_hook=str, str_keys=True)


__all__ = ["Locate", "Showing", "place", "problem", "type_named"]
