"""How often what is random is repeated, and how it is chosen: two variables of the environment.

PYTEST_DONT_REWRITE: a test module may import this one before pytest takes it as a plugin.
"""

from __future__ import annotations

import os
import random

__all__ = ["ROUNDS", "chance"]

ROUNDS = int(os.environ.get("EXECO_ROUNDS", "1"))
"""How many times what is random is repeated."""


def chance() -> random.Random:
    """Random choices, that can be made again: the seed is printed, and ``EXECO_SEED`` sets it."""
    seed = int(os.environ.get("EXECO_SEED") or random.SystemRandom().randrange(10**9))
    print(f"EXECO_SEED={seed}")
    return random.Random(seed)
