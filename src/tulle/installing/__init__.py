"""Profile and values to the Kubernetes objects of an installation. Pure; what applies them is in `cli/`, through `kube/`."""
