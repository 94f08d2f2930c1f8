"""What the mesh says to proxies and to people: xDS over gRPC, secrets per identity, the state of the fleet, the admin API.

Knows no files and no processes; where objects come from is `sources`, what they mean is `compile`, wiring is `app`.
"""
