"""Secrets: what the engine may know of one (names and a digest), and the bytes for the vault, which print as nothing.

Key material must not enter a memo, a dump, a log or an error: `secret_digest` is all the engine ever holds, and
`SecretMaterial` is handed by a source straight to serving's vault. Knows neither of them.
Source: Kubernetes API reference, Secret v1 (`data` is base64, `stringData` wins over it).
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Any, NoReturn

from tulle.dialects.kubernetes.key_pairs import unusable
from tulle.dialects.kubernetes.schema import SecretDigest


class SecretUnreadableError(ValueError):
    """A Secret that is not one. Names the entry, never what is in it."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        """Dotted path of the field at fault, such as `data.tls.crt`."""
        self.reason = reason
        super().__init__(f"{path}: {reason}")


class SecretMaterial:
    """The decoded entries of one Secret. Prints its names only, and cannot be pickled or copied into a dump."""

    __slots__ = ("_entries", "type")

    def __init__(self, secret_type: str, entries: Mapping[str, bytes]) -> None:
        self.type = secret_type
        """Such as `kubernetes.io/tls`."""
        self._entries = dict(entries)

    def entry(self, name: str) -> bytes | None:
        """The bytes of one entry, None if there is none of that name."""
        return self._entries.get(name)

    @property
    def keys(self) -> tuple[str, ...]:
        """Sorted names of the entries."""
        return tuple(sorted(self._entries))

    @property
    def digest(self) -> str:
        """Hex SHA-256 over type, names and bytes; the join between the graph's digest and the vault's bytes."""
        total = hashlib.sha256(self.type.encode())
        for name in self.keys:
            for part in (name.encode(), self._entries[name]):
                total.update(len(part).to_bytes(8, "big"))
                total.update(part)
        return total.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretMaterial) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"SecretMaterial(type={self.type!r}, keys={self.keys!r}, redacted)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("secret material does not leave the process")


def secret_material(raw: Mapping[str, Any]) -> SecretMaterial:
    """The bytes of a Secret as parsed from YAML or JSON, for the vault. Raises `SecretUnreadableError`."""
    entries: dict[str, bytes] = {}
    for part in ("data", "stringData"):
        written = raw.get(part) or {}
        if not isinstance(written, Mapping):
            raise SecretUnreadableError(part, "not an object")
        for name, value in written.items():
            entries[str(name)] = _content(value, f"{part}.{name}", is_encoded=part == "data")
    kind = raw.get("type") or "Opaque"
    if not isinstance(kind, str):
        raise SecretUnreadableError("type", "not text")
    return SecretMaterial(kind, entries)


def secret_digest(raw: Mapping[str, Any]) -> SecretDigest:
    """What the engine holds of a Secret. Raises `SecretUnreadableError`."""
    return digest_of(secret_material(raw))


def digest_of(material: SecretMaterial) -> SecretDigest:
    """The same of decoded entries."""
    names = tuple(sorted(unusable(material)))
    return SecretDigest(type=material.type, keys=material.keys, digest=material.digest, unusable=names)


def _content(value: Any, path: str, *, is_encoded: bool) -> bytes:
    if value is None:
        return b""
    if not isinstance(value, str):
        raise SecretUnreadableError(path, "not text")
    if not is_encoded:
        return value.encode()
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        raise SecretUnreadableError(path, "not base64") from None  # the cause would quote the bytes
