"""What a node runs and with which settings: containerd, kubelet, kube-proxy in one mount and pid namespace.

The namespaces' first process is a shell that starts them and starts again what ends; when it dies the kernel kills all of
the node, pods included. Writes files, starts nothing.
"""

import json
from pathlib import Path
from typing import Any

from .layout import DOMAIN, Layout, Node

PAUSE = "localhost/pause:dev"
RUNTIME_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
CNI_PROGRAMS = "/usr/lib/cni"
"""Debian's."""
# where nodes have them by custom; each node its own: agents put plugins there
CNI_FOLDER = "/opt/cni/bin"
CNI_NETWORKS = "/etc/cni/net.d"
# what the node must not share with the host: sockets, network state, logs
PRIVATE = ("/run", "/var/lib/cni", "/var/log", "/opt")
LONGEST_SOCKET = 100  # of 108 bytes that the kernel takes


def folder_of(layout: Layout, node: Node) -> Path:
    """The node's part of the cluster's folder."""
    return layout.folder / node.name


def socket_of(layout: Layout, node: Node) -> Path:
    """Where containerd listens; reachable from the host too."""
    return folder_of(layout, node) / "containerd.sock"


def prepare(layout: Layout, node: Node, *, kubernetes: Path, proxy_mode: str) -> Path:
    """Write the node's files; the answer is its first program, a shell script. Raises ValueError for a hopeless folder."""
    folder = folder_of(layout, node)
    if len(str(socket_of(layout, node))) > LONGEST_SOCKET:
        raise ValueError(f"{folder} is too long a path for sockets: set TULLE_CACHE to a shorter one")
    if any(str(folder).startswith(f"{private}/") for private in PRIVATE):
        raise ValueError(f"{folder} is where nodes have their own file systems: set TULLE_CACHE elsewhere")
    for name in ("cni", "kubelet", "pods"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "containerd.toml").write_text(_containerd(folder))
    (folder / "cni" / "10-kubelab.conflist").write_text(json.dumps(_network(layout, node, folder), indent=1))
    (folder / "resolv.conf").write_text(f"nameserver {layout.dns}\n")
    (folder / "kubelet.json").write_text(json.dumps(_kubelet(layout, node, folder), indent=1))
    (folder / "proxy.json").write_text(json.dumps(_proxy(layout, node, proxy_mode), indent=1))
    first = folder / "first.sh"
    first.write_text(_first(layout, node, folder, kubernetes))
    return first


def _containerd(folder: Path) -> str:
    return f"""version = 2
root = "{folder}/containerd"
state = "{folder}/state"
[grpc]
  address = "{folder}/containerd.sock"
[ttrpc]
  address = "{folder}/containerd.sock.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  max_concurrent_downloads = 1
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_FOLDER}"
    conf_dir = "{CNI_NETWORKS}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
"""


def _network(layout: Layout, node: Node, folder: Path) -> dict[str, Any]:
    """A bridge per node; no masquerading: pods keep their addresses across nodes."""
    ranges = [[{"subnet": node.pods}]]
    routes = [{"dst": "0.0.0.0/0"}]
    if layout.is_dual:
        ranges.append([{"subnet": node.pods6}])
        routes.append({"dst": "::/0"})
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "hairpinMode": True}
    addresses = {"type": "host-local", "dataDir": f"{folder}/addresses", "ranges": ranges, "routes": routes}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "kubelab", "plugins": [{**bridge, "ipam": addresses}, ports]}


def _kubelet(layout: Layout, node: Node, folder: Path) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{node.cgroup}",
        "failSwapOn": False,
        "containerRuntimeEndpoint": f"unix://{socket_of(layout, node)}",
        "clusterDNS": [layout.dns],
        "clusterDomain": DOMAIN,
        "resolvConf": f"{folder}/resolv.conf",
        "address": node.address,
        "authentication": {
            "x509": {"clientCAFile": f"{layout.keys}/ca.crt"},
            "webhook": {"enabled": True},
            "anonymous": {"enabled": False},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{layout.keys}/{node.name}.crt",
        "tlsPrivateKeyFile": f"{layout.keys}/{node.name}.key",
        "enforceNodeAllocatable": ["pods"],
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageMinimumGCAge": "24h",
        "maxPods": 250,
        "podLogsDir": f"{folder}/pods",
        # Secrets and ConfigMaps reach pods in seconds, not in a minute and a half
        "syncFrequency": "10s",
        "serializeImagePulls": False,
    }


def _proxy(layout: Layout, node: Node, mode: str) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": f"{layout.keys}/proxy.kubeconfig"},
        "mode": mode,
        "clusterCIDR": layout.both(layout.pods, layout.pods6),
        "hostnameOverride": node.name,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "conntrack": {"maxPerCore": 0},
    }


def _first(layout: Layout, node: Node, folder: Path, kubernetes: Path) -> str:
    """Mounts of the node are its own, yet shared among its processes: the kubelet's volumes must reach containerd."""
    private = "\n".join(f"mkdir -p {path}; mount -t tmpfs tmpfs {path}" for path in PRIVATE)
    addresses = layout.both(node.address, node.address6)
    return f"""set -u
mount --make-rprivate /
{private}
mkdir -p {CNI_FOLDER} {CNI_NETWORKS}
ln -s {CNI_PROGRAMS}/* {CNI_FOLDER}
mount --bind {folder}/cni {CNI_NETWORKS}
mount --make-rshared /
hostname {node.name}
export PATH={RUNTIME_PATH}
sysctl -qw net.bridge.bridge-nf-call-iptables=1 2>/dev/null
keep() {{ # name, program...
  log={layout.logs}/{node.name}-$1.log; shift
  while :; do "$@" >>"$log" 2>&1; echo "ended: $?" >>"$log"; sleep 0.5; done
}}
# as after a reboot: what lived in memory is gone
rm -rf {folder}/state {folder}/containerd.sock {folder}/containerd.sock.ttrpc
keep containerd containerd -c {folder}/containerd.toml &
keep kube-proxy {kubernetes} kube-proxy --config={folder}/proxy.json --v=1 &
# the kubelet gives up on a runtime that does not answer
n=0; until [ -S {folder}/containerd.sock ] || [ $n = 200 ]; do n=$((n+1)); sleep 0.05; done
keep kubelet {kubernetes} kubelet --config={folder}/kubelet.json --kubeconfig={layout.keys}/{node.name}.kubeconfig \\
  --root-dir={folder}/kubelet --cert-dir={folder}/kubelet/pki --hostname-override={node.name} --node-ip={addresses} --v=2 &
wait
"""
