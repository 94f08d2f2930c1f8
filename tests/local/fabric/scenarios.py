"""Scenarios of the fabric, each run in a process of its own as root and as an ordinary user: `scenarios.py NAME`.

A scenario prints the facts it saw as JSON; `test_fabric.py` judges them.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import programs

from tulle.local.fabric import kernel
from tulle.local.fabric.client import (
    NO_CAPTURE,
    Bind,
    Capture,
    Command,
    Exited,
    Fabric,
    FabricError,
    Finished,
    Network,
    Process,
    Vip,
)
from tulle.local.fabric.root import python_binds
from tulle.local.fabric.support import probe_support

Facts = dict[str, Any]
ENV = {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
PYTHON = sys.executable
A, B, C = "10.244.0.10", "10.244.0.11", "10.244.0.12"


def python(source: str, pod: str | None, **fields: Any) -> Command:
    """A Python program in a pod; a sidecar's sandbox shows our interpreter only when asked to."""
    fields.setdefault("binds", python_binds())
    return Command((PYTHON, "-c", source), pod, env=ENV, **fields)


def said(finished: Finished) -> str:
    if finished.exited.code != 0:
        raise RuntimeError(f"{finished.exited}: {finished.stderr.decode()}")
    return finished.stdout.decode().strip()


async def ask(fabric: Fabric, pod: str, host: str, port: int) -> str:
    """What a workload of `pod` hears on a TCP connection, or the error it gets."""
    return said(await fabric.run_in_pod(python(programs.client(host, port), pod)))


async def listening(fabric: Fabric, pod: str | None, host: str, port: int) -> None:
    """Wait until somebody listens, asked from inside the pod."""
    for _ in range(400):
        try:
            (await fabric.open_socket("tcp-connect", host, port, pod)).close()
        except OSError:
            await asyncio.sleep(0.02)
        else:
            return
    raise RuntimeError(f"nobody listens on {host}:{port} of {pod}")


async def background(fabric: Fabric, command: Command) -> Process:
    return await fabric.spawn(command, 2, 2)


def sidecar(pod: str) -> Command:
    """A real Envoy with Istio's two ports; forwards to where the connection was meant to go."""
    envoy = os.environ["TULLE_TEST_ENVOY"]
    arguments = (
        "--config-yaml",
        json.dumps(programs.ENVOY),
        "--disable-hot-restart",
        "--concurrency",
        "1",
        "-l",
        "error",
    )
    binds = (Bind(str(Path(envoy).parent)),)
    return Command((envoy, *arguments), pod, kind="sidecar", env=ENV, binds=binds)


async def capture() -> Facts:
    """Two pods with real sidecars, one without; the bridge's edge."""
    fabric = Fabric()
    await fabric.start()
    await fabric.pod_add("a", A)
    await fabric.pod_add("b", B)
    await fabric.pod_add("c", C, NO_CAPTURE)
    facts: Facts = {}
    await background(fabric, python(programs.server(9080, "b"), "b"))
    await listening(fabric, "b", B, 9080)
    await background(fabric, sidecar("b"))
    await background(fabric, python(programs.server(9080, "c"), "c"))
    await background(fabric, python(programs.witness(15001, "edge"), None, kind="sidecar"))
    await background(fabric, python(programs.witness(15001, "out"), "a", kind="sidecar"))
    await listening(fabric, "a", "127.0.0.1", 15001)
    await listening(fabric, "b", "127.0.0.1", 15021)
    await listening(fabric, "c", C, 9080)
    await listening(fabric, None, fabric.network.gateway, 15001)
    facts["a -> b is caught on its way out"] = await ask(fabric, "a", B, 9080)
    facts["a -> outside is caught on its way out"] = await ask(fabric, "a", "192.0.2.1", 443)
    facts["a -> its own address"] = await ask(fabric, "a", A, 9080)
    facts["c -> b passes b's sidecar"] = await ask(fabric, "c", B, 9080)
    facts["c -> a's outbound port goes to the inbound one"] = await ask(fabric, "c", A, 15001)
    facts["c -> outside goes to the edge"] = await ask(fabric, "c", "192.0.2.1", 443)
    facts["c -> vip without rules"] = await ask(fabric, "c", "10.96.0.1", 80)
    await fabric.vip_set("c", [Vip("10.96.0.1", 80, ((B, 9080), (C, 9080)))])
    facts["c -> vip"] = sorted({await ask(fabric, "c", "10.96.0.1", 80) for _ in range(24)})
    await fabric.vip_set("c", [])
    facts["c -> vip removed"] = await ask(fabric, "c", "10.96.0.1", 80)
    await fabric.stop()
    return facts


