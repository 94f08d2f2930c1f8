"""What a client says about itself, in Istio's words, and the view that this alone earns. Pure.

A claim grants nothing: secrets need a proven identity, and a proven identity's view comes from its pod. This page is for
plaintext listeners, and for telling which of an identity's pods is calling.
Source: Istio's node identification, `role~ip~id~domain` and the metadata NAMESPACE, LABELS, CLUSTER_ID.
"""

from msgspec import Struct

from tulle.compile.inbound import policies_on
from tulle.compile.scope import label_keys_in_use
from tulle.compile.views import GatewayView, OutboundView, View, selector_keys, view_of, whole_view_of
from tulle.dialects.inputs import settings
from tulle.dialects.kubernetes.discovery import ON_DEMAND, said_in
from tulle.engine import Database, query
from tulle.model.keys import Labels, WorkloadKey
from tulle.xds.wire import ClientNode

_MAX_TEXT = 253
_MAX_LABELS = 256


class Claim(Struct, frozen=True):
    """A client's word on itself."""

    role: str
    """`sidecar`, `router`, or what else it said."""
    address: str
    name: str
    namespace: str
    """Empty: it did not say."""
    labels: Labels = ()
    cluster: str = ""
    can_ask: bool = True
    """See `ads.Guest`."""

    @property
    def is_gateway(self) -> bool:
        """Istio calls its gateways routers."""
        return self.role == "router"


def claim_of(node: ClientNode | None, *, can_ask: bool = True) -> Claim:
    """The claim of a first request. Never fails: what is missing or too long is empty."""
    if node is None:
        return Claim("", "", "", "", can_ask=can_ask)
    role, address, workload, *_ = [*node.id.split("~"), "", "", ""] if "~" in node.id else ["", "", node.id, ""]
    name, _, namespace = workload.rpartition(".") if "." in workload else (workload, "", "")
    said = node.metadata.get("NAMESPACE")
    labels = node.metadata.get("LABELS")
    pairs = labels.items() if isinstance(labels, dict) else ()
    return Claim(
        _text(role),
        _text(address),
        _text(name),
        _text(said) or _text(namespace),
        tuple(sorted((_text(key), _text(value)) for key, value in list(pairs)[:_MAX_LABELS] if _text(key))),
        _text(node.metadata.get("CLUSTER_ID")),
        can_ask,
    )


@query
def claimed_view(db: Database, claim: Claim) -> View:
    """The view of a client that proves nothing: its workload's if that is known, else what its namespace and labels see."""
    cluster = claim.cluster or settings(db).cluster
    namespace = claim.namespace or "default"
    if claim.name:
        look = view_of if claim.can_ask else whole_view_of
        known = look(db, WorkloadKey(cluster, namespace, claim.name))
        if known is not None:
            return known
    labels = _kept(claim.labels, label_keys_in_use(db, cluster))
    word = said_in(db, cluster, namespace) or settings(db).discovery
    is_on_demand = claim.can_ask and not claim.is_gateway and word == ON_DEMAND
    outbound = OutboundView(cluster, namespace, labels, is_gateway=claim.is_gateway, is_on_demand=is_on_demand)
    if claim.is_gateway:
        chosen_by = _kept(claim.labels, selector_keys(db, cluster))
        policies = policies_on(db, cluster, namespace, claim.labels)
        return View(outbound, gateway=GatewayView(cluster, namespace, chosen_by, (), policies))
    return View(outbound)


def _kept(labels: Labels, keys: frozenset[str]) -> Labels:
    return tuple(pair for pair in labels if pair[0] in keys)


def _text(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= _MAX_TEXT else ""
