"""The Kubernetes API: where it is and as whom, what it serves, list and watch, tokens, leases, writes.

Adapter. Knows no mesh: which kinds, which bytes and which answer are parameters. Importing `access` imports the API client, which
a local run never needs: whoever wires a cluster imports it late.
"""
