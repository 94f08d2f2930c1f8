"""A service mesh: Envoy underneath, Istio's YAML on top. ARCHITECTURE.md is the map."""
