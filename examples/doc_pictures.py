"""Pictures of a run, and a page with all of it."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from execo import Remote, Timer
from execo.engine import (
    Record,
    draw_results,
    draw_sweep,
    draw_timeline,
    load,
    save_picture,
    sweep,
    write_report,
)
from execo.testing import Cluster

try:
    import jinja2  # noqa: F401
    import matplotlib  # noqa: F401
except ImportError:
    print("pip install 'execo[plot,report]'")
    sys.exit()

parent = tempfile.TemporaryDirectory()
folder = Path(parent.name, "run")

with Cluster(3) as cluster, Record(folder) as record:
    for combination in sweep({"tool": ["gzip", "bzip2"], "level": [1, 9]}, repeat=3):
        with record.combination(combination):
            tool, level = combination["tool"], combination["level"]
            timer = Timer()
            remote = Remote(f"seq 20000 | {tool} -{level} | wc -c", cluster.hosts).run()
        size = int(remote.processes[0].stdout)
        record.result(combination, {"bytes": size, "seconds": timer.elapsed()})

# The pictures.
run = load(folder)
save_picture(draw_timeline(run), folder / "timeline.pdf")
save_picture(draw_sweep(run), folder / "sweep.png")
figure = draw_results(run, "seconds", "level", by="tool")
figure.axes[0].set_ylim(bottom=0)
save_picture(figure, folder / "seconds.svg")
# The page.
path = write_report(run)
# Until here.

assert path.stat().st_size > 50_000
assert {one.suffix for one in folder.iterdir()} >= {".pdf", ".png", ".svg", ".html"}
parent.cleanup()
