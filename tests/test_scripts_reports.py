"""Reports, hosts and outcomes as users look at them, compare them, copy them and send them on."""

from __future__ import annotations

import copy
import json
import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import execo
from execo import (
    Get,
    Host,
    Local,
    ParallelActions,
    Process,
    Put,
    Remote,
    Report,
    SequentialActions,
    SshProcess,
    default_connection_params,
    get_hosts_set,
)
from execo.config import make_connection_params
from execo.report import Stats
from execo.testing import Cluster

LONG = 60
"""Seconds that nothing here takes: a hang."""

QUIET: dict[str, Any] = {"nolog_exit_code": True, "nolog_timeout": True, "nolog_error": True}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(3) as cluster:
        yield cluster


@pytest.fixture
def hosts(cluster: Cluster) -> list[Host]:
    return cluster.hosts


def travels(one: Any) -> Any:
    return pickle.loads(pickle.dumps(one))


EVERY_COPY = pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, travels], ids=["copy", "deepcopy", "pickle"]
)


# -- reports ---------------------------------------------------------------------------------------


def test_the_report_of_an_experiment(hosts: list[Host], tmp_path: Path) -> None:
    (tmp_path / "input").write_text("3\n1\n2\n")
    put = Put(hosts, tmp_path / "input", name="put input")
    sort = Remote("sort input; exit {{range(3)}}", hosts, process_args=QUIET, name="sort")
    get = Get(hosts, "input", f"{tmp_path}/{{{{{{host}}}}}}/", name="get input")
    SequentialActions([put, sort, get]).run()
    report = Report([put, sort, get], name="experiment")
    lines = report.to_string(wide=True).splitlines()
    names = [line.strip().split("  ")[0] for line in lines[2:6]]
    assert names == ["experiment", "put input", "sort", "get input"]
    assert lines[2].split()[-10:] == ["9", "9", "9", "0", "0", "0", "2", "0", "0", "7"]
    assert lines[-1] == "reasons: exit code 2"
    assert str(report) == report.to_string()
    assert "sort" not in report.to_string(brief=True)
    assert max(map(len, report.to_string().splitlines())) <= 80


def test_the_numbers_of_a_report_by_name(hosts: list[Host]) -> None:
    a = Remote("exit {{range(3)}}", hosts, process_args=QUIET).run()
    b = Local("sleep 1000", {"timeout": 0.1, **QUIET}).run()
    stats = Report([a, b]).stats()
    assert stats["num_processes"] == stats.num_processes == 4
    assert (stats["num_ok"], stats["num_timeouts"]) == (1, 1)
    assert stats["num_non_zero_exit_codes"] == 3
    assert [part["num_processes"] for part in stats["sub_stats"]] == [3, 1]
    assert stats.reasons == {"exit code": 2, "timeout": 1}
    assert stats["start_date"] <= stats["end_date"]


def test_sub_statistics_go_down_as_the_actions_do(hosts: list[Host]) -> None:
    one, two = Remote("true", hosts, name="one"), Local("false", QUIET, name="two")
    inner = ParallelActions([one, two], name="inner")
    hidden = ParallelActions([Local("true")], name="hidden", hide_subactions=True)
    outer = SequentialActions([inner, hidden], name="outer").run()

    def names(stats: Stats) -> Any:
        return {stats.name: [names(part) for part in stats.sub_stats]}

    assert names(outer.stats()) == {
        "outer": [{"inner": [{"one": []}, {"two": []}]}, {"hidden": []}]
    }
    assert outer.stats().num_processes == 5
    assert [part.num_finished_ok for part in outer.stats().sub_stats[0].sub_stats] == [3, 0]


def test_a_report_while_it_runs_and_when_it_is_over(hosts: list[Host]) -> None:
    r = Remote("exec sleep 1000", hosts, name="servers").start()
    report = Report([r])
    r.kill().wait(LONG)
    assert (report.stats()["num_ended"], Report([r]).stats()["num_ended"]) == (0, 3)
    assert report.stats()["end_date"] is None


