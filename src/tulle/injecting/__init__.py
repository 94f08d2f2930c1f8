"""A pod, its namespace and settings -> the pod with its proxy. Pure: the webhook and `tulle inject` give the same answer."""
