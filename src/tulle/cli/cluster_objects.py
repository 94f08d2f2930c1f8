"""What a cluster holds of the kinds the mesh reads, decoded here: what `tulle analyze` looks at files together with.

Read with the user's rights and never written anywhere: Secrets are among it, as digests.
"""

from __future__ import annotations

from functools import partial

from tulle.cli.cluster_connection import ClusterConnection
from tulle.cli.output import say
from tulle.cli.reaching import Cluster, Json, together
from tulle.dialects.reading import KINDS_READ, read
from tulle.kube.discovery import Resource
from tulle.kube.errors import Refused
from tulle.model.keys import ObjectKey
from tulle.model.objects import Object


def objects_of(connection: ClusterConnection) -> dict[ObjectKey, Object]:
    """Every object that the user may read; kinds that may not be read are named on stderr."""
    raws, denied = connection.api(_listed(connection))
    if denied:
        say(f"not looked at, because you may not list them: {', '.join(sorted(denied))}")
    found = {}
    for raw in raws:
        decoded = read(raw)
        if decoded.object is not None and decoded.key is not None:
            found[decoded.key] = decoded.object
    return found


async def _listed(connection: ClusterConnection) -> tuple[list[Json], list[str]]:
    cluster = Cluster(connection.access)
    await cluster.look()
    served = [cluster.table[kind][0] for kind in KINDS_READ if cluster.table.get(kind)]

    async def one(resource: Resource) -> list[Json] | str:
        try:
            return await cluster.listed(resource)
        except Refused as refused:
            if not refused.is_denied:
                raise
            return resource.kind

    answers = await together([partial(one, resource) for resource in served])
    raws = [raw for answer in answers if not isinstance(answer, str) for raw in answer]
    return raws, [answer for answer in answers if isinstance(answer, str)]
