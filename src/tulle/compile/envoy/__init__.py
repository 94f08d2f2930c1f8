"""Plans as Envoy messages: one module per resource type. Pure functions of a plan piece and the mesh's settings."""
