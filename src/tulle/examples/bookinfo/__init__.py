"""Bookinfo, the application every mesh is tried with: five small services, a load bot and a stranger.

Each module with a `main` is one process. It knows its own port, the plain names of its neighbours and nothing of a
mesh: identity, encryption, routing and permission all happen in the sidecars around it.
"""
