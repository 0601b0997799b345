"""Every example runs, exits with 0 and shows what its docstring promises."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from execo.testing import Cluster

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"

# A few words of what each must show; a new example needs its own.
SHOWS = {
    "dead_hosts.py": [
        "127.0.0.2: ok=True -",
        "127.0.0.3: ok=False connect: cannot connect to 127.0.0.3",
        "within 2 s",
        "127.0.0.5: ok=False auth: ",
        "exited 3",
        "left: 127.0.0.2\n",
    ],
    "experiment.py": ["gzip -9: ", "bzip2 -1: ", "12 of 12 done\n"],
    "experiment_class.py": [
        "experiment Exchange, version 1: 4 combinations\n",
        "4. {'blocks': 4, 'size': 4096, 'tool': 'head'} on 2 hosts\n",
        "127.0.0.3: cd execo-exchange-",
        "{'bytes': 32781, 'who': 'first and second'}\n",
        # Between them, where the sources have changed: source.diff.
        "events.jsonl manifest.json outputs results.jsonl ",
        " sweep trials\n",
    ],
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
    "port_forwarder.py": [f": 127.0.0.{n} answers for /status\n" for n in (2, 3, 4)],
    "progress_line.py": ["all of it: 100 %, ", " MB/s \n", "by rsync: 0."],
    "put_get.py": [f"results/127.0.0.{n}/out/longest 13\n" for n in (2, 3, 4)],
    "quickstart.py": ["gzip -9", "all files came back unchanged from ", " of 8 hosts", "compress"],
    "remote_hosts.py": [
        "127.0.0.5 says: 127.0.0.5 would listen on 8003",
        "{'apple\\ncherry\\npear\\n'}",
        "127.0.0.3 false 1 False",
        "all went well: False",
    ],
    "servers_and_clients.py": [
        "127.0.0.4 got hello from 127.0.0.",
        "127.0.0.5 got hello from 127.0.0.",
        "127.0.0.2 killed: True ok: True",
        "127.0.0.3 killed: True ok: True",
    ],
    "tree_remote.py": [
        "127.0.0.3 through 127.0.0.2\n",
        "127.0.0.4 2 apple pear\n",
        "connect True\n",
    ],
    "taktuk_remote.py": [
        "answers: 4 of 4\n",
        "127.0.0.2 apple cherry pear\n",
        "127.0.0.5 apple pear\n",
        "servers ended: True ok: True\n",
    ],
}
if shutil.which("taktuk") is None:
    SHOWS["taktuk_remote.py"] = ["taktuk is not installed: apt install taktuk\n"]
if shutil.which("rsync") is None:
    SHOWS["progress_line.py"] = ["rsync is missing on this machine: apt install rsync\n"]
STUDY = "compression.py"
"""It leaves its results."""
SAMPLES = sorted(path.name for path in EXAMPLES.glob("doc_*.py"))


def run(path: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    return subprocess.run(
        [sys.executable, "-W", "error", path, *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_each_example_is_listed() -> None:
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert names == {*SHOWS, *SAMPLES, STUDY}


@pytest.fixture(scope="session")
def fonts() -> None:
    """The list that matplotlib makes at its first use, and complains of if that takes long."""
    importlib.import_module("matplotlib.font_manager")


@pytest.mark.parametrize("name", sorted(SHOWS))
def test_example(name: str, tmp_path: Path, fonts: None) -> None:
    done = run(EXAMPLES / name, tmp_path)
    assert done.stderr == ""
    assert done.returncode == 0
    for words in SHOWS[name]:
        assert words in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_of_the_documentation(name: str, tmp_path: Path, fonts: None) -> None:
    done = run(EXAMPLES / name, tmp_path)
    assert done.stderr == ""
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_the_study_is_killed_and_goes_on(tmp_path: Path, fonts: None) -> None:
    done = run(EXAMPLES / STUDY, tmp_path, "-c", "study")
    assert done.stderr == ""
    assert done.returncode == 0
    first, _, second = done.stdout.partition("-- killed: ")
    begun = first.count("{'tool'")
    assert 27 <= begun < 81
    # What was done as it was killed may not have been shown any more.
    assert int(second.split()[0]) >= begun
    assert second.count("{'tool'") + int(second.split()[0]) == 81
    assert "-- 81 of 81 done\n" in second
    assert re.search(r"^xz -9 +\d+\.\d% +\d+\.\d\d s", second, re.MULTILINE)
    page = tmp_path / "study" / "results" / "report.html"
    assert second.endswith(f"with pictures: {page}\n")
    assert page.stat().st_size > 50_000
    # All is done: nothing is done again.
    again = run(EXAMPLES / STUDY, tmp_path, "-c", "study")
    assert "{'tool'" not in again.stdout
    assert again.returncode == 0


def test_the_study_says_why_it_cannot_begin(tmp_path: Path) -> None:
    done = run(EXAMPLES / STUDY, tmp_path, "-c", "study", "--hosts", "nowhere.invalid")
    assert done.returncode == 1
    assert done.stderr == ""
    last = done.stdout.splitlines()[-1]
    assert "there are 0; not used any more: nowhere.invalid (cannot connect to nowhere" in last
    assert "killed" not in done.stdout
    assert "may be left" not in done.stdout  # nothing has run there


# -- the quickstart: also on hosts of the user's ------------------------------------------------


def write_configuration(cluster: Cluster, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How to reach the cluster by address alone, as a user says it for hosts of his own."""
    port = cluster.hosts[0].port
    params = {**cluster.params, "port": port}
    (folder / ".execo.conf.py").write_text(f"default_connection_params = {params!r}\n")
    (folder / ".execo.conf.py").chmod(0o600)
    monkeypatch.setenv("HOME", str(folder))


