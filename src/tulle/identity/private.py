"""Bytes that do not show themselves: private keys and passphrases on their way from the CA to a send buffer.

Printing, formatting, pickling and serialising them gives nothing; only `reveal` does, so that its callers can be counted.
"""

import hmac
from typing import NoReturn, Self


class PrivateBytes:
    """Immutable secret bytes; equal by content, shown by length only."""

    __slots__ = ("__bytes",)

    def __init__(self, secret: bytes) -> None:
        self.__bytes = bytes(secret)

    def reveal(self) -> bytes:
        """The secret itself. Call it where the bytes leave the process, nowhere else."""
        return self.__bytes

    def __repr__(self) -> str:
        return f"<private: {len(self.__bytes)} bytes>"

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __bool__(self) -> bool:
        return bool(self.__bytes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PrivateBytes):
            return NotImplemented
        return hmac.compare_digest(self.__bytes, other.__bytes)

    def __hash__(self) -> int:
        return hash(self.__bytes)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("private bytes are not pickled")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("private bytes are not pickled")

    def __getstate__(self) -> NoReturn:
        raise TypeError("private bytes are not pickled")
