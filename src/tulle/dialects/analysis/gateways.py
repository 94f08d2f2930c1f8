"""Whether somebody serves a Gateway, and with which certificate."""

from collections.abc import Iterator

from tulle.dialects.istio.gateway import gateway
from tulle.dialects.kubernetes import EVERYWHERE, secret_digest, workloads_selected
from tulle.engine import Database, query
from tulle.model.intent import Gateway, ServerTls, ServerTlsMode
from tulle.model.keys import Labels, ObjectKey
from tulle.model.problems import Problem, problem

_CERTIFICATES = (("tls.crt", "tls.key"), ("cert", "key"))
_ROOTS = ("ca.crt", "cacert")


@query
def gateway_problems(db: Database, key: ObjectKey) -> tuple[Problem, ...]:
    """No workload for the selector; Secrets that are missing where the workloads are, or that lack an entry."""
    found = gateway(db, key)
    return () if found is None else tuple(_problems(db, found))


def printed(selector: Labels) -> str:
    """A selector as kubectl takes it."""
    return ",".join(f"{name}={value}" for name, value in selector)


def _problems(db: Database, found: Gateway) -> Iterator[Problem]:
    workloads = workloads_selected(db, found.key.cluster, EVERYWHERE, found.selector)
    if not workloads:
        yield problem("TUL0721", found.origin.at("spec", "selector"), selector=printed(found.selector))
        return
    places = sorted({one.namespace for one in workloads})
    for server in found.servers:
        if server.tls is not None and server.tls.credential:
            place = server.origin.at("tls", "credentialName")
            for code, arguments in _credential(db, found.key.cluster, places, server.tls):
                yield problem(code, place, secret=server.tls.credential, **arguments)


def _credential(db: Database, cluster: str, places: list[str], tls: ServerTls) -> Iterator[tuple[str, dict[str, str]]]:
    for place in places:
        held = _entries(db, cluster, place, tls.credential)
        if held is None:
            yield "TUL0722", {"namespaces": place}
            continue
        missing = [] if any(set(pair) <= held for pair in _CERTIFICATES) else ["tls.crt and tls.key"]
        roots = held | (_entries(db, cluster, place, f"{tls.credential}-cacert") or set())
        if tls.mode is ServerTlsMode.MUTUAL and roots.isdisjoint(_ROOTS):
            missing.append("ca.crt")
        if missing:
            yield "TUL0723", {"missing": ", ".join(missing)}


def _entries(db: Database, cluster: str, namespace: str, name: str) -> set[str] | None:
    place, slash, bare = name.rpartition("/")
    if slash and place != namespace:
        return None
    digest = secret_digest(db, ObjectKey(cluster, "", "Secret", namespace, bare))
    return None if digest is None else set(digest.usable)
