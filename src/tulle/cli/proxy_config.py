"""`tulle proxy config`: what a live sidecar has, and the YAML line behind each row.

Joins the sidecar's own word (`envoy_dump`, over its admin pipe) with the control plane's (`/v1/plan`). Private bytes of secrets
are never printed.
"""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import click

from tulle.cli import envoy_dump
from tulle.cli.connection import Connection, connect, mesh_option, namespace_options
from tulle.cli.output import Column, Exit, Format, output_option, refuse, say, show
from tulle.cli.targets import Proxy, proxy_named
from tulle.cli.written import Spot, Written

Json = Mapping[str, Any]
DEFINED = Column("DEFINED BY")
_SHOWN_DOMAINS = 2


class Look(NamedTuple):
    """One sidecar, live."""

    connection: Connection
    proxy: Proxy
    written: Written

    def ask(self, path: str, **query: str) -> Any:
        """The JSON answer of its admin pipe."""
        answer = self.connection.sidecar(self.proxy, path, **query)
        if answer.is_error:
            refuse(f"the proxy of {self.proxy['id']} answers HTTP {answer.status}", Exit.UNREACHABLE)
        return json.loads(answer.body)

    def dump(self) -> Json:
        """Its configuration, endpoints included."""
        found: Json = self.ask("/config_dump", include_eds="")
        return found


class Line(NamedTuple):
    """One row and what stands behind it."""

    cells: Sequence[str]
    resource: Any
    spots: Sequence[Spot]
    note: str = ""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        origins = [{**one._asdict(), "file": one.file} for one in self.spots]
        return {"resource": self.resource, "origins": origins, **({"note": self.note} if self.note else {})}


def look(mesh: str | None, pod: str, namespace: str | None, *, is_whole: bool = False) -> Look:
    """A sidecar and its plan; `is_whole`: also of what it holds as soon as its workload calls it. Ends the command where there is none."""
    connection = connect(mesh)
    proxy = proxy_named(connection, pod, namespace)
    plan = connection.get("/v1/plan", proxy=proxy["id"], whole=str(is_whole).lower())
    return Look(connection, proxy, Written(plan["resources"] if plan else ()))


@click.command()
@click.argument("pod")
@click.option("--fqdn", default="", metavar="HOST", help="Only of this service host.")
@click.option("--port", default=0, metavar="PORT", help="Only of this port.")
@click.option("--direction", type=click.Choice(["inbound", "outbound"]), default=None, help="Only of this direction.")
@namespace_options
@output_option()
@mesh_option
def cluster(*, pod: str, fqdn: str, port: int, direction: str | None, **rest: Any) -> int:
    """List the clusters of a sidecar: where it can send requests to."""
    seen = look(rest["mesh"], pod, rest["namespace"])
    lines = []
    for one in sorted(envoy_dump.clusters(seen.dump()), key=lambda one: str(one["name"])):
        parts = _parts(one["name"])
        if fqdn in ("", parts[2]) and port in (0, parts[1]) and direction in (None, parts[0]):
            host = parts[2] if parts[0] == "outbound" else one["name"]
            cells = (
                host,
                str(parts[1] or "-"),
                (parts[0] == "outbound" and parts[3]) or "-",
                parts[0] or "-",
                _discovery(one),
            )
            lines.append(_line(seen, "CDS", one["name"], cells, one))
    titles = ("SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE")
    return _print(rest["form"], titles, lines, [str(line.resource["name"]) for line in lines], asking=seen.proxy)


@click.command()
@click.argument("pod")
@click.option("--address", default="", metavar="IP", help="Only at this address.")
@click.option("--port", default=0, metavar="PORT", help="Only of this port.")
@namespace_options
@output_option()
@mesh_option
def listener(*, pod: str, address: str, port: int, **rest: Any) -> int:
    """List the listeners of a sidecar and the chains of each: what it does with a connection."""
    seen = look(rest["mesh"], pod, rest["namespace"])
    lines = []
    for one in sorted(envoy_dump.listeners(seen.dump()), key=lambda one: str(one["name"])):
        socket = one.get("address", {}).get("socket_address", {})
        if address in ("", socket.get("address")) and port in (0, socket.get("port_value")):
            for _, chain in envoy_dump.chains(one):
                match, goal = envoy_dump.match_of_chain(chain), envoy_dump.goal_of_chain(chain)
                cells = (one["name"], envoy_dump.address_of(one.get("address", {})), match, goal)
                lines.append(_line(seen, "LDS", one["name"], cells, one))
    titles = ("NAME", "ADDRESS", "MATCH", "DESTINATION")
    return _print(rest["form"], titles, lines, _names(lines), once=True, asking=seen.proxy)