def test_quickstart_skips_a_host_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    place = tmp_path / "place"
    place.mkdir()
    with Cluster(1) as cluster:
        write_configuration(cluster, home, monkeypatch)
        done = run(EXAMPLES / "quickstart.py", place, "--hosts", "127.0.0.2 127.0.0.[3-4]")
        assert list(cluster.home(0).iterdir()) == []
    assert done.stderr == ""
    assert done.returncode == 0, done.stdout
    assert "127.0.0.3       skipped: cannot connect to 127.0.0.3" in done.stdout
    assert "from 1 of 3 hosts; skipped: 2, different: 0" in done.stdout
    assert list(place.iterdir()) == []


@pytest.fixture
def quickstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example as a module, to be run with other tools."""
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("quickstart", EXAMPLES / "quickstart.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_quickstart_skips_a_host_without_its_tool(
    quickstart: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    quickstart.TOOLS = ["gzip -1", "no-such-tool -9"]
    with Cluster(3) as cluster:
        assert quickstart.main(cluster.hosts) == 0
        assert list(cluster.home(1).iterdir()) == []
    shown = capsys.readouterr().out
    assert re.search(r"127\.0\.0\.3 +skipped: exited 127 .*no-such-tool: not found", shown)
    assert "from 2 of 3 hosts; skipped: 1, different: 0" in shown


def test_quickstart_fails_if_a_file_differs(
    quickstart: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    liar = "sh -c 'for f; do echo something else | gzip > $f.gz; done' sh"
    quickstart.TOOLS = ["gzip -1", liar]
    with Cluster(2) as cluster:
        assert quickstart.main(cluster.hosts) == 1
    assert "from 1 of 2 hosts; skipped: 0, different: 1" in capsys.readouterr().out


def test_quickstart_fails_without_hosts(
    quickstart: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    quickstart.TOOLS = ["no-such-tool"]
    with Cluster(1) as cluster:
        assert quickstart.main(cluster.hosts) == 1
    assert "from 0 of 1 hosts; skipped: 1, different: 0" in capsys.readouterr().out
