"""`tulle describe`: everything about one service, pod or routing object, in prose: ports, routes, mTLS, policies, problems."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from tulle.cli.connection import Connection, connect, mesh_option, namespace_options
from tulle.cli.get import objects, problems_by_object
from tulle.cli.inbound import ports, what, who
from tulle.cli.kinds import Kind, kind_named
from tulle.cli.output import Exit, as_yaml, count, refuse, report
from tulle.cli.routes import action_words, match_words, policy_words
from tulle.cli.written import Spot, Written, place_words, shown_path, spot_of

Lines = Iterator[str]
Raw = Mapping[str, Any]


@click.command()
@click.argument("kind")
@click.argument("name", required=False)
@namespace_options
@mesh_option
def describe(*, kind: str, name: str | None, namespace: str | None, everywhere: bool, mesh: str | None) -> int:
    """Say everything about one object: `describe svc reviews`, `describe pod reviews-v1-0`, `describe vs reviews`."""
    del everywhere
    word, slash, rest = kind.partition("/")
    name = rest if slash else name
    found = kind_named(word)
    if found is None or not name:
        raise click.UsageError("Give a KIND and a NAME: describe svc reviews")
    connection = connect(mesh)
    place = (namespace or connection.default_namespace) if found.is_namespaced else ""
    rows = objects(connection, found, place, name)
    if not rows and found.kind != "Pod":
        refuse(f"{found.word}/{name} was not found{f' in the namespace {place}' if place else ''}")
    describer = _DESCRIBERS.get((found.group, found.kind), _object)
    for line in describer(connection, found, place, name):
        click.echo(line)
    problems = problems_by_object(connection)[found.kind, place, name]
    click.echo(f"Problems: {'none' if not problems else ''}".rstrip())
    report([one._replace(file=shown_path(one.file)) for one in problems], sys.stdout)
    return Exit.OK


# --- services --------------------------------------------------------------------------------------------------------


def _service(connection: Connection, kind: Kind, namespace: str, name: str) -> Lines:
    services = connection.get("/v1/services")["services"]
    found = next((one for one in services if _is_of(one["origin"], kind.kind, namespace, name)), None)
    if found is None:
        refuse(f"{kind.word}/{name} is refused, or not a service", advice=f"tulle get svc {name} -n {namespace}")
    yield f"Service: {found['host']}{_at(spot_of(found['origin']))}"
    yield f"  Addresses: {', '.join(found['addresses']) or found['resolution']}"
    for port in found["ports"]:
        yield f"  Port: {port['number']} {port['name'] or '-'} ({port['protocol']}) to port {port['target']} of the pods"
    pods = _pods_of(connection, namespace, name)
    yield f"Pods: {len(pods)}" if pods else "Pods: none"
    for one in pods:
        yield f"  {_pod_words(one)}"
    yield from _destination_rules(connection, found["host"], namespace, pods)
    yield from _client_side(connection, found["host"])
    yield from _server_side(connection, pods)


def _pods_of(connection: Connection, namespace: str, name: str) -> list[Raw]:
    asked = connection.get("/v1/objects", kind="Service", namespace=namespace, name=name, document="true")["objects"]
    selector = ((asked[0]["document"] or {}).get("spec") or {}).get("selector") if asked else None
    if not selector:
        return []
    workloads = connection.get("/v1/workloads")["workloads"]
    return [one for one in workloads if one["namespace"] == namespace and selector.items() <= one["labels"].items()]


def _pod_words(one: Raw) -> str:
    sidecar = "no sidecar" if not one["hasSidecar"] else "sidecar" if one["isConnected"] else "sidecar not connected"
    return f"{one['name']} {one['address']} {'ready' if one['isReady'] else 'not ready'}, {sidecar}"


def _destination_rules(connection: Connection, host: str, namespace: str, pods: Sequence[Raw]) -> Lines:
    for one in connection.get("/v1/intent")["destinations"]:
        if one["host"] not in (host, host.partition(".")[0]) or one["key"][3] not in (namespace, "istio-system"):
            continue
        yield f"DestinationRule: {one['key'][3]}/{one['key'][4]}{_object_at(connection, one['key'])}"
        for subset in one["subsets"]:
            labels = dict(subset["labels"])
            matching = [pod["name"] for pod in pods if labels.items() <= pod["labels"].items()]
            words = ",".join(f"{key}={value}" for key, value in labels.items())
            yield f"  Subset {subset['name']} ({words}): {', '.join(matching) or 'no pod matches'}"


def _client_side(connection: Connection, host: str) -> Lines:
    """How a client sees the host: the first connected sidecar that knows it."""
    for proxy in connection.get("/v1/proxies")["proxies"]:
        if not proxy["stream"] or proxy["isGateway"]:
            continue
        plan = connection.get("/v1/plan", proxy=proxy["id"], whole="true")
        written = Written(plan["resources"] if plan else ())
        names = [name for name in written.names("VHDS") if name.endswith(f"/{host}")]
        if names:
            yield f"Routes (as {proxy['id']} has them):"
            for name in names:
                yield from _rules_of(written, name)
            return


def _rules_of(written: Written, name: str) -> Lines:
    found = written.explained("VHDS", name)
    for number, rule in enumerate((found or {"plan": {"routes": ()}})["plan"]["routes"], 1):
        spot = written.at(rule["origin"])
        extras = policy_words(written, rule)
        more = f" with {extras}" if extras != "-" else ""
        yield f"  {number}. {match_words(rule['match'])} -> {action_words(rule)}{more}{_at(spot)}"


def _server_side(connection: Connection, pods: Sequence[Raw]) -> Lines:
    connected = [one for one in pods if one["isConnected"] and not one["isGateway"]]
    if not connected:
        yield "mTLS and policies: unknown, no pod of it has a connected sidecar"
        return
    yield from _inbound(connection, connected[0])


def _inbound(connection: Connection, pod: Raw) -> Lines:
    plan = connection.get("/v1/plan", proxy=f"{pod['name']}.{pod['namespace']}")
    written = Written(plan["resources"] if plan else ())
    for port in ports(written):
        name = f"port {port.number} ({port.protocol})" if port.number else "other ports"
        by = f"from {port.mode_from}" if port.mode_from else "nobody says otherwise"
        yield f"mTLS of {name}: {port.mode}, {by}"
        if port.depth:
            yield f"  HTTP from sidecars is {port.depth_words}"
        for action, spot, policy in port.policies:
            yield f"  {action} by AuthorizationPolicy {spot.namespace}/{spot.name}{_at(spot)}"
            for rule in policy.get("rules", ()):
                yield f"    from {who(rule).strip()} to {what(rule).strip()}"
        if any(action == "ALLOW" for action, _, _ in port.policies):
            yield "  DENY for everything else"


# --- pods ------------------------------------------------------------------------------------------------------------


def _pod(connection: Connection, kind: Kind, namespace: str, name: str) -> Lines:
    workloads = connection.get("/v1/workloads")["workloads"]
    found = next((one for one in workloads if (one["namespace"], one["name"]) == (namespace, name)), None)
    if found is None:
        refuse(f"{kind.word}/{name} was not found in the namespace {namespace}")
    yield f"Pod: {found['namespace']}/{_pod_words(found)}"
    yield f"  Labels: {','.join(f'{key}={value}' for key, value in sorted(found['labels'].items())) or 'none'}"
    yield f"  Belongs to: {found['owner'] or '-'}"
    yield f"  Identity: {found['identity'] or 'none: it has no sidecar'}"
    proxies = connection.get("/v1/proxies")["proxies"]
    proxy = next((one for one in proxies if one["id"] == f"{name}.{namespace}" and one["stream"]), None)
    if proxy is not None:
        states = " ".join(f"{name} {state}" for name, state in proxy["types"].items())
        yield f"  Proxy: {states}, revision {proxy['syncedRevision']} of {proxy['targetRevision']}"
    for one in connection.get("/v1/services")["services"]:
        if one["origin"]["kind"] == "Service" and one["namespace"] == namespace:
            pods = _pods_of(connection, namespace, one["origin"]["name"])
            if any(pod["name"] == name for pod in pods):
                listed = ", ".join(
                    f"{port['number']} ({port['protocol']}) to {port['target']}" for port in one["ports"]
                )
                yield f"Service: {one['host']} port {listed}{_at(spot_of(one['origin']))}"
    if found["isConnected"] and not found["isGateway"]:
        yield from _inbound(connection, found)


# --- everything else -------------------------------------------------------------------------------------------------


def _virtual_service(connection: Connection, kind: Kind, namespace: str, name: str) -> Lines:
    for one in connection.get("/v1/intent", namespace=namespace)["routes"]:
        if one["key"][4] == name:
            yield f"VirtualService: {namespace}/{name}{_object_at(connection, one['key'])}"
            yield f"  Hosts: {', '.join(one['hosts'])}"
            yield f"  Gateways: {', '.join(one['gateways']) or 'mesh'}"
            for number, rule in enumerate(one["http"], 1):
                matches = " or ".join(match_words(match) for match in rule["matches"]) or "*"
                yield f"  {number}. {matches} -> {_intended(rule['action'])}"
            for word in ("tls", "tcp"):
                for number, rule in enumerate(one[word], 1):
                    yield f"  {word} {number}. -> {_targets(rule['targets'])}"
            yield from _used_by(connection, namespace, name)
            return
    yield from _object(connection, kind, namespace, name)


def _used_by(connection: Connection, namespace: str, name: str) -> Lines:
    """Proxies that have a route of it."""
    users = []
    asking = 0
    for proxy in connection.get("/v1/proxies")["proxies"]:
        plan = connection.get("/v1/plan", proxy=proxy["id"]) if proxy["stream"] else None
        for one in plan["resources"] if plan else ():
            if one["type"] == "VHDS" and any(_is_of(it, "VirtualService", namespace, name) for it in one["origins"]):
                users.append(proxy["id"])
                break
        else:
            asking += bool(plan) and proxy.get("isOnDemand", False)
    said = [", ".join(users)] if users else []
    if asking:
        said.append(f"{count(asking, 'sidecar')} on demand: as soon as the workload calls")
    yield f"In force at: {'; '.join(said) or 'no connected proxy'}"


def _intended(action: Raw) -> str:
    if action["type"] == "Forward":
        return _targets(action["targets"])
    return f"answer {action['status']}" if action["type"] == "Respond" else f"redirect {action['code']}"


def _targets(targets: Sequence[Raw]) -> str:
    total = sum(one["weight"] for one in targets) or 1
    words = []
    for one in targets:
        share = f" {one['weight'] * 100 / total:g}%" if len(targets) > 1 else ""
        subset = f" subset {one['subset']}" if one["subset"] else ""
        port = f":{one['port']}" if one["port"] else ""
        words.append(f"{one['host']}{port}{subset}{share}")
    return ", ".join(words)


def _object(connection: Connection, kind: Kind, namespace: str, name: str) -> Lines:
    for row in objects(connection, kind, namespace, name):
        yield f"{kind.kind}: {'/'.join(part for part in (namespace, name) if part)} {f'({row.place})' if row.place else ''}".rstrip()
        yield f"  Status: {row.status}"
        spec = row.raw.get("spec")
        if spec:
            yield from (f"  {line}" for line in as_yaml({"spec": spec}).splitlines())


_DESCRIBERS = {
    ("", "Service"): _service,
    ("", "Pod"): _pod,
    ("networking.istio.io", "VirtualService"): _virtual_service,
}


def _is_of(origin: Raw, kind: str, namespace: str, name: str) -> bool:
    return (origin["kind"], origin["namespace"], origin["name"]) == (kind, namespace, name)


def _at(spot: Spot | None) -> str:
    return f" ({spot.place})" if spot and spot.place else ""


def _object_at(connection: Connection, key: Sequence[str]) -> str:
    asked = connection.get("/v1/objects", kind=key[2], namespace=key[3], name=key[4])["objects"]
    place = place_words(shown_path(asked[0]["file"]), asked[0]["line"]) if asked else ""
    return f" ({place})" if place else ""
