import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ca_parts import DOMAIN, NOW, handshake
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from msgspec.structs import replace
from test_root_store import FullDisk

from tulle.identity import errors
from tulle.identity.authority import Bundle, Leaf, fingerprint_of, new_root
from tulle.identity.errors import IdentityError, RotationNotOurs, RotationUnderWay
from tulle.identity.moves import BundleAcked, LeafAcked, LeafGone, LeafWanted, Phase, RotateRootRequested, Tick, Timing
from tulle.identity.office import BundleReady, LeafReady, Office, Trouble, WakeAt
from tulle.identity.plugin import PluginCa
from tulle.identity.rotation import holders_of, phase
from tulle.identity.spiffe import spiffe_id
from tulle.identity.store import RootStore

T0 = NOW.timestamp()
REVIEWS, RATINGS = (spiffe_id(DOMAIN, "bookinfo", name) for name in ("reviews", "ratings"))
TIMING = Timing(leaf_ttl_s=3600, bundle_settle_s=10, connection_age_s=60)


def office_at(place: Path, disk: FullDisk | None = None) -> tuple[Office, RootStore]:
    store = RootStore.open(place, DOMAIN, NOW, disk=disk)
    return Office(store, TIMING, T0), store


def worked(office: Office, now: float) -> dict[str, Leaf]:
    leafs = {}
    for _ in range(1000):
        if not office.has_work:
            break
        for outcome in office.work(now):
            if isinstance(outcome, LeafReady):
                leafs[outcome.holder] = outcome.leaf
                office.handle(LeafAcked(outcome.holder, outcome.leaf.serial, now))
    return leafs


def test_opening_says_what_to_trust_and_when_to_wake(tmp_path: Path):
    office, store = office_at(tmp_path / "ca")
    assert office.opening == [BundleReady(office.bundle), WakeAt(T0)]
    assert office.bundle.fingerprints == (store.roots[0].fingerprint,)


def test_a_root_rotation_with_real_certificates(tmp_path: Path):
    office, store = office_at(tmp_path / "ca")
    a = store.roots[0].fingerprint
    office.handle(LeafWanted("r1", REVIEWS, T0))
    office.handle(LeafWanted("r2", RATINGS, T0))
    old = worked(office, T0)
    assert office.leaf("r1") == old["r1"]
    (ready,) = [one for one in office.handle(RotateRootRequested(T0)) if isinstance(one, BundleReady)]
    b = ready.bundle.fingerprints[1]
    with pytest.raises(RotationUnderWay):
        office.handle(RotateRootRequested(T0))
    office.handle(BundleAcked(frozenset((a, b)), T0 + 5))
    assert not office.has_work
    office.handle(Tick(T0 + 10))
    new = worked(office, T0 + 10)
    assert {leaf.root_fingerprint for leaf in new.values()} == {b}
    assert phase(office.state) is Phase.REPLACING
    assert holders_of(office.state, a, T0 + 10) == ()
    outcomes = office.handle(Tick(T0 + 70))
    assert [one.bundle.fingerprints for one in outcomes if isinstance(one, BundleReady)] == [(b,)]
    assert [root.fingerprint for root in store.roots] == [b]
    office.handle(LeafGone("r1", T0 + 71))
    assert office.leaf("r1") is None
    store.close()


def test_restart_in_the_middle_goes_on(tmp_path: Path):
    office, store = office_at(tmp_path / "ca")
    office.handle(LeafWanted("r1", REVIEWS, T0))
    worked(office, T0)
    office.handle(RotateRootRequested(T0))
    both = frozenset(office.bundle.fingerprints)
    store.close()
    office, store = office_at(tmp_path / "ca")
    assert phase(office.state) is Phase.DISTRIBUTING
    office.handle(LeafWanted("r1", REVIEWS, T0 + 20))
    worked(office, T0 + 20)
    office.handle(BundleAcked(both, T0 + 20))
    assert phase(office.state) is Phase.REPLACING
    store.close()
    office, store = office_at(tmp_path / "ca")
    assert phase(office.state) is Phase.REPLACING
    office.handle(LeafWanted("r1", REVIEWS, T0 + 30))
    worked(office, T0 + 30)
    office.handle(BundleAcked(both, T0 + 30))
    office.handle(Tick(T0 + 91))
    assert phase(office.state) is Phase.STEADY
    assert len(store.roots) == 1
    store.close()


