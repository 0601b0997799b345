"""What befalls runs: they are killed, interrupted, begun twice, and their hosts die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from execo import Host, Remote
from execo.engine import (
    Attempt,
    Engine,
    Experiment,
    ParamSweeper,
    RecordError,
    Run,
    Trial,
    load,
    sweep,
)
from execo.testing import Cluster
from rounds import ROUNDS, chance

pytest_plugins = ["execo.testing.pytest_plugin", "experiment_place"]
pytestmark = pytest.mark.usefixtures("place")

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 60


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Of these tests alone: its folders are looked at."""
    with Cluster(4) as one:
        yield one


def begun(source: str, *arguments: str, cluster: Cluster | None = None) -> subprocess.Popen[str]:
    """A script; its hosts are in HOSTS."""
    hosts = [] if cluster is None else cluster.hosts
    told = [(host.address, host.user, host.keyfile, host.port) for host in hosts]
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(source), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOSTS": json.dumps(told)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> str:
    """All that it has said."""
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    return out + err


def made(**attributes: Any) -> Experiment:
    one = Experiment()
    for name, value in {"name": "made", "lease": None, "retries": 0, **attributes}.items():
        setattr(one, name, value)
    return one


def in_journal(folder: Path) -> list[dict[str, Any]]:
    path = folder / "sweep" / "journal.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


# -- killed ----------------------------------------------------------------------------------------

COUNTS = """
import json, os
from execo import Host
from execo.engine import experiment

hosts = [Host(*one) for one in json.loads(os.environ["HOSTS"])]

@experiment(
    factors={"n": range(8), "odd": [(1, None), -0.5, "é"]},
    put="words",
    get="out",
    retries=0,
    parse=lambda trial: trial.fetched("out")[0].read_text().split(),
)
def counts(trial):
    return f"cat words > out; sleep 0.0{trial['n']}; echo {trial['n']} >> out"

counts.main(["-c", "r"], hosts=hosts)
"""


def test_killed_at_any_moment_it_goes_on(cluster: Cluster, place: Path) -> None:
    (place / "words").write_text("some\n")
    wanted = {one: ["some", str(one["n"])] for one in sweep(
        {"n": range(8), "odd": [(1, None), -0.5, "é"]}
    )}  # fmt: skip
    random = chance()
    done: dict[Any, Any] = {}
    for _ in range(6 * ROUNDS):
        process = begun(COUNTS, cluster=cluster)
        assert process.stderr is not None
        lines = random.choice([0, 1, 5, 12])
        for line in process.stderr:
            lines -= "begin" in line
            if lines < 0:
                break
        threading.Event().wait(random.random() / 10)
        process.kill()
        ended(process)
        run = load("r")
        assert run.faults == []
        now = {row.combination: row.result for row in run.results if row.state == "done"}
        # What was done stays done, with its result.
        assert done.items() <= now.items() <= wanted.items()
        assert set(run.states.values()) <= {"to do", "in progress", "done"}
        done = now
    last = begun(COUNTS, cluster=cluster)
    said = ended(last)
    assert last.returncode == 0, said
    run = load("r")
    assert run.faults == []
    assert set(run.states.values()) == {"done"}
    assert [row.state for row in run.results] == ["done"] * 24
    assert {row.combination: row.result for row in run.results} == wanted
    assert len(run.manifest["earlier"]) >= 6 * ROUNDS - 1
    numbers = Counter(line["n"] for line in in_journal(place / "r") if line["do"] == "done")
    assert sorted(numbers.values()) == [1] * 24
    left = [path.name for host in cluster.hosts for path in cluster.home(host).iterdir()]
    assert left == []


def test_what_another_machine_had_begun_is_done_at_once(place: Path) -> None:
    one = made(factors={"n": [1, 2]}, hosts=0, run="true", parse=lambda trial: trial["n"])
    one.lease = 8.0
    sweeper = ParamSweeper("r/sweep", one.combinations(), lease=None)
    assert sweeper.get_next() is not None
    sweeper.close()
    path = place / "r" / "sweep" / "journal.jsonl"
    # As if it had been written on another machine.
    path.write_text(path.read_text().replace('"boot":"', '"boot":"another '))
    assert list(one.main(["-c", "r"]).values()) == [1, 2]


