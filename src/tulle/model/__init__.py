"""The words of the mesh, as frozen types: what a user wrote, what was meant (intent), what one shape of proxy must do (plan).

Knows no dialect, no Envoy and no I/O. Every value names its cluster and carries the origin of the YAML that made it.
"""