def test_a_batch_is_bounded_and_the_gone_are_not_signed_for(tmp_path: Path):
    office, store = office_at(tmp_path / "ca")
    for number in range(10):
        office.handle(LeafWanted(f"pod{number}", REVIEWS, T0))
    assert len([one for one in office.work(T0, limit=4) if isinstance(one, LeafReady)]) == 4
    office.handle(LeafGone("pod9", T0))
    rest = worked(office, T0)
    assert sorted(rest) == [f"pod{number}" for number in range(4, 9)]
    store.close()


def test_a_full_disk_stops_roots_but_not_leafs(tmp_path: Path):
    disk = FullDisk()
    office, store = office_at(tmp_path / "ca", disk)
    office.handle(LeafWanted("r1", REVIEWS, T0))
    worked(office, T0)
    disk.is_full = True
    with pytest.raises(IdentityError, match="TUL0519"):
        office.handle(RotateRootRequested(T0))
    disk.is_full = False
    office.handle(RotateRootRequested(T0))
    disk.is_full = True
    office.handle(BundleAcked(frozenset(office.bundle.fingerprints), T0 + 1))
    trouble = [one for one in office.handle(Tick(T0 + 3000)) if isinstance(one, Trouble)]
    assert [one.error.code for one in trouble] == ["TUL0519"]
    renewed = worked(office, T0 + 3000)
    assert renewed["r1"].root_fingerprint == store.roots[0].fingerprint
    assert phase(office.state) is Phase.DISTRIBUTING
    disk.is_full = False
    office.handle(Tick(T0 + 3001))
    assert phase(office.state) is Phase.REPLACING
    store.close()


def test_an_expired_root_is_told_and_retried(tmp_path: Path):
    store = RootStore.open(tmp_path / "ca", DOMAIN, NOW, lifetime=timedelta(seconds=60))
    office = Office(store, TIMING, T0)
    office.handle(LeafWanted("r1", REVIEWS, T0 + 100))
    (trouble,) = [one for one in office.work(T0 + 100) if isinstance(one, Trouble)]
    assert trouble.error.code == "TUL0515"
    office.handle(Tick(T0 + 106))
    assert office.has_work
    office.handle(BundleAcked(frozenset(office.bundle.fingerprints), T0 + 120))
    assert worked(office, T0 + 120)["r1"].root_fingerprint == store.roots[1].fingerprint
    store.close()


def plug_in(
    place: Path,
    *,
    now: datetime = NOW,
    key_of_root: bool = False,
    is_ca: bool = True,
    lifetime: timedelta = timedelta(days=9),
) -> Path:
    """Istio's cacerts: root -> middle -> ca-cert, and a second root."""
    place.mkdir()
    root, other = new_root(DOMAIN, now), new_root(DOMAIN, now)
    issuer, issuer_key, chain = x509.load_pem_x509_certificate(root.certificate_pem), root.key, b""
    for level in ("middle", "issuing"):
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            x509.CertificateBuilder()
            .issuer_name(issuer.subject)
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, level)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + lifetime)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
            .sign(issuer_key, hashes.SHA256())
        )
        issuer, issuer_key = certificate, key
        chain = certificate.public_bytes(Encoding.PEM) + chain
    signing = root.key if key_of_root else issuer_key
    (place / "ca-cert.pem").write_bytes(issuer.public_bytes(Encoding.PEM))
    (place / "cert-chain.pem").write_bytes(chain + root.certificate_pem)
    (place / "root-cert.pem").write_bytes(other.certificate_pem + root.certificate_pem)
    key_file = place / "ca-key.pem"
    key_file.write_bytes(signing.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    key_file.chmod(0o600)
    return place


def test_plug_in_ca_signs_with_its_whole_chain(tmp_path: Path):
    now = datetime.now(UTC)
    ca = PluginCa.open(plug_in(tmp_path / "cacerts", now=now), DOMAIN, now)
    office = Office(ca, TIMING, now.timestamp())
    assert len(office.bundle.roots) == 2
    assert office.bundle.fingerprints[0] == ca.signer().root_fingerprint
    leafs = [office.authority.issue(name, timedelta(hours=1), now) for name in (REVIEWS, RATINGS)]
    assert leafs[0].chain_pem.count(b"BEGIN") == 3, "leaf, issuing, middle; no root"
    seen_by_client, seen_by_server = handshake(leafs[0], leafs[1], office.bundle, office.bundle)
    assert (seen_by_client, seen_by_server) == ([("URI", str(REVIEWS))], [("URI", str(RATINGS))])
    with pytest.raises(RotationNotOurs):
        office.handle(RotateRootRequested(now.timestamp()))


def test_plug_in_ca_that_is_its_own_root(tmp_path: Path):
    root = new_root(DOMAIN, NOW)
    pems = {"ca-cert": root.certificate_pem, "root-cert": root.certificate_pem}
    pems["ca-key"] = root.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for name, pem in pems.items():
        (tmp_path / f"{name}.pem").write_bytes(pem)
        (tmp_path / f"{name}.pem").chmod(0o600)
    ca = PluginCa.open(tmp_path, DOMAIN, NOW)
    office = Office(ca, TIMING, T0)
    assert office.authority.issue(REVIEWS, timedelta(hours=1), NOW).chain_pem.count(b"BEGIN") == 1
    assert fingerprint_of(Bundle.parse(root.certificate_pem).certificates[0]) == ca.roots[0].fingerprint


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("no key", "TUL0510"), ("no cert", "TUL0510"), ("no root", "TUL0510"), ("no chain", "TUL0511"),
        ("open key", "TUL0503"), ("other key", "TUL0511"), ("not a ca", "TUL0511"), ("expired", "TUL0511"),
        ("other root", "TUL0511"), ("garbage", "TUL0511"), ("garbage key", "TUL0511"),
    ],
)  # fmt: skip
def test_bad_plug_in_cas(tmp_path: Path, what: str, code: str):
    lifetime = timedelta(hours=-2) if what == "expired" else timedelta(days=9)
    place = plug_in(tmp_path / "x", key_of_root=what == "other key", is_ca=what != "not a ca", lifetime=lifetime)
    match what.split():
        case ["no", name]:
            names = {"key": "ca-key.pem", "cert": "ca-cert.pem", "root": "root-cert.pem", "chain": "cert-chain.pem"}
            (place / names[name]).unlink()
        case ["open", "key"]:
            (place / "ca-key.pem").chmod(0o644)
        case ["other", "root"]:
            (place / "root-cert.pem").write_bytes(new_root(DOMAIN, NOW).certificate_pem)
        case ["garbage"]:
            (place / "root-cert.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\n")
        case ["garbage", "key"]:
            (place / "ca-key.pem").write_bytes(b"nothing")
    with pytest.raises(IdentityError, match=code):
        PluginCa.open(place, DOMAIN, NOW)


