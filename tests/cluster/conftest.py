"""The fixtures of the harness beside: `cluster`, `start_cluster`."""

from kubelab.fixtures import cluster, start_cluster

__all__ = ["cluster", "start_cluster"]
