"""`tulle proxy status`: which proxy has what: per resource type whether it is acknowledged, and until when its certificate holds."""

from typing import Any

import click

from tulle.cli.connection import Connection, connect, mesh_option, namespace_options
from tulle.cli.output import Column, Exit, Format, output_option, refuse, show
from tulle.cli.targets import matching
from tulle.cli.written import place_words

_TYPES = ("CDS", "EDS", "LDS", "RDS", "VHDS", "SDS")


@click.command()
@click.argument("pod", required=False)
@namespace_options
@output_option()
@mesh_option
def status(*, pod: str | None, namespace: str | None, everywhere: bool, form: Format, mesh: str | None) -> int:
    """Say which proxy has acknowledged what. Proxies of every namespace unless -n is given."""
    return show_proxies(connect(mesh), form, pod, namespace="" if everywhere else namespace or "")


def show_proxies(connection: Connection, form: Format, pod: str | None, *, namespace: str) -> int:
    """Print the table; with a pod, also what it refuses."""
    answer = connection.get("/v1/proxies")
    found = [one for one in answer["proxies"] if namespace in ("", one["namespace"])]
    if pod:
        found = matching(connection, found, pod)
        if not found:
            refuse(f"no pod with a proxy is called {pod}", advice="`tulle get proxies` lists them.")
    expiry = {one["proxy"]: one["remainingSeconds"] for one in connection.get("/v1/ca")["leafs"]}
    columns = (
        Column("NAME"),
        *(Column(name) for name in _TYPES),
        *(Column("REVISION", is_right=True), Column("CERT")),
        *(Column("TRANSPORT", is_wide=True), Column("VIEW", is_wide=True), Column("IDENTITY", is_wide=True)),
    )
    rows = [_row(one, expiry) for one in found]
    show(form, columns, rows, document=found, names=[one["id"] for one in found], empty="No proxy here.")
    if form in (Format.TABLE, Format.WIDE):
        _refusals(found)
    return Exit.OK


def _row(one: dict[str, Any], expiry: dict[str, float]) -> list[str]:
    states = one["types"] if one["stream"] else {}
    left = expiry.get(one["id"])
    revision = "-" if one["syncedRevision"] < 0 else f"{one['syncedRevision']}/{one['targetRevision']}"
    return [
        one["id"],
        *(states.get(name, "-" if one["stream"] else "not connected") for name in _TYPES),
        revision,
        "-" if left is None else span(left),
        one["transport"] or "-",
        one["view"] or "-",
        one["identity"] or "-",
    ]


def _refusals(found: list[dict[str, Any]]) -> None:
    for one in found:
        for refused in one["refused"]:
            origin = refused.get("origin") or {}
            place = place_words(origin.get("file") or "", origin.get("line") or 0)
            place = f" ({place})" if place else ""
            kind = refused["typeUrl"].rpartition(".")[2]
            click.echo(f"{one['id']} refuses {kind} {refused['resource']}: {refused['message']}{place}", err=True)


def span(seconds: float) -> str:
    """`23h`, `4m`, `12s`; `EXPIRED` below zero."""
    if seconds <= 0:
        return "EXPIRED"
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"