def test_every_error_has_its_message():
    from tulle.model.problems import catalogue

    messages = {code: (one.text, one.advice) for code, one in catalogue().items()}
    kinds = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, IdentityError)]
    kinds.remove(IdentityError)
    assert len({kind.code for kind in kinds}) == len(kinds) == 19
    for kind in kinds:
        text, advice = messages[kind.code]
        error = kind(**{place: f"<{place}>" for place in kind.places})
        said = text.format_map(error.arguments) + advice.format_map(error.arguments)
        assert all(f"<{place}>" in said for place in kind.places)
        assert error.problem().code == kind.code
    with pytest.raises(TypeError):
        errors.StateInUse()


def test_a_replica_adopts_what_the_leader_moved(tmp_path: Path):
    leader, store = office_at(tmp_path / "leader")
    a = store.roots[0].fingerprint

    def copied(name: str) -> RootStore:
        shutil.copytree(tmp_path / "leader", tmp_path / name)
        return RootStore.open(tmp_path / name, DOMAIN, NOW)

    replica = Office(copied("first"), replace(TIMING, rotates_roots=False), T0)
    replica.handle(LeafWanted("r1", REVIEWS, T0))
    old = worked(replica, T0)["r1"]
    leader.handle(RotateRootRequested(T0))
    b = leader.bundle.fingerprints[1]
    outcomes = replica.adopt(copied("second"), T0 + 1)
    assert [one.bundle.fingerprints for one in outcomes if isinstance(one, BundleReady)] == [(a, b)]
    assert replica.leaf("r1") == old, "the signer is the same: leafs stay"
    replica.handle(BundleAcked(frozenset((a, b)), T0 + 2))
    replica.handle(Tick(T0 + 60))
    assert replica.authority.signer.root_fingerprint == a, "a replica moves nothing by itself"
    leader.handle(BundleAcked(frozenset((a, b)), T0 + 5))
    leader.handle(Tick(T0 + 10))
    replica.adopt(copied("third"), T0 + 11)
    assert replica.leaf("r1") is None
    replica.handle(LeafWanted("r1", REVIEWS, T0 + 11))
    assert worked(replica, T0 + 11)["r1"].root_fingerprint == b
    with pytest.raises(RotationNotOurs):
        replica.handle(RotateRootRequested(T0 + 12))
    replica.lead(is_leader=True, now=T0 + 200)
    replica.handle(Tick(T0 + 270))
    assert [root.fingerprint for root in replica._keyring.roots] == [b], "a replica that leads goes on where it was"
