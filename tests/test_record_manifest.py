"""What a run was made of: its manifest, and the facts of its machines."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from execo import Host, Process, configuration
from execo.engine import Record, load
from execo.engine.host_facts import facts_of, local_asking
from execo.testing import Cluster

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 60


def git(folder: Path, *words: str) -> str:
    options = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    done = subprocess.run(
        ["git", "-C", str(folder), *options, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def manifest_of(script: Path, *arguments: str, **env: str) -> dict[str, Any]:
    """That of a script whose last line writes a record into ``../run``."""
    source = """
    import os, sys
    from execo.engine import Record
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "run")
    with Record(folder, seeds={"numpy": 42}, resume=os.path.exists(folder)):
        pass
    """
    script.write_text(textwrap.dedent(source) + script.with_suffix(".more").read_text())
    subprocess.run(
        [sys.executable, str(script), *arguments],
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        cwd=script.parent.parent,
        timeout=PATIENCE,
    )
    return dict(load(script.parent.parent / "run").manifest)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "bench.more").write_text("")
    return tmp_path / "sources" / "bench.py"


def test_how_it_was_called(script: Path) -> None:
    before = time.time()
    manifest = manifest_of(script, "--size", "3", "--password=hunter22", LANG="C.UTF-8")
    assert manifest["name"] == "bench"
    assert manifest["argv"] == [str(script), "--size", "3", "--password=***"]
    assert manifest["cwd"] == str(script.parent.parent)
    assert before <= manifest["started"] <= manifest["ended"] <= time.time()
    assert manifest["versions"]["python"] == platform.python_version()
    assert manifest["versions"]["paramiko"] == importlib.metadata.version("paramiko")
    assert manifest["environment"]["LANG"] == "C.UTF-8"
    assert manifest["seeds"] == {"numpy": 42}
    assert manifest["error"] is None
    assert manifest["git"] is None


def test_the_sources(script: Path) -> None:
    sources = script.parent
    git(sources, "init", "-q")
    (sources / "data").write_text("one\n")
    git(sources, "add", "data", "bench.more")
    git(sources, "commit", "-q", "-m", "first")
    # A diff of binary files, and one with what is no UTF-8, are diffs too.
    (sources / "data").write_bytes(b"two \xff\n")
    found = manifest_of(script)["git"]
    assert found == {
        "commit": git(sources, "rev-parse", "HEAD"),
        "changed": True,
        "untracked": ["bench.py"],
        "diff": "source.diff",
    }
    diff = (sources.parent / "run" / "source.diff").read_bytes()
    assert b"-one\n+two \xff\n" in diff
    git(sources, "add", ".")
    git(sources, "commit", "-q", "-m", "second")
    again = manifest_of(script)
    assert again["git"] == {"commit": git(sources, "rev-parse", "HEAD"), "changed": False}
    [earlier] = again["earlier"]
    assert earlier["git"] == found
    (sources / "data").write_text("three\n")
    assert manifest_of(script)["git"]["diff"] == "source-3.diff"


def test_a_long_diff_is_cut(script: Path) -> None:
    sources = script.parent
    git(sources, "init", "-q")
    (sources / "data").write_text("")
    git(sources, "add", ".")
    git(sources, "commit", "-q", "-m", "first")
    (sources / "data").write_text("a line of text\n" * 200_000)
    found = manifest_of(script)["git"]
    size = (sources.parent / "run" / "source.diff").stat().st_size
    assert size == 1 << 20
    assert size + found["diff_cut"] > 200_000 * 15


def test_a_repository_that_cannot_be_asked(script: Path) -> None:
    git(script.parent, "init", "-q")
    found = manifest_of(script)["git"]
    assert "HEAD" in found["error"]


def test_a_git_that_does_not_answer_does_not_hold_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\nexec sleep 1000\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("execo.engine.manifest._GIT_TIME", 0.3)
    begin = time.monotonic()
    with Record(tmp_path / "run"):
        assert time.monotonic() - begin < PATIENCE
    assert "0.3 s" in load(tmp_path / "run").manifest["git"]["error"]


def test_a_machine_without_git_and_without_a_shell(script: Path) -> None:
    manifest = manifest_of(script, PATH="/nowhere")
    assert manifest["git"] is None
    assert "cannot start 'sh': command not found" in manifest["machine"]["error"]


def test_seeds_are_what_json_has(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        Record(tmp_path, seeds={"a": object()})
    with pytest.raises(ValueError, match="max_output"):
        Record(tmp_path, max_output=-1)
    with pytest.raises(TypeError, match="version is a text, a number, or None"):
        Record(tmp_path, version=(1, 2))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a list of texts"):
        Record(tmp_path, secrets="word")


# -- machines -------------------------------------------------------------------------------------


def check(facts: dict[str, Any]) -> None:
    assert facts["system"] == platform.system()
    assert facts["kernel"] == platform.release()
    assert facts["machine"] == platform.machine()
    assert facts["cpus"] == os.sysconf("SC_NPROCESSORS_ONLN")
    assert facts["memory"] == pytest.approx(
        os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), rel=0.05
    )
    assert facts["cpu"]
    assert "error" not in facts


def test_this_machine(tmp_path: Path) -> None:
    with Record(tmp_path):
        pass
    run = load(tmp_path)
    check(run.manifest["machine"])
    assert run.processes == []
    node = Path("/sys/devices/system/node/node0/cpulist")
    if node.exists():
        assert run.manifest["machine"]["numa"]["0"] == node.read_text().strip()


def test_hosts_and_one_that_is_not_there(tmp_path: Path) -> None:
    with Cluster(3) as cluster:
        dead = Host(cluster.hosts[2], port=1)
        hosts = [*cluster.hosts[:2], dead]
        with Record(tmp_path, hosts=hosts, connection_params=cluster.params) as record:
            Process("true").run()
            again = record.add_hosts(cluster.hosts[:1], cluster.params)
        addresses = [host.address for host in cluster.hosts]
    run = load(tmp_path)
    facts = run.manifest["hosts"]
    assert list(facts) == addresses
    for address in addresses[:2]:
        check(facts[address])
        # Here all clocks are the same one.
        assert abs(facts[address]["clock_offset"]) <= facts[address]["clock_error"] + 0.01
    assert again == {addresses[0]: facts[addresses[0]]}
    assert list(facts[addresses[2]]) == ["error"]
    assert "refused" in facts[addresses[2]]["error"]
    # Its own questions are no part of the run.
    assert [process.cmd for process in run.processes] == ["true"]
    assert run.actions == []


@pytest.mark.parametrize("fault", ["silent", "freeze"])
def test_a_host_that_does_not_answer_does_not_hold_up(tmp_path: Path, fault: str) -> None:
    with Cluster(1) as cluster:
        cluster.fault(cluster.hosts[0], fault)
        with Record(tmp_path) as record:
            begin = time.monotonic()
            facts = record.add_hosts(cluster.hosts, cluster.params, timeout=0.5)
            assert time.monotonic() - begin < 15  # whatever the limit for connections is
        cluster.heal()
    [found] = facts.values()
    assert found["error"]
    assert load(tmp_path).manifest["hosts"] == facts


@pytest.mark.parametrize(
    ("answer", "offset"),
    [("%s.%N", 0.0), ("%s.N", 0.5), ("%s", 0.5)],
)
def test_clocks_that_know_less(answer: str, offset: float) -> None:
    process = local_asking()
    process.cmd = [word.replace("%s.%N", answer) for word in process.cmd]
    facts = facts_of(process.run(PATIENCE))
    assert facts["clock_error"] >= offset
    assert abs(facts["clock_offset"]) <= facts["clock_error"] + 0.01


def test_a_machine_that_says_nothing() -> None:
    process = local_asking()
    process.cmd = ["true"]
    assert facts_of(process.run(PATIENCE)) == {"error": "it has no POSIX shell that answers"}
    process.reset()
    process.cmd = ["sh", "-c", "echo cpus many; echo kernel; echo numa; echo memory_kb x; exit 4"]
    facts = facts_of(process.run(PATIENCE))
    assert facts["error"] == "exited 4"
    assert not {"cpus", "kernel", "memory"} & set(facts)


def test_the_manifest_is_replaced_as_a_whole(tmp_path: Path) -> None:
    assert configuration["max_output"] is None
    with Record(tmp_path):
        first = json.loads((tmp_path / "manifest.json").read_text())
        assert "ended" not in load(tmp_path).manifest
        assert not (tmp_path / "manifest.new").exists()
    assert set(load(tmp_path).manifest) - set(first) == {"ended", "error"}
