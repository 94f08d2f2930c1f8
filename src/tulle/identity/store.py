"""The CA's roots on disk: which exist, which one signs, their keys. An adapter: files in, `RootStatus` and `Signer` out.

Knows nothing of leafs or proxies; when roots move is `rotation.py`'s. One directory (0700) per mesh:

    roots.json            the index: schema, trust domain, state of each root; what it does not name does not exist
    <fingerprint>.crt     certificate of a root
    <fingerprint>.key     its PKCS #8 key (0600), encrypted if there is a passphrase; gone once the root is retired
    lock                  held while a control plane runs

Crash rule: new files first, then the index by one rename, then removals. Whatever a crash leaves beside the index is swept.
"""

import fcntl
import os
from collections.abc import MutableMapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from msgspec import Struct
from msgspec.structs import replace

from tulle.identity.authority import ROOT_LIFETIME, Bundle, CaKey, Root, Signer, fingerprint_of, new_root
from tulle.identity.disk import Disk, own_directory, read_private
from tulle.identity.errors import (
    PassphraseMissing,
    PassphraseWrong,
    StateDamaged,
    StateInUse,
    StateTooNew,
    StateUnwritable,
    TrustDomainChanged,
)
from tulle.identity.moves import RootState, RootStatus
from tulle.identity.private import PrivateBytes

SCHEMA = 1
PASSPHRASE_VARIABLE = "TULLE_CA_PASSPHRASE"  # noqa: S105 -- the variable's name, not a passphrase.


class _Version(Struct):
    """Any index: read first, so that a newer one is named as such."""

    schema: int


class _Index(Struct, forbid_unknown_fields=True, kw_only=True):
    """`roots.json`."""

    schema: int = SCHEMA
    trust_domain: str
    roots: tuple[RootStatus, ...]


