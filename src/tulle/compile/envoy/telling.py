"""What a proxy tells of its workload, as the environment that its plan's formatters read.

The same variables on one machine and in a cluster, so that a plan's bytes name no workload. Which labels, logs and headers
they end in is `observing`; this file is apart from it because a supervisor has no use for the schema.
"""

from collections.abc import Mapping

from tulle.dialects.canonical import canonical_revision, canonical_service


def environment(labels: Mapping[str, str], owner: str, namespace: str, cluster: str, principal: str) -> dict[str, str]:
    """Values of metrics, logs and the peer header. `owner`: name of the Deployment, StatefulSet, Job or bare pod."""
    return {
        "TULLE_WORKLOAD": owner,
        "TULLE_NAMESPACE": namespace,
        "TULLE_APP": labels.get("app", labels.get("app.kubernetes.io/name", "unknown")),
        "TULLE_VERSION": labels.get("version", labels.get("app.kubernetes.io/version", "unknown")),
        "TULLE_CANONICAL": canonical_service(labels, owner),
        "TULLE_REVISION": canonical_revision(labels),
        "TULLE_CLUSTER": cluster,
        "TULLE_PRINCIPAL": principal,
    }
