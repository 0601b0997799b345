"""The example of README.rst does what it shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_example_runs(tmp_path: Path) -> None:
    text = (ROOT / "README.rst").read_text(encoding="utf-8")
    (block,) = re.findall(r"^\.\. code-block:: python\n\n((?: {4}.*\n|\n)+)", text, re.MULTILINE)
    script = tmp_path / "example.py"
    script.write_text(textwrap.dedent(block), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script],
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    assert "4000 numbers are 18893 bytes on 127.0.0.4\nall went well: True\n" in done.stdout
    assert (tmp_path / "results/127.0.0.2/numbers.txt").read_text().endswith("\n1000\n")