@click.command()
@click.argument("pod")
@click.option("--name", default="", metavar="TABLE", help="Only of this route table (a port).")
@click.option("--fqdn", default="", metavar="HOST", help="Only of this service host.")
@namespace_options
@output_option()
@mesh_option
def route(*, pod: str, name: str, fqdn: str, **rest: Any) -> int:
    """List the routes of a sidecar, first match first."""
    seen = look(rest["mesh"], pod, rest["namespace"])
    lines = []
    for row in sorted(envoy_dump.routes(seen.dump()), key=lambda row: row.table):
        hosts = hosts_of(seen.written, row)
        if name in ("", row.table) and (not fqdn or fqdn in hosts):
            match, goal = envoy_dump.match_of_route(row.route), envoy_dump.goal_of_route(row.route)
            cells = (row.table, _some(hosts), match, goal)
            resource = {"table": row.table, "virtualHost": row.host, "domains": row.domains, "route": row.route}
            spots, note = behind_route(seen.written, row)
            lines.append(Line(cells, resource, spots, note))
    titles = ("TABLE", "DOMAINS", "MATCH", "TO")
    return _print(rest["form"], titles, lines, [line.cells[0] for line in lines], asking=seen.proxy)


@click.command()
@click.argument("pod")
@click.option("--fqdn", default="", metavar="HOST", help="Only of this service host.")
@click.option("--port", default=0, metavar="PORT", help="Only of this service port.")
@namespace_options
@output_option()
@mesh_option
def endpoint(*, pod: str, fqdn: str, port: int, **rest: Any) -> int:
    """List the endpoints of a sidecar: the addresses behind each cluster, and how they are."""
    seen = look(rest["mesh"], pod, rest["namespace"])
    lines = []
    for name, host in envoy_dump.endpoints(seen.ask("/clusters", format="json")):
        parts = _parts(name)
        if parts[0] and fqdn in ("", parts[2]) and port in (0, parts[1]):
            health = host.get("health_status", {})
            outlier = "FAILED" if health.get("failed_outlier_check") else "OK"
            status = str(health.get("eds_health_status", "UNKNOWN"))
            cells = (envoy_dump.address_of(host.get("address", {})), status, outlier, name)
            lines.append(_line(seen, "CDS", name, cells, {"cluster": name, **host}))
    lines.sort(key=lambda line: (line.cells[3], line.cells[0]))
    titles = ("ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER")
    return _print(rest["form"], titles, lines, [one.cells[0] for one in lines], asking=seen.proxy)


@click.command()
@click.argument("pod")
@namespace_options
@output_option()
@mesh_option
def secret(*, pod: str, **rest: Any) -> int:
    """List the certificates and roots of a sidecar. Private keys are never shown."""
    seen = look(rest["mesh"], pod, rest["namespace"])
    lines = []
    for one in envoy_dump.secrets(seen.dump()):
        state = "WARMING" if one["isWarming"] else "ACTIVE"
        found = list(_certificates(one["secret"]))
        kind = "CA" if "validation_context" in one["secret"] else "Cert Chain"
        if not found:
            lines.append(Line((one["name"], kind, state, "-", "-", "-", "-"), one, ()))
        spots = _credential(seen, one["name"])
        lines += [Line((one["name"], kind, state, *cells), one, spots) for cells in found]
    titles = ("NAME", "TYPE", "STATUS", "IDENTITY", "SERIAL", "NOT AFTER", "NOT BEFORE")
    return _print(rest["form"], titles, lines, [line.cells[0] for line in lines])


def behind_route(written: Written, row: envoy_dump.RouteRow) -> tuple[Sequence[Spot], str]:
    """The lines behind one route: its rule first, then the policies of the rule and the objects around it."""
    if not row.table:
        return (), "of the bootstrap: metrics and health"
    if row.host in _CATCH_ALL:
        return (), _CATCH_ALL[row.host]
    for type_name, name in (("VHDS", row.host), ("RDS", row.table)):
        found = written.explained(type_name, name)
        plan = found["plan"] if found else None
        if type_name == "VHDS" and plan and row.number < len(plan.get("routes", ())):
            rule = plan["routes"][row.number]
            own = [written.at(rule["origin"]), *(written.at(policy.get("origin")) for policy in rule["policies"])]
            around = written.spots(type_name, name)
            mine = [one for one in own if one]
            return [*mine, *(one for one in around if one.path == "" and one not in mine)], ""
        if found:
            return written.spots(type_name, name), written.note(type_name, name)
    return (), ""


def hosts_of(written: Written, row: envoy_dump.RouteRow) -> Sequence[str]:
    """What a route's host is called: its domains, after the service where these are an address that was asked for."""
    found = written.explained("VHDS", row.host)
    name = found["plan"]["name"] if found and found["plan"] else ""
    domains = tuple(domain.removeprefix(f"{row.table}/") for domain in row.domains)
    return domains if name in ("", *_CATCH_ALL, *domains) else (name, *domains)


