"""DestinationRules to destinations. One query per object.

Knows no service and no route. Merging of several rules for one host, and inheritance of subsets, are the compiler's.
"""

from tulle.dialects.inputs import by_namespace, objects, settings
from tulle.dialects.istio import schema_destination_rule as written
from tulle.dialects.istio.destination_policies import destination_policies
from tulle.dialects.istio.names import full_host, visible_in
from tulle.engine import Database, query
from tulle.model.intent import ClientTls, Destination, Subset, TlsMode, TrafficPolicy
from tulle.model.keys import ObjectKey, labels_of
from tulle.model.origin import Origin

KIND = "DestinationRule"
GROUP = "networking.istio.io"
Written = written.TrafficPolicy | written.PortPolicy


@query
def destinations_in(db: Database, cluster: str, namespace: str) -> tuple[Destination, ...]:
    """The destinations of a namespace, oldest first (by creation, then name)."""
    keys = by_namespace(db, (cluster, KIND, namespace))
    found = [one for key in keys if key.group == GROUP and (one := destination(db, key)) is not None]
    return tuple(sorted(found, key=lambda one: (one.created, one.key.name)))


@query
def destination(db: Database, key: ObjectKey) -> Destination | None:
    """One DestinationRule's meaning; None where there is no such object."""
    found = objects(db, key)
    if found is None:
        return None
    spec: written.DestinationRule = found.spec
    origin = Origin(key, "spec")
    return Destination(
        key=key,
        host=full_host(spec.host, key.namespace, settings(db).cluster_domain),
        exported_to=visible_in(spec.export_to, key.namespace),
        selector=labels_of(spec.workload_selector.match_labels) if spec.workload_selector else (),
        policy=traffic_policy(spec.traffic_policy, origin.at("trafficPolicy")) or TrafficPolicy(),
        subsets=tuple(
            Subset(
                name=subset.name,
                labels=labels_of(subset.labels),
                policy=traffic_policy(subset.traffic_policy, origin.at("subsets", index, "trafficPolicy")),
                origin=origin.at("subsets", index),
            )
            for index, subset in enumerate(spec.subsets)
        ),
        origin=Origin(key),
        created=found.created,
    )


def traffic_policy(policy: written.TrafficPolicy | None, origin: Origin) -> TrafficPolicy | None:
    """None where nothing was written, which a subset inherits; settings for a port stand for themselves."""
    if policy is None:
        return None
    ports = tuple(
        (setting.port.number, _policy(setting, origin.at("portLevelSettings", index)))
        for index, setting in enumerate(policy.port_level_settings)
        if setting.port is not None
    )
    whole = _policy(policy, origin)
    return TrafficPolicy(whole.policies, whole.tls, ports)


def _policy(policy: Written, origin: Origin) -> TrafficPolicy:
    return TrafficPolicy(destination_policies(policy, origin), _tls(policy.tls, origin.at("tls")))


def _tls(tls: written.ClientTls | None, origin: Origin) -> ClientTls | None:
    if tls is None:
        return None
    return ClientTls(
        mode=TlsMode(tls.mode),
        sni=tls.sni,
        subject_alt_names=tls.subject_alt_names,
        insecure_skip_verify=bool(tls.insecure_skip_verify),
        origin=origin,
    )
