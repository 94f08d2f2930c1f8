"""Which ConfigMaps a source has to read for the dialect: those that are named, and no other. A cluster has too many to follow all."""

from collections.abc import Iterable, Iterator

from tulle.dialects.gateway_api.backend_tls import KIND, gateways_of
from tulle.dialects.gateway_api.bundles import CONFIG_MAP, place_of
from tulle.dialects.gateway_api.gateway_classes import our_gateway, our_gateways
from tulle.dialects.gateway_api.grants import is_granted
from tulle.dialects.gateway_api.listeners import frontend_validation, gateway_listeners
from tulle.dialects.gateway_api.schema import GROUP, CaRef
from tulle.dialects.inputs import by_kind, objects
from tulle.engine import Database, query
from tulle.model.keys import ObjectKey

Place = tuple[str, str]
"""(namespace, name)."""


@query
def named_config_maps(db: Database, cluster: str) -> frozenset[Place]:
    """ConfigMaps that Gateways of ours, or policies for their backends, name and may, whether or not they are there."""
    return frozenset((*_of_policies(db, cluster), *_of_gateways(db, cluster)))


def _of_policies(db: Database, cluster: str) -> Iterator[Place]:
    for key in by_kind(db, (cluster, KIND)):
        found = objects(db, key)
        if key.group == GROUP and found is not None and gateways_of(db, key):
            yield from _places(db, key, found.spec.validation.ca_certificate_refs)


def _of_gateways(db: Database, cluster: str) -> Iterator[Place]:
    for key in our_gateways(db, cluster):
        found = our_gateway(db, key)
        if found is None:
            continue
        for listener in gateway_listeners(db, key):
            proof = frontend_validation(found, listener.written)
            yield from _places(db, key, proof.ca_certificate_refs if proof else ())
        ref = found.infrastructure.parameters_ref
        if ref is not None and (ref.group, ref.kind) == CONFIG_MAP:
            yield key.namespace, ref.name


def _places(db: Database, holder: ObjectKey, refs: Iterable[CaRef]) -> Iterator[Place]:
    for ref in refs:
        target = place_of(holder, ref)
        if (ref.group, ref.kind) == CONFIG_MAP and is_granted(db, holder, target):
            yield target.namespace, target.name
