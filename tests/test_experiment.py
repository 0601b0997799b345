"""Experiment: factors, hosts, what to put, run, get and parse; the engine does the rest."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from execo import Host, Local, Remote
from execo.engine import (
    Experiment,
    HashableDict,
    NotEnoughHosts,
    ParamSweeper,
    ResultFolderError,
    Trial,
    experiment,
    load,
)
from execo.testing import Cluster

pytest_plugins = ["execo.testing.pytest_plugin", "experiment_place"]
pytestmark = pytest.mark.usefixtures("place")

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 60


def made(**attributes: Any) -> Experiment:
    """An experiment called "made", without the thread that gives signs of life."""
    one = Experiment()
    for name, value in {"name": "made", "lease": None, "retries": 0, **attributes}.items():
        setattr(one, name, value)
    return one


def results(one: Experiment, hosts: Any = None, *arguments: str) -> list[Any]:
    return list(one.main(["-c", "r", *arguments], hosts=hosts).values())


def why(combination: dict[str, Any]) -> str:
    sweeper = ParamSweeper("r/sweep", lease=None)
    try:
        return sweeper.explain(combination)
    finally:
        sweeper.close()


@pytest.fixture(autouse=True)
def homes(cluster: Cluster) -> None:
    """Tests of other modules may have left files there."""
    for path in _in_homes(cluster):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _in_homes(cluster: Cluster) -> list[Path]:
    return [path for host in cluster.hosts for path in cluster.home(host).iterdir()]


def leftovers(cluster: Cluster) -> list[str]:
    return [path.name for path in _in_homes(cluster)]


# -- the steps -------------------------------------------------------------------------------------


def test_a_function_that_says_what_to_run(cluster: Cluster, place: Path) -> None:
    (place / "words").write_text("one\ntwo\n")

    @experiment(
        factors={"tool": ["cat", "sort -r"], "n": [1, 2]},
        repeat=2,
        put="words",
        get=["out"],
        lease=None,
        parse=lambda trial: trial.fetched("out")[0].read_text().split(),
    )
    def pick(trial: Trial) -> str:
        return f"{trial['tool']} words | head -n {trial['n']} > out"

    assert isinstance(pick, Experiment)
    found = pick.main(["-c", "r"], hosts=cluster.hosts)
    assert [(one["tool"], one["n"], result) for one, result in found.items()] == [
        ("cat", 1, ["one"]),
        ("cat", 2, ["one", "two"]),
        ("sort -r", 1, ["two"]),
        ("sort -r", 2, ["two", "one"]),
    ] * 2
    assert leftovers(cluster) == []
    run = load("r")
    assert list(run.states) == list(found)
    assert {one.combination: one.result for one in run.results} == found
    assert set(run.manifest["hosts"]) == {host.address for host in cluster.hosts}
    assert any(one.cmd.endswith("cat words | head -n 1 > out") for one in run.processes)


def test_several_hosts_and_commands_and_actions(cluster: Cluster) -> None:
    def run(trial: Trial) -> list[Any]:
        each = Remote("echo {{['left', 'right']}}", trial.hosts)
        return ["echo both", each]

    def parse(trial: Trial) -> Any:
        files = [path.read_text() for path in trial.fetched("here")]
        return {"out": trial.stdout.split(), "files": files, "took": trial.seconds > 0}

    # A text runs on both hosts; files of the same name do not get into one another's way.
    one = made(
        factors={"n": [1]},
        hosts=2,
        run=lambda trial: [*run(trial), "pwd > here"],
        get="here",
        parse=parse,
    )
    (result,) = results(one, cluster.hosts)
    assert result["out"] == ["both", "both", "left", "right"]
    assert result["took"]
    homes = {text.split("/")[-2] for text in result["files"]}
    assert len(homes) == 2
    assert leftovers(cluster) == []


def test_commands_and_levels_are_taken_as_they_are(cluster: Cluster) -> None:
    one = made(
        factors={"text": ["{{nothing}}", "<<x>>", "{{{host}}}"]},
        run=lambda trial: f"echo '{trial['text']}'",
        parse=lambda trial: trial.stdout.strip(),
    )
    assert results(one, cluster.hosts) == ["{{nothing}}", "<<x>>", "{{{host}}}"]


def test_the_hosts_of_a_combination_by_a_factor(cluster: Cluster) -> None:
    one = made(
        factors={"nodes": [1, 3]},
        hosts="nodes",
        run="echo x",
        parse=lambda trial: len(trial.stdout.split()),
    )
    assert results(one, cluster.hosts) == [1, 3]


def test_without_hosts_it_runs_here_in_its_folder(place: Path) -> None:
    one = made(
        factors={"n": [1, 2]},
        hosts=0,
        run=lambda trial: f"pwd; echo {trial['n']} | tee out",
        parse=lambda trial: (trial.stdout.split(), trial.fetched("out")[0].read_text()),
    )
    first, second = results(one)
    assert Path(first[0][0]).parent == place / "r" / "trials"
    assert first[0][0] != second[0][0]
    assert [first[1], second[1]] == ["1\n", "2\n"]


def test_a_measure_of_ones_own(cluster: Cluster) -> None:
    class Own(Experiment):
        factors = {"n": [1, 2]}  # noqa: RUF012 - as scripts write it
        hosts = 2
        lease = None

        def measure(self, trial: Trial) -> Any:
            server, client = trial.hosts
            with trial.folder.joinpath("log").open("w") as log:
                log.write("begun")
            said = trial.run(Remote(f"echo {trial['n']} to {server}", [client]))
            return said.processes[0].stdout.strip()

    first, second = results(Own(), cluster.hosts, "--jobs", "1")
    assert first == f"1 to {cluster.hosts[0]}"
    assert second == f"2 to {cluster.hosts[2]}"
    assert len(list(Path("r/trials").glob("*/log"))) == 2


def test_an_attempt_is_done_again_from_scratch(cluster: Cluster) -> None:
    def run(trial: Trial) -> str:
        return "test ! -e left && touch left && " + ("true" if trial.number > 1 else "exit 7")

    def parse(trial: Trial) -> Any:
        assert list(trial.folder.iterdir()) == []
        (trial.folder / "junk").touch()
        return trial.number

    assert results(made(factors={"n": [1]}, run=run, parse=parse, retries=1), cluster.hosts) == [2]
    assert "exited 7" in why({"n": 1})
    assert leftovers(cluster) == []


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ({"run": "exit 3"}, "exited 3"),
        ({"run": "sleep 60", "timeout": 0.3}, "sleep 60 took longer than 0.3 s"),
        ({"put": "not-there"}, "not-there"),
        ({"get": "not-there"}, "not-there"),
        ({"run": 5}, "run gives commands and actions, not 5"),
        ({"parse": lambda _: 1 / 0}, "ZeroDivisionError: division by zero"),
        ({"parse": lambda _: {1, 2}}, "a result is what JSON has"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_fails_says_why(cluster: Cluster, what: dict[str, Any], told: str) -> None:
    assert results(made(factors={"n": [1]}, **what), cluster.hosts) == []
    assert told in why({"n": 1})
    assert leftovers(cluster) == []


def test_files_of_a_host_stay_in_the_folder_of_the_trial(place: Path) -> None:
    hosts = [Host("../../x"), Host(".."), Host("a", port=1), Host("a", port=2), Host("::1")]
    trial = Trial(HashableDict(n=1), hosts, folder=place)
    names = [str(path.relative_to(place)) for path in trial.fetched("out")]
    assert names == ["_.._x/out", "_/out", "a-1/out", "a-2/out", "::1/out"]


# -- going on --------------------------------------------------------------------------------------


def test_a_run_goes_on_where_it_was(place: Path) -> None:
    def run(trial: Trial) -> str:
        return f"echo {trial['n']} >> {place}/count && test {trial['n']} -lt {limit}"

    limit = 3
    one = made(factors={"n": [1, 2, 3]}, hosts=0, run=run, parse=lambda trial: trial["n"])
    assert results(one) == [1, 2]
    assert results(one) == [1, 2]
    limit = 9
    assert results(one) == [1, 2]
    assert results(one, None, "--retry-failed") == [1, 2, 3]
    one.factors = {"n": [4, 1, 2, 3]}
    assert results(one) == [4, 1, 2, 3]
    assert (place / "count").read_text().split() == ["1", "2", "3", "3", "4"]


def test_results_of_another_experiment_do_not_mix() -> None:
    one = made(factors={"n": [1]}, hosts=0, run="true", version="1")
    results(one)
    one.version = "2"
    with pytest.raises(ResultFolderError, match="version is '1' there and '2' here"):
        results(one)
    with pytest.raises(ResultFolderError, match="name is 'made' there and 'other' here"):
        results(made(factors={"n": [1]}, hosts=0, run="true", version="1", name="other"))


KILLED = """
import sys
from pathlib import Path
from execo.engine import experiment