def test_reports_of_reports_and_processes(hosts: list[Host]) -> None:
    monday = Report([Remote("true", hosts).run()], name="monday")
    tuesday = Report([Process("true").run(), SshProcess("true", hosts[0]).run()], name="tuesday")
    week = Report([monday, tuesday], name="week")
    assert week.stats()["num_finished_ok"] == 5
    assert "  monday" in str(week)
    assert "    true" in str(week)


def test_a_report_is_sent_home_from_another_process() -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        report = pool.apply(_experiment)
    assert report.stats()["num_ok"] == 2
    assert "in a child" in str(report)


def _experiment() -> Report:
    return Report([ParallelActions([Local("true"), Local("true")]).run()], name="in a child")


def test_a_report_is_kept_as_json(tmp_path: Path) -> None:
    report = Report([Local("true", name="one").run()], name="kept")
    (tmp_path / "report.json").write_text(report.to_json())
    kept = json.loads((tmp_path / "report.json").read_text())
    assert (kept["name"], kept["sub_stats"][0]["name"], kept["num_ok"]) == ("kept", "one", 1)
    assert Stats.from_dict(kept) == report.stats()


@EVERY_COPY
def test_a_copy_of_a_report_goes_its_own_way(copied: Callable[[Any], Any]) -> None:
    report = Report([Local("true").run()])
    twin = copied(report)
    assert str(twin) == str(report)
    twin.add([Local("true").run()])
    assert (twin.stats()["num_ok"], report.stats()["num_ok"]) == (2, 1)


# -- hosts -----------------------------------------------------------------------------------------


def test_hosts_as_keys_and_in_sets() -> None:
    a, again, root = Host("a"), Host("a"), Host("a", user="root")
    load = {a: 0.5, root: 0.1}
    assert load[again] == 0.5
    assert again in load
    assert len({a, again, root}) == 2
    assert get_hosts_set([a, "a", root]) == {a, root}
    assert get_hosts_set([a, "b"]) - {again} == {Host("b")}


def test_a_host_is_found_among_processes_and_hosts(hosts: list[Host]) -> None:
    r = Remote("echo {{{host}}}", hosts).run()
    assert hosts[1] in r.hosts
    (p,) = [p for p in r.processes if p.host == hosts[1]]
    assert p.stdout.strip() == hosts[1].address
    assert hosts[1] != hosts[1].address
    assert hosts[1].address not in r.hosts
    assert r.hosts.index(hosts[2]) == 2


def test_hosts_in_texts() -> None:
    hosts = [Host("web1"), Host("b", user="root")]
    assert ",".join(map(str, hosts)) == "web1,b"
    assert f"{hosts[0]}.out" == f"{hosts[0]}.out" == f"{hosts[0]}.out" == "web1.out"
    assert [f"{host:6}|" for host in hosts] == ["web1  |", "b     |"]
    assert f"{hosts[1]!r}" == "Host('b', user='root')"
    assert eval(repr(hosts[1])) == hosts[1]
    assert sorted(hosts, key=str) == [hosts[1], hosts[0]]


@EVERY_COPY
def test_a_copy_of_a_host_goes_its_own_way(copied: Callable[[Any], Any]) -> None:
    host = Host("a", user="root", keyfile="id", port=2222)
    twin = copied(host)
    assert twin == host
    assert hash(twin) == hash(host)
    twin.user = "guest"
    assert (host.user, twin != host) == ("root", True)


def test_a_host_that_is_changed_later_does_not_change_what_was_made(hosts: list[Host]) -> None:
    host = hosts[0]
    r = Remote("echo {{{host}}}", [host])
    host.address = "192.0.2.1"
    assert r.run().processes[0].stdout.strip() == "127.0.0.2"


def test_a_misspelt_attribute_of_a_host_is_an_error() -> None:
    with pytest.raises(AttributeError, match="adress"):
        Host("a").adress = "b"  # type: ignore[attr-defined]


