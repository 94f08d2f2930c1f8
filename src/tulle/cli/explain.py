"""`tulle explain`: a code of the catalogue, or why a route, cluster, listener or filter of a live sidecar is what it is.

Shows what the sidecar has, the plan behind it, and the YAML lines that asked for it.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import click

from tulle.cli import envoy_dump
from tulle.cli.connection import mesh_option, namespace_options
from tulle.cli.output import Exit, Format, as_yaml, output_option, refuse, report
from tulle.cli.proxy_config import Look, behind_route, hosts_of, look
from tulle.cli.written import Spot
from tulle.model.problems import catalogue

_CODE = re.compile(r"TUL\d{4}\Z", re.IGNORECASE)
_RULE = re.compile(r"ns\[([^]]*)\]-policy\[([^]]*)\]-rule\[(\d+)\]")
_KINDS = ("route", "cluster", "listener", "filter")
_ALWAYS = {
    "envoy.filters.http.router": "sends the request on; every HTTP chain ends with it",
    "envoy.filters.http.header_to_metadata": "takes the caller's word about itself off the request (believed over mTLS only)",
    "envoy.filters.http.header_mutation": "removes what a caller without mTLS claims about itself",
    "envoy.filters.network.tcp_proxy": "relays the bytes",
    "tulle.rbac.deny": "DENY rules of AuthorizationPolicies; empty until a policy selects the workload",
    "tulle.rbac.allow": "ALLOW rules of AuthorizationPolicies; empty until a policy selects the workload",
    "envoy.filters.http.cors": "CORS; waits for a route with a corsPolicy",
}


class _Shown(dict[str, Any]):
    """One explanation: what, from where, why."""


@click.command()
@click.argument("what", metavar="CODE|POD")
@click.argument("kind", required=False, metavar="[route|cluster|listener|filter]")
@click.argument("name", required=False)
@namespace_options
@output_option(Format.TABLE, Format.JSON, Format.YAML)
@mesh_option
def explain(*, what: str, kind: str | None, name: str | None, form: Format, **rest: Any) -> int:
    """Explain a code (`TUL0461`), or a piece of a sidecar (`reviews-v1 filter`, `productpage route reviews`).

    NAME is the whole name or a part of it; without it every piece of the kind is explained.
    """
    if _CODE.match(what):
        return _code(what.upper(), form)
    if kind is None:
        raise click.UsageError(f"Say what of {what}: {', '.join(_KINDS)}.")
    word = kind.removesuffix("s")
    if word not in _KINDS:
        raise click.UsageError(f"{kind} cannot be explained; {', '.join(_KINDS)} can.")
    seen = look(rest["mesh"], what, rest["namespace"])
    found = list(_EXPLAINERS[word](seen, name or ""))
    if not found:
        advice = f"`tulle proxy config {word} {what}`"
        if seen.proxy.get("isOnDemand"):
            advice += f" lists what its workload has called so far, `tulle routes {what}` what it may call."
        refuse(f"{seen.proxy['id']} has no {word} {name or ''}".rstrip(), advice=advice)
    if form is Format.TABLE:
        for one in found:
            _say(one)
    else:
        click.echo(as_yaml([dict(one) for one in found]) if form is Format.YAML else _json(found))
    return Exit.OK


def _code(code: str, form: Format) -> int:
    found = catalogue().get(code)
    if found is None:
        refuse(f"no problem has the code {code}", Exit.USAGE)
    fields = {"code": code, "name": found.name, "severity": found.severity.value}
    fields |= {"text": found.text, "advice": found.advice}
    if form is Format.JSON:
        click.echo(_json(fields))
    elif form is Format.YAML:
        click.echo(as_yaml(fields), nl=False)
    else:
        click.echo(f"{code} {found.name} ({found.severity.value}: {_MEANING[found.severity.value]})")
        click.echo(f"  {found.text}")
        click.echo(f"  fix: {found.advice}")
    return Exit.OK


_MEANING = {
    "error": "what it is about is refused, and what worked before goes on",
    "warning": "accepted, but something in it does not do what it says",
    "info": "nothing is wrong",
}


def _routes(seen: Look, name: str) -> Iterable[_Shown]:
    for row in envoy_dump.routes(seen.dump()):
        hosts = hosts_of(seen.written, row)
        if not name or name in (row.table, row.host, row.route.get("name")) or any(name in one for one in hosts):
            spots, note = behind_route(seen.written, row)
            found = seen.written.explained("VHDS", row.host)
            rules = found["plan"]["routes"] if found and found["plan"] else ()
            yield _Shown(
                what=f"route {row.route.get('name', row.number)} of {', '.join(hosts[:3])} (table {row.table})",
                does=f"{envoy_dump.match_of_route(row.route)} {_TO} {envoy_dump.goal_of_route(row.route)}",
                origins=_origins(spots),
                note=note,
                plan=rules[row.number] if row.number < len(rules) else None,
            )


def _clusters(seen: Look, name: str) -> Iterable[_Shown]:
    for one in envoy_dump.clusters(seen.dump()):
        if name in one["name"]:
            yield _resource(seen, "CDS", "cluster", one["name"], str(one.get("type", "")))


def _listeners(seen: Look, name: str) -> Iterable[_Shown]:
    for one in envoy_dump.listeners(seen.dump()):
        if name in one["name"]:
            goals = [
                f"{envoy_dump.match_of_chain(chain)} {_TO} {envoy_dump.goal_of_chain(chain)}"
                for _, chain in envoy_dump.chains(one)
            ]
            yield _resource(seen, "LDS", "listener", one["name"], "; ".join(goals))


def _filters(seen: Look, name: str) -> Iterable[_Shown]:
    for row in envoy_dump.filters(seen.dump()):
        if name in row.name:
            spots = _behind_filter(seen, row)
            state = (
                f"rules of route table {row.route}" if row.route else "waits for a route" if row.is_disabled else "on"
            )
            yield _Shown(
                what=f"filter {row.name}",
                does=f"listener {row.listener}, chain {row.chain}: {state}",
                origins=_origins(spots),
                note="" if spots else _ALWAYS.get(row.name, "part of every chain of this kind"),
                plan=None,
            )


_EXPLAINERS = {"route": _routes, "cluster": _clusters, "listener": _listeners, "filter": _filters}
_TO = "->"


def _resource(seen: Look, type_name: str, word: str, name: str, does: str) -> _Shown:
    found = seen.written.explained(type_name, name)
    return _Shown(
        what=f"{word} {name}",
        does=does,
        origins=_origins(seen.written.spots(type_name, name)),
        note=found["note"] if found else "",
        plan=found["plan"] if found else None,
    )


def _behind_filter(seen: Look, row: envoy_dump.FilterRow) -> Sequence[Spot]:
    """Authorization names its rules in the filter itself; for others, fields of routes that carry the filter's word."""
    rules = dict.fromkeys(_RULE.findall(str(row.config)))
    if rules:
        return [
            seen.written.of("AuthorizationPolicy", namespace, name, f"spec.rules[{number}]")
            for namespace, name, number in rules
        ]
    if row.name.startswith("tulle.rbac") and (row.route or not row.is_disabled):
        spots = seen.written.spots("LDS", row.listener)
        return [one for one in spots if one.kind == "AuthorizationPolicy"]
    if not row.route:
        return ()
    word = row.name.rpartition(".")[2]
    names = [name for name in seen.written.names("VHDS") if name.startswith(f"{row.route}/")]
    spots = [spot for name in names for spot in seen.written.spots("VHDS", name)]
    return [one for one in spots if word in one.path.lower()]


def _origins(spots: Iterable[Spot]) -> list[dict[str, Any]]:
    return [one._asdict() for one in dict.fromkeys(spots)]


def _say(one: _Shown) -> None:
    click.echo(one["what"])
    click.echo(f"  {one['does']}")
    for origin in one["origins"]:
        spot = Spot(**origin)
        click.echo(f"  from {spot}")
    if one["note"]:
        click.echo(f"  {one['note']}")
    if not one["origins"] and not one["note"]:
        report(())
        click.echo("  no object asked for it")
    click.echo()


def _json(value: Any) -> str:
    import json

    return json.dumps(value, indent=2, ensure_ascii=False)
