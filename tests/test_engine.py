"""Engine: scripts with arguments, a result folder, their output kept, and a stop by Ctrl-C."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

import execo_engine
from execo import Local, Remote
from execo.engine import (
    Attempt,
    Engine,
    NotEnoughHosts,
    ParamSweeper,
    RecordError,
    ResultFolderError,
    load,
    slugify,
    sweep,
    sweep_stats,
)
from execo.engine.host_pool import HostPool
from execo.engine.names import folder_name
from execo.host import Host
from execo.log import logger as core_logger
from execo.testing import Cluster

pytest_plugins = ["execo.testing.pytest_plugin", "experiment_place"]
pytestmark = pytest.mark.usefixtures("place")

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 60


def script(source: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(source), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=check,
    )


# -- the names of execo 2 -------------------------------------------------------------------------


def test_execo_engine_has_the_names_of_execo_2() -> None:
    names = (
        "Engine HashableDict ParamSweeper copy_outputs geom igeom logger redirect_outputs slugify"
        " sweep sweep_stats"
    ).split()
    assert sorted(execo_engine.__all__) == names
    assert execo_engine.Engine is Engine
    assert execo_engine.sweep is sweep
    for module, name in (
        ("engine", "Engine"),
        ("sweep", "ParamSweeper"),
        ("utils", "slugify"),
        ("log", "logger"),
    ):
        found: dict[str, Any] = {}
        exec(f"from execo_engine.{module} import {name}", found)
        assert found[name] is getattr(execo_engine, name)


def test_execo_engine_is_imported_before_execo() -> None:
    said = script("import execo_engine.sweep; print(execo_engine.sweep({'a': [1]}))")
    assert said.stdout == "[{'a': 1}]\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("A b/c: é(1)", "a-bc-e1"),
        ({"a": 1, "b": "x y"}, "a-1-b-x-y"),
        (1.5, "1.5"),
        (15, "15"),
        ([1, 2], "1-2"),
        ("../../etc", "etc"),
        ("--help", "help"),
        ("a\n\0b", "a-b"),
    ],
)
def test_slugify(value: object, text: str) -> None:
    assert slugify(value) == text


def test_slugify_never_gives_a_name_that_is_none() -> None:
    values: list[Any] = ["", ".", "..", "日本", "中国", []]
    names = [slugify(value) for value in values]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch("[0-9a-f]{8}", name) for name in names)
    assert slugify("a b", "_") == "a_b"


def test_each_combination_has_a_folder_of_its_own() -> None:
    alike: list[dict[str, Any]] = [
        {"a": "b/c"},
        {"a": "bc"},
        {"a": -1},
        {"a": 1},
        {"a": "1"},
        {"a": "x" * 1000},
    ]
    names = {folder_name(one) for one in alike}
    assert len(names) == len(alike)
    assert max(map(len, names)) < 120
    assert folder_name({"a": 1, "b": 2})[-8:] == folder_name({"b": 2, "a": 1})[-8:]


def test_sweep_stats(place: Path) -> None:
    sweeper = ParamSweeper(place / "sweep", sweep({"a": [1, 2], "b": ["x", "y"]}))
    sweeper.done({"a": 1, "b": "x"})
    sweeper.skip({"a": 2, "b": "x"})
    found = sweep_stats(sweeper.stats())
    sweeper.close()
    assert found["total"] == {"a": {1: 2, 2: 2}, "b": {"x": 2, "y": 2}}
    assert found["done"] == {"a": {1: 1}, "b": {"x": 1}}
    assert found["done_ratio"] == {"a": {1: 0.5, 2: 0.0}, "b": {"x": 0.5, "y": 0.0}}
    assert found["skipped"] == {"a": {2: 1}, "b": {"x": 1}}
    assert found["remaining_ratio"]["b"] == {"x": 0.0, "y": 1.0}
    assert (found["inprogress"], found["inprogress_ratio"]["a"]) == ({}, {1: 0.0, 2: 0.0})
    assert len(found) == 9


# -- engines --------------------------------------------------------------------------------------


class Base(Engine):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.args_parser.add_argument("--size", type=int, default=64)

    def init(self) -> None:
        self.calls.append("Base.init")

    def run(self) -> None:
        self.calls.append("Base.run")


class Derived(Base):
    def init(self) -> None:
        self.calls.append("Derived.init")

    def run(self) -> None:
        self.calls.append("Derived.run")


def test_init_and_run_of_all_classes_ancestors_first(place: Path) -> None:
    engine = Derived()
    engine.start(["--size", "5", "-c", "results"])
    assert engine.calls == ["Base.init", "Derived.init", "Base.run", "Derived.run"]
    assert engine.args.size == 5
    assert engine.result_dir == str(place / "results")
    assert engine.engine_dir == str(Path(__file__).parent)


def test_a_run_has_a_name_and_a_folder(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = Base()
    engine.start([])
    assert engine.run_name is not None
    assert re.fullmatch(r"Base_\d{8}_\d{6}_[+-]\d{4}", engine.run_name)
    assert Path(str(engine.result_dir)) == place / engine.run_name
    assert Path(str(engine.result_dir)).is_dir()
    assert f"run in directory {engine.result_dir}" in caplog.messages
    assert any(text.startswith("command line arguments: [") for text in caplog.messages)


def test_a_script_may_name_its_run_and_its_folder(place: Path) -> None:
    class Named(Base):
        def setup_run_name(self) -> None:
            self.run_name = "mine"

        def setup_result_dir(self) -> None:
            self.result_dir = str(place / "deep" / str(self.run_name))

    Named().start([])
    assert (place / "deep" / "mine").is_dir()


def test_the_arguments_are_those_of_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["prog", "--size", "7", "-l", "debug"])
    engine = Base()
    engine.start()
    assert engine.args.size == 7
    assert engine.args.log_level == "DEBUG"
    assert core_logger.level == logging.DEBUG


def test_help_and_wrong_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        Base().start(["-h"])
    shown = capsys.readouterr().out
    assert re.match(r"usage: \S+ \[options\] <arguments>\n\nengine: Base\n", shown)
    for wrong in (["-l", "nonsense"], ["--jobs", "0"], ["--on-interrupt", "x"]):
        with pytest.raises(SystemExit) as caught:
            Base().start(wrong)
        assert caught.value.code == 2


def test_an_option_of_the_script_replaces_ours() -> None:
    class Old(Engine):
        def __init__(self) -> None:
            super().__init__()
            self.args_parser.add_argument("--jobs", default="many")
            self.args_parser.add_argument("-c", dest="count")

            self.args_parser.add_argument("--dry-run", action="store_true")
            self.ran = False

        def run(self) -> None:
            self.ran = True

    engine = Old()
    engine.start(["-c", "3", "--jobs", "x", "--dry-run"])
    assert (engine.args.count, engine.args.jobs) == ("3", "x")
    assert engine.ran


def test_a_dry_run_does_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = Derived()
    engine.start(["--dry-run"])
    assert engine.calls == []
    assert list(place.iterdir()) == []
    shown = capsys.readouterr().out.splitlines()
    assert shown[-4:] == [
        "calls Base.init",
        "calls Derived.init",
        "calls Base.run",
        "calls Derived.run",
    ]


def test_a_folder_of_another_engine_or_version_is_refused(place: Path) -> None:
    Base().start(["-c", "results"])
    Base().start(["-c", "results"])
    with pytest.raises(ResultFolderError, match="name is 'Base' there and 'Derived' here"):
        Derived().start(["-c", "results"])
    newer = Base()
    newer.version = "2"
    with pytest.raises(ResultFolderError, match="version is None there and '2' here") as caught:
        newer.start(["-c", "results", "--dry-run"])
    assert caught.value.differences == {"version": (None, "2")}
    assert newer.calls == []
    (place / "results" / "manifest.json").write_text("{")
    before = sorted((place / "results").iterdir())
    with pytest.raises(RecordError, match=r"results/manifest\.json cannot be read, and says whose"):
        Base().start(["-c", "results", "-R"])
    assert sorted((place / "results").iterdir()) == before


def test_names_that_scripts_of_execo_2_may_have_given_to_their_own(place: Path) -> None:
    class Old(Base):
        def __init__(self) -> None:
            super().__init__()
            self.engine_name = "mine"
            self.version: Any = (1, 2)

        def init(self) -> None:
            self.record: Any = []
            self.plan: Any = {}

    for _ in range(2):
        Old().start(["-c", "results"])
    assert load("results").manifest["name"] == "mine"
    assert len(load("results").manifest["earlier"]) == 1


PRINTS = """
import os, sys
from execo_engine import Engine, logger