async def envoys() -> Facts:
    """A request through two real Envoys, then the sidecars' share of privileges."""
    fabric = Fabric()
    await fabric.start()
    for pod, address in (("a", A), ("b", B)):
        await fabric.pod_add(pod, address)
        await background(fabric, sidecar(pod))
        await listening(fabric, pod, "127.0.0.1", 15021)
    await background(fabric, python(programs.server(9080, "b"), "b"))
    await listening(fabric, "b", B, 9080)
    facts: Facts = {"a -> b": await ask(fabric, "a", B, 9080)}
    status = await fabric.run_in_pod(python("print(open('/proc/self/status').read())", "a", kind="sidecar"))
    facts["capabilities"] = {
        line.split(":")[0]: line.split()[1] for line in said(status).splitlines() if line[:3] in {"Cap", "NoN"}
    }
    await fabric.stop()
    return facts


async def sidecars() -> Facts:
    """What a sidecar sees: its own directory and nothing beside it."""
    run = Path(tempfile.mkdtemp(prefix="tulle-run-"))
    listeners = []
    for pod in ("a", "b"):
        (run / pod).mkdir()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(run / pod / "xds.sock"))
        listener.listen()
        listeners.append(listener)
    fabric = Fabric()
    await fabric.start()
    await fabric.pod_add("a", A)
    workload = await background(fabric, Command(("sleep", "100"), "a", env=ENV))
    binds = (Bind(str(run / "a"), "/run/xds"), *python_binds())
    source = programs.SIDECAR.format(other=str(run / "b"), run=str(run))
    facts: Facts = json.loads(said(await fabric.run_in_pod(python(source, "a", kind="sidecar", binds=binds))))
    facts["workload runs"] = not workload.exited.done()
    await fabric.stop()
    return facts


async def hostile() -> Facts:
    """A workload tries what it must not be able to do."""
    state = Path(tempfile.mkdtemp(prefix="tulle-state-"))
    (state / "ca.key").write_text("secret")
    manifests = Path(tempfile.mkdtemp(prefix="tulle-manifests-"))
    (manifests / "run").mkdir()
    (manifests / "run" / "control.sock").touch()
    (manifests / "app.yaml").write_text("kind: Deployment")
    named, abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    named.bind(f"{state}/host.sock")
    abstract.bind(f"\0tulle-test-{os.getpid()}")
    tcp = socket.create_server(("127.0.0.1", 0))
    for listener in (named, abstract):
        listener.listen()
    fabric = Fabric()
    await fabric.start()
    await fabric.pod_add("a", A)
    await fabric.pod_add("b", B)
    await background(fabric, python(programs.udp_echo(53), None, kind="sidecar"))
    await background(fabric, python(programs.witness(15001, "out"), "a", kind="sidecar", hostname="marked"))
    await background(fabric, python(programs.udp_echo(9999), "b"))
    await listening(fabric, "a", "127.0.0.1", 15001)
    aims = {
        "state": str(state),
        "named": f"{state}/host.sock",
        "abstract": f"tulle-test-{os.getpid()}",
        "host_port": tcp.getsockname()[1],
        "host_pid": os.getpid(),
        "gateway": fabric.network.gateway,
        "peer": B,
        "manifests": str(manifests),
    }
    command = Command(
        (PYTHON, programs.__file__, json.dumps(aims)),
        "a",
        env=ENV,
        binds=(Bind(programs.__file__), Bind(str(manifests))),
        hidden=(str(manifests / "run"),),
    )
    facts: Facts = json.loads(said(await fabric.run_in_pod(command)))
    await fabric.stop()
    return facts


