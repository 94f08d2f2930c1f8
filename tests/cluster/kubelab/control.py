"""What the control plane runs and with which flags. Starts nothing."""

from pathlib import Path

from .layout import API_PORT, DOMAIN, Layout

PARTS = ("server", "controllers", "scheduler", "balancers")
"""In the order of starting; `server` is etcd and the API in one process."""


def line(layout: Layout, part: str, kubernetes: Path, api_flags: list[str]) -> list[str]:
    """The command line of a part; all of them run in the first node's network."""
    lines = {
        "server": lambda: [*_server(layout), *api_flags],
        "controllers": lambda: _controllers(layout),
        "scheduler": lambda: _scheduler(layout),
        "balancers": lambda: _balancers(layout),
    }
    return [str(kubernetes), *lines[part]()]


def environment(layout: Layout) -> dict[str, str]:
    """etcd's folder."""
    return {"ETCD_FOLDER": str(layout.folder / "etcd")}


def _server(layout: Layout) -> list[str]:
    keys = layout.keys
    return [
        "server",
        "--etcd-servers=http://127.0.0.1:2379",
        f"--bind-address={layout.nodes[0].address}",
        f"--advertise-address={layout.nodes[0].address}",
        f"--secure-port={API_PORT}",
        f"--tls-cert-file={keys}/apiserver.crt",
        f"--tls-private-key-file={keys}/apiserver.key",
        f"--client-ca-file={keys}/ca.crt",
        f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
        f"--service-account-key-file={keys}/tokens.pub",
        f"--service-account-signing-key-file={keys}/tokens.key",
        f"--service-cluster-ip-range={layout.both(layout.services, layout.services6)}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--kubelet-client-certificate={keys}/apiserver-kubelet.crt",
        f"--kubelet-client-key={keys}/apiserver-kubelet.key",
        f"--kubelet-certificate-authority={keys}/ca.crt",
        "--kubelet-preferred-address-types=InternalIP",
        f"--requestheader-client-ca-file={keys}/ca.crt",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-allowed-names=front-proxy-client",
        f"--proxy-client-cert-file={keys}/front-proxy.crt",
        f"--proxy-client-key-file={keys}/front-proxy.key",
        "--allow-privileged=true",
        "--v=1",
    ]


def _as(layout: Layout, user: str) -> list[str]:
    kubeconfig = f"{layout.keys}/{user}.kubeconfig"
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
    ]


def _controllers(layout: Layout) -> list[str]:
    keys = layout.keys
    return [
        "kube-controller-manager",
        *_as(layout, "controllers"),
        f"--service-account-private-key-file={keys}/tokens.key",
        f"--root-ca-file={keys}/ca.crt",
        "--use-service-account-credentials=true",
        f"--cluster-signing-cert-file={keys}/ca.crt",
        f"--cluster-signing-key-file={keys}/ca.key",
        f"--cluster-cidr={layout.both(layout.pods, layout.pods6)}",
        "--allocate-node-cidrs=false",
    ]


def _scheduler(layout: Layout) -> list[str]:
    return ["kube-scheduler", *_as(layout, "scheduler")]


def _balancers(layout: Layout) -> list[str]:
    ranges = layout.both(layout.balancers, layout.balancers6)
    return ["load-balancers", f"--kubeconfig={layout.keys}/admin.kubeconfig", f"--ranges={ranges}"]
