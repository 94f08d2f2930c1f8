"""`tulle get`: objects, pods, services and proxies of the mesh, with what is wrong with each.

Asks the admin API; what columns a kind has stands in `_OWN_COLUMNS`, and nothing else here knows kinds.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import click

from tulle.cli.connection import Connection, connect, mesh_option, namespace_options
from tulle.cli.kinds import Kind, kind_named, words
from tulle.cli.output import Column, Exit, Finding, Format, is_error, output_option, refuse, show
from tulle.cli.written import place_words

STATUS_GOOD = "Accepted"
_GROUPS_OF_ALL = (
    *("Gateway", "VirtualService", "DestinationRule", "ServiceEntry", "WorkloadEntry"),
    *("PeerAuthentication", "AuthorizationPolicy", "Service", "Deployment", "StatefulSet", "Job", "Pod"),
)


class Row(NamedTuple):
    """One object, as the API tells it (serve/wire.py, ObjectShown)."""

    kind: Kind
    namespace: str
    name: str
    raw: Mapping[str, Any]
    """The document as written; empty where it cannot be read any more, or was refused."""
    status: str
    place: str


@click.command()
@click.argument("kind")
@click.argument("name", required=False)
@namespace_options
@output_option()
@mesh_option
def get(*, kind: str, name: str | None, namespace: str | None, everywhere: bool, form: Format, mesh: str | None) -> int:
    """List objects of the mesh: `get vs`, `get svc reviews -o yaml`, `get all -A`, `get proxies`."""
    word, slash, rest = kind.partition("/")
    name = rest if slash else name
    connection = connect(mesh)
    place = "" if everywhere else namespace or connection.default_namespace
    if word in ("proxies", "proxy"):
        from tulle.cli.proxy_status import show_proxies

        return show_proxies(connection, form, name, namespace=namespace or "")
    if word == "all":
        return _all(connection, place, form)
    found = kind_named(word)
    if found is None:
        refuse(f"{word} is no kind of this mesh", Exit.USAGE, advice=f"Kinds are: {', '.join(words())}, all, proxies.")
    rows = objects(connection, found, place if found.is_namespaced else "", name or "")
    if name and not rows:
        refuse(f"{found.word}/{name} was not found{f' in the namespace {place}' if place else ''}")
    columns, cells = _table(connection, found, rows, has_namespace=everywhere and found.is_namespaced)
    document = rows[0].raw if name and len(rows) == 1 else {"apiVersion": "v1", "kind": "List", "items": _raws(rows)}
    empty = f"No {found.word} {f'in the namespace {place}' if place else 'anywhere'}."
    show(form, columns, cells, document=document, names=[_slashed(row) for row in rows], empty=empty)
    return Exit.OK


def objects(connection: Connection, kind: Kind, namespace: str = "", name: str = "") -> list[Row]:
    """Objects of a kind, with those that were refused; empty words select all."""
    asked = connection.get("/v1/objects", kind=kind.kind, namespace=namespace, name=name, document="true")["objects"]
    problems = problems_by_object(connection)
    rows, seen = [], set()
    for one in asked:
        if one["group"] == kind.group:
            key = (one["kind"], one["namespace"], one["name"])
            seen.add(key)
            place = place_words(one["file"], one["line"])
            rows.append(Row(kind, key[1], key[2], one["document"] or {}, status_of(problems[key]), place))
    for (kind_name, its_namespace, its_name), findings in problems.items():
        is_wanted = kind_name == kind.kind and namespace in ("", its_namespace) and name in ("", its_name)
        if is_wanted and its_name and (kind_name, its_namespace, its_name) not in seen:
            rows.append(Row(kind, its_namespace, its_name, {}, status_of(findings), findings[0].place))
    return sorted(rows, key=lambda row: (row.namespace, row.name))


def problems_by_object(connection: Connection) -> Mapping[tuple[str, str, str], list[Finding]]:
    """Every problem, by (kind, namespace, name)."""
    found: defaultdict[tuple[str, str, str], list[Finding]] = defaultdict(list)
    for raw in connection.get("/v1/problems")["problems"]:
        found[raw["kind"], raw["namespace"], raw["name"]].append(Finding.told(raw))
    return found


def status_of(findings: Sequence[Finding]) -> str:
    """`Accepted`, `Warning TUL0201`, or `Refused TUL0413`."""
    errors = [one.code for one in findings if is_error(one)]
    if errors:
        return f"Refused {', '.join(dict.fromkeys(errors))}"
    warned = [one.code for one in findings if one.severity == "warning"]
    return f"Warning {', '.join(dict.fromkeys(warned))}" if warned else STATUS_GOOD


def _all(connection: Connection, namespace: str, form: Format) -> int:
    rows = []
    for word in _GROUPS_OF_ALL:
        kind = kind_named(word)
        if kind is not None:
            rows += objects(connection, kind, namespace)
    columns = (Column("NAMESPACE"), Column("NAME"), Column("STATUS"), Column("DEFINED BY", is_wide=True))
    cells = [(row.namespace, _slashed(row), row.status, row.place) for row in rows]
    document = {"apiVersion": "v1", "kind": "List", "items": _raws(rows)}
    names = [_slashed(row) for row in rows]
    show(form, columns, cells, document=document, names=names, empty="Nothing here.")
    return Exit.OK


def _slashed(row: Row) -> str:
    return f"{row.kind.word}/{row.name}"


def _raws(rows: Sequence[Row]) -> list[Mapping[str, Any]]:
    return [row.raw for row in rows if row.raw]


def _table(
    connection: Connection, kind: Kind, rows: Sequence[Row], *, has_namespace: bool
) -> tuple[list[Column], list[list[str]]]:
    own, cells_of = _own_columns(connection, kind)
    columns = [*([Column("NAMESPACE")] if has_namespace else []), Column("NAME"), *own, Column("STATUS")]
    columns.append(Column("DEFINED BY", is_wide=True))
    made = []
    for row in rows:
        cells = [*([row.namespace] if has_namespace else []), row.name, *cells_of(row), row.status, row.place]
        made.append(cells)
    return columns, made


def _own_columns(connection: Connection, kind: Kind) -> tuple[Sequence[Column], Callable[[Row], Sequence[str]]]:
    if kind == Kind("", "Pod"):
        return _pod_columns(connection)
    if kind == Kind("", "Service"):
        return _service_columns(connection)
    if kind.kind in ("Deployment", "StatefulSet"):
        return _replicas_columns(connection)
    written = _OWN_COLUMNS.get(kind.kind, {})
    return [Column(title) for title in written], lambda row: [value(_spec(row)) for value in written.values()]


def _spec(row: Row) -> Mapping[str, Any]:
    spec = row.raw.get("spec")
    return spec if isinstance(spec, dict) else {}


def _listed(spec: Mapping[str, Any], field: str, otherwise: str = "") -> str:
    return ",".join(str(one) for one in spec.get(field) or ()) or otherwise


_OWN_COLUMNS: Mapping[str, Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "VirtualService": {
        "GATEWAYS": lambda spec: _listed(spec, "gateways", "mesh"),
        "HOSTS": lambda spec: _listed(spec, "hosts"),
    },
    "DestinationRule": {
        "HOST": lambda spec: str(spec.get("host", "")),
        "SUBSETS": lambda spec: ",".join(str(one.get("name")) for one in spec.get("subsets") or ()) or "-",
    },
    "Gateway": {
        "SERVERS": lambda spec: ",".join(
            f"{(one.get('port') or {}).get('number')}/{(one.get('port') or {}).get('protocol')}"
            for one in spec.get("servers") or ()
        ),
    },
    "ServiceEntry": {
        "HOSTS": lambda spec: _listed(spec, "hosts"),
        "LOCATION": lambda spec: str(spec.get("location", "MESH_EXTERNAL")),
        "RESOLUTION": lambda spec: str(spec.get("resolution", "NONE")),
    },
    "PeerAuthentication": {"MODE": lambda spec: str((spec.get("mtls") or {}).get("mode", "UNSET"))},
    "AuthorizationPolicy": {
        "ACTION": lambda spec: str(spec.get("action", "ALLOW")),
        "RULES": lambda spec: str(len(spec.get("rules") or ())),
    },
}


def _pod_columns(connection: Connection) -> tuple[Sequence[Column], Callable[[Row], Sequence[str]]]:
    found = {(one["namespace"], one["name"]): one for one in connection.get("/v1/workloads")["workloads"]}
    columns = (
        *(Column("READY"), Column("SIDECAR"), Column("IP")),
        *(Column("IDENTITY", is_wide=True), Column("OWNER", is_wide=True)),
    )

    def cells(row: Row) -> Sequence[str]:
        one = found.get((row.namespace, row.name))
        if one is None:
            return ("-", "-", "-", "-", "-")
        sidecar = "none" if not one["hasSidecar"] else "connected" if one["isConnected"] else "not connected"
        ready = "yes" if one["isReady"] else "no"
        return (ready, sidecar, one["address"], one["identity"] or "-", one["owner"] or "-")

    return columns, cells


def _service_columns(connection: Connection) -> tuple[Sequence[Column], Callable[[Row], Sequence[str]]]:
    found = {
        (one["origin"]["namespace"], one["origin"]["name"]): one
        for one in connection.get("/v1/services")["services"]
        if one["origin"]["kind"] == "Service"
    }
    columns = (Column("ADDRESS"), Column("PORTS"), Column("ENDPOINTS", is_right=True), Column("HOST", is_wide=True))

    def cells(row: Row) -> Sequence[str]:
        one = found.get((row.namespace, row.name))
        if one is None:
            return ("-", "-", "-", "-")
        ports = ",".join(f"{port['number']}/{port['protocol']}" for port in one["ports"])
        return (",".join(one["addresses"]) or one["resolution"], ports, str(one["endpoints"]), one["host"])

    return columns, cells


def _replicas_columns(connection: Connection) -> tuple[Sequence[Column], Callable[[Row], Sequence[str]]]:
    ready: defaultdict[tuple[str, str], int] = defaultdict(int)
    for one in connection.get("/v1/workloads")["workloads"]:
        ready[one["namespace"], one["owner"]] += one["isReady"]

    def cells(row: Row) -> Sequence[str]:
        wanted = _spec(row).get("replicas", 1)
        return (f"{ready[row.namespace, row.name]}/{wanted}",)

    return (Column("READY"),), cells