_CATCH_ALL = {
    "allow_any": "hosts that nobody declares pass through",
    "asked-for": "what has not been called yet: waits until the control plane has said what is there",
    "block_all": "hosts that nobody declares are refused (REGISTRY_ONLY)",
}


def _line(seen: Look, type_name: str, name: str, cells: Sequence[str], resource: Any) -> Line:
    return Line(cells, resource, seen.written.spots(type_name, name), seen.written.note(type_name, name))


def _print(
    form: Format,
    titles: Iterable[str],
    lines: Sequence[Line],
    names: Iterable[str],
    *,
    once: bool = False,
    asking: Proxy | None = None,
) -> int:
    """`asking`: whose lines they are, where what a workload calls makes the list longer."""
    columns = [*(Column(title) for title in titles), DEFINED]
    rows = [[*line.cells, _behind(line, is_wide=form is Format.WIDE)] for line in lines]
    documents = [line.document() for line in lines]
    if once:
        documents = [one for number, one in enumerate(documents) if one not in documents[:number]]
    show(form, columns, rows, document=documents, names=dict.fromkeys(names), empty="Nothing of that kind.")
    if asking is not None and asking.get("isOnDemand") and form in (Format.TABLE, Format.WIDE):
        say(f"{asking['id']} holds what its workload has called; `tulle routes` lists what it may call.")
    return Exit.OK


def _names(lines: Sequence[Line]) -> list[str]:
    return [str(line.resource["name"]) for line in lines]


def _behind(line: Line, *, is_wide: bool) -> str:
    if not line.spots:
        return f"({line.note})" if line.note else "-"
    if is_wide:
        return "; ".join(str(one) for one in line.spots)
    one = nearest(line.spots)
    return f"{one.place} {one.subject}".strip()


def nearest(spots: Sequence[Spot]) -> Spot:
    """The origin that says most: a rule or a subset before a policy, mesh configuration before the Service."""
    configured = [one for one in spots if one.kind not in ("Service", "Pod")]
    parts = [one for one in configured if one.path.startswith(("spec.subsets", "spec.http", "spec.tcp", "spec.tls"))]
    return (parts or configured or list(spots))[0]


def _parts(name: str) -> tuple[str, int, str, str]:
    """(direction, port, host, subset) of a cluster's name; empty for others."""
    parts = name.split("|")
    if len(parts) != 4:
        return "", 0, "", ""
    return parts[0], int(parts[1]) if parts[1].isdecimal() else 0, parts[3], parts[2]


def _discovery(one: Json) -> str:
    return str(one.get("type") or one.get("cluster_type", {}).get("name", "STATIC"))


def _some(domains: Sequence[str]) -> str:
    more = f" +{len(domains) - _SHOWN_DOMAINS}" if len(domains) > _SHOWN_DOMAINS else ""
    return ", ".join(domains[:_SHOWN_DOMAINS]) + more


def _credential(seen: Look, name: str) -> list[Spot]:
    """A gateway's credential is a Secret object; the workload's own certificate is the CA's."""
    word = name.removeprefix("kubernetes://").removesuffix("-cacert")
    if word == name and "/" not in name:
        return []
    found = seen.connection.get("/v1/objects", kind="Secret", name=word.rpartition("/")[2])["objects"]
    return [Spot("Secret", one["namespace"], one["name"], "", one["file"], one["line"]) for one in found]


def _certificates(secret: Json) -> Iterable[tuple[str, str, str, str]]:
    from cryptography import x509

    chain = secret.get("tls_certificate", {}).get("certificate_chain", {})
    roots = secret.get("validation_context", {}).get("trusted_ca", {})
    for source, read in ((chain, _leaf), (roots, x509.load_pem_x509_certificates)):
        if source.get("inline_bytes"):
            for one in read(base64.b64decode(source["inline_bytes"])):
                yield (
                    _identity(one),
                    f"{one.serial_number:x}",
                    _moment(one.not_valid_after_utc),
                    _moment(one.not_valid_before_utc),
                )


def _leaf(chain: bytes) -> list[Any]:
    from cryptography import x509

    return x509.load_pem_x509_certificates(chain)[:1]


def _identity(one: Any) -> str:
    from cryptography import x509

    try:
        names = one.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return str(one.subject.rfc4514_string()) or "-"
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return ", ".join(uris or names.get_values_for_type(x509.DNSName)) or "-"


def _moment(when: Any) -> str:
    return str(when.strftime("%Y-%m-%dT%H:%M:%SZ"))


ALIASES = {
    **dict.fromkeys(("clusters", "c", "cds"), "cluster"),
    **dict.fromkeys(("listeners", "l", "lds"), "listener"),
    **dict.fromkeys(("routes", "r", "rds"), "route"),
    **dict.fromkeys(("endpoints", "ep", "eds"), "endpoint"),
    **dict.fromkeys(("secrets", "s", "sds"), "secret"),
}
"""Other words for the kinds (istioctl's)."""
