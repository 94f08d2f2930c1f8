"""What a proxy tells of its workload, as the environment that its plan's formatters read.

The same variable on one machine and in a cluster, so that a plan's bytes name no workload. Which metrics and headers it
ends in is `observing`, what they make of it `series`; this file is apart from both because a supervisor has no use for the schema.
"""

from collections.abc import Mapping
from typing import Final

from tulle.compile.envoy import series
from tulle.dialects.canonical import canonical_revision, canonical_service

VARIABLE: Final = "TULLE_PEER"


def environment(labels: Mapping[str, str], owner: str, namespace: str, cluster: str, principal: str) -> dict[str, str]:
    """The value of metrics and of the peer header. `owner`: name of the Deployment, StatefulSet, Job or bare pod."""
    told = {
        "workload": owner,
        "namespace": namespace,
        "app": labels.get("app", labels.get("app.kubernetes.io/name", "")),
        "version": labels.get("version", labels.get("app.kubernetes.io/version", "")),
        "canonical": canonical_service(labels, owner),
        "revision": canonical_revision(labels),
        "cluster": cluster,
    }
    return {VARIABLE: f"{principal};{series.told(told)}"}
