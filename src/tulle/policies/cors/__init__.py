"""The policy kind `cors`: what it says (spec) and what Envoy does for it (envoy)."""
