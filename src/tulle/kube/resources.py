"""Kinds of Kubernetes' own that several rooms read or write, as every API serves them."""

from typing import Final

from tulle.kube.discovery import Resource

CONFIG_MAPS: Final = Resource("", "v1", "configmaps", "ConfigMap")
DEPLOYMENTS: Final = Resource("apps", "v1", "deployments", "Deployment")
NAMESPACES: Final = Resource("", "v1", "namespaces", "Namespace", is_namespaced=False)
PODS: Final = Resource("", "v1", "pods", "Pod")
