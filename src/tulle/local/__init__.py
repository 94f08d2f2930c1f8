"""The local run: a mesh of ordinary processes on one machine (README.md)."""
