"""How much the load tests do: enough to find a fault by default, and all of it with TEST_LOAD=full.

They are marked `load`, so that `make soak` finds them.
"""

import os

IS_FULL = os.environ.get("TEST_LOAD") == "full"


def load(small: int, full: int) -> int:
    """Return how often a load test does something."""
    return full if IS_FULL else small
