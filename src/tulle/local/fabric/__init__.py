"""The rootless fabric: one user namespace per mesh, holding a bridge, the pods' network namespaces and their processes.

`client.Fabric` is the whole interface: it starts `init` (PID 1 of the fabric) as a child of the calling process and
talks to it over a socket pair (`wire`). It must not know workloads, services, probes or Envoy's configuration; the
supervisor in the room above decides what runs where.

`kernel` wraps system calls, `netlink`, `links` and `nft` encode netlink messages, `capture` says which packets go to
the sidecar, `pods` owns the network namespaces, `sandbox` turns a forked child into a sidecar or a workload, `support`
finds out what this machine allows.
"""
