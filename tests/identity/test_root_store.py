import os
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from ca_parts import DOMAIN, HOUR, NOW

from tulle.identity.authority import Authority
from tulle.identity.disk import Disk
from tulle.identity.errors import IdentityError
from tulle.identity.moves import RootState, RootStatus
from tulle.identity.private import PrivateBytes
from tulle.identity.spiffe import spiffe_id
from tulle.identity.store import PASSPHRASE_VARIABLE, RootStore, passphrase_from

REVIEWS = spiffe_id(DOMAIN, "bookinfo", "reviews")
LATER = NOW + HOUR


class PowerCut(BaseException):
    """Not an Exception: nothing may tidy up after it."""


class CutDisk(Disk):
    """Loses power at the n-th operation; a file being written is left half."""

    def __init__(self, cut_at: int) -> None:
        self.count = 0
        self.cut_at = cut_at

    def _operation(self) -> bool:
        self.count += 1
        return self.count == self.cut_at

    def fill(self, path: Path, content: bytes) -> None:
        if self._operation():
            super().fill(path, content[: len(content) // 2])
            raise PowerCut
        super().fill(path, content)

    def rename(self, path: Path, final: Path) -> None:
        if self._operation():
            raise PowerCut
        super().rename(path, final)

    def settle(self, directory: Path) -> None:
        if self._operation():
            raise PowerCut
        super().settle(directory)

    def remove(self, path: Path) -> None:
        if self._operation():
            raise PowerCut
        super().remove(path)


class FullDisk(Disk):
    is_full = False

    def fill(self, path: Path, content: bytes) -> None:
        if self.is_full:
            raise OSError(28, "No space left on device")
        super().fill(path, content)


def opened(place: Path, **options) -> RootStore:
    return RootStore.open(place, options.pop("domain", DOMAIN), NOW, **options)


def closed(place: Path, **options) -> tuple[str, ...]:
    store = opened(place, **options)
    store.close()
    return tuple(root.fingerprint for root in store.roots)


def states(store: RootStore) -> list[RootState]:
    return [root.state for root in store.roots]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "state" / "identity"


def test_first_start_makes_a_root_and_keeps_it(place: Path):
    former = os.umask(0)
    first = closed(place)
    os.umask(former)
    assert closed(place) == first
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()}
    assert modes == dict.fromkeys(("lock", "roots.json", f"{first[0]}.crt", f"{first[0]}.key"), 0o600)


def test_a_whole_rotation(place: Path):
    store = opened(place)
    a = store.roots[0]
    b = store.create(LATER)
    assert states(store) == [RootState.ACTIVE, RootState.PENDING]
    assert store.signer().root_fingerprint == a.fingerprint
    store.switch(b.fingerprint, 99.5, LATER)
    store.switch(b.fingerprint, 99.5, LATER)
    assert states(store) == [RootState.RETIRED, RootState.ACTIVE]
    assert store.roots[0].leafs_until == 99.5
    assert store.signer().root_fingerprint == b.fingerprint
    assert not (place / f"{a.fingerprint}.key").exists(), "a retired key cannot be stolen"
    assert store.bundle((b.fingerprint, a.fingerprint)).fingerprints == (b.fingerprint, a.fingerprint)
    with pytest.raises(ValueError):
        store.drop(b.fingerprint)
    with pytest.raises(ValueError):
        store.switch(a.fingerprint, 0, LATER)
    store.close()
    store = opened(place)
    assert states(store) == [RootState.RETIRED, RootState.ACTIVE]
    store.drop(a.fingerprint)
    store.drop(a.fingerprint)
    store.close()
    assert closed(place) == (b.fingerprint,)
    assert not (place / f"{a.fingerprint}.crt").exists()


@pytest.mark.parametrize("passphrase", [None, PrivateBytes(b"correct horse")])
def test_power_cut_at_every_operation_of_a_rotation(place: Path, passphrase: PrivateBytes | None):
    """After each cut the store opens, has one signer with its key, and the rotation can go on to its end."""
    cuts = 0
    for cut_at in range(1, 200):
        here = place / str(cut_at)
        disk = CutDisk(cut_at)
        store, has_switched = None, False
        first: tuple[RootStatus, ...] = ()
        try:
            store = opened(here, disk=disk, passphrase=passphrase)
            first = store.roots
            new = store.create(LATER)
            store.switch(new.fingerprint, 5.0, LATER)
            has_switched = True
            store.drop(first[0].fingerprint)
        except PowerCut:
            cuts += 1
        finally:
            if store:
                store.close()
        if disk.count < cut_at:
            break
        survived = opened(here, passphrase=passphrase)
        signed = Authority(survived.signer(), DOMAIN).issue(REVIEWS, HOUR, LATER)
        active = next(root for root in survived.roots if root.state is RootState.ACTIVE)
        assert signed.root_fingerprint == active.fingerprint
        if first and not has_switched:
            assert first[0].fingerprint in {root.fingerprint for root in survived.roots}, "a root in use is not lost"
        assert len(survived.roots) <= 2
        assert survived.leftovers == ()
        names = {path.name for path in here.iterdir()} - {"lock", "roots.json"}
        keys = {f"{root.fingerprint}.key" for root in survived.roots if root.state is not RootState.RETIRED}
        assert names == {f"{root.fingerprint}.crt" for root in survived.roots} | keys
        finish(survived)
    assert cuts > 20, "the rotation was cut at each of its operations"


def finish(store: RootStore) -> None:
    if RootState.PENDING not in states(store) and RootState.RETIRED not in states(store):
        store.create(LATER)
    for root in store.roots:
        if root.state is RootState.PENDING:
            store.switch(root.fingerprint, 5.0, LATER)
    for root in store.roots:
        if root.state is RootState.RETIRED:
            store.drop(root.fingerprint)
    assert states(store) == [RootState.ACTIVE]
    store.close()


def test_full_disk_is_an_error_that_changes_nothing(place: Path):
    disk = FullDisk()
    store = opened(place, disk=disk)
    before = store.roots
    disk.is_full = True
    with pytest.raises(IdentityError, match=r"TUL0519.*No space left"):
        store.create(LATER)
    assert store.roots == before
    disk.is_full = False
    b = store.create(LATER)
    disk.is_full = True
    with pytest.raises(IdentityError, match="TUL0519"):
        store.switch(b.fingerprint, 1.0, LATER)
    assert store.signer().root_fingerprint == before[0].fingerprint
    store.close()
    assert closed(place) == (before[0].fingerprint, b.fingerprint)


def refusal(place: Path, **options) -> str:
    content = {path: path.read_bytes() for path in place.iterdir() if path.is_file()}
    with pytest.raises(IdentityError) as caught:
        opened(place, **options)
    assert {path: path.read_bytes() for path in place.iterdir() if path.is_file()} == content
    return caught.value.code


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o660, 0o610])
def test_key_open_to_others_is_refused(place: Path, mode: int):
    (fingerprint,) = closed(place)
    (place / f"{fingerprint}.key").chmod(mode)
    assert refusal(place) == "TUL0503"
    (place / f"{fingerprint}.key").chmod(0o600)
    assert closed(place) == (fingerprint,)


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o770])
def test_directory_open_to_others_is_refused(place: Path, mode: int):
    closed(place)
    place.chmod(mode)
    assert refusal(place) == "TUL0504"


