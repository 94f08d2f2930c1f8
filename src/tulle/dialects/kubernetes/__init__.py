"""The Kubernetes dialect: core objects as services, workloads and endpoints of the mesh (see README.md)."""
