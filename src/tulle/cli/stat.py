"""`tulle stat`: success, requests per second, latency and connections of what was called, over a window."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import click

from tulle.cli.connection import Connection, connect, mesh_option, namespace_options
from tulle.cli.output import Column, Exit, Format, output_option, refuse, show
from tulle.cli.traffic import watched, window_option
from tulle.telemetry import rates

_GROUPINGS: Mapping[str, rates.Grouping] = {
    **dict.fromkeys(("svc", "service", "services"), "service"),
    **dict.fromkeys(("deploy", "deployment", "deployments", "workload", "workloads", "sts", "statefulset"), "workload"),
    **dict.fromkeys(("po", "pod", "pods"), "pod"),
    **dict.fromkeys(("ns", "namespace", "namespaces"), "namespace"),
}
Name = tuple[str, str]


@click.command()
@click.argument("kind", default="deploy", metavar="[svc|deploy|pod|ns]")
@click.argument("name", required=False)
@window_option
@namespace_options
@output_option()
@mesh_option
def stat(*, kind: str, name: str | None, window: float, form: Format, **rest: Any) -> int:
    """Say how what is called fares: success, requests per second, latency in milliseconds, TCP connections."""
    word, slash, rest_name = kind.partition("/")
    name = rest_name if slash else name
    by = _GROUPINGS.get(word)
    if by is None:
        refuse(f"{word} has no traffic of its own", Exit.USAGE, advice="Ask for svc, deploy, pod or ns.")
    connection = connect(rest["mesh"])
    namespace = "" if rest["everywhere"] or by == "namespace" else rest["namespace"] or connection.default_namespace
    meshed = _meshed(connection, by)
    flows, seconds = watched(connection, window)
    found = rates.stat(flows, by, seconds)
    wanted = sorted({*meshed, *found})
    keys = [one for one in wanted if namespace in ("", one[0]) and name in (None, one[1])]
    rows = [_row(one, meshed.get(one, (0, 0)), found.get(one), has_namespace=not namespace) for one in keys]
    documents = [_document(one, meshed.get(one, (0, 0)), found.get(one)) for one in keys]
    columns = (
        *([] if namespace else [Column("NAMESPACE")]),
        *(Column("NAME"), Column("MESHED"), Column("SUCCESS", is_right=True), Column("RPS", is_right=True)),
        *(Column("LATENCY_P50", is_right=True), Column("LATENCY_P95", is_right=True)),
        *(Column("LATENCY_P99", is_right=True), Column("TCP_CONN", is_right=True)),
        Column("BYTES/S", is_wide=True, is_right=True),
    )
    show(form, columns, rows, document=documents, names=[one[1] for one in keys], empty="Nothing of that kind runs.")
    return Exit.OK


def _meshed(connection: Connection, by: rates.Grouping) -> Mapping[Name, Name | tuple[int, int]]:
    """(with a sidecar, all) pods of everything that can be called."""
    found: defaultdict[Name, list[int]] = defaultdict(lambda: [0, 0])
    workloads = connection.get("/v1/workloads")["workloads"]
    if by == "service":
        selectors = {
            (raw["namespace"], raw["name"]): ((raw["document"] or {}).get("spec") or {}).get("selector") or {}
            for raw in connection.get("/v1/objects", kind="Service", document="true")["objects"]
        }
        for key, selector in selectors.items():
            for one in workloads:
                if selector and one["namespace"] == key[0] and selector.items() <= one["labels"].items():
                    _add(found[key], one)
            found[key]  # services without pods are listed too
    for one in workloads if by != "service" else ():
        place = one["namespace"]
        names = {"workload": (place, one["owner"]), "pod": (place, one["name"]), "namespace": ("", place)}
        _add(found[names[by]], one)
    return {key: (counts[0], counts[1]) for key, counts in found.items() if key[1]}


def _add(counts: list[int], one: Mapping[str, Any]) -> None:
    counts[0] += bool(one["hasSidecar"])
    counts[1] += 1


def _row(key: Name, meshed: Any, found: rates.Rates | None, *, has_namespace: bool) -> list[str]:
    start = [*([key[0] or "-"] if has_namespace else []), key[1], f"{meshed[0]}/{meshed[1]}"]
    if found is None:
        return [*start, "-", "-", "-", "-", "-", "-", "-"]
    return [
        *start,
        "-" if found.success is None else f"{found.success * 100:.2f}%",
        f"{found.requests_per_s:.1f}",
        *(latency(one) for one in (found.p50_ms, found.p95_ms, found.p99_ms)),
        str(found.tcp_connections),
        f"{found.tcp_bytes_per_s:.0f}",
    ]


def latency(milliseconds: float | None) -> str:
    """`12ms`, `0.4ms`; a dash where nothing was measured."""
    if milliseconds is None:
        return "-"
    return f"{milliseconds:.1f}ms" if milliseconds < 10 else f"{milliseconds:.0f}ms"


def _document(key: Name, meshed: Any, found: rates.Rates | None) -> dict[str, Any]:
    made: dict[str, Any] = {"namespace": key[0], "name": key[1], "meshed": meshed[0], "pods": meshed[1]}
    return made | figures(found) if found else made


def figures(found: rates.Rates) -> dict[str, Any]:
    """Rates as JSON."""
    return {
        "successRate": found.success,
        "requestsPerSecond": found.requests_per_s,
        "latencyMs": {"p50": found.p50_ms, "p95": found.p95_ms, "p99": found.p99_ms},
        "tcpConnections": found.tcp_connections,
        "tcpBytesPerSecond": found.tcp_bytes_per_s,
    }
