"""The faults: each does one thing to a running mesh inside a window and returns the proof that it was done."""

from __future__ import annotations

import os
import signal
import time

from fault_mesh import NS, FaultMesh, Window

EDITS_PER_SECOND = 50


def control_plane_killed(mesh: FaultMesh, window: Window) -> str:
    """kill -9 of the control plane; the supervisor starts it again and every proxy comes back."""
    window.sleep_until(0.2)
    before = mesh.control_plane_pid()
    window.mark()
    os.kill(before, signal.SIGKILL)
    mesh.wait(lambda: mesh.is_served() and mesh.control_plane_pid() != before, 30, "no control plane came back")
    back = time.time() - window.begin - window.when[-1]
    after = mesh.control_plane_pid()
    assert after != before
    proxies = mesh.control_plane("/v1/proxies")["proxies"]
    assert all(proxy["connectedAt"] > window.begin + window.when[0] for proxy in proxies)
    return f"pid {before} → {after}, {len(proxies)} proxies back after {back:.1f} s"


def replica_switched(mesh: FaultMesh, window: Window) -> str:
    """Another control plane takes over that was never told what workloads call: on demand, their proxies tell it."""
    window.sleep_until(0.2)
    before, known = mesh.control_plane_pid(), mesh.learned()
    assert bool(known) == mesh.is_on_demand
    window.mark()
    os.kill(before, signal.SIGSTOP)  # it does not write down what it knows
    mesh.learned_file.unlink(missing_ok=True)
    os.kill(before, signal.SIGKILL)
    mesh.wait(lambda: mesh.is_served() and mesh.control_plane_pid() != before, 30, "no control plane came back")
    back = time.time() - window.begin - window.when[-1]
    mesh.wait(
        lambda: all(mesh.learned().get(who, set()) >= names for who, names in known.items()),
        20,
        f"not everything was learned again: {known}, {mesh.learned()}",
    )
    told = f", {sum(map(len, known.values()))} names of {len(known)} workloads learned again" if known else ""
    return f"pid {before} → {mesh.control_plane_pid()} after {back:.1f} s{told}"


def leafs_rotated(mesh: FaultMesh, window: Window) -> str:
    """Short leafs: each sidecar's certificate changes all the time. Seen at a live sidecar, not asked of the CA."""
    uid, seen = mesh.uid("steady"), list[str]()
    while window.has_time:
        (leaf,) = mesh.certificates(uid)["leaf"]
        if not seen or seen[-1] != leaf:
            if seen:
                window.mark()
            seen.append(leaf)
        time.sleep(0.2)
    every = window.seconds / max(1, len(seen) - 1)
    assert len(seen) > 1 + window.seconds / 10, f"only {len(seen)} certificates"
    assert len(set(seen)) == len(seen)
    return f"{len(seen)} serials at one sidecar, one per {every:.1f} s: {_ends(seen)}"


def root_rotated(mesh: FaultMesh, window: Window) -> str:
    """A → A+B → B, as the sidecars trust them."""
    uids = [str(pod["metadata"]["uid"]) for pod in mesh.pods() if not pod["metadata"].get("deletionTimestamp")]

    def trusted() -> list[set[str]]:
        return [roots for uid in uids if (roots := mesh.certificates(uid)["roots"])]

    (first,) = {frozenset(roots) for roots in trusted()}
    assert len(first) == 1
    window.sleep_until(0.05)
    window.mark()
    mesh.control_plane("/v1/ca/rotate", "POST")
    mesh.wait(lambda: all(roots > first for roots in trusted()), 20, "the second root did not arrive everywhere")
    window.mark()
    both = trusted()[0]
    second = both - first
    mesh.wait(
        lambda: all(roots == second for roots in trusted()),
        max(1.0, window.end + 20 - time.time()),
        f"the first root never left: {mesh.control_plane('/v1/ca')['phase']}",
    )
    window.mark()
    assert window.when[-1] < window.seconds, f"the first root left only after {window.when[-1]:.0f} s"
    (a,), (b,) = first, second
    return f"root {a[-6:]} → {a[-6:]}+{b[-6:]} → {b[-6:]} at {len(uids)} sidecars"


