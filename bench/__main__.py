"""`python -m bench NAME`: measure, print a table (or `-o json`), and keep it with `--save`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from typing import NoReturn

from bench import (
    control_plane,
    data_path,
    endurance,
    filter_cost,
    first_answer,
    kubernetes,
    page,
    pod_cost,
    results,
    sidecar_memory,
)
from bench.building import CannotMeasureError

_MODULES = (first_answer, control_plane, sidecar_memory, data_path, filter_cost, endurance, kubernetes, pod_cost)
MEASURED = {module.NAME: module for module in _MODULES}


def main() -> int:
    """Exit code 0, or 1 with a sentence."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    names = parser.add_subparsers(dest="name", required=True)
    for name, module in MEASURED.items():
        one = names.add_parser(name, help=(module.__doc__ or "").partition("\n")[0])
        module.arguments(one)
        one.add_argument("-o", "--output", choices=("text", "json"), default="text")
        one.add_argument("--save", action="store_true", help="put the rows into bench/results")
    written = names.add_parser("page", help="write docs/performance.md from the saved results")
    written.add_argument("--check", action="store_true", help="only say whether it is up to date")
    given = parser.parse_args()
    if given.name == "page":
        return page.main(only_checks=given.check)
    module = MEASURED[given.name]
    signal.signal(signal.SIGTERM, _end)  # what was started is ended, as with Ctrl-C
    try:
        rows = module.run(given)
    except CannotMeasureError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(rows, indent=1) if given.output == "json" else module.text(rows))
    if given.save:
        print(f"saved: {results.save(given.name, rows)}", file=sys.stderr)
    return 0


def _end(*_: object) -> NoReturn:
    sys.exit(143)


if __name__ == "__main__":
    sys.exit(main())
