"""Route sets and gateways, whichever dialect declares them: what the compiler asks. Knows dialects by their groups only."""

from tulle.dialects.gateway_api import gateways as standard_gateways
from tulle.dialects.gateway_api import route_sets as standard
from tulle.dialects.gateway_api.backend_tls import backend_tls
from tulle.dialects.gateway_api.schema import GROUP
from tulle.dialects.istio import gateway as istio_gateways
from tulle.dialects.istio import virtual_service as istio
from tulle.engine import Database, query
from tulle.model.intent import ClientTls, Gateway, RouteSet, Service, ServicePort
from tulle.model.keys import ObjectKey


def route_set(db: Database, key: ObjectKey) -> RouteSet | None:
    """One object's route set; None where there is no such object, or it has no effect."""
    return standard.route_set(db, key) if key.group == GROUP else istio.route_set(db, key)


def route_sets_in(db: Database, cluster: str, namespace: str) -> tuple[RouteSet, ...]:
    """The route sets of a namespace: Istio's, then the Gateway API's, each oldest first."""
    return (*istio.route_sets_in(db, cluster, namespace), *standard.route_sets_in(db, cluster, namespace))


@query
def is_called_by_grpc(db: Database, cluster: str, host: str, port: int) -> bool:
    """Whether a route of gRPC leads to a port, which then speaks HTTP/2 whatever it declares. Cuts off other routes."""
    return (host, port) in standard.called_by_grpc(db, cluster)


def demanded_tls(db: Database, found: Service, port: ServicePort) -> ClientTls | None:
    """TLS that gateways owe a port of a Kubernetes Service by a policy of its own; None: nobody demands any."""
    if not found.is_kubernetes:
        return None
    name = found.key.host.partition(".")[0]
    return backend_tls(db, (found.key.cluster, found.key.namespace, name), port.name)


def gateways(db: Database, cluster: str) -> tuple[Gateway, ...]:
    """All gateways of a cluster."""
    return (*istio_gateways.gateways(db, cluster), *standard_gateways.gateways(db, cluster))
