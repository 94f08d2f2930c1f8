"""The wiring of the control plane in a cluster. One replica is `plane.ClusterPlane`; each duty beside serving has a module."""
