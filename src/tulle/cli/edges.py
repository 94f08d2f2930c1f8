"""`tulle edges`: who calls whom, and whether mTLS protects it, over a window."""

from typing import Any

import click

from tulle.cli.connection import connect, mesh_option, namespace_options
from tulle.cli.output import Column, Exit, Format, glyph, output_option, show
from tulle.cli.stat import figures
from tulle.cli.traffic import watched, window_option
from tulle.telemetry import rates

SECURED = "\N{SQUARE ROOT}"


@click.command()
@window_option
@namespace_options
@output_option()
@mesh_option
def edges(*, window: float, form: Format, **rest: Any) -> int:
    """List who talks to whom. Callers without a sidecar are `unknown`. -n shows what begins or ends there."""
    connection = connect(rest["mesh"])
    flows, seconds = watched(connection, window)
    namespace = "" if rest["everywhere"] else rest["namespace"] or ""
    found = [
        one for one in rates.edges(flows, seconds) if namespace in ("", one.source.namespace, one.destination.namespace)
    ]
    columns = (
        *(Column("SRC"), Column("DST"), Column("SRC_NS"), Column("DST_NS"), Column("SECURED")),
        *(Column("RPS", is_right=True), Column("SUCCESS", is_right=True), Column("TCP_CONN", is_right=True)),
        *(Column("CLIENT_ID", is_wide=True), Column("SERVER_ID", is_wide=True)),
    )
    show(
        form,
        columns,
        [_row(one) for one in found],
        document=[_document(one) for one in found],
        names=[
            f"{one.source.workload}.{one.source.namespace}->{one.destination.workload}.{one.destination.namespace}"
            for one in found
        ],
        empty=f"Nobody called anybody within {window:g} s.",
    )
    return Exit.OK


def _row(one: rates.Edge) -> list[str]:
    return [
        *(one.source.workload, one.destination.workload, one.source.namespace, one.destination.namespace),
        glyph(SECURED) if one.is_mtls else _why_not(one),
        f"{one.rates.requests_per_s:.1f}",
        "-" if one.rates.success is None else f"{one.rates.success * 100:.2f}%",
        str(one.rates.tcp_connections),
        one.source_principal or "-",
        one.destination_principal or "-",
    ]


def _why_not(one: rates.Edge) -> str:
    if one.source.workload == rates.UNKNOWN:
        return "no: the caller has no sidecar, or sent plaintext"
    if one.destination.workload == rates.UNKNOWN:
        return "no: outside the mesh, or nothing answered"
    return "no: plaintext"


def _document(one: rates.Edge) -> dict[str, Any]:
    return {
        "source": one.source._asdict(),
        "destination": one.destination._asdict(),
        "secured": one.is_mtls,
        "clientId": one.source_principal,
        "serverId": one.destination_principal,
        **figures(one.rates),
    }