def test_damage_is_named_and_nothing_is_made_anew(place: Path):
    (fingerprint,) = closed(place)
    index, key = place / "roots.json", place / f"{fingerprint}.key"
    good = {path: path.read_bytes() for path in (index, key)}

    def with_content(path: Path, content: bytes) -> str:
        path.write_bytes(content)
        code = refusal(place)
        path.write_bytes(good[path])
        return code

    assert with_content(index, b"{") == "TUL0505"
    assert with_content(index, good[index].replace(b"active", b"retired")) == "TUL0505"
    assert with_content(index, good[index].replace(b'"schema": 1', b'"schema": 9')) == "TUL0506"
    assert with_content(index, b" " * 2_000_000) == "TUL0505"
    assert with_content(key, b"") == "TUL0505"
    assert refusal(place, domain="other.mesh") == "TUL0507"
    other = place.parent / "other"
    (foreign,) = closed(other)
    assert with_content(key, (other / f"{foreign}.key").read_bytes()) == "TUL0505"
    key.unlink()
    assert refusal(place) == "TUL0519"
    key.symlink_to(other / f"{foreign}.key")
    assert refusal(place) == "TUL0519"
    key.unlink()
    os.mkfifo(key, 0o600)
    assert refusal(place) == "TUL0505"
    key.unlink()
    key.write_bytes(good[key])
    key.chmod(0o600)
    assert closed(place) == (fingerprint,)