def test_a_forked_child_that_is_left_does_not_keep_the_folder(place: Path) -> None:
    process = begun("""
        import os, signal, sys
        from execo.engine import Engine

        class My(Engine):
            def run(self):
                child = os.fork()
                if not child:
                    os.dup2(os.open("/dev/null", os.O_RDWR), 1)
                    os.dup2(1, 2)
                    signal.sigwait([signal.SIGUSR1])
                    os._exit(0)
                print(child, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)

        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        My().start(["-c", "r"])
        """)
    child = int(ended(process).split()[0])
    try:

        class My(Engine):
            pass

        My().start(["-c", "r"])
    finally:
        os.kill(child, signal.SIGUSR1)
    assert load("r").manifest["error"] is None


# -- told to end -----------------------------------------------------------------------------------

WAITS = """
import sys, threading
from execo import Local
from execo_engine import Engine, ParamSweeper, sweep

class My(Engine):
    def init(self):
        if "init" in sys.argv:
            print("here", flush=True)
            self.wait()

    def wait(self):
        while True:  # a signal does not wake who is about to sleep
            threading.Event().wait(0.1)

    def run(self):
        for name in ("first", "second"):
            sweeper = ParamSweeper(f"{self.result_dir}/{name}", sweep({"n": [1, 2, 3]}), True)
            try:
                self.run_combinations(sweeper, self.measure, needs=0)
            finally:
                sweeper.close()
            if "between" in sys.argv:
                print("here", flush=True)
                self.wait()

    def measure(self, attempt):
        if not {"between", "init"} & set(sys.argv):
            print("here", flush=True)
            attempt.run(Local("sleep 100"))

My().start(["-c", "r"])
"""


