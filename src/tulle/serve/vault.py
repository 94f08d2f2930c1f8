"""Secret bytes by name, joined to xDS resources at send time for one proven identity. Prints as nothing.

Knows who may have what: a leaf and the bundle for every proven workload, a gateway's certificates for a gateway workload of
the Secret's own namespace. Knows no stream and no engine: the graph holds digests, this holds bytes, nothing holds both.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Protocol

from msgspec import Struct

from tulle.identity.authority import Bundle, Leaf
from tulle.xds import api, schema
from tulle.xds.names import ResourceName
from tulle.xds.resource import SecretBytes, SecretRef

LEAF = ResourceName("default")
ROOTS = ResourceName("ROOTCA")
_SCHEME = "kubernetes://"
_CA_SUFFIX = "-cacert"
_CERTIFICATE_ENTRIES = (("tls.crt", "tls.key"), ("cert", "key"))
"""kubernetes.io/tls, and Istio's generic secrets."""
_CA_ENTRIES = ("ca.crt", "cacert")


class Material(Protocol):
    """Decoded entries of a Secret object; redacts itself."""

    @property
    def digest(self) -> str:
        """Changes exactly when the bytes do."""

    def entry(self, name: str) -> bytes | None:
        """The bytes of one entry."""


class Entitled(Struct, frozen=True):
    """Whose secrets: the proven identity of one proxy."""

    holder: str
    """The pod's uid: whose leaf."""
    namespace: str
    is_gateway: bool


class Vault:
    """Leafs by holder, one bundle, Secret objects by namespace and name. Nothing here survives the process."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str], Material] = {}
        self._leafs: dict[str, Leaf] = {}
        self._granted: dict[str, frozenset[str]] = {}
        """By holder: names of other namespaces' secrets that its configuration was let refer to (ReferenceGrant)."""
        self._bundle = Bundle(())
        self._bundle_version = _version_of(self._bundle)

    def __repr__(self) -> str:
        return f"Vault({len(self._objects)} secrets, {len(self._leafs)} leafs, redacted)"

    # --- what comes in -----------------------------------------------------------------------------------------------

    def put(self, namespace: str, name: str, material: Material) -> None:
        """A Secret object, new or replaced."""
        self._objects[namespace, name] = material

    def drop(self, namespace: str, name: str) -> None:
        """A Secret object is gone; nothing if there was none."""
        self._objects.pop((namespace, name), None)

    def put_leaf(self, holder: str, leaf: Leaf) -> None:
        """The newest leaf of a holder."""
        self._leafs[holder] = leaf

    def drop_leaf(self, holder: str) -> None:
        """The holder is gone."""
        self._leafs.pop(holder, None)
        self._granted.pop(holder, None)

    def put_bundle(self, bundle: Bundle) -> None:
        """What everybody shall trust now."""
        self._bundle = bundle
        self._bundle_version = _version_of(bundle)

    # --- what goes out -----------------------------------------------------------------------------------------------

    @property
    def bundle_version(self) -> str:
        """The version under which ROOTCA is served now."""
        return self._bundle_version

    def shelf(
        self, who: Entitled, names: Iterable[str], granted: Iterable[str] = ()
    ) -> Mapping[ResourceName, SecretRef]:
        """References to everything `who` may have: the leaf, the bundle, and those of `names` that exist and are allowed.

        A gateway may have its own namespace's; `granted` are further ones, as the compiler says, until it is asked again.
        """
        allowed = frozenset(granted)
        if allowed:
            self._granted[who.holder] = allowed
        else:
            self._granted.pop(who.holder, None)
        found: dict[ResourceName, SecretRef] = {}
        leaf = self._leafs.get(who.holder)
        if leaf is not None:
            found[LEAF] = SecretRef(LEAF, leaf.serial)
        if self._bundle.roots:
            found[ROOTS] = SecretRef(ROOTS, self.bundle_version)
        for name in names:
            material = self._object(who, name)
            if material is not None and _object_secret(name, material) is not None:
                found[ResourceName(name)] = SecretRef(ResourceName(name), _digest(f"{name}|{material.digest}"))
        return found

    def reader(self, who: Entitled) -> SecretBytes:
        """Joins a reference to bytes for this identity only: the one way out, checked again at every call."""

        def read(ref: SecretRef) -> bytes | None:
            secret = self._secret(who, ref.name)
            return None if secret is None else schema.to_any_bytes(secret)

        return read

    def _secret(self, who: Entitled, name: str) -> "api.Secret | None":
        if name == LEAF:
            leaf = self._leafs.get(who.holder)
            return None if leaf is None else _key_pair(name, leaf.chain_pem, leaf.key_pem.reveal())
        if name == ROOTS:
            return _roots(name, self._bundle.pem) if self._bundle.roots else None
        material = self._object(who, name)
        return None if material is None else _object_secret(name, material)

    def _object(self, who: Entitled, name: str) -> Material | None:
        namespace, slash, secret = name.removeprefix(_SCHEME).partition("/")
        if not name.startswith(_SCHEME) or not slash or not who.is_gateway:
            return None
        if namespace != who.namespace and name not in self._granted.get(who.holder, ()):
            return None
        # A Secret may itself be called `x-cacert`: the exact name wins, as in Istio.
        found = self._objects.get((namespace, secret))
        return found or self._objects.get((namespace, secret.removesuffix(_CA_SUFFIX)))


def _object_secret(name: str, material: Material) -> "api.Secret | None":
    if name.endswith(_CA_SUFFIX):
        roots = next((found for entry in _CA_ENTRIES if (found := material.entry(entry))), None)
        return None if roots is None else _roots(name, roots)
    for chain_entry, key_entry in _CERTIFICATE_ENTRIES:
        chain, key = material.entry(chain_entry), material.entry(key_entry)
        if chain and key:
            return _key_pair(name, chain, key)
    return None


def _key_pair(name: str, chain: bytes, key: bytes) -> "api.Secret":
    certificate = api.TlsCertificate(
        certificate_chain=api.DataSource(inline_bytes=chain), private_key=api.DataSource(inline_bytes=key)
    )
    return api.Secret(name=name, tls_certificate=certificate)


def _roots(name: str, pem: bytes) -> "api.Secret":
    context = api.CertificateValidationContext(trusted_ca=api.DataSource(inline_bytes=pem))
    return api.Secret(name=name, validation_context=context)


def _version_of(bundle: Bundle) -> str:
    return _digest("|".join(bundle.fingerprints))


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()