def test_one_control_plane_at_a_time(place: Path):
    store = opened(place)
    assert refusal(place) == "TUL0517"
    store.close()
    store.close()
    closed(place)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_foreign_owner_is_refused(place: Path):
    (fingerprint,) = closed(place)
    os.chown(place / f"{fingerprint}.key", 4321, -1)
    assert refusal(place) == "TUL0518"
    os.chown(place / f"{fingerprint}.key", 0, -1)
    os.chown(place, 4321, -1)
    assert refusal(place) == "TUL0518"


def test_passphrase(place: Path):
    horse, wrong = PrivateBytes(b"correct horse"), PrivateBytes(b"wrong")
    (fingerprint,) = closed(place, passphrase=horse)
    assert b"ENCRYPTED" in (place / f"{fingerprint}.key").read_bytes()
    assert refusal(place) == "TUL0508"
    assert refusal(place, passphrase=wrong) == "TUL0509"
    assert refusal(place, passphrase=PrivateBytes(b"")) == "TUL0508"
    assert closed(place, passphrase=horse) == (fingerprint,)


def test_a_passphrase_given_later_encrypts_the_key(place: Path):
    (fingerprint,) = closed(place)
    assert closed(place, passphrase=PrivateBytes(b"new")) == (fingerprint,)
    assert refusal(place) == "TUL0508"


def test_where_passphrases_come_from(tmp_path: Path):
    environment = {PASSPHRASE_VARIABLE: "from the environment", "PATH": "/bin"}
    assert passphrase_from(environment) == PrivateBytes(b"from the environment")
    assert environment == {"PATH": "/bin"}, "children do not inherit it"
    assert passphrase_from(environment) is None
    file = tmp_path / "passphrase"
    file.write_bytes(b"from the file\n")
    file.chmod(0o644)
    with pytest.raises(IdentityError, match="TUL0503"):
        passphrase_from({}, file)
    file.chmod(0o600)
    assert passphrase_from({PASSPHRASE_VARIABLE: "x"}, file) == PrivateBytes(b"from the file")
    file.write_bytes(b"\n")
    with pytest.raises(IdentityError, match="TUL0508"):
        passphrase_from({}, file)
    with pytest.raises(IdentityError, match="TUL0508"):
        passphrase_from({PASSPHRASE_VARIABLE: ""})


def test_errors_and_objects_hold_no_secret(place: Path):
    horse = PrivateBytes(b"correct horse")
    store = opened(place, passphrase=horse)
    assert "horse" not in repr(vars(store))
    store.close()
    with pytest.raises(IdentityError) as caught:
        opened(place, passphrase=PrivateBytes(b"battery staple"))
    assert "battery" not in str(caught.value) + repr(caught.value)


def test_root_lifetime(place: Path):
    store = opened(place, lifetime=timedelta(hours=2))
    assert store.roots[0].remaining_s(NOW.timestamp()) in (7200.0, 7200.75)
    store.close()