@experiment(factors={"n": [1, 2, 3]}, hosts=0, lease=None, parse=lambda trial: trial["n"])
def counts(trial):
    wait = "until test -e ../../../go; do sleep 0.05; done"
    return wait if trial["n"] == 2 else "true"

print(list(counts.main().values()))
"""


def test_a_killed_run_goes_on(place: Path) -> None:
    words = [sys.executable, "-W", "error", "-c", KILLED, "-c", "r"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("begin {'n': 2}" in line for line in process.stderr)
        process.send_signal(signal.SIGKILL)
    (place / "go").touch()
    said = subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert said.stdout == "[1, 2, 3]\n"
    journal = (place / "r" / "sweep" / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line)["do"] for line in journal].count("done") == 3


# -- the plan --------------------------------------------------------------------------------------


def test_the_plan_has_the_commands_and_changes_nothing(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = made(
        factors={"n": [1, 2]},
        hosts=2,
        put=["in put"],
        run=lambda trial: [f"go {trial['n']}", Local("echo {{x}}")],
        get="out",
    )
    assert one.main(["--dry-run", "--hosts", "a b c"]) == {}
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "experiment made: 2 combinations"
    assert shown[2] == "hosts: a,b,c"
    assert shown[3] == "1. {'n': 1} on 2 hosts"
    assert any("in put" in line for line in shown)
    assert any(line.startswith("   a,b: cd execo-made-") and "&& go 1" in line for line in shown)
    assert "   echo {{x}}" in shown
    assert any(line.startswith("   b: get execo-made-") for line in shown)
    assert any("go 2" in line for line in shown)
    assert list(place.iterdir()) == []


def test_the_plan_leaves_out_what_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    one = made(factors={"n": [1, 2, 3]}, hosts=0, run=lambda trial: f"test {trial['n']} != 2")
    results(one)
    one.factors = {"n": [1, 2, 3, 4]}
    before = sorted(Path("r").rglob("*"))
    results(one, None, "--dry-run")
    shown = capsys.readouterr().out.splitlines()
    assert shown[2:] == [
        "hosts: none yet",
        "so far: 2 done, 1 failed",
        "1. {'n': 4} on this machine",
        "   test 4 != 2",
    ]
    results(one, None, "--dry-run", "--retry-failed")
    assert "1. {'n': 2} on this machine" in capsys.readouterr().out
    assert sorted(Path("r").rglob("*")) == before


# -- what is wrong ---------------------------------------------------------------------------------


def test_what_is_wrong_is_said_before_anything_runs() -> None:
    with pytest.raises(TypeError, match="made has no factors"):
        results(made(run="true"))
    with pytest.raises(
        NotEnoughHosts, match=r"\{'n': 2\} needs 2 hosts, and there are 1: say more"
    ):
        results(made(factors={"n": [1, 2]}, hosts="n", run="true"), [Host("a")])
    with pytest.raises(ValueError, match="needs None hosts"):
        results(made(factors={"n": [1]}, hosts="nodes", run="true"))
    with pytest.raises(TypeError, match="an experiment has no 'ptu'"):
        experiment(factors={}, ptu="x")
    with pytest.raises(TypeError, match="an experiment has no 'main'"):
        experiment(factors={}, main=1)