class My(Engine):
    def run(self):
        print("out")
        os.system("echo child; echo child-err >&2")
        print("err", file=sys.stderr)
        logger.info("logged")

if __name__ == "__main__":
    My().start()
    print("after")
    sys.exit(3)
"""


def test_copied_outputs_are_complete(place: Path) -> None:
    said = script(PRINTS, "-L", "-c", "results", check=False)
    assert said.returncode == 3
    assert said.stdout == "out\nchild\nafter\n" or sorted(said.stdout.split()) == [
        "after",
        "child",
        "out",
    ]
    assert (place / "results" / "stdout").read_text() == said.stdout
    assert (place / "results" / "stderr").read_text() == said.stderr
    assert "err\n" in said.stderr
    assert "INFO: logged" in said.stderr


def test_redirected_outputs_are_in_the_files_alone(place: Path) -> None:
    said = script(PRINTS, "-R", "-M", "-c", "results", check=False)
    assert (said.stdout, said.stderr) == ("", "")
    text = (place / "results" / "stdout+stderr").read_text()
    assert {"out", "child", "err", "child-err", "after"} <= set(text.splitlines())
    script(PRINTS, "-R", "-M", "-c", "results", check=False)
    assert (place / "results" / "stdout+stderr").read_text().count("after\n") == 2


def test_a_copy_through_a_terminal_is_the_same_text(place: Path) -> None:
    said = script("""
        import sys
        from execo_engine import copy_outputs
        copy_outputs("out", None, use_pty=True)
        print("a terminal:", sys.stdout.isatty())
        """)
    assert said.stdout == "a terminal: True\n"
    assert (place / "out").read_text() == said.stdout


def test_an_error_is_in_the_copy_too(place: Path) -> None:
    said = script(PRINTS.replace('logger.info("logged")', "1 / 0"), "-L", "-c", "r", check=False)
    assert said.returncode == 1
    assert "ZeroDivisionError" in (place / "r" / "stderr").read_text()


def test_runs_of_the_same_second_have_folders_of_their_own(place: Path) -> None:
    class Named(Base):
        def setup_run_name(self) -> None:
            self.run_name = "same"

    for _ in range(3):
        Named().start([])
    assert sorted(path.name for path in place.iterdir()) == ["same", "same-2", "same-3"]


# -- combinations over hosts ----------------------------------------------------------------------

HOSTS = [Host(f"127.0.0.{n}") for n in range(2, 6)]


class Sweeps(Engine):
    """Works through a sweep with a function."""

    def __init__(self, measure: Any, factors: Any, **more: Any) -> None:
        super().__init__()
        self.measure, self.factors, self.more = measure, factors, more
        self.retries = self.more.pop("retries", 0)

    def run(self) -> None:
        folder = Path(str(self.result_dir), "sweep")
        self.sweeper = ParamSweeper(folder, sweep(self.factors), retries=self.retries, lease=None)
        try:
            self.run_combinations(self.sweeper, self.measure, **self.more)
        finally:
            self.stats = self.sweeper.stats()
            self.results = self.sweeper.results
            self.sweeper.close()


def test_hosts_are_disjoint_and_no_more_run_than_fit() -> None:
    lock = threading.Lock()
    busy: list[str] = []
    most: list[int] = []
    pair = threading.Barrier(2, timeout=PATIENCE)

    def measure(attempt: Attempt) -> str:
        mine = [host.address for host in attempt.hosts]
        with lock:
            assert not set(mine) & set(busy)
            busy.extend(mine)
            most.append(len(busy))
        pair.wait()  # two at once, or never
        with lock:
            for one in mine:
                busy.remove(one)
        return " ".join(mine)

    engine = Sweeps(measure, {"n": range(8)}, hosts=HOSTS, needs=2)
    engine.start(["-c", "r"])
    assert len(engine.stats.done) == 8
    assert max(most) == 4
    assert all(len(set(str(result).split())) == 2 for result in engine.results.values())


def test_one_machine_is_not_two_hosts() -> None:
    pool = HostPool([Host("a"), Host("a", user="root"), Host("b"), Host("a", port=2222), Host("b")])
    assert [str(host) for host in pool.hosts] == ["a", "b", "a"]
    assert pool.hosts[0].user is None
    assert pool.take(4) is None
    assert pool.take(2) == pool.hosts[:2]
    assert pool.put_aside(pool.hosts[0], "dead")
    assert not pool.put_aside(pool.hosts[0], "dead")
    pool.give_back(pool.hosts[:2])
    assert (pool.size, pool.free) == (2, 2)


def test_jobs_limit_how_many_run() -> None:
    running: list[int] = []
    seen: list[int] = []

    def measure(attempt: Attempt) -> None:
        running.append(attempt["n"])
        seen.append(len(running))
        threading.Event().wait(0.01)
        running.remove(attempt["n"])

    Sweeps(measure, {"n": range(6)}, hosts=HOSTS).start(["-c", "r", "--jobs", "1"])
    assert seen == [1] * 6


def test_a_combination_says_how_many_hosts_it_needs() -> None:
    order: list[int] = []

    def measure(attempt: Attempt) -> int:
        order.append(attempt["n"])
        return len(attempt.hosts)

    engine = Sweeps(measure, {"n": [1, 4, 2]}, hosts=HOSTS, needs=lambda one: one["n"])
    engine.start(["-c", "r"])
    assert {one["n"]: result for one, result in engine.results.items()} == {1: 1, 4: 4, 2: 2}
    # The big one is not overtaken by what would fit beside the first.
    assert order == [1, 4, 2]


def test_too_few_hosts_for_some_and_the_others_are_done() -> None:
    engine = Sweeps(lambda _: None, {"n": [1, 9, 2]}, hosts=HOSTS, needs=lambda one: one["n"])
    with pytest.raises(NotEnoughHosts, match="need 9 hosts, and there are 4"):
        engine.start(["-c", "r"])
    assert [one["n"] for one in engine.stats.remaining] == [9]
    assert len(engine.stats.done) == 2


def test_failures_are_retried_and_say_why(caplog: pytest.LogCaptureFixture) -> None:
    def measure(attempt: Attempt) -> Any:
        if attempt["n"] == 1:
            raise ValueError("no number")
        if attempt["n"] == 2 and attempt.number < 3:
            raise OSError("not yet")
        return object() if attempt["n"] == 3 else attempt.number

    engine = Sweeps(measure, {"n": [0, 1, 2, 3]}, hosts=HOSTS, retries=2)
    engine.start(["-c", "r"])
    assert {one["n"]: result for one, result in engine.results.items()} == {0: 1, 2: 3}
    assert {one["n"] for one in engine.stats.skipped} == {1, 3}
    again = ParamSweeper("r/sweep", sweep({"n": [0, 1, 2, 3]}))
    told = again.explain({"n": 1})
    assert "JSON" in again.explain({"n": 3})
    again.close()
    assert told.count("ValueError: no number (") == 4  # three attempts, and the verdict
    assert f"{Path(__file__).name}:" in told


def test_a_dead_host_is_left_out_and_its_combination_goes_to_another(cluster: Cluster) -> None:
    def measure(attempt: Attempt) -> str:
        attempt.run(Remote("true", attempt.hosts, {"connect_timeout": 2}))
        return attempt.hosts[0].address

    dead = cluster.hosts[1]
    cluster.fault(dead, "refuse")
    cluster.fault(dead, "close")
    try:
        engine = Sweeps(measure, {"n": range(6)}, hosts=cluster.hosts)
        engine.start(["-c", "r"])
    finally:
        cluster.heal()
    assert len(engine.stats.done) == 6
    assert dead.address not in engine.results.values()


def test_the_record_has_each_attempt_and_what_it_ran() -> None:
    def measure(attempt: Attempt) -> str:
        attempt.run(Local(f"echo {attempt['n']}"))
        if attempt.number == 1:
            raise ValueError("once")
        return "fine"

    Sweeps(measure, {"n": [1]}, hosts=HOSTS, needs=2, retries=1).start(["-c", "r"])
    run = load("r")
    failed, done = run.results
    assert failed.combination == done.combination == {"n": 1}
    assert (failed.state, failed.attempt, failed.result) == ("failed", 1, None)
    assert "ValueError: once" in str(failed.reason)
    assert (done.state, done.attempt, done.result) == ("done", 2, "fine")
    assert done.start is not None
    assert done.end is not None
    assert done.start <= done.end
    assert len(failed.hosts) == 2
    assert [(one.cmd, one.ok, one.combination) for one in run.processes] == [
        ("echo 1", True, {"n": 1})
    ] * 2
    assert list(run.states.values()) == ["done"]
    assert run.manifest["name"] == "Sweeps"


def test_no_hosts_left_is_said_with_their_names(cluster: Cluster) -> None:
    def measure(attempt: Attempt) -> None:
        attempt.run(Remote("true", attempt.hosts, {"connect_timeout": 2}))

    for host in cluster.hosts:
        cluster.fault(host, "refuse")
        cluster.fault(host, "close")
    try:
        engine = Sweeps(measure, {"n": range(9)}, hosts=cluster.hosts)
        with pytest.raises(NotEnoughHosts, match=rf"there are 0.*{cluster.hosts[0].address} \("):
            engine.start(["-c", "r"])
    finally:
        cluster.heal()
    assert len(engine.stats.remaining) == 9


def test_what_could_not_end_in_time_is_not_begun() -> None:
    seen: list[Attempt] = []

    def remaining() -> float | None:
        return [100.0, None, 0.0][len(seen)]

    engine = Sweeps(seen.append, {"n": range(5)}, remaining=remaining, needs=0)
    engine.start(["-c", "r"])
    assert len(engine.stats.done) == 2
    assert len(engine.stats.remaining) == 3


def test_an_action_that_takes_too_long_is_killed(cluster: Cluster) -> None:
    def measure(attempt: Attempt) -> None:
        attempt.run(Remote("sleep 100", attempt.hosts), timeout=0.3)

    engine = Sweeps(measure, {"n": [1]}, hosts=cluster.hosts)
    engine.start(["-c", "r"])
    again = ParamSweeper("r/sweep", [{"n": 1}])
    assert "sleep 100 took longer than" in again.explain({"n": 1})
    again.close()


# -- Ctrl-C ---------------------------------------------------------------------------------------

STOPPED = """
import sys, threading
from pathlib import Path
from execo import Local
from execo_engine import Engine, ParamSweeper, sweep

