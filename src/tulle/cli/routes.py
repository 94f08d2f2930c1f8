"""`tulle routes`: where a workload's requests go: each rule of each host, as planned, with its line."""

from collections.abc import Mapping
from typing import Any

import click

from tulle.cli.connection import mesh_option, namespace_options
from tulle.cli.output import Column, Exit, Format, output_option, show
from tulle.cli.proxy_config import look
from tulle.cli.written import Written


@click.command()
@click.argument("pod")
@click.option("--host", default="", metavar="HOST", help="Only of hosts with this in their name.")
@namespace_options
@output_option()
@mesh_option
def routes(*, pod: str, host: str, form: Format, **rest: Any) -> int:
    """List where the requests of a workload go, first match first."""
    seen = look(rest["mesh"], pod, rest["namespace"], is_whole=True)
    rows, documents = [], []
    for name in seen.written.names("VHDS"):
        found = seen.written.explained("VHDS", name)
        plan = found["plan"] if found else None
        if not plan or host not in plan["name"]:
            continue
        for rule in plan["routes"]:
            spot = seen.written.at(rule["origin"])
            where = f"{spot.place} {spot.subject}".strip() if spot else "-"
            table = name.partition("/")[0].rpartition(":")[2]
            rows.append(
                [
                    plan["name"],
                    table,
                    match_words(rule["match"]),
                    action_words(rule),
                    policy_words(seen.written, rule),
                    where,
                ]
            )
            documents.append(
                {"host": plan["name"], "port": table, "rule": rule, "origin": spot._asdict() if spot else None}
            )
    columns = (
        *(Column("HOST"), Column("PORT"), Column("MATCH"), Column("TO")),
        *(Column("POLICIES", is_wide=True), Column("DEFINED BY")),
    )
    show(form, columns, rows, document=documents, names=[row[0] for row in rows], empty="No routes.")
    return Exit.OK


def match_words(match: Mapping[str, Any]) -> str:
    """Which requests a rule takes, in words."""
    parts = []
    for field in ("path", "method", "scheme", "authority"):
        value = match.get(field)
        if value:
            parts.append(f"{'' if field == 'path' else field}{_text(value)}")
    parts += [f"{name}{_text(value)}" for name, value in match.get("headers", ())]
    parts += [f"!{name}{_text(value)}" for name, value in match.get("without_headers", ())]
    parts += [f"?{name}{_text(value)}" for name, value in match.get("query", ())]
    return " ".join(parts) or "*"


def action_words(rule: Mapping[str, Any]) -> str:
    """What a rule does, in words: targets with their share in percent."""
    action = rule["action"]
    if action["type"] == "Send":
        total = sum(one["weight"] for one in action["targets"]) or 1
        shares = [(target_words(one["cluster"]), one["weight"] * 100 / total) for one in action["targets"]]
        if len(shares) == 1:
            return shares[0][0]
        return ", ".join(f"{name} {share:g}%" for name, share in shares)
    if action["type"] == "Redirect":
        return f"redirect {action['code']} {action.get('authority', '')}{action.get('path', '')}"
    return f"answer {action['status']}"


def target_words(cluster: str) -> str:
    """`reviews.shop.svc.cluster.local:9080 subset v1` of a cluster's name."""
    parts = cluster.split("|")
    if len(parts) != 4:
        return cluster
    _, port, subset, host = parts
    return f"{host}:{port}{f' subset {subset}' if subset else ''}"


def policy_words(written: Written, rule: Mapping[str, Any]) -> str:
    """The fields that shape a rule beside its match and target."""
    spots = [written.at(one.get("origin")) for one in rule["policies"]]
    words = [one.path.rpartition("]")[2].lstrip(".") or one.path for one in spots if one]
    return ", ".join(dict.fromkeys(words)) or "-"


def _text(value: Mapping[str, Any]) -> str:
    mark = {"exact": "=", "prefix": "^=", "regex": "~", "present": "", "suffix": "$="}.get(
        value["kind"], f" {value['kind']} "
    )
    return f"{mark}{value.get('value', '')}"
