"""The control plane, with a defect put in on purpose: a virtual host with a timeout of 13 s claims one domain twice.

Envoy refuses that (docs/facts/envoy.md §1.6). `python spoiling_control.py ARGS...` is `python -m tulle.app.control ARGS...`.
"""

import sys

from tulle.app.control import main
from tulle.serve.shelves import Shown
from tulle.xds import schema
from tulle.xds.names import TypeUrl
from tulle.xds.resource import Resource

_refresh = Shown.refresh


def _spoiled(resource: Resource) -> Resource:
    host = schema.from_any(resource.body)
    if any(route.route.timeout.seconds == 13 for route in host.routes):
        host.domains.append(host.domains[0])
        return Resource.of(host, resource.name)
    return resource


def refresh(self: Shown) -> bool:
    changed = _refresh(self)
    if self.types is not None:
        hosts = {name: _spoiled(resource) for name, resource in self.types[TypeUrl.VHDS].items()}
        self.types = {**self.types, TypeUrl.VHDS: hosts}
    return changed


Shown.refresh = refresh  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.exit(main())
