"""A real Kubernetes on this machine, without Docker, for tests: `python -m kubelab` and the fixture `cluster`.

Processes are the real ones, from the project's own build (`../go`) and Debian's containerd and runc; nodes are
namespaces. It knows nothing of what a mesh is; the images it can make of this checkout are in `images`.
"""
