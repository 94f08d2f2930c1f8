"""The policy kind `connection_pool`: what it says (spec) and what Envoy does for it (envoy)."""
