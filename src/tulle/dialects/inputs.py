"""The inputs of the engine: decoded objects and the mesh's settings. Sources write them, dialects read them."""

from tulle.engine import Input, Singleton
from tulle.model.keys import ObjectKey
from tulle.model.objects import MeshSettings, Object

objects = Input[ObjectKey, Object]("objects")

by_kind = objects.index("by_kind", lambda key, _: ((key.cluster, key.kind),))
"""(cluster, kind) -> keys: for kinds that are few (Gateway) or cluster-scoped."""

by_namespace = objects.index("by_namespace", lambda key, _: ((key.cluster, key.kind, key.namespace),))
"""(cluster, kind, namespace) -> keys."""

settings = Singleton[MeshSettings]("settings", MeshSettings())
