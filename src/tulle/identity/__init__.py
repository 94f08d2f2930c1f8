"""Who a workload is, and how it proves it: SPIFFE names, the built-in CA, the life of leafs and roots.

Knows nothing of xDS, pods or Envoy: a holder is any string, a bundle is PEM. Delivering and acknowledging is serve's.
"""
