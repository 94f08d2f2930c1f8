"""The policy kind `mirror`: what it says (spec) and what Envoy does for it (envoy)."""
