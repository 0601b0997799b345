"""Scripts as users write them: the examples of the reference document, and the ways of execo 2.

Each test is a small script on real hosts of this machine. What the parts do in all their corners is
tested beside them.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import execo
import execo.exception
from execo import (
    Get,
    Host,
    Local,
    ParallelActions,
    Process,
    ProcessesFailed,
    Put,
    Remote,
    Report,
    SequentialActions,
    SshProcess,
    SubstitutionError,
    Timer,
    configuration,
    default_connexion_params,
    filter_bad_hosts,
    get_hosts_list,
    logger,
    remote_substitute,
    sleep,
    wait_all_actions,
    wait_any_actions,
    wait_multiple_actions,
)
from execo.errors import Reason
from execo.testing import Cluster

LONG = 60
"""Seconds that nothing here takes: a hang."""

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(4) as cluster:
        yield cluster


@pytest.fixture
def hosts(cluster: Cluster) -> list[Host]:
    return cluster.hosts


def script(text: str, folder: Path, *options: str, stdin: str = "") -> tuple[str, str]:
    """What a script of its own prints on stdout and stderr; its home is ``folder``."""
    done = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(text)] if text else [sys.executable],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder)},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


# -- the examples of the reference document -------------------------------------------------------


def test_reference_two_remotes_at_once(hosts: list[Host]) -> None:
    a = Remote(hosts=(hosts[0], hosts[1]), cmd="whoami ; uname -a").start()
    b = Remote(hosts=(hosts[2], hosts[3]), cmd="mkdir project ; cd ~/project ; pwd").start()
    a.wait()
    # do something else....
    b.wait()
    assert a.ok
    assert b.ok
    assert all(os.uname().nodename in p.stdout for p in a.processes)
    assert all(p.stdout.strip().endswith("/project") for p in b.processes)


def test_reference_clients_are_mapped_to_servers(hosts: list[Host]) -> None:
    hosts1 = [hosts[0]] * 6
    hosts2 = hosts[1:4]
    clients = execo.Remote(hosts1, "echo iperf -c {{[host.address for host in hosts2]}}").run()
    servers = [p.stdout.split()[-1] for p in clients.processes]
    assert servers == [host.address for host in hosts2] * 2


def test_reference_remote_substitute_is_what_execo_uses() -> None:
    lines = [
        remote_substitute("{{{host}}} {{'xy', 'z'}}", [Host("a"), Host("b")], n, {}) for n in (0, 1)
    ]
    assert lines == ["a xy", "b z"]


def test_reference_the_host_then_the_params_then_the_defaults(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = cluster.hosts[0]
    monkeypatch.setitem(default_connexion_params, "user", "nobody-of-this-name")
    monkeypatch.setitem(default_connexion_params, "keyfile", cluster.keyfile)
    quiet = {"nolog_error": True}
    at = {"port": host.port}
    by_default = Remote("true", [host.address], at, quiet).run()
    by_params = Remote("true", [host.address], {**at, "user": cluster.user}, quiet).run()
    by_host = Remote("true", [Host(host.address, user=cluster.user)], at, quiet).run()
    wrong_host = Remote(
        "true", [Host(host.address, user="nobody")], {**at, "user": cluster.user}, quiet
    ).run()
    assert [a.ok for a in (by_default, by_params, by_host, wrong_host)] == [
        False,
        True,
        True,
        False,
    ]
    assert by_default.processes[0].reason is Reason.AUTH


def test_reference_the_file_of_the_user_makes_names_enough(
    cluster: Cluster, tmp_path: Path
) -> None:
    host = cluster.hosts[0]
    params = {"user": cluster.user, "keyfile": cluster.keyfile, "port": host.port}
    (tmp_path / ".execo.conf.py").write_text(
        f"default_connexion_params = {params!r}\nconfiguration = {{'kill_timeout': 5}}\n"
    )
    (tmp_path / ".execo.conf.py").chmod(0o600)
    out, err = script(
        f"""
        from execo import *
        print(Remote("echo here", ["{host.address}"]).run().processes[0].stdout, end="")
        print(configuration["kill_timeout"])
        """,
        tmp_path,
    )
    assert (out, err) == ("here\n5\n", "")


def test_reference_no_log_when_all_works_and_some_on_stderr_when_not(tmp_path: Path) -> None:
    out, err = script(
        """
        from execo import *
        Process("true").run()
        Process("exit 3", shell=True, ignore_exit_code=True, nolog_exit_code=True).run()
        Process("echo why >&2; exit 4", shell=True).run()
        Process("/no/such/program").run()
        Process("sleep 100", timeout="00:00:00.1").run()
        """,
        tmp_path,
    )
    assert out == ""
    assert err.count("WARNING") == 3
    assert "exited 4" in err
    assert "why" in err
    assert "/no/such/program" in err
    assert "sleep 100" in err
    assert "timeout" in err
    assert "exited 3" not in err


def test_reference_durations_in_many_formats() -> None:
    for timeout in (0.1, "0.1", "00:00:00.1"):
        p = Process("sleep 100", timeout=timeout, nolog_timeout=True).run()
        assert (p.timeouted, p.timeout) == (True, 0.1)
    p = Process("sleep 100", shell=True).start()
    assert p.wait("0:00:00.1").running
    assert not p.kill().wait().running
    assert (sleep("0:00:00.01") or 0) > 0
    timer = Timer(timeout="0:01:00")
    assert 0 < timer.remaining() <= 60  # type: ignore[operator]


def test_reference_wait_for_any_and_for_all() -> None:
    fast, slow = Local("true").start(), Local("sleep 1000").start()
    assert wait_multiple_actions([slow, fast]) == wait_any_actions([slow, fast]) == [fast]
    assert wait_all_actions([slow, fast], timeout=0.1) == [fast]
    slow.kill()
    assert wait_all_actions([slow, fast]) == [slow, fast]


def test_reference_put_run_get(hosts: list[Host], tmp_path: Path) -> None:
    (tmp_path / "words").write_text("pear\napple\n")
    results = tmp_path / "results"
    steps = SequentialActions(
        [
            Put(hosts, [str(tmp_path / "words")], remote_location="work/"),
            Remote("sort work/words > work/sorted", hosts),
            Get(hosts, ["work/sorted"], local_location=str(results / "{{{host}}}") + "/"),
        ]
    ).run()
    assert steps.ok
    found = {p.parent.name: p.read_text() for p in results.glob("*/sorted")}
    assert found == {host.address: "apple\npear\n" for host in hosts}


# -- as scripts of execo 2 do it -------------------------------------------------------------------


def test_one_command_and_its_output(hosts: list[Host]) -> None:
    p = SshProcess("echo ' web1 '; exit 1", hosts[0], ignore_exit_code=True, nolog_exit_code=True)
    assert p.run().stdout.strip() == "web1"
    assert (p.ok, p.finished_ok, p.exit_code) == (True, True, 1)


def test_import_execo_as_ex(hosts: list[Host]) -> None:
    import execo as EX  # noqa: N812 - as scripts write it

    r = EX.action.Remote("hostname", [hosts[0]]).run()
    assert EX.process.SshProcess("hostname", hosts[0]).run().stdout == r.processes[0].stdout
    assert EX.time_utils.get_seconds("0:00:10") == 10
    assert EX.host.get_unique_hosts_list([Host("a"), Host("a")]) == [Host("a")]
    assert EX.log.style.command("ls") == "ls"
    assert execo.exception.ProcessesFailed is EX.ProcessesFailed


def test_a_single_name_is_a_list_of_one(cluster: Cluster) -> None:
    host = cluster.hosts[0]
    params = {"user": cluster.user, "keyfile": cluster.keyfile, "port": host.port}
    r = Remote("echo one", host.address, params).run()
    assert [p.stdout for p in r.processes] == ["one\n"]


def test_flags_set_on_each_process_before_the_start(hosts: list[Host]) -> None:
    r = Remote("exit {{range(4)}}", hosts)
    for p in r.processes:
        p.ignore_exit_code = p.nolog_exit_code = True
        p.timeout = "0:01:00"
    assert r.run().ok
    assert [p.exit_code for p in r.processes] == [0, 1, 2, 3]
    assert r.stats()["num_non_zero_exit_codes"] == 3


def test_labels_of_ones_own_on_processes(hosts: list[Host]) -> None:
    r = Remote("echo $((6 * 7))", hosts)
    for place, p in enumerate(r.processes):
        p.rank = place  # type: ignore[attr-defined]
    r.run()
    assert {p.rank: int(p.stdout) for p in r.processes} == dict.fromkeys(range(4), 42)  # type: ignore[attr-defined]


def test_servers_while_clients_run(hosts: list[Host]) -> None:
    servers = Remote("echo ready; exec sleep 1000", hosts[:2])
    clients = Remote("echo talking to {{[h.address for h in hosts[:2]]}}", hosts[2:])
    with servers.start():
        sleep(0.1)
        clients.run()
    servers.wait()
    assert servers.ok
    assert clients.finished_ok
    assert all(p.killed and p.exit_code == -15 for p in servers.processes)
    assert [p.stdout.split()[-1] for p in clients.processes] == [h.address for h in hosts[:2]]


def test_capture_then_kill_then_wait(hosts: list[Host]) -> None:
    capture = Remote("echo packet; exec sleep 1000", hosts).start()
    for p in capture.processes:
        while not p.stdout:
            p.wait(0.02)
    assert {p.stdout for p in capture.kill().wait().processes} == {"packet\n"}
    assert capture.ok


def test_try_again_until_it_works(hosts: list[Host]) -> None:
    p = SshProcess("echo x >> tries; test $(wc -l < tries) -ge 3", hosts[0], nolog_exit_code=True)
    tries = 1
    p.run()
    while not p.ok and tries < 10:
        p.reset()
        p.run()
        tries += 1
    assert (p.ok, tries) == (True, 3)


def test_go_on_with_the_hosts_that_work(hosts: list[Host]) -> None:
    quiet = {"nolog_exit_code": True}
    probe = Remote("test {{range(4)}} -ne 2", hosts, process_args=quiet).run()
    if not probe.ok:
        hosts = filter_bad_hosts(probe, hosts)
    assert len(hosts) == 3
    assert Remote("true", hosts).run().finished_ok


def test_a_dead_host_is_told_from_a_failing_command(hosts: list[Host], cluster: Cluster) -> None:
    cluster.fault(1, "refuse")
    quiet = {"nolog_error": True, "nolog_exit_code": True}
    try:
        r = Remote("exit {{[0, 0, 5, 0]}}", hosts, process_args=quiet).run()
    finally:
        cluster.heal()
    assert [p.host for p in r.failed] == [hosts[1], hosts[2]]  # type: ignore[attr-defined]
    dead, failing = r.failed
    assert (dead.error, dead.exit_code, dead.reason) == (True, None, "connect")
    assert (failing.error, failing.exit_code, failing.reason) == (False, 5, "exit code")
    assert hosts[1].address in dead.message


def test_a_process_that_could_not_start_needs_one_flag_to_be_ignored() -> None:
    p = Process("/no/such/program", ignore_error=True, nolog_error=True).run()
    assert p.ok
    assert isinstance(p.error_reason, FileNotFoundError)


def test_the_level_of_the_log_is_set_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    level = logger.level
    try:
        logger.setLevel("ERROR")
        Process("false").run()
        assert caplog.text == ""
        logger.setLevel("WARNING")
        Process("false").run()
        assert "'false'" in caplog.text
    finally:
        logger.setLevel(level)


def test_a_long_experiment_is_a_tree(hosts: list[Host]) -> None:
    loads = [
        ParallelActions([Remote(f"echo {n}", hosts[:2]), Local(f"echo {n}")]) for n in (1, 2, 3)
    ]
    campaign = SequentialActions(loads, name="campaign").run()
    assert campaign.finished_ok
    assert [p.stdout for p in campaign.processes] == ["1\n"] * 3 + ["2\n"] * 3 + ["3\n"] * 3
    starts = [min(p.start_date or 0 for p in load.processes) for load in loads]
    assert starts == sorted(starts)
    assert len(Report([campaign]).to_string(wide=True).splitlines()) == 4 + 1 + 3 * 3


def test_an_action_made_in_a_function_and_kept(hosts: list[Host]) -> None:
    def launch(count: int) -> Remote:
        names = [f"worker{n}" for n in range(count)]  # noqa: F841 - for the command
        return Remote("echo {{names}} of {{[count]}} on {{{host}}}", get_hosts_list(hosts)).start()

    lines = [p.stdout.split() for p in launch(4).wait().processes]
    assert lines == [[f"worker{n}", "of", "4", "on", h.address] for n, h in enumerate(hosts)]


def test_the_shell_of_the_host_reads_the_command(hosts: list[Host]) -> None:
    command = "cat <<EOF >>log\na b\nEOF\nwc -w < log; echo $((1<<2))"
    r = Remote(command, hosts[:1]).run()
    assert r.processes[0].stdout.split() == ["2", "4"]


def test_stdout_and_stderr_of_a_host_are_apart_and_as_they_were_printed(hosts: list[Host]) -> None:
    p = SshProcess("echo out; echo err >&2", hosts[0]).run()
    assert (p.stdout, p.stderr) == ("out\n", "err\n")


def test_the_command_of_a_host_is_the_command_itself(hosts: list[Host]) -> None:
    p = SshProcess("exec sleep 1000", hosts[0])
    with p.start():
        assert p.cmd == p.remote_cmd == "exec sleep 1000"
        assert p.pid is None
    assert p.wait(LONG).ended


def test_the_hosts_of_an_action_are_those_that_it_was_made_with(hosts: list[Host]) -> None:
    r = Remote("true", hosts)
    with pytest.raises(AttributeError, match="hosts"):
        r.hosts = ["web1"]  # type: ignore[misc,list-item]
    r.hosts.clear()
    assert r.hosts == hosts


def test_a_bare_name_is_one_file(hosts: list[Host], tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("text")
    assert Put(hosts, str(tmp_path / "notes")).run().finished_ok
    assert {p.stdout for p in Remote("cat notes", hosts).run().processes} == {"text"}


# -- sessions by hand ------------------------------------------------------------------------------


def test_a_session_of_python_by_hand(tmp_path: Path) -> None:
    lines = """
    from execo import *
    p = Process("echo hi; exit 3", shell=True, nolog_exit_code=True)
    p
    p.run()
    p.stdout, p.ok
    server = Process("sleep 1000").start()
    server.running
    server.kill().wait()
    [Host("web1"), Host("web2", user="root", port=22)]
    Remote("uptime", ["web1", "web2"])
    Report([p])
    """
    done = subprocess.run(
        [sys.executable, "-i", "-q"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        input=textwrap.dedent(lines),
        capture_output=True,
        text=True,
        timeout=LONG,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "<Process 'echo hi; exit 3': not started>",
        "<Process 'echo hi; exit 3': exited 3>",
        "('hi\\n', False)",
        "True",
        "<Process 'sleep 1000': died of SIGTERM, killed>",
        "[Host('web1'), Host('web2', user='root', port=22)]",
        "<Remote 'uptime': not started, 2 processes>",
        "<Report 'Report': 1 parts>",
    ]
    assert "Traceback" not in done.stderr


def test_what_is_typed_wrong_by_hand_says_what_to_do() -> None:
    wrong: list[tuple[Any, str]] = [
        (lambda: Process("true").wait(), r"not started: call start\(\) or run\(\)"),
        (lambda: Remote("true", ["a"]).wait(), r"not started: call start\(\) or run\(\)"),
        (lambda: Remote("cat", ["a"]).write("x"), r"needs start\(\) first"),
        (lambda: print("x", file=Process("cat")), r"needs start\(\) first"),
        (lambda: Remote(["a", "b"], ["c"]), r"cmd=\[...\], hosts=\[...\]"),
        (lambda: Remote("true"), r"a command and hosts are needed"),  # type: ignore[call-arg,unused-ignore]
        (lambda: Remote("echo {{nowhere}}", ["a"]), r"nowhere"),
        (lambda: Remote("true", "node[1-"), r"node\[1-"),
        (lambda: ParallelActions([Process("true")]), r"made of actions, not of <Process 'true'"),  # type: ignore[list-item]
        (lambda: Report([Host("a")]), r"cannot report on Host\('a'\)"),
        (lambda: Process("true", timeout="soon"), r"soon"),
    ]
    for call, message in wrong:
        with pytest.raises((TypeError, ValueError), match=message):
            call()


@pytest.mark.parametrize(
    ("kind", "argument", "hint"),
    [
        (Process, "nolog_exitcode", "did you mean 'nolog_exit_code'?"),
        (Process, "ignore_non_zer_exit_code", "did you mean 'ignore_exit_code'?"),
        (Process, "shel", "did you mean 'shell'?"),
        (SshProcess, "connection_param", "did you mean 'connection_params'?"),
        (SshProcess, "user", "it belongs into connection_params={'user': ...}"),
        (SshProcess, "connect_timeout", "it belongs into connection_params={'connect_timeout'"),
    ],
)
def test_a_wrong_argument_is_named_with_the_nearest_one(
    kind: Any, argument: str, hint: str
) -> None:
    words = ("true",) if kind is Process else ("true", "web1")
    with pytest.raises(TypeError) as caught:
        kind(*words, **{argument: 1})
    assert f"{kind.__name__} has no argument {argument!r}; {hint}" in str(caught.value)


def test_a_wrong_connection_parameter_is_named_with_the_nearest_one() -> None:
    for make in (
        lambda: Remote("true", ["a"], {"key_file": "id"}),
        lambda: SshProcess("true", "a", connexion_params={"key_file": "id"}),
        lambda: Put(["a"], ["x"], connection_params={"key_file": "id"}),
    ):
        with pytest.raises(TypeError, match="'key_file': did you mean 'keyfile'"):
            make()


# -- blocks ----------------------------------------------------------------------------------------


def test_a_block_that_breaks_leaves_nothing_running(hosts: list[Host]) -> None:
    servers = Remote("exec sleep 1000", hosts)
    local = Process("sleep 1000")
    with contextlib.suppress(ZeroDivisionError), servers.start(), local.start():
        print(1 // 0)
    servers.wait(LONG)
    local.wait(LONG)
    assert servers.ended
    assert local.ended
    assert local.ok


def test_a_short_block_over_many_hosts_kills_what_it_started(hosts: list[Host]) -> None:
    with Remote("exec sleep 1000", hosts * 3).start() as servers:
        pass
    assert servers.wait(LONG).ended


def test_a_block_around_what_was_never_started_does_nothing(hosts: list[Host]) -> None:
    with Remote("sleep 1000", hosts) as r, Process("sleep 1000") as p, Local("sleep 1000") as a:
        assert not (r.started)
        assert not (p.started)
        assert not (a.started)
    assert not (r.ended)
    assert not (p.ended)
    assert not (a.ended)
    assert p.run(0.01).kill().wait().ended


def test_print_to_processes_and_actions(hosts: list[Host]) -> None:
    p, a = Process("cat").start(), Local("cat").start()
    r = Remote("cat", hosts).start()
    for target in (p, a, r):
        print("a", 1, None, sep="-", file=target, flush=True)
        target.close_stdin().wait(LONG)
    texts = [p.stdout, a.process.stdout, *(each.stdout for each in r.processes)]
    assert texts == ["a-1-None\n"] * 6


def test_stdout_of_python_redirected_into_a_process() -> None:
    p = Process("tr a-z A-Z").start()
    with contextlib.redirect_stdout(p):
        print("loud")
    assert p.close_stdin().wait(LONG).stdout == "LOUD\n"


def test_write_to_all_then_to_one(hosts: list[Host]) -> None:
    r = Remote("cat", hosts).start()
    assert r.write("for all\n") == 8
    r.processes[0].write("for the first\n")
    r.close_stdin().wait(LONG)
    assert [p.stdout for p in r.processes] == ["for all\nfor the first\n"] + ["for all\n"] * 3


def test_one_that_has_ended_does_not_break_the_writing_to_the_others(hosts: list[Host]) -> None:
    flags = {"ignore_write_error": True, "nolog_write_error": True}
    r = Remote("{{['true', 'cat', 'cat', 'cat']}}", hosts, process_args=flags).start()
    r.processes[0].wait(LONG)
    print("hello", file=r)
    r.close_stdin().wait(LONG)
    assert [p.stdout for p in r.processes] == ["", "hello\n", "hello\n", "hello\n"]
    assert r.ok
    assert r.processes[0].write_error


def test_configuration_is_a_dict_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(configuration, "kill_timeout", 0.1)
    p = Process("trap '' TERM; echo set; while :; do sleep 0.1; done", shell=True).start()
    while not p.stdout:
        p.wait(0.02)
    p.kill().wait(LONG)
    assert (p.ended, p.forced_kill, p.exit_code, p.ok) == (True, True, -9, True)


# -- what is told at once ------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Remote, lambda cmd, hosts, **kw: SshProcess(cmd, hosts[0], **kw)])
def test_one_argument_under_two_names_is_a_mistake(make: Any) -> None:
    with pytest.raises(TypeError, match="connection_params and connexion_params are the same"):
        make("true", ["a"], connection_params={"user": "x"}, connexion_params={"port": 22})


def test_connection_parameters_are_a_dict() -> None:
    with pytest.raises(TypeError, match="connection parameters are a dict, not 'root'"):
        Remote("true", ["a"], "root")  # type: ignore[arg-type]


def test_errors_travel_to_another_python() -> None:
    with pytest.raises(SubstitutionError) as caught:
        Remote("echo {{nowhere}}", ["a"])
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.position) == (str(caught.value), 5)
    with pytest.raises(ProcessesFailed) as failed:
        Process("false", nolog_exit_code=True).run(check=True)
    told = pickle.loads(pickle.dumps(failed.value))
    assert str(told) == str(failed.value)
    assert "exited 1" in told.processes[0]
