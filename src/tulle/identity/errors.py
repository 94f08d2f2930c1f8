"""What goes wrong with identities, one class per code of the catalogue (`TUL05xx`).

No I/O and no sentences: texts and advice are in the catalogue. The arguments never hold key material or passphrases.
"""

# ruff: noqa: N818 -- the classes are named like their entries in the catalogue.

from typing import ClassVar

from tulle.model.problems import NOWHERE, Problem, problem


class IdentityError(Exception):
    """Any coded problem of this room; `arguments` fill the places of its catalogue text."""

    code: ClassVar[str]
    places: ClassVar[tuple[str, ...]]
    """Names of the arguments its text needs."""

    def __init__(self, **arguments: object) -> None:
        if set(arguments) != set(self.places):
            raise TypeError(f"{type(self).__name__} needs {self.places}, got {tuple(arguments)}")
        self.arguments = {name: str(value) for name, value in arguments.items()}
        super().__init__(f"{self.code} " + ", ".join(f"{name}: {value}" for name, value in self.arguments.items()))

    def problem(self) -> Problem:
        """The same as a value, for status and the command line."""
        return problem(self.code, NOWHERE, **self.arguments)


class InvalidSpiffeId(IdentityError):
    """A name that is no SPIFFE ID of the mesh's shape."""

    code = "TUL0501"
    places = ("text", "reason")


class InvalidTrustDomain(IdentityError):
    """A trust domain with characters SPIFFE does not allow."""

    code = "TUL0502"
    places = ("text",)


class KeyOpenToOthers(IdentityError):
    """A private key or passphrase file that other users may read or write."""

    code = "TUL0503"
    places = ("path", "mode")


class DirectoryOpenToOthers(IdentityError):
    """The directory of the keys is open to other users."""

    code = "TUL0504"
    places = ("path", "mode")


class StateDamaged(IdentityError):
    """Files of the CA that do not belong together or cannot be read."""

    code = "TUL0505"
    places = ("path", "reason")


class StateTooNew(IdentityError):
    """Written by a newer tulle."""

    code = "TUL0506"
    places = ("path", "found", "known")


class TrustDomainChanged(IdentityError):
    """The stored roots are of another trust domain."""

    code = "TUL0507"
    places = ("path", "found", "wanted")


class PassphraseMissing(IdentityError):
    """The stored key is encrypted and no passphrase was given, or the given one is empty."""

    code = "TUL0508"
    places = ("path",)


class PassphraseWrong(IdentityError):
    """The stored key does not open with the passphrase."""

    code = "TUL0509"
    places = ("path",)


class CaFileMissing(IdentityError):
    """A plug-in CA directory lacks a file."""

    code = "TUL0510"
    places = ("path",)


class CaFileRefused(IdentityError):
    """A plug-in CA whose files do not make a working CA."""

    code = "TUL0511"
    places = ("path", "reason")


class RotationNotOurs(IdentityError):
    """The root of a plug-in CA is its owner's to rotate."""

    code = "TUL0512"
    places = ()


class RotationUnderWay(IdentityError):
    """A rotation was asked for during another one."""

    code = "TUL0513"
    places = ("phase",)


class CsrRefused(IdentityError):
    """A certificate signing request that does not prove possession of an acceptable key."""

    code = "TUL0514"
    places = ("reason",)


class SignerExpired(IdentityError):
    """The CA certificate is outside its validity: nothing it signs would be accepted."""

    code = "TUL0515"
    places = ("fingerprint", "not_before", "not_after")


class LifetimeOutOfRange(IdentityError):
    """A certificate lifetime too short to use or too long to be safe."""

    code = "TUL0516"
    places = ("asked", "least", "most")


class StateInUse(IdentityError):
    """Another control plane has this directory open."""

    code = "TUL0517"
    places = ("path",)


class ForeignOwner(IdentityError):
    """A key file or its directory belongs to another user."""

    code = "TUL0518"
    places = ("path", "owner")


class StateUnwritable(IdentityError):
    """The operating system refused to read or write a file of the CA."""

    code = "TUL0519"
    places = ("path", "reason")
