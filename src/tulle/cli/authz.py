"""`tulle authz`: who may call a workload: the mTLS mode of each port and every rule in force, with their lines."""

from typing import Any

import click

from tulle.cli.connection import mesh_option, namespace_options
from tulle.cli.inbound import Port, ports, what, who
from tulle.cli.output import Column, Exit, Format, output_option, say, show
from tulle.cli.proxy_config import look
from tulle.cli.written import Spot, Written


@click.command()
@click.argument("pod")
@namespace_options
@output_option()
@mesh_option
def authz(*, pod: str, form: Format, **rest: Any) -> int:
    """Say who may call a workload, port by port, first DENY then ALLOW."""
    seen = look(rest["mesh"], pod, rest["namespace"])
    if seen.proxy["isGateway"]:
        say(f"{seen.proxy['id']} is a gateway: it has no sidecar's inbound side")
        return Exit.OK
    rows, documents = [], []
    for port in ports(seen.written):
        rows += [[_name(port), port.mode, *cells] for cells in _rules(port, seen.written)]
        documents.append(_document(port))
    columns = (
        *(Column("PORT"), Column("MTLS"), Column("ACTION"), Column("POLICY"), Column("RULE"), Column("FROM")),
        *(Column("TO"), Column("DEFINED BY")),
    )
    show(form, columns, rows, document=documents, names=[_name(port) for port in ports(seen.written)])
    if form in (Format.TABLE, Format.WIDE):
        _say_modes(ports(seen.written))
    return Exit.OK


def _name(port: Port) -> str:
    return f"{port.number}/{port.protocol}" if port.number else "other"


def _rules(port: Port, written: Written) -> list[list[str]]:
    found = []
    for action, spot, policy in sorted(port.policies, key=lambda one: one[0] != "DENY"):
        name = f"{spot.namespace}/{spot.name}"
        rules = policy.get("rules", ())
        for number, rule in enumerate(rules):
            found.append(
                [
                    action,
                    name,
                    str(number),
                    who(rule).strip(),
                    what(rule).strip(),
                    _where(written.at(rule.get("origin")) or spot),
                ]
            )
        if not rules:
            found.append([action, name, "-", "nobody" if action == "ALLOW" else "-", "-", _where(spot)])
    is_closed = any(action == "ALLOW" for action, _, _ in port.policies)
    rest = (
        ["DENY", "(everything else)", "-", "anyone", "anything", ""]
        if is_closed
        else ["ALLOW", "(no policy)", "-", "anyone", "anything", ""]
    )
    return [*found, rest]


def _where(spot: Spot) -> str:
    """The line; of an object of a cluster the field."""
    return spot.place or spot.path


def _say_modes(found: list[Port]) -> None:
    for port in found:
        by = f"from {port.mode_from}" if port.mode_from else "nobody says otherwise"
        click.echo(f"mTLS of {_name(port)}: {port.mode} ({by})", err=True)


def _document(port: Port) -> dict[str, Any]:
    return {
        "port": port.number,
        "protocol": port.protocol,
        "mode": port.mode,
        "modeFrom": port.mode_from._asdict() if port.mode_from else None,
        "depth": port.depth or None,
        "raisedBy": port.raised_by._asdict() if port.raised_by else None,
        "service": port.service,
        "policies": [
            {"action": action, "origin": spot._asdict(), "rules": policy.get("rules", [])}
            for action, spot, policy in port.policies
        ],
    }