@pytest.mark.parametrize("where", ["init", "within", "between"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_end(where: str, number: signal.Signals) -> None:
    process = begun(WAITS, where)
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    process.send_signal(number)
    if (where, number) == ("within", signal.SIGINT):
        assert process.stderr is not None
        assert any("interrupted: waiting for 1 that run" in line for line in process.stderr)
        process.send_signal(number)
    said = ended(process)
    assert "Traceback" not in said
    run = load("r")
    assert run.faults == []
    todo = Counter(run.states.values())
    if number == signal.SIGTERM and where != "within":
        # As any script: at once.
        assert process.returncode == -signal.SIGTERM
        assert "ended" not in run.manifest
    elif number == signal.SIGTERM:
        assert process.returncode == 143
        assert "terminated: cancelling 1 that run" in said
        assert run.manifest["error"] == "SystemExit: 143"
    else:
        assert process.returncode == 130
        assert "to go on: -c " in said
        assert run.manifest["error"] == "KeyboardInterrupt: "
    wanted = {"init": {}, "within": {"to do": 3}, "between": {"done": 3}}
    assert todo == wanted[where]


# -- begun twice -----------------------------------------------------------------------------------


def test_a_second_run_in_a_folder_is_told_who_is_there(place: Path) -> None:
    seen = []

    class Twice(Engine):
        def run(self) -> None:
            before = sorted(Path("r").iterdir())
            with pytest.raises(RecordError) as caught:
                Twice().start(["-c", "r", "-R"])
            seen.append(str(caught.value))
            assert sorted(Path("r").iterdir()) == before
            # To look is allowed.
            Twice().start(["-c", "r", "--dry-run"])

    Twice().start(["-c", "r"])
    assert f"r: process {os.getpid()} on " in seen[0]
    assert "writes the record of its run there now: wait for its end" in seen[0]


# -- hosts -----------------------------------------------------------------------------------------


@pytest.fixture
def mortal(cluster: Cluster) -> Iterator[Cluster]:
    """A cluster whose hosts may die; they are born again in the end."""
    yield cluster
    cluster.heal()
    for host in cluster.hosts:
        for path in cluster.home(host).iterdir():
            path.rmdir()  # made for a trial, and left by the dead


def dies(cluster: Cluster, trial: Trial) -> None:
    """The host of a trial, in the middle of a command, and for ever."""

    def end() -> None:
        cluster.fault(trial.hosts[0], "refuse")
        cluster.fault(trial.hosts[0], "close")

    later = threading.Timer(0.3, end)
    later.start()
    try:
        trial.run(Remote("sleep 60", trial.hosts))
    finally:
        later.join()


def test_hosts_that_die_one_by_one(mortal: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    def measure(trial: Trial) -> str:
        if trial.number == 1 and trial["n"] < 3:
            dies(mortal, trial)
        trial.run(Remote("true", trial.hosts))
        return trial.hosts[0].address

    one = made(factors={"n": range(6)}, measure=measure, connection_params={"connect_timeout": 2})
    found = one.main(["-c", "r", "--jobs", "1"], hosts=mortal.hosts)
    alive = set(found.values()) & {found[combination] for combination in list(found)[3:]}
    assert len(found) == 6
    assert len(alive) == 1
    for host in mortal.hosts:
        assert (f"{host.address} is not used any more: " in caplog.text) != (host.address in alive)
        assert (f" may be left on {host.address}\n" in caplog.text) != (host.address in alive)
    rows = [(row.combination["n"], row.state, row.attempt) for row in load("r").results]
    assert rows == [
        *[(n, state, at) for n in range(3) for at, state in [(1, "failed"), (2, "done")]],
        *[(n, "done", 1) for n in range(3, 6)],
    ]


def test_what_kills_its_hosts_does_not_get_all_of_them(mortal: Cluster) -> None:
    def measure(trial: Trial) -> Any:
        if trial["n"] == 0:
            dies(mortal, trial)
        trial.run(Remote("true", trial.hosts))
        return trial["n"]

    one = made(factors={"n": range(4)}, measure=measure, connection_params={"connect_timeout": 2})
    found = one.main(["-c", "r", "--jobs", "1"], hosts=mortal.hosts)
    assert list(found.values()) == [1, 2, 3]
    run = load("r")
    assert run.states[one.combinations()[0]] == "failed"
    sweeper = ParamSweeper("r/sweep", lease=None)
    told = sweeper.explain({"n": 0})
    sweeper.close()
    assert "3 times its hosts were lost while it ran on them: " in told
    assert "the connection is lost" in told


def test_of_two_hosts_one_is_dead_and_the_other_is_left_clean(
    mortal: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = mortal
    dead = cluster.hosts[0]
    cluster.fault(dead, "refuse")
    cluster.fault(dead, "close")
    one = made(factors={"n": [1]}, hosts=2, run="true", connection_params={"connect_timeout": 2})
    try:
        found = one.main(["-c", "r"], hosts=cluster.hosts)
        assert found == dict.fromkeys(one.combinations())
    finally:
        cluster.heal()
    assert f"{dead.address} is not used any more: " in caplog.text
    assert "may be left on" not in caplog.text  # nothing has run there
    assert [path for host in cluster.hosts for path in cluster.home(host).iterdir()] == []


def test_a_host_that_refuses_another_user_is_the_one_of_the_attempt(mortal: Cluster) -> None:
    """The script logs in as somebody else than the hosts say."""
    cluster = mortal

    class Other(Engine):
        def run(self) -> None:
            sweeper = ParamSweeper("r/sweep", sweep({"n": [1]}), lease=None)
            self.run_combinations(sweeper, self.measure, hosts=cluster.hosts[:2])
            self.results = list(sweeper.results.values())
            sweeper.close()

        def measure(self, attempt: Attempt) -> str:
            host = attempt.hosts[0]
            mine = Host(host.address, "root", host.keyfile, host.port)
            attempt.run(Remote("true", [mine], {"connect_timeout": 2}))
            return host.address

    cluster.fault(cluster.hosts[0], "refuse")
    cluster.fault(cluster.hosts[0], "close")
    engine = Other()
    try:
        engine.start(["-c", "r"])
    finally:
        cluster.heal()
    assert engine.results == [cluster.hosts[1].address]


def test_more_jobs_than_hosts_and_more_hosts_than_jobs() -> None:
    hosts = [Host(f"127.0.0.{n}") for n in range(2, 5)]
    running: list[int] = []
    most: list[int] = []

    class Many(Engine):
        def __init__(self, needs: int) -> None:
            super().__init__()
            self.needs = needs

        def run(self) -> None:
            sweeper = ParamSweeper(f"{self.result_dir}/sweep", sweep({"n": range(9)}), lease=None)
            self.run_combinations(sweeper, self.measure, hosts=hosts, needs=self.needs)
            assert len(sweeper.get_done()) == 9
            sweeper.close()

        def measure(self, attempt: Attempt) -> None:
            running.append(attempt["n"])
            most.append(len(running))
            threading.Event().wait(0.02)
            running.remove(attempt["n"])

    Many(1).start(["-c", "many", "--jobs", "50"])
    assert max(most) <= 3
    most.clear()
    Many(1).start(["-c", "few", "--jobs", "2"])
    assert max(most) <= 2
    most.clear()
    # This machine is one, however many others there are.
    Many(0).start(["-c", "here"])
    assert max(most) == 1
    most.clear()
    Many(0).start(["-c", "asked", "--jobs", "4"])
    assert max(most) <= 4


# -- what is kept ----------------------------------------------------------------------------------


def test_a_result_is_the_same_in_every_run() -> None:
    one = made(factors={"n": [1]}, hosts=0, parse=lambda _: {1: (2, None), "x": float("inf")})
    first = list(one.main(["-c", "r"]).values())
    assert first == list(one.main(["-c", "r"]).values())
    assert first == [{"1": [2, None], "x": float("inf")}]
    assert [row.result for row in load("r").results] == first


def test_a_script_that_is_killed_before_it_notes_a_result_has_it_all_the_same() -> None:
    """It is in the journal of the sweeper: beside an attempt that has failed, too."""
    attempts = iter([ValueError("once"), None])

    def parse(trial: Trial) -> int:
        if error := next(attempts):
            raise error
        return 17

    made(factors={"n": [1]}, hosts=0, retries=1, parse=parse).main(["-c", "r"])
    path = Path("r/results.jsonl")
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    run = load("r")
    assert [(row.state, row.attempt, row.result) for row in run.results] == [
        ("failed", 1, None),
        ("done", 2, 17),
    ]


def test_no_secret_is_in_the_folder(place: Path) -> None:
    secret = "fi5h&ch1ps"
    one = made(
        factors={"n": [1, 2]},
        hosts=0,
        run=lambda trial: f"echo '{secret}'; exit {trial['n'] - 1}",
        parse=lambda trial: {secret: trial.stdout},
        record={"secrets": [secret], "seeds": {"numpy": 42}},
    )
    one.seed = 7
    found = one.main(["-c", "r", "-l", "WARNING"])
    assert list(found.values()) == [{"***": "***\n"}]
    data = b"".join(path.read_bytes() for path in Path("r").rglob("*") if path.is_file())
    assert secret.encode() not in data
    assert load("r").manifest["seeds"] == {"seed": 7, "numpy": 42}


def test_the_command_line_is_copied_without_secrets() -> None:
    said = ended(
        begun(
            """
            from execo_engine import Engine

            class My(Engine):
                def __init__(self):
                    super().__init__()
                    self.args_parser.add_argument("--api-token")

                def run(self):
                    assert self.args.api_token == "t0ken"
                    self.record.add_seeds({"numpy": 42})

            My().start()
            """,
            *("-L", "-c", "r", "--api-token", "t0ken"),
        )
    )
    assert "'-c', 'r', '--api-token', '***']" in said
    run = load("r")
    assert run.manifest["argv"] == ["-c", "-L", "-c", "r", "--api-token", "***"]
    assert run.manifest["seeds"] == {"numpy": 42}
    files = [path for path in Path("r").rglob("*") if path.is_file()]
    assert not any(b"t0ken" in path.read_bytes() for path in files)


# -- what is wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factors", "error", "told"),
    [
        ({"size": [[1, 2]]}, TypeError, r"factor 'size': \[1, 2\] is a list \(write a tuple\)"),
        ({"size": [{1, 2}]}, TypeError, "factor 'size'"),
        ([{"size": b"x"}], TypeError, "factor 'size'"),
        ({"size": [object()]}, TypeError, "factor 'size'"),
        ([], ValueError, "made has no combination"),
    ],
)
def test_factors_that_are_none(factors: Any, error: type[Exception], told: str) -> None:
    good = made(factors={"n": [1]}, hosts=0, run="true")
    good.main(["-c", "r"])
    for more in ([], ["--dry-run"]):
        with pytest.raises(error, match=told):
            made(factors=factors, hosts=0, run="true").main(["-c", "r", *more])
    with pytest.raises(ValueError, match="made has no combination: its factors, or where, leave"):
        made(factors={"n": [1]}, where=lambda _: False, hosts=0, run="true").main(["-c", "r"])
    assert len(load("r").states) == 1


def test_odd_values_come_back() -> None:
    odd = [None, True, 3, -0.5, "é", (1, ("a", None)), {"a": {"b": (1,)}}]
    one = made(
        factors={"x": [value for value in odd if not isinstance(value, dict)]},
        hosts=0,
        parse=lambda trial: repr(trial["x"]),
    )
    one.factors = [{"x": value} for value in odd]
    found = one.main(["-c", "r"])
    assert [combination["x"] for combination in found] == odd
    back: Run = load("r")
    assert [row.combination["x"] for row in back.results] == odd
    assert [type(row.combination["x"]) for row in back.results[:6]] == [
        type(value) for value in odd[:6]
    ]


# -- the plan --------------------------------------------------------------------------------------


def test_the_plan_connects_to_nothing(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    def run(trial: Trial) -> list[Any]:
        return ["uptime", Remote("touch {{['a', 'b']}}", trial.hosts)]

    one = made(factors={"n": [1, 2]}, hosts=2, put="x", run=run, get="y")
    connections = sum(map(cluster.connections, cluster.hosts))
    assert one.main(["-c", "r", "--dry-run"], hosts=cluster.hosts) == {}
    shown = capsys.readouterr().out
    assert shown.count("&& uptime\n") == 2
    assert f"   {cluster.hosts[1].address}: touch b\n" in shown
    assert sum(map(cluster.connections, cluster.hosts)) == connections
    assert not Path("r").exists()


def test_the_plan_says_what_it_cannot_know(capsys: pytest.CaptureFixture[str]) -> None:
    class Own(Experiment):
        factors = {"n": [1, 2]}  # noqa: RUF012 - as scripts write it
        hosts = "n"

        def measure(self, trial: Trial) -> None:
            raise AssertionError

    Own().main(["--dry-run", "--hosts", "a"])
    shown = capsys.readouterr().out
    assert "TOO FEW HOSTS: {'n': 2} needs 2 hosts, and there are 1\n" in shown
    assert shown.count("   (what measure() does)\n") == 2
    Own().main(["--dry-run"])
    shown = capsys.readouterr().out
    assert "hosts: none yet\n" in shown
    assert "TOO FEW" not in shown


def test_the_plan_of_an_engine_shows_no_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    engine = Engine()
    engine.args_parser.add_argument("--password")
    engine.start(["--dry-run", "--password", "hunter22", "-c", "r"])
    shown = capsys.readouterr().out
    assert "'password': '***'" in shown
    assert "hunter22" not in shown
