"""The wiring of processes: the only place that knows every room, and nothing else."""
