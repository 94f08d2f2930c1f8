"""What the mesh tells: metrics of many sidecars as one, rates, access logs. Adapter (`merged`) around pure parts."""