def edited(mesh: FaultMesh, window: Window) -> str:
    """50 edits a second of a VirtualService's weights, in its file."""
    before = int(mesh.control_plane("/v1/version")["revision"])
    edits, due = 0, time.time()
    window.mark()
    while window.has_time:
        edits += 1
        mesh.weigh(1 + edits % 99)
        due += 1 / EDITS_PER_SECOND
        time.sleep(max(0.0, due - time.time()))
    took = time.time() - window.begin - window.when[0]
    window.mark()
    last = 1 + edits % 99
    mesh.wait(lambda: mesh.is_served() and mesh.weight_at("load") == last, 10, "the last edit did not arrive")
    after = int(mesh.control_plane("/v1/version")["revision"])
    assert edits / took > 0.9 * EDITS_PER_SECOND, f"{edits} edits in {took:.0f} s"
    assert after - before > edits / 4, f"{edits} edits made {after - before} revisions"
    mesh.weigh(50)
    return f"{edits} edits ({edits / took:.0f}/s), revision {before} → {after}, last weight {last} is in the sidecar"


def scaled(mesh: FaultMesh, window: Window) -> str:
    """1 → 3 → 1 by editing the file."""
    (first,) = mesh.ready_pods("crowd")
    window.sleep_until(0.1)
    window.mark()
    mesh.scale(3)
    mesh.wait(lambda: len(mesh.ready_pods("crowd")) == 3, 30, "three pods did not become ready")
    names = mesh.ready_pods("crowd")
    window.sleep_until(0.55)
    window.mark()
    mesh.scale(1)
    mesh.wait(lambda: len(mesh.pods_in("crowd")) == 1, 40, "two pods did not end")
    (last,) = mesh.ready_pods("crowd")
    assert first in names
    return f"1 → 3 → 1 pods: {first[-5:]} → {', '.join(name[-5:] for name in names)} → {last[-5:]}"


def certificate_replaced(mesh: FaultMesh, window: Window) -> str:
    """The gateway's; callers see the new serial without a failed handshake."""
    window.sleep_until(0.4)
    window.mark()
    mesh.replace_certificate()
    return "serial seen by the caller: "


def sidecar_replaced(mesh: FaultMesh, window: Window) -> str:
    """A new Envoy beside the old one, then the old one drains: `tulle restart sidecar`."""
    name, uid = mesh.pod("crowd", NS), mesh.uid("crowd")
    (before,) = mesh.sidecar_pids(uid)
    window.sleep_until(0.2)
    window.mark()
    mesh.tulle("restart", "sidecar", name, "-n", NS)
    mesh.wait(lambda: before not in mesh.sidecar_pids(uid), max(20.0, window.end - time.time()), "the old one stayed")
    gone = time.time() - window.begin - window.when[-1]
    (after,) = mesh.sidecar_pids(uid)
    return f"Envoy pid {before} → {after}, the old one gone after {gone:.1f} s"


def sidecars_killed(mesh: FaultMesh, window: Window) -> str:
    """kill -9 of one sidecar of three replicas, one after the other, each after the last is back."""
    pods = {str(pod["metadata"]["name"]): str(pod["metadata"]["uid"]) for pod in mesh.pods_of("crowd", NS)}
    assert len(pods) == 3
    changes = []
    for share, (name, uid) in zip((0.15, 0.4, 0.65), pods.items(), strict=True):
        window.sleep_until(share)
        (before,) = mesh.sidecar_pids(uid)
        window.mark()
        os.kill(before, signal.SIGKILL)
        mesh.wait(
            lambda uid=uid, before=before: mesh.sidecar_pids(uid) not in ([], [before]), 20, f"{name} stayed alone"
        )
        mesh.wait(lambda: len(mesh.ready_pods("crowd")) == 3, 20, f"{name} did not become ready again")
        (after,) = mesh.sidecar_pids(uid)
        changes.append(f"{before} → {after}")
    return f"Envoy pids {', '.join(changes)}"


def _ends(serials: list[str]) -> str:
    return " → ".join(serial[-6:] for serial in (serials[0], serials[1], serials[-1]))
