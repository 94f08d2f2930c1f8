"""The few questions that start-up asks the API, over one HTTPS connection each; everything else goes through kubectl."""

import http.client
import json
import ssl
from typing import Any
from urllib.parse import urlsplit

from .layout import Layout

LIMIT_S = 3.0


class Api:
    """The administrator's view."""

    def __init__(self, layout: Layout) -> None:
        place = urlsplit(layout.api)
        self.host, self.port = place.hostname or "", place.port or 0
        self.context = ssl.create_default_context(cafile=str(layout.keys / "ca.crt"))
        self.context.load_cert_chain(layout.keys / "admin.crt", layout.keys / "admin.key")

    def get(self, path: str) -> str | None:
        """The body, or None when nobody answers or the answer is not 200."""
        connection = http.client.HTTPSConnection(self.host, self.port, timeout=LIMIT_S, context=self.context)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            text = response.read().decode()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        return text if response.status == 200 else None

    def _objects(self, path: str) -> list[dict[str, Any]]:
        text = self.get(path)
        return [] if text is None else list(json.loads(text)["items"])

    def ready_nodes(self) -> int:
        """How many may take pods."""
        return sum(
            any(one["type"] == "Ready" and one["status"] == "True" for one in node["status"].get("conditions", []))
            for node in self._objects("/api/v1/nodes")
        )

    def serves_names(self) -> bool:
        """CoreDNS has a ready endpoint, and pods may be made in the namespace default."""
        slices = self._objects("/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices")
        endpoints = [end for one in slices for end in one.get("endpoints") or []]
        is_ready = any(end["conditions"].get("ready") for end in endpoints)
        return is_ready and self.get("/api/v1/namespaces/default/serviceaccounts/default") is not None
