"""The policy kind `load_balancing`: what it says (spec) and what Envoy does for it (envoy)."""
