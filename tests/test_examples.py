"""Every example runs, exits with 0 and shows what its docstring promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"

# A few words of what each must show; a new example needs its own.
SHOWS = {
    "failures.py": [
        "true",
        "exit code",
        "SIGKILL",
        "command not found",
        "0.2 s",
        "ProcessesFailed",
    ],
    "interactive.py": ["apple\ncherry\npear\n", "stdin is a terminal"],
    "live_lines.py": ["left: 3", "right: 3", "left: go", "right: go"],
    "quickstart.py": ["python gzip --best", "all files came back unchanged", "decompress"],
}


def run(path: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    return subprocess.run(
        [sys.executable, "-W", "error", path],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_each_example_is_listed() -> None:
    # doc_*.py are the samples of the documentation, with a test of their own.
    names = {path.name for path in EXAMPLES.glob("*.py") if not path.name.startswith("doc_")}
    assert set(SHOWS) == names


@pytest.mark.parametrize("name", sorted(SHOWS))
def test_example(name: str, tmp_path: Path) -> None:
    done = run(EXAMPLES / name, tmp_path)
    assert done.stderr == ""
    assert done.returncode == 0
    for words in SHOWS[name]:
        assert words in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_quickstart_needs_python_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    done = run(EXAMPLES / "quickstart.py", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "python gzip --fast" in done.stdout
    assert "bzip2" not in done.stdout


def test_quickstart_fails_if_a_file_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    liar = tmp_path / "bin" / "xz"
    liar.parent.mkdir()
    liar.write_text("#!/bin/sh\necho something else\n")
    liar.chmod(0o755)
    monkeypatch.setenv("PATH", f"{liar.parent}:{os.environ['PATH']}")
    done = run(EXAMPLES / "quickstart.py", tmp_path)
    assert done.returncode == 1
    assert "differing: " in done.stdout
