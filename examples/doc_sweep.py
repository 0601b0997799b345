"""A sweep that goes on where it was."""

from __future__ import annotations

import contextlib
import tempfile
import zlib

parent = tempfile.TemporaryDirectory()
here = contextlib.chdir(parent.name)
here.__enter__()


def measure(size: int, level: int) -> dict[str, int]:
    return {"bytes": len(zlib.compress(b"apple " * size, level))}


# The script.
from execo.engine import ParamSweeper, sweep  # noqa: E402

sweeper = ParamSweeper("results/sweep", sweep({"size": [100, 1000], "level": [1, 9]}), retries=2)
while combination := sweeper.get_next():
    try:
        sweeper.done(combination, result=measure(**combination))
    except zlib.error as exc:
        sweeper.failed(combination, str(exc))
print(sweeper)
for combination, result in sweeper.results.items():
    print(combination, result)
# The end of it.

assert len(sweeper.results) == 4
assert str(sweeper) == "sweep <4 total, 4 done, 0 skipped, 0 in progress, 0 remaining>"
sweeper.close()

# Other sweeps.
tools = {"gzip": {"level": [1, 9]}, "cat": {}}  # cat has no level
sweep({"tool": tools, "size": [10, 20]})
sweep({("nodes", "cores"): [(1, 8), (4, 2)], "size": [10, 20]})
sweep({"size": range(100), "block": range(100)}, where=lambda c: c["block"] < c["size"], sample=50)
sweep({"size": [10, 20]}, repeat=5)
# No more of them.

assert len(sweep({"tool": tools, "size": [10, 20]})) == 6
assert len(sweep({"size": [10, 20]}, repeat=5)) == 10
here.__exit__(None, None, None)
parent.cleanup()