# -- connection parameters -------------------------------------------------------------------------


def test_a_copy_of_the_defaults_is_a_start_for_ones_own() -> None:
    params = default_connection_params.copy()
    params["user"] = "root"
    params["ssh_options"] += ("-o", "ConnectTimeout=5")
    p = SshProcess("true", "a", connection_params=params)
    assert p.connection_params["user"] == "root"
    assert p.connection_params["ssh_options"] == ("-o", "ConnectTimeout=5")
    assert default_connection_params["user"] is None
    assert default_connection_params["ssh_options"] == ()


@EVERY_COPY
def test_parameters_are_plain_data(copied: Callable[[Any], Any]) -> None:
    params = make_connection_params({"user": "root"})
    twin = copied(params)
    twin["user"] = "guest"
    assert params["user"] == "root"
    assert SshProcess("true", "a", twin).connection_params["user"] == "guest"


def test_the_same_parameters_for_many_are_not_shared() -> None:
    params = {"user": "root"}
    r = Remote("true", ["a", "b"], params)
    params["user"] = "guest"
    r.processes[0].connection_params["user"] = "admin"
    assert [p.connection_params["user"] for p in r.processes] == ["admin", "root"]


# -- processes and actions as objects --------------------------------------------------------------


def test_a_process_is_itself_and_nobody_else() -> None:
    one, other = Process("true"), Process("true")
    assert one == one
    assert one != other
    assert other != one
    assert len({one, other, one}) == 2
    assert {one: "first"}[one] == "first"


@EVERY_COPY
def test_a_copy_of_a_process_that_was_not_started_runs_by_itself(
    copied: Callable[[Any], Any],
) -> None:
    p = Process("exit 3", shell=True, nolog_exit_code=True, name="model")
    twin = copied(p)
    twin.run()
    assert (twin.exit_code, twin.name, p.started) == (3, "model", False)
    assert p.run().exit_code == 3


def test_reprs_are_one_line_in_every_state(hosts: list[Host]) -> None:
    r = Remote("echo one\necho two; exec sleep 1000", hosts)
    before = repr(r.processes[0])
    assert before == "<SshProcess 'echo one echo two; exec sleep 1000' on 127.0.0.2: not started>"
    r.start()
    while not all(p.stdout for p in r.processes):
        r.wait(0.02)
    assert repr(r).endswith(": running, 0 of 3 processes ended>")
    r.kill().wait(LONG)
    assert repr(r.processes[0]).endswith("on 127.0.0.2: died of SIGTERM, killed>")
    assert repr([r, r.processes[0], r.stats(), Report([r])]).count("\n") == 0
    assert "two" in r.processes[0].dump()


def test_secrets_are_in_no_repr(hosts: list[Host]) -> None:
    p = SshProcess("read word; echo $TOKEN | wc -c", hosts[0], env={"TOKEN": "tell-nobody"}).start()
    p.write("pass-word\n")
    p.wait(LONG)
    shown = repr(p) + str(p) + p.dump() + repr(p.stats()) + Report([p]).to_string()
    assert p.stdout.strip() == "12"
    assert "tell-nobody" not in shown
    assert "pass-word" not in shown


def test_failures_as_an_exception_on_request(hosts: list[Host]) -> None:
    r = Remote("echo why >&2; exit {{[0, 3, 0]}}", hosts, process_args=QUIET)
    with pytest.raises(execo.ProcessesFailed) as caught:
        r.run(check=True)
    assert [p.exit_code for p in caught.value.processes] == [3]
    assert hosts[1].address in str(caught.value)
    assert "exited 3" in str(caught.value)


def test_star_import_gives_the_daily_names() -> None:
    names: dict[str, Any] = {}
    exec("from execo import *", names)
    daily = "Process SshProcess Remote Local Put Get ParallelActions SequentialActions Report Host"
    assert all(name in names for name in daily.split())
    assert "annotations" not in names