class RootStore:
    """The roots of one mesh, open for one control plane at a time; `close` releases them."""

    rotates_roots = True
    """Unlike a plug-in CA's."""

    def __init__(self, directory: Path, trust_domain: str, passphrase: PrivateBytes | None, disk: Disk) -> None:
        """Not to be called: `open` makes one."""
        self._directory = directory
        self._trust_domain = trust_domain
        self._passphrase = passphrase
        self._disk = disk
        self._lock: int | None = None
        self._roots: tuple[RootStatus, ...] = ()
        self._certificates: dict[str, bytes] = {}
        self._keys: dict[str, CaKey] = {}
        self.leftovers: tuple[Path, ...] = ()
        """Files no longer wanted that could not be removed; tried again at every change."""

    @classmethod
    def open(
        cls,
        directory: Path,
        trust_domain: str,
        now: datetime,
        *,
        passphrase: PrivateBytes | None = None,
        lifetime: timedelta = ROOT_LIFETIME,
        disk: Disk | None = None,
    ) -> "RootStore":
        """Load the roots, or make the first one. Raises TUL0503-0509, TUL0517-0519; nothing is changed then."""
        if passphrase is not None and not passphrase:
            raise PassphraseMissing(path=directory)
        store = cls(directory, trust_domain, passphrase, disk or Disk())
        own_directory(directory)
        store._hold()
        try:
            if (directory / "roots.json").exists():
                store._load()
            else:
                store._add(new_root(trust_domain, now, lifetime), RootState.ACTIVE, now)
            store._sweep()
        except BaseException:
            store.close()
            raise
        return store

    @property
    def roots(self) -> tuple[RootStatus, ...]:
        """The roots without their keys, in the order of their making."""
        return self._roots

    @property
    def trust_domain(self) -> str:
        """The one trust domain of all roots here."""
        return self._trust_domain

    def signer(self) -> Signer:
        """The active root with its key."""
        active = next(root for root in self._roots if root.state is RootState.ACTIVE)
        certificate = x509.load_pem_x509_certificate(self._certificates[active.fingerprint])
        return Signer(certificate, self._keys[active.fingerprint], b"", active.fingerprint)

    def bundle(self, fingerprints: tuple[str, ...]) -> Bundle:
        """The certificates of some roots. Raises KeyError for one that is not here."""
        return Bundle(tuple(self._certificates[fingerprint] for fingerprint in fingerprints))

    def create(self, now: datetime, lifetime: timedelta = ROOT_LIFETIME) -> RootStatus:
        """Make a root, PENDING. Raises TUL0519; nothing has changed then."""
        return self._add(new_root(self._trust_domain, now, lifetime), RootState.PENDING, now)

    def switch(self, fingerprint: str, leafs_until: float, now: datetime) -> None:
        """Make a pending root the active one and retire the former: one rename. Its key is removed after it.

        Again: no effect. Raises TUL0519 (nothing has changed then); KeyError for an unknown root, ValueError for a retired.
        """
        states = {root.fingerprint: root.state for root in self._roots}
        if states[fingerprint] is RootState.ACTIVE:
            return
        if states[fingerprint] is RootState.RETIRED:
            raise ValueError(f"root {fingerprint} is retired")
        since = now.timestamp()
        moved = []
        for root in self._roots:
            if root.fingerprint == fingerprint:
                moved.append(replace(root, state=RootState.ACTIVE, since=since))
            elif root.state is RootState.ACTIVE:
                moved.append(replace(root, state=RootState.RETIRED, since=since, leafs_until=leafs_until))
            else:
                moved.append(root)
        self._commit(tuple(moved))

    def drop(self, fingerprint: str) -> None:
        """Forget a retired root. Again: no effect. Raises TUL0519 (nothing has changed then); ValueError for others."""
        states = {root.fingerprint: root.state for root in self._roots}
        if fingerprint not in states:
            return
        if states[fingerprint] is not RootState.RETIRED:
            raise ValueError(f"root {fingerprint} is {states[fingerprint]}")
        self._commit(tuple(root for root in self._roots if root.fingerprint != fingerprint))

    def close(self) -> None:
        """Release the directory and forget the keys. Twice is once."""
        self._keys.clear()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _hold(self) -> None:
        path = self._directory / "lock"
        try:
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise StateInUse(path=self._directory) from error
        except OSError as error:
            self.close()
            raise StateUnwritable(path=path, reason=error.strerror) from error

    def _add(self, root: Root, state: RootState, now: datetime) -> RootStatus:
        created = now.timestamp()
        status = RootStatus(root.fingerprint, state, created, created, root.not_after.timestamp())
        self._write_key(root.fingerprint, root.key)
        self._disk.write(self._path(root.fingerprint, "crt"), root.certificate_pem)
        self._certificates[root.fingerprint] = root.certificate_pem
        self._keys[root.fingerprint] = root.key
        self._commit((*self._roots, status))
        return status

    def _commit(self, roots: tuple[RootStatus, ...]) -> None:
        index = msgspec.json.format(msgspec.json.encode(_Index(trust_domain=self._trust_domain, roots=roots)), indent=2)
        self._disk.write(self._directory / "roots.json", index + b"\n")
        self._roots = roots
        self._sweep()

    def _load(self) -> None:
        path = self._directory / "roots.json"
        content = read_private(path)
        try:
            found = msgspec.json.decode(content, type=_Version).schema
            if found > SCHEMA:
                raise StateTooNew(path=path, found=found, known=SCHEMA)
            index = msgspec.json.decode(content, type=_Index)
        except msgspec.MsgspecError as error:
            raise StateDamaged(path=path, reason="it is not an index of roots") from error
        if index.trust_domain != self._trust_domain:
            raise TrustDomainChanged(path=path, found=index.trust_domain, wanted=self._trust_domain)
        if sum(root.state is RootState.ACTIVE for root in index.roots) != 1:
            raise StateDamaged(path=path, reason="not exactly one root is active")
        for root in index.roots:
            self._load_root(root)
        self._roots = index.roots

    def _load_root(self, root: RootStatus) -> None:
        path = self._path(root.fingerprint, "crt")
        try:
            certificate = x509.load_pem_x509_certificate(read_private(path))
        except ValueError as error:
            raise StateDamaged(path=path, reason="it is not a certificate") from error
        if fingerprint_of(certificate) != root.fingerprint:
            raise StateDamaged(path=path, reason="it is another certificate than the index says")
        self._certificates[root.fingerprint] = certificate.public_bytes(Encoding.PEM)
        if root.state is RootState.RETIRED:
            return
        key = self._read_key(root.fingerprint)
        if key.public_key() != certificate.public_key():
            raise StateDamaged(path=self._path(root.fingerprint, "key"), reason="it is not the key of its certificate")
        self._keys[root.fingerprint] = key

    def _write_key(self, fingerprint: str, key: CaKey) -> None:
        lock: KeySerializationEncryption = NoEncryption()
        if self._passphrase is not None:
            lock = BestAvailableEncryption(self._passphrase.reveal())
        self._disk.write(self._path(fingerprint, "key"), key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock))

    def _read_key(self, fingerprint: str) -> CaKey:
        path = self._path(fingerprint, "key")
        content = read_private(path)
        is_encrypted = b"ENCRYPTED" in content
        if is_encrypted and self._passphrase is None:
            raise PassphraseMissing(path=path)
        passphrase = self._passphrase.reveal() if self._passphrase is not None and is_encrypted else None
        try:
            key = load_pem_private_key(content, passphrase)
        except ValueError as error:
            if is_encrypted:
                raise PassphraseWrong(path=path) from error
            raise StateDamaged(path=path, reason="it is not a private key") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise StateDamaged(path=path, reason="it is not a key of the CA's kind")
        if self._passphrase is not None and not is_encrypted:
            self._write_key(fingerprint, key)  # The passphrase is new: from now on the key rests encrypted.
        return key

    def _sweep(self) -> None:
        """Remove what the index does not name: unfinished files, dropped roots, keys that must not sign again."""
        wanted = {"roots.json", "lock"}
        for root in self._roots:
            wanted.add(f"{root.fingerprint}.crt")
            if root.state is not RootState.RETIRED:
                wanted.add(f"{root.fingerprint}.key")
        for fingerprint in list(self._keys):
            if f"{fingerprint}.key" not in wanted:
                del self._keys[fingerprint]
        ours = [path for path in self._directory.iterdir() if path.suffix in (".crt", ".key", ".json")]
        leftovers = []
        for path in sorted(ours):
            if path.name not in wanted:
                try:
                    self._disk.remove(path)
                except OSError:
                    leftovers.append(path)  # The index decides, so this is untidy, not wrong; the caller may tell.
        self.leftovers = tuple(leftovers)

    def _path(self, fingerprint: str, suffix: str) -> Path:
        return self._directory / f"{fingerprint}.{suffix}"


def passphrase_from(environment: MutableMapping[str, str], file: Path | None = None) -> PrivateBytes | None:
    """The passphrase of a file (mode 0600, its final newline cut) or of TULLE_CA_PASSPHRASE; None without either.

    The variable is taken out of the environment, so that no child inherits it. Raises TUL0503, TUL0508, TUL0518, TUL0519.
    """
    text = environment.pop(PASSPHRASE_VARIABLE, None)
    if file is not None:
        passphrase = PrivateBytes(read_private(file).removesuffix(b"\n").removesuffix(b"\r"))
        if not passphrase:
            raise PassphraseMissing(path=file)
        return passphrase
    if text is None:
        return None
    if not text:
        raise PassphraseMissing(path=PASSPHRASE_VARIABLE)
    return PrivateBytes(text.encode())


def utc(seconds: float) -> datetime:
    """Unix seconds as the aware time that certificates use."""
    return datetime.fromtimestamp(seconds, UTC)
