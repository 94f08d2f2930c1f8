"""The policy kind `outlier_detection`: what it says (spec) and what Envoy does for it (envoy)."""