async def lifecycle() -> Facts:
    """Exits, signals, starts that fail, exec probes, orphans, figures."""
    seen: list[tuple[int, Exited]] = []
    fabric = Fabric(on_exit=lambda process, exited: seen.append((process.pid, exited)))
    begun = time.monotonic()
    await fabric.start()
    facts: Facts = {"start seconds": time.monotonic() - begun}
    await fabric.pod_add("a", A)
    codes = await fabric.run_in_pod(python("raise SystemExit(7)", "a"))
    facts["exit code"] = codes.exited.code
    sleeper = await background(fabric, Command(("sleep", "100"), "a", env=ENV))
    facts["host pid"] = Path(f"/proc/{sleeper.host_pid}/cmdline").read_bytes().split(b"\0")[0].decode()
    probe = await fabric.run_in_pod(python("import os; print(os.listdir('/proc'), os.getuid())", "a"), into=sleeper)
    facts["probe sees the workload"] = {"1", "2"} <= set(said(probe).replace("'", "").replace("[", "").split(", "))
    await fabric.signal(sleeper)
    facts["SIGTERM"] = (await sleeper.wait()).signal
    await fabric.signal(sleeper)
    facts["refused"] = {}
    for name, command in {
        "no program": Command(("nonesuch",), "a", env=ENV),
        "no directory": Command(("sleep", "1"), "a", env=ENV, cwd="/nonesuch"),
        "no source": Command(("sleep", "1"), "a", env=ENV, binds=(Bind("/nonesuch"),)),
        "no pod": Command(("sleep", "1"), "z", env=ENV),
    }.items():
        try:
            await background(fabric, command)
        except FabricError as error:
            facts["refused"][name] = error.strerror
    daemon = "import os,time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(100)\n"
    facts["daemon"] = said(await fabric.run_in_pod(python(daemon + "print('left')", "a"), timeout=5))
    shell = "echo hello >&2; exec sleep 100"
    slow = await fabric.run_in_pod(Command(("sh", "-c", shell), "a", env=ENV), timeout=0.3)
    facts["time-out"] = [slow.exited.signal, slow.stderr.decode()]
    facts["left over"] = len((await fabric.listing()).processes)
    begun = time.monotonic()
    for number in range(12):
        await fabric.pod_add(f"p{number}", f"10.244.1.{number + 1}")
    facts["12 pods seconds"] = time.monotonic() - begun
    commands = [
        Command(("sleep", "100"), f"p{number}", env=ENV, kind=kind)
        for number in range(12)
        for kind in ("sidecar", "workload")
    ]
    await asyncio.gather(*(background(fabric, command) for command in commands))
    facts["12 pods with 24 processes seconds"] = time.monotonic() - begun
    before = len(seen)
    for number in range(12):
        await fabric.pod_delete(f"p{number}")
    for _ in range(100):
        if len(seen) == before + 24:
            break
        await asyncio.sleep(0.05)
    facts["ended with their pods"] = len(seen) - before
    facts["pods"] = (await fabric.listing()).pods
    await fabric.pod_add("p1", "10.244.1.1")
    await fabric.stop()
    return facts


async def files() -> Facts:
    """Binds: read-only, writable, below system directories, resolv.conf and hosts."""
    home = Path(tempfile.mkdtemp(prefix="tulle-files-"))
    (home / "volume").mkdir()
    (home / "resolv.conf").write_text("nameserver 10.244.0.1\n")
    (home / "hosts").write_text("127.0.0.1 localhost\n")
    fabric = Fabric(Network(pods="10.99.0.0/24", gateway="10.99.0.1", services="10.98.0.0/24"))
    await fabric.start()
    await fabric.pod_add("a", "10.99.0.2")
    binds = (
        Bind(str(home / "resolv.conf"), "/etc/resolv.conf"),
        Bind(str(home / "hosts"), "/etc/hosts"),
        Bind(str(home / "volume"), "/data", writable=True),
        Bind(str(home / "volume"), "/etc/tulle-config/deep"),
        Bind(str(home / "volume"), "/usr/share/tulle-test"),
    )
    command = python(programs.FILES, "a", binds=binds, uid=4242, gid=4242)
    facts: Facts = json.loads(said(await fabric.run_in_pod(command)))
    facts["written on the host"] = (home / "volume" / "new").read_text()
    facts["owner on the host"] = (home / "volume" / "new").stat().st_uid == os.geteuid()
    await fabric.stop()
    return facts


