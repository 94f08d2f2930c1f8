"""`tulle ps`: the pods of a mesh."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import click

from tulle.cli.connection import in_cluster, mesh_named
from tulle.cli.output import Column, Exit, Format, Refused, show
from tulle.local.asking_now import ask_now
from tulle.local.places import Places, the_mesh
from tulle.local.refusals import RefusedError, refusal


@click.command()
@mesh_named("--mesh", "--name", "name")
@click.option("-n", "--namespace", help="Only this namespace.")
@click.option(
    "-A", "--all-namespaces", "everywhere", is_flag=True, help="In a cluster: also namespaces without a proxy."
)
@click.option("-o", "--output", type=click.Choice(["table", "wide", "json", "yaml", "name"]), default="table")
def ps(name: str | None, namespace: str | None, everywhere: bool, output: str) -> int:
    """List pods: what kubectl would say of them, with the sidecar and (on one machine) what everything costs (PSS)."""
    if in_cluster(name):
        return _of_cluster(name, namespace or "", output, everywhere=everywhere)
    mesh = the_mesh(name)
    pods = [pod for pod in pods_of(mesh) if namespace in (None, pod["namespace"])]
    if output == "json":
        click.echo(json.dumps({"apiVersion": "tulle.dev/v1", "kind": "PodList", "items": pods}, indent=2))
    elif output == "yaml":
        import yaml

        click.echo(yaml.safe_dump({"apiVersion": "tulle.dev/v1", "kind": "PodList", "items": pods}, sort_keys=False))
    elif output == "name":
        for pod in pods:
            click.echo(f"pod/{pod['name']}")
    else:
        isolation = mesh.described().get("isolation")
        if isolation == "none":
            click.secho("isolation: none (see `tulle check`)", fg="yellow", err=True)
        table(pods, is_wide=output == "wide")
    return Exit.OK


def _of_cluster(name: str | None, namespace: str, output: str, *, everywhere: bool) -> int:
    """Pods as the API has them, and which proxies are connected; without a control plane that is unknown, and said."""
    from tulle.cli.cluster_connection import cluster_of
    from tulle.cli.cluster_pods import described, of_the_mesh, pods_in

    connection, code = cluster_of(name), int(Exit.OK)
    found = connection.api(pods_in(connection.access, namespace))
    connected = None
    try:
        proxies = connection.get("/v1/proxies")["proxies"]
        connected = frozenset(f"{one['pod']}.{one['namespace']}" for one in proxies if one["stream"])
    except Refused as refused:
        refused.show()
        code = refused.exit_code
    chosen = found if namespace or everywhere else of_the_mesh(found)
    pods = [described(pod, datetime.now(UTC), connected) for pod in chosen]
    columns = (
        *(Column("NAMESPACE"), Column("NAME"), Column("READY"), Column("STATUS"), Column("RESTARTS"), Column("AGE")),
        *(Column("IP"), Column("SIDECAR"), Column("NODE", is_wide=True), Column("SERVICEACCOUNT", is_wide=True)),
        Column("UID", is_wide=True),
    )
    rows = [
        [
            *(pod["namespace"], pod["name"], f"{pod['ready']}/{pod['total']}", pod["status"], str(pod["restarts"])),
            *(age(pod["ageSeconds"]), pod["ip"] or "-"),
            pod["sidecar"] if pod["role"] != "gateway" else f"gateway, {pod['sidecar']}",
            *(pod["node"] or "-", pod["serviceAccount"], pod["uid"]),
        ]
        for pod in pods
    ]
    document = {"apiVersion": "tulle.dev/v1", "kind": "PodList", "items": pods}
    names = [f"pod/{pod['name']}" for pod in pods]
    show(Format(output), columns, rows, document=document, names=names, empty="No pod of a mesh here.")
    return code


def asked(mesh: Places, method: str, target: str, given: Any = None, timeout: float = 10.0) -> Any:
    """The supervisor's answer. Raises `RefusedError` (TUL0919, TUL0920)."""
    try:
        status, answer = ask_now(mesh.supervisor_socket, method, target, given, timeout)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RefusedError(refusal("TUL0920", mesh=mesh.name, reason=reason, log=mesh.state / "up.log")) from error
    if status == 404:
        wanted = (given or {}).get("name", target)
        raise RefusedError(refusal("TUL0919", name=wanted, mesh=mesh.name))
    if status != 200:
        reason = (answer or {}).get("error", f"status {status}")
        raise RefusedError(refusal("TUL0920", mesh=mesh.name, reason=reason, log=mesh.state / "up.log"))
    return answer


def pods_of(mesh: Places) -> list[dict[str, Any]]:
    """Every pod, by namespace and name."""
    pods: list[dict[str, Any]] = asked(mesh, "GET", "/v1/pods")["pods"]
    return sorted(pods, key=lambda pod: (pod["namespace"], pod["name"]))


def age(seconds: float) -> str:
    """`45s`, `12m`, `3h`, `2d`, as kubectl writes ages."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size or (unit == "m" and seconds >= 120):
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def table(pods: list[dict[str, Any]], *, is_wide: bool) -> None:
    """Print columns."""
    head = ["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "SIDECAR", "MEM"]
    if is_wide:
        head += ["UID", "SERVICEACCOUNT", "PIDS"]
    rows = [head]
    for pod in pods:
        row = [
            pod["namespace"],
            pod["name"],
            f"{pod['ready']}/{pod['total']}",
            pod["status"],
            str(pod["restarts"]),
            age(pod["ageSeconds"]),
            pod["ip"],
            pod["sidecar"] if pod["role"] != "gateway" else f"gateway, {pod['sidecar']}",
            f"{sum(pod['memory'].values()) / 1e6:.0f}M",
        ]
        if is_wide:
            pids = ",".join(f"{name}:{pid}" for name, pid in pod["pids"].items())
            row += [pod["uid"], pod["serviceAccount"], pids]
        rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        click.echo("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
