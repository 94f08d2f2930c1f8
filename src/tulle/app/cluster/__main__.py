"""The control plane's process in a cluster: `python -m tulle.app.cluster --namespace tulle-system ...`.

Reads arguments, runs one replica, ends on SIGTERM and SIGINT.
"""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tulle.app.cluster.settings import Replica, injection
from tulle.app.process import prepare, stopping
from tulle.app.settings import Settings, SettingsRefusedError, load
from tulle.app.wakeups import run
from tulle.identity.errors import IdentityError
from tulle.installing.naming import Names
from tulle.kube.access import Access
from tulle.kube.errors import KubeError
from tulle.serve import logs

SETTLE_S = 180.0
"""A kubelet brings a changed ConfigMap into its pods within two minutes (sync period and jitter, one minute and a half): so long
a new root only stands in the bundle. Without that, a proxy that connects anew would meet a certificate it cannot know."""
_EVERYWHERE = "0.0.0.0"  # noqa: S104 - of a pod


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, parsed."""
    parser = argparse.ArgumentParser(prog="tulle-cluster", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--namespace", default=os.environ.get("POD_NAMESPACE", "tulle-system"), help="our own")
    parser.add_argument("--revision", default="default", help="which revision of the control plane this is")
    parser.add_argument("--name", default=os.environ.get("POD_NAME", f"pid-{os.getpid()}"), help="of this replica")
    parser.add_argument("--settings", type=Path, default=None, help="settings of the mesh, JSON")
    parser.add_argument("--injection-settings", type=Path, default=None, help="settings of injection, JSON")
    parser.add_argument(
        "--state-dir", type=Path, default=Path("/var/lib/tulle"), help="memory, not disk: keys are in it"
    )
    parser.add_argument("--kubeconfig", type=Path, default=None, help="instead of the pod's own service account")
    parser.add_argument("--context", default=None, help="of the kubeconfig")
    parser.add_argument("--listen", default=_EVERYWHERE, help="address of the ports that proxies and the API reach")
    parser.add_argument("--log-format", choices=("text", "json"), default="json")
    parser.add_argument("--verbose", action="store_true")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run until told to stop; the exit code."""
    given = arguments(words)
    try:
        settings = load(given.settings, {"bundleSettleSeconds": SETTLE_S})
        names = Names(given.namespace, given.revision)
        replica = Replica(
            name=given.name,
            names=names,
            state_dir=given.state_dir,
            listen=given.listen,
            injection=injection(given.injection_settings, names, settings),
        )
    except (SettingsRefusedError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    prepare(given.log_format, is_verbose=given.verbose)
    try:
        return run(_serve(given, settings, replica))
    except (IdentityError, KubeError) as error:
        found = error.problem()
        logs.event(logging.ERROR, "cannot start", code=found.code, error=found.text, advice=found.advice)
    except OSError as error:
        logs.event(logging.ERROR, "cannot start", error=str(error))
    return 1


async def _serve(given: argparse.Namespace, settings: Settings, replica: Replica) -> int:
    from tulle.app.cluster.plane import ClusterPlane  # noqa: PLC0415 - grpc comes after `prepare`

    stop = stopping()
    access = (
        Access.in_cluster() if given.kubeconfig is None else Access.from_kubeconfig(given.kubeconfig, given.context)
    )
    async with access:
        plane = ClusterPlane(access, replica, settings)
        stopped = asyncio.ensure_future(stop.wait())
        running = asyncio.ensure_future(plane.run())
        try:
            await asyncio.wait((stopped, running), return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
        finally:
            stopped.cancel()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await plane.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
