"""How long pictures and pages take: a timeline of 100 000 processes, a report of 10 000 rows.

A timeline is timed from the run to the file, with the import of matplotlib. A report is timed when
it is written, and when it is opened: from the address to the first frame with all of it, in a
Chromium that has just been started and has nothing in its caches.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

from harness import Bench, Numbers, body, main

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

PROCESSES = 100_000
ROWS = 10_000


def timeline(scale: float, form: str) -> Numbers:
    from execo.engine import draw_timeline, save_picture
    from sample_runs import busy_run

    run = busy_run(max(100, round(PROCESSES * scale)), 200)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        path = save_picture(draw_timeline(run), Path(folder, f"timeline.{form}"))
        return {"seconds": time.perf_counter() - begin, "size": path.stat().st_size / 1e6}


@body
def png(scale: float) -> Numbers:
    return timeline(scale, "png")


@body
def pdf(scale: float) -> Numbers:
    return timeline(scale, "pdf")


@body
def svg(scale: float) -> Numbers:
    return timeline(scale, "svg")


@body
def report(scale: float) -> Numbers:
    from browsing import Browser
    from execo.engine import write_report
    from sample_runs import busy_run

    run = busy_run(max(100, round(ROWS * scale)), 40)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        path = write_report(run, Path(folder, "report.html"))
        found = {"write": time.perf_counter() - begin, "size": path.stat().st_size / 1e6}
        if browser_is_there():
            browser = Browser(Path(folder, "profile"))
            try:
                begin = time.perf_counter()
                browser.open(path)
                browser.driver.execute_async_script(
                    "const done = arguments[0];"
                    "requestAnimationFrame(() => requestAnimationFrame(done))"
                )
                found["open"] = time.perf_counter() - begin
                begin = time.perf_counter()
                browser.ask("document.querySelectorAll('#processes th button')[6].click()")
                found["sort"] = time.perf_counter() - begin
            finally:
                browser.close()
        return found


def browser_is_there() -> bool:
    return shutil.which("chromium") is not None and shutil.which("chromedriver") is not None


def figures(bench: Bench) -> None:
    """How long pictures and pages take."""
    import matplotlib.font_manager  # noqa: F401 - makes its list of fonts, at its first use

    count = max(100, round(PROCESSES * bench.scale))
    drawn = bench.measure("png", "pdf", "svg")
    for form, found in zip(("PNG", "PDF", "SVG"), drawn, strict=True):
        bench.below(f"timeline of {count} processes, {form}", found["seconds"], 10, "s")
        bench.show("  size of the file", found["size"], unit="MB")
    (found,) = bench.measure("report")
    rows = max(100, round(ROWS * bench.scale))
    bench.show(f"report of {rows} rows: written", found["write"])
    bench.show("  size of the file", found["size"], unit="MB")
    if "open" in found:
        bench.below("  opened in Chromium", found["open"], 2, "s")
        bench.show("  sorted by a column", found["sort"])
    else:
        print("Chromium is not installed: apt install chromium chromium-driver")


if __name__ == "__main__":
    main(figures, rounds=3)
