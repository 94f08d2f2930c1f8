"""What tulle costs, measured: control plane, sidecar memory, data path. Not part of the wheel; knows the product from outside.

`python -m bench NAME` prints a table; `--save` keeps it in `bench/results/`, from which `docs/performance.md` is generated.
"""
