"""Kinds of Kubernetes' own that several rooms read or write, as every API serves them."""

from typing import Final

from tulle.kube.discovery import Resource

CONFIG_MAPS: Final = Resource("", "v1", "configmaps", "ConfigMap")