async def doomed() -> Facts:
    """Not a scenario of its own: starts a mesh, says what runs, and waits to be killed."""
    fabric = Fabric()
    await fabric.start()
    await fabric.pod_add("a", A)
    processes = [
        await background(fabric, Command(("sleep", "100"), "a", env=ENV, kind=kind)) for kind in ("sidecar", "workload")
    ]
    # One that tries to outlive its parent: own session, all signals ignored.
    stubborn = "import os,signal,time\nos.setsid() if os.fork() == 0 else None\n"
    stubborn += "[signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]\ntime.sleep(100)\n"
    processes.append(await background(fabric, python(stubborn, "a")))
    await asyncio.sleep(0.3)
    namespaces = {str(Path(f"/proc/{one.host_pid}/ns/net").readlink()) for one in processes[:1]}
    print(json.dumps({"pids": descendants(os.getpid()), "namespaces": sorted(namespaces)}), flush=True)
    await asyncio.sleep(100)
    return {}


def descendants(pid: int) -> list[int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = {pid}
    for _ in range(10):
        found |= {child for child, parent in parents.items() if parent in found}
    return sorted(found - {pid})


async def killed() -> Facts:
    """kill -9 of the supervisor."""
    supervisor = subprocess.Popen([PYTHON, __file__, "doomed"], stdout=subprocess.PIPE, env=dict(os.environ))
    assert supervisor.stdout is not None
    before = json.loads(supervisor.stdout.readline())
    supervisor.send_signal(signal.SIGKILL)
    supervisor.wait()
    left: list[int] = []
    for _ in range(100):
        left = [pid for pid in before["pids"] if Path(f"/proc/{pid}").exists()]
        if not left:
            break
        time.sleep(0.02)
    inside = 0
    for entry in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            inside += str(entry.readlink()) in before["namespaces"]
        except OSError:
            continue
    return {"before": len(before["pids"]), "namespaces": len(before["namespaces"]), "left": left, "inside": inside}


async def lost() -> Facts:
    """kill -9 of the fabric: the supervisor is told."""
    told = asyncio.Event()
    fabric = Fabric(on_lost=told.set)
    await fabric.start()
    await fabric.pod_add("a", A)
    sleeper = await background(fabric, Command(("sleep", "100"), "a", env=ENV))
    os.kill(fabric.host_pid, signal.SIGKILL)
    await asyncio.wait_for(told.wait(), 5)
    facts: Facts = {"process": (await sleeper.wait()).signal}
    try:
        await fabric.pod_add("b", B)
    except FabricError as error:
        facts["refused"] = error.strerror
    await fabric.stop()
    return facts


async def options() -> Facts:
    """Istio's annotations: what is captured and what passes by. Nobody listens on a captured way, so it is refused."""
    fabric = Fabric()
    await fabric.start()
    await fabric.pod_add("server", A, NO_CAPTURE)
    await background(fabric, python(programs.server(9080, "server"), "server"))
    await listening(fabric, "server", A, 9080)
    facts: Facts = {}
    senders = {
        "everything": Capture(),
        "nothing": NO_CAPTURE,
        "port excluded": Capture(exclude_outbound_ports=(9080,)),
        "other port excluded": Capture(exclude_outbound_ports=(9081,)),
        "range excluded": Capture(exclude_outbound_ranges=("10.244.0.0/24",)),
        "range not included": Capture(include_outbound_ranges=("192.0.2.0/24",)),
        "range included": Capture(include_outbound_ranges=("192.0.2.0/24", "10.244.0.0/16")),
        "port included": Capture(include_outbound_ranges=(), include_outbound_ports=(9080,)),
    }
    for number, (name, chosen) in enumerate(senders.items()):
        await fabric.pod_add(name, f"10.244.1.{number}", chosen)
        facts[f"out: {name}"] = await ask(fabric, name, A, 9080)
    receivers = {
        "everything": Capture(),
        "nothing": Capture(inbound=False),
        "port excluded": Capture(exclude_inbound_ports=(9080,)),
        "port included": Capture(include_inbound_ports=(9080,)),
        "port not included": Capture(include_inbound_ports=(9081,)),
    }
    for number, (name, chosen) in enumerate(receivers.items()):
        pod, address = f"in {name}", f"10.244.2.{number}"
        await fabric.pod_add(pod, address, chosen)
        await background(fabric, python(programs.server(9080, name), pod))
        await listening(fabric, pod, address, 9080)
        facts[f"in: {name}"] = await ask(fabric, "server", address, 9080)
    await fabric.stop()
    return facts


async def supervisor() -> Facts:
    """What a supervisor leans on: passed sockets, starts given up, several meshes."""
    fabric, second = Fabric(), Fabric()
    await asyncio.gather(fabric.start(), second.start())
    for mesh in (fabric, second):
        await mesh.pod_add("a", A)
    facts: Facts = {}
    dns = await fabric.open_socket("udp-bind", fabric.network.gateway, 53)
    asked = asyncio.create_task(fabric.run_in_pod(python(programs.UDP_CLIENT, "a", cwd="/tmp")))
    loop = asyncio.get_running_loop()
    question, peer = await asyncio.wait_for(loop.sock_recvfrom(dns, 100), 10)
    await loop.sock_sendto(dns, question.upper(), peer)
    facts["dns"] = [peer[0], said(await asked)]
    dns.close()
    given_up = asyncio.create_task(background(fabric, Command(("sleep", "100"), "a", env=ENV)))
    await asyncio.sleep(0)
    given_up.cancel()
    for _ in range(200):
        if not (await fabric.listing()).processes:
            break
        await asyncio.sleep(0.02)
    facts["given up"] = len((await fabric.listing()).processes)
    await background(second, python(programs.server(9080, "second"), "a"))
    await listening(second, "a", A, 9080)
    try:
        (await fabric.open_socket("tcp-connect", A, 9080, "a")).close()
        facts["meshes"] = "see each other"
    except ConnectionRefusedError:
        facts["meshes"] = "are strangers"
    await asyncio.gather(fabric.stop(), second.stop())
    return facts


async def masked() -> Facts:
    """A container that masks parts of /proc, as Docker does: the kernel then refuses a new /proc."""
    kernel.unshare(kernel.NEWNS)
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("/dev/null", "/proc/uptime", None, kernel.MS_BIND)
    fabric = Fabric()
    await fabric.start()
    await fabric.pod_add("a", A)
    sleeper = await background(fabric, Command(("sleep", "100"), "a", env=ENV))
    source = "import os; print(os.listdir('/proc'), os.getpid(), os.getuid())"
    facts: Facts = {"notes": fabric.notes, "new": said(await fabric.run_in_pod(python(source, "a")))}
    facts["joined"] = said(await fabric.run_in_pod(python(source, "a"), into=sleeper))
    await fabric.stop()
    return facts


def in_a_user_namespace() -> None:
    outside = (os.geteuid(), os.getegid())
    proc = os.open("/proc", os.O_PATH)
    kernel.unshare(kernel.NEWUSER)
    kernel.map_one_user(proc, (0, 0), outside)
    os.close(proc)


async def support() -> Facts:
    found = await probe_support()
    return {"has fabric": found.has_fabric, "failed": [check.name for check in found.checks if not check.works]}


SCENARIOS = (
    sidecars,
    capture,
    envoys,
    hostile,
    lifecycle,
    files,
    options,
    supervisor,
    masked,
    doomed,
    killed,
    lost,
    support,
)

if __name__ == "__main__":
    chosen = {scenario.__name__: scenario for scenario in SCENARIOS}[sys.argv[1]]
    if chosen is masked:
        in_a_user_namespace()
    print(json.dumps(asyncio.run(chosen())))
