"""The control plane's process: `python -m tulle.app.control --run-dir RUN --state-dir STATE PATH...`.

Reads arguments, runs the loop, ends on SIGTERM and SIGINT. The order of things is `control_plane.py`'s.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from tulle.app.process import prepare, stopping
from tulle.app.settings import Settings, SettingsRefusedError, load
from tulle.app.wakeups import run
from tulle.identity.errors import IdentityError
from tulle.serve import logs


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, parsed."""
    parser = argparse.ArgumentParser(prog="tulle-control", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument(
        "--run-dir", type=Path, default=None, help="the supervisor's directory; without it no pods are served"
    )
    parser.add_argument("--state-dir", type=Path, required=True, help="where the CA's roots are kept")
    parser.add_argument("--xds-plaintext", metavar="HOST:PORT", help="serve xDS without identities: never secrets")
    parser.add_argument("--xds-tls", metavar="HOST:PORT", help="serve xDS over TLS, to certificates of the mesh")
    parser.add_argument("--settings", type=Path, default=None, help="settings of the mesh, JSON")
    parser.add_argument(
        "--service-cidr", metavar="CIDR", action="append", default=[], help="where services have their addresses"
    )
    parser.add_argument("--log-format", choices=("text", "json"), default=None)
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("config", nargs="*", type=Path, metavar="PATH", help="manifests: files or folders")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run until told to stop; the exit code."""
    given = arguments(words)
    try:
        settings = load(given.settings)
        if given.service_cidr and not settings.service_cidrs:
            settings = replace(settings, service_cidrs=tuple(given.service_cidr))
    except (SettingsRefusedError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    prepare(given.log_format or settings.log_format, is_verbose=given.verbose)
    try:
        return run(_serve(given, settings))
    except IdentityError as error:
        found = error.problem()
        logs.event(logging.ERROR, "cannot start", code=found.code, error=found.text, advice=found.advice)
    except OSError as error:
        logs.event(logging.ERROR, "cannot start", error=str(error))
    return 1


async def _serve(given: argparse.Namespace, settings: Settings) -> int:
    from tulle.app.control_plane import ControlPlane  # noqa: PLC0415 - grpc comes after `prepare`
    from tulle.app.world import QueuedSource  # noqa: PLC0415 - as above

    stop = stopping()
    place = {"cluster": settings.cluster, "namespace": settings.namespace}
    runtime = QueuedSource([given.run_dir / "runtime.json"], **place) if given.run_dir else None
    config = QueuedSource(given.config, **place)
    plane = ControlPlane(config, settings, given.run_dir, given.state_dir, runtime=runtime)
    try:
        await plane.open()
        if given.xds_plaintext:
            await plane.open_plaintext(given.xds_plaintext)
        if given.xds_tls:
            await plane.open_tls(given.xds_tls)
        await stop.wait()
    finally:
        await plane.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
