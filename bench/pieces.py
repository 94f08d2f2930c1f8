"""The plain pair with pieces of tulle's own configuration put into it, one after the other: what each of them costs.

The pieces are what the compiler gave the sidecars of a running mesh, read from their configuration dumps. Cumulative:

    settings   the connection manager's and the router's options
    peer       the header that tells who calls (written by A, read and removed by B), and filters that nothing configured
    metrics    Istio's counters and histograms
    log        the JSON access log, of what fails
    bootstrap  what the process is started with: kept statistics and their tags, overload limits, runtime
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bench.building import CannotMeasureError
from bench.local_mesh import Pod, asked

Json = dict[str, Any]
STEPS = ("settings", "peer", "metrics", "log", "bootstrap")
_MANAGER = "envoy.filters.network.http_connection_manager"
_ROUTER = "envoy.filters.http.router"
_STATS = "envoy.access_loggers.stats"
_OWN = ("stat_prefix", "rds", "route_config", "http_filters", "access_log", "codec_type")
"""What the plain pair keeps of its own."""


_BOOTSTRAP = (
    *("stats_config", "stats_flush_interval", "stats_eviction_interval"),
    *("overload_manager", "layered_runtime"),
)


class Pieces(NamedTuple):
    """What is put in."""

    managers: dict[str, Json]
    """By side, `client` and `server`."""
    headers: list[Json]
    """Added to requests by A."""
    clusters: dict[str, Json]
    endpoint: Json
    """Metadata that metrics are labelled by: of the cluster by side, of the endpoint A chooses."""
    bootstrap: Json
    """Of both sides."""


def taken_from(client: Pod, server: Pod, host: str, port: int) -> Pieces:
    """The pieces of two sidecars that parse. Raises CannotMeasureError."""
    ours, theirs = (_dumped(pod) for pod in (client, server))
    cluster = _named(ours, f"outbound|{port}||{host}")
    listener = _named(ours, f"0.0.0.0_{port}")
    inbound = _named(theirs, "virtualInbound")
    chains = [chain for chain in inbound["filter_chains"] if chain.get("name", "").startswith(f"{port}-mtls-http")]
    table = _named(ours, str(port))
    endpoints = next(found for found in _everything(ours) if found.get("cluster_name") == cluster["name"])
    place = endpoints["endpoints"][0]["lb_endpoints"][0]
    managers = {"client": _manager([listener["default_filter_chain"], *listener.get("filter_chains", ())])}
    managers["server"] = _manager(chains)
    started = next(found["bootstrap"] for found in _everything(ours) if "bootstrap" in found)
    bootstrap = {name: started[name] for name in _BOOTSTRAP if name in started}
    behind = _named(theirs, f"inbound|{port}||")
    clusters = {"client": cluster.get("metadata", {}), "server": behind.get("metadata", {})}
    return Pieces(managers, table.get("request_headers_to_add", []), clusters, place.get("metadata", {}), bootstrap)


def put_in(pieces: Pieces, side: str, step: str, path: Path) -> None:
    """Change a configuration of the plain pair, as file, up to a step."""
    steps = STEPS[: STEPS.index(step) + 1]
    whole = yaml.safe_load(path.read_text())
    resources = whole["static_resources"]
    mine: Json = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    given = pieces.managers[side]
    mine.update({name: value for name, value in given.items() if name not in _OWN})
    filters = given["http_filters"]
    mine["http_filters"] = filters if "peer" in steps else [one for one in filters if one["name"] == _ROUTER]
    if "peer" in steps and side == "client":
        mine["route_config"]["request_headers_to_add"] = pieces.headers
    logs = given.get("access_log", [])
    chosen = [one for one in logs if ("metrics" if one["name"] == _STATS else "log") in steps]
    mine["access_log"] = chosen
    if "metrics" in steps:
        cluster = resources["clusters"][0]
        cluster["metadata"] = pieces.clusters[side]
    if "metrics" in steps and side == "client":
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["metadata"] = pieces.endpoint
    if "bootstrap" in steps:
        whole.update(pieces.bootstrap)
    path.write_text(json.dumps(whole, indent=1))


def _dumped(pod: Pod) -> Json:
    return dict(json.loads(asked(pod.admin, "/config_dump?include_eds")))


def _everything(found: Any) -> Iterator[Json]:
    if isinstance(found, dict):
        yield found
        for value in found.values():
            yield from _everything(value)
    elif isinstance(found, list):
        for value in found:
            yield from _everything(value)


def _named(dump: Json, name: str) -> Json:
    for found in _everything(dump):
        if found.get("name") == name and "@type" in found:
            return found
    raise CannotMeasureError(f"the sidecar has no {name}")


def _manager(chains: list[Json]) -> Json:
    for found in _everything(chains):
        if found.get("name") == _MANAGER:
            return dict(found["typed_config"])
    raise CannotMeasureError("the sidecar parses no HTTP there")
