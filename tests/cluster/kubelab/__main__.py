"""`python -m kubelab up|down|list|load|kubectl|build`: clusters by hand; `keep` is what `up` starts."""

import argparse
import json
import signal
import subprocess
import sys

from . import builds, cluster, images, keeper, processes, record
from .layout import Layout
from .saying import say


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="kubelab", description=__doc__)
    orders = parser.add_subparsers(dest="order", required=True)
    up = orders.add_parser("up", help="start a cluster; stays until Ctrl-C unless --detach")
    up.add_argument("--name", default="dev")
    up.add_argument("--nodes", type=int, default=1, choices=(1, 2, 3))
    up.add_argument("--dual", action="store_true", help="IPv4 and IPv6")
    up.add_argument("--detach", action="store_true")
    up.add_argument("--images", default="", help="comma-separated, of `list`, or `all`")
    up.add_argument("--proxy-mode", default="nftables", choices=("nftables", "iptables"))
    down = orders.add_parser("down", help="take one down, or --all, dead ones too")
    down.add_argument("--name", default="dev")
    down.add_argument("--all", action="store_true")
    load = orders.add_parser("load", help="bring images (made anew when their source changed) onto all nodes")
    load.add_argument("--name", default="dev")
    load.add_argument("images", nargs="+")
    orders.add_parser("list", help="clusters and images")
    build = orders.add_parser("build", help="build what a cluster needs; without names all programs")
    build.add_argument("programs", nargs="*", choices=[*builds.PROGRAMS, []])
    kubectl = orders.add_parser("kubectl", help="kubectl at a cluster")
    kubectl.add_argument("name")
    kubectl.add_argument("arguments", nargs=argparse.REMAINDER)
    keep = orders.add_parser("keep")
    keep.add_argument("plan")
    chosen = parser.parse_args()
    try:
        return _obey(chosen)
    except (builds.UnavailableError, FileExistsError, RuntimeError, TimeoutError) as error:
        say(str(error))
        return 1


def _obey(chosen: argparse.Namespace) -> int:
    if chosen.order == "keep":
        plan = json.loads(chosen.plan)
        keeper.keep(Layout(*plan["layout"]), keeper.Wishes(*plan["wishes"]))
    elif chosen.order == "up":
        return _up(chosen)
    elif chosen.order == "down":
        for name in record.names() if chosen.all else [chosen.name]:
            say(f"{name}: {'down' if cluster.down(name) else 'there is none'}")
    elif chosen.order == "load":
        cluster.attach(chosen.name).load(*chosen.images)
    elif chosen.order == "kubectl":
        found = cluster.attach(chosen.name)
        line = [str(found.kubernetes), "kubectl", f"--kubeconfig={found.kubeconfig}", *chosen.arguments]
        return subprocess.run(line, check=False).returncode
    elif chosen.order == "build":
        cluster.require()
        for name in chosen.programs or builds.PROGRAMS:
            print(builds.built(name))
    else:
        _list()
    return 0


def _up(chosen: argparse.Namespace) -> int:
    names = tuple(name for name in chosen.images.split(",") if name)
    if names == ("all",):
        names = tuple(name for name in images.IMAGES if name not in images.OF_THE_CLUSTER)
    choice = cluster.Choice(chosen.name, chosen.nodes, chosen.dual, names, proxy_mode=chosen.proxy_mode)
    found = cluster.up(choice, is_detached=chosen.detach)
    print(f"export KUBECONFIG={found.kubeconfig}", flush=True)
    if chosen.detach:
        return 0
    say("Ctrl-C ends it")
    try:
        signal.pause()
    except KeyboardInterrupt:
        cluster.down(chosen.name)
    return 0


def _list() -> None:
    for name in record.names():
        found = record.read(name)
        if found is not None:
            state = found.state if processes.is_alive(found.keeper) else "dead"
            print(f"{name:<16}{state:<10}{found.layout.size} nodes  {found.layout.kubeconfig}")
    print(f"images: {', '.join(images.IMAGES)}")


if __name__ == "__main__":
    sys.exit(main())