class My(Engine):
    def run(self):
        self.sweeper = ParamSweeper(self.result_dir + "/sweep", sweep({"n": [1, 2, 3]}), True)
        self.run_combinations(self.sweeper, self.measure, needs=0)

    def measure(self, attempt):
        print("begun", attempt["n"], flush=True)
        attempt.run(Local("sh -c 'until test -e go; do sleep 0.1; done'"))
        return "ended"

My().start()
"""


def stopped(*arguments: str, signals: int = 1, go: bool = False) -> tuple[int, Any]:
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", STOPPED, "-c", "r", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process, process.stdout, process.stderr:
        assert process.stdout.readline() == "begun 1\n"
        for _ in range(signals):
            process.send_signal(signal.SIGINT)
            line = next(line for line in process.stderr if "interrupted" in line)
        assert line
        if go:
            Path("go").touch()
        code = process.wait(PATIENCE)
    sweeper = ParamSweeper("r/sweep")
    try:
        return code, sweeper.stats()
    finally:
        sweeper.close()


def test_ctrl_c_lets_what_runs_end_and_the_rest_is_done_later() -> None:
    code, states = stopped(go=True)
    assert code == 130
    assert [one["n"] for one in states.done] == [1]
    assert {one["n"] for one in states.remaining} == {2, 3}
    script(STOPPED, "-c", "r")
    sweeper = ParamSweeper("r/sweep")
    assert list(sweeper.results.values()) == ["ended"] * 3
    sweeper.close()


def test_ctrl_c_cancels_what_runs_if_asked() -> None:
    code, states = stopped("--on-interrupt", "cancel")
    assert code == 130
    assert len(states.remaining) == 3
    assert not states.skipped


def test_a_second_ctrl_c_waits_for_nothing() -> None:
    code, states = stopped(signals=2)
    assert code == 130
    assert len(states.remaining) == 3
