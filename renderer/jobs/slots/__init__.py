"""Places where an attempt at a job runs: the seam that the engine knows, and the worker processes of this machine."""
