"""The CA's roots in a Secret of the cluster: brought into the state directory at start, stored again whenever they moved.

Replicas agree by the API's own compare-and-swap: who stores with an old resource version is refused and brings what is there. Knows
files and bytes; what roots mean is `identity.store`'s. See decisions/0013.
"""

import base64
from http import HTTPStatus
from pathlib import Path

import msgspec
from msgspec import Struct

from tulle.app.cluster.duties import OURS
from tulle.identity.disk import Disk, own_directory, read_private
from tulle.installing.naming import AUTHORITY
from tulle.kube.access import Access
from tulle.kube.errors import Refused

_TYPE = "tulle.dev/ca"
_SUFFIXES = (".json", ".crt", ".key")


class _Meta(Struct, rename="camel"):
    resource_version: str = ""


class _Secret(Struct):
    metadata: _Meta
    data: dict[str, str] = {}


class CaSecret:
    """One Secret and the directory that `RootStore` opens. Only one of them is used at a time: close the store before `lay`."""

    def __init__(self, access: Access, namespace: str, directory: Path) -> None:
        self._access = access
        self._namespace = namespace
        self._directory = directory
        self._disk = Disk()
        self._version = ""
        """The resource version that the directory is a copy of; empty before there was one."""

    @property
    def is_kept(self) -> bool:
        """Whether there was a Secret when we looked last."""
        return bool(self._version)

    async def newer(self) -> _Secret | None:
        """The Secret, if it is another than the directory is a copy of. Raises Refused and Unreachable."""
        body = await self._access.read(self._path(AUTHORITY))
        if body is None:
            self._version = ""
            return None
        found = msgspec.json.decode(body, type=_Secret)
        return found if found.metadata.resource_version != self._version else None

    def lay(self, found: _Secret) -> None:
        """Make the directory a copy of the Secret. Raises TUL0504, TUL0518, TUL0519."""
        own_directory(self._directory)
        wanted = {name: base64.b64decode(text) for name, text in found.data.items() if _is_ours(name)}
        # The index last, as the store itself does: what it does not name does not exist.
        for name in sorted(wanted, key=lambda one: one.endswith(".json")):
            self._disk.write(self._directory / name, wanted[name])
        for path in self._directory.iterdir():
            if _is_ours(path.name) and path.name not in wanted:
                self._disk.remove(path)
        self._version = found.metadata.resource_version

    async def store(self) -> bool:
        """Store the directory; False where another replica was first. Raises Refused and Unreachable."""
        held = {
            path.name: base64.b64encode(read_private(path)).decode()
            for path in sorted(self._directory.iterdir())
            if _is_ours(path.name)
        }
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": _TYPE,
            "metadata": {
                "name": AUTHORITY,
                "namespace": self._namespace,
                "labels": OURS,
                **({"resourceVersion": self._version} if self._version else {}),
            },
            "data": held,
        }
        verb, path = ("PUT", self._path(AUTHORITY)) if self._version else ("POST", self._path())
        try:
            answer = await self._access.send(verb, path, body=msgspec.json.encode(secret))
        except Refused as refused:
            if refused.status in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND):
                return False
            raise
        self._version = msgspec.json.decode(answer.body, type=_Secret).metadata.resource_version
        return True

    def _path(self, name: str = "") -> str:
        path = f"/api/v1/namespaces/{self._namespace}/secrets"
        return f"{path}/{name}" if name else path


def _is_ours(name: str) -> bool:
    return name.endswith(_SUFFIXES) and "/" not in name and not name.startswith(".")
