"""The record of a run: what is in its folder, and what comes back from it."""

from __future__ import annotations

import importlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from execo import (
    Local,
    ParallelActions,
    Process,
    Put,
    Remote,
    SequentialActions,
    SshProcess,
    observing,
)
from execo.engine import (
    LoadError,
    ParamSweeper,
    Record,
    RecordError,
    Run,
    load,
    sweep,
)
from execo.testing import Cluster

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 60
QUIET: dict[str, Any] = {"nolog_exit_code": True, "nolog_error": True, "nolog_timeout": True}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def nobody_observes_afterwards() -> Iterator[None]:
    yield
    assert observing.observers == ()


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def everything(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


def script(source: str, folder: Path, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source), str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **options,
    )


# -- what is in it ------------------------------------------------------------------------------


def test_every_process_is_in_it_whoever_starts_it(folder: Path) -> None:
    before = Process("true").run()
    running = Process("cat").start()
    with Record(folder):
        Process("echo one").run()
        threading.Thread(target=Process("echo two").run).run()
        running.close_stdin().wait(PATIENCE)
    Process("echo late").run()
    run = load(folder)
    assert before.finished_ok
    assert [(p.number, p.cmd, p.outcome) for p in run.processes] == [
        (0, "echo one", "ok"),
        (1, "echo two", "ok"),
    ]
    first = run.processes[0]
    assert first.start is not None
    assert first.end is not None
    assert run.manifest["started"] <= first.start <= first.end <= run.manifest["ended"]
    assert (first.exit_code, first.stdout, first.stdout_size, first.host) == (0, "one\n", 4, None)
    assert run.faults == []


def test_actions_are_a_tree(folder: Path) -> None:
    with Record(folder):
        inner = SequentialActions(
            [Local("true", name="a"), Local("false", process_args=QUIET, name="b")], name="inner"
        )
        ParallelActions([inner, Local("true", name="c")], name="outer").run()
        Local("true", name="alone").run()
    run = load(folder)
    actions = {action.name: action for action in run.actions}
    parents = {
        name: None if action.parent is None else run.actions[action.parent].name
        for name, action in actions.items()
    }
    assert parents == {
        "outer": None,
        "alone": None,
        "inner": "outer",
        "c": "outer",
        "a": "inner",
        "b": "inner",
    }
    assert {name for name, action in actions.items() if not action.ok} == {"outer", "inner", "b"}
    assert [run.actions[p.action].name for p in run.processes if p.action is not None].count(
        "b"
    ) == 1
    assert all(action.start and action.end for action in run.actions)


def test_how_they_have_failed(folder: Path) -> None:
    with Record(folder):
        Process("no-such-command", **QUIET).run()
        Process("exit 3", shell=True, **QUIET).run()
        Process("exit 3", shell=True, ignore_exit_code=True, **QUIET).run()
        Process("sleep 60", timeout=0.1, **QUIET).run()
        Process("sleep 60").start().kill().wait()
        action = ParallelActions([Local("sleep 60"), Local("echo never")], fanout=1).start()
        action.kill().wait()
    run = load(folder)
    assert [(p.cmd, p.outcome, p.exit_code) for p in run.processes] == [
        ("no-such-command", "spawn", None),
        ("exit 3", "exit code", 3),
        ("exit 3", "ok", 3),
        ("sleep 60", "timeout", -15),
        ("sleep 60", "ok", -15),
        ("sleep 60", "ok", -15),
        ("echo never", "cancelled", None),
    ]
    assert run.processes[0].start is None
    assert "command not found" in run.processes[0].message
    assert run.processes[1].message == "exited 3"


def test_commands_and_files_on_hosts(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("text")
    with Cluster(2) as cluster, Record(folder):
        Remote("echo {{[1, 2]}}", cluster.hosts, cluster.params).run(PATIENCE)
        Put(cluster.hosts, [str(file)], str(tmp_path), connection_params=cluster.params).run()
        addresses = [host.address for host in cluster.hosts]
    run = load(folder)
    echoes = [p for p in run.processes if p.cmd.startswith("echo")]
    assert sorted((p.host, p.cmd, p.stdout) for p in echoes) == [
        (addresses[0], "echo 1", "1\n"),
        (addresses[1], "echo 2", "2\n"),
    ]
    assert {p.host for p in run.processes if p not in echoes} == set(addresses)
    assert all(p.ok for p in run.processes)


def test_one_that_is_started_again_is_there_twice(folder: Path) -> None:
    with Record(folder):
        process = Process("true").run()
        process.reset()
        process.run()
        action = Local("false", process_args=QUIET).run()
        action.retry_failed().wait()
    run = load(folder)
    assert [p.cmd for p in run.processes] == ["true", "true", "false", "false"]
    assert [action.ok for action in run.actions] == [False, False]


def test_what_a_combination_was_for(folder: Path) -> None:
    one, two = sweep({"size": [1, 2]})
    with Record(folder) as record:

        def work(combination: Any) -> None:
            with record.combination(combination):
                Process("true").run()
                ParallelActions([Local("true"), Local("true")], fanout=1).run()

        threads = [threading.Thread(target=work, args=[each]) for each in (one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        shared = Local("true")
        with record.combination(one):
            shared.run()
        shared.reset().run()
    run = load(folder)
    found = [p.combination for p in run.processes]
    assert (found.count(one), found.count(two), found[-1]) == (4, 3, None)
    with pytest.raises(TypeError, match="factor 'a'"), record.combination({"a": [1]}):
        pass


# -- outputs --------------------------------------------------------------------------------------


def test_outputs_as_they_were(folder: Path) -> None:
    with Record(folder):
        Process("echo out; echo err >&2; exit 1", shell=True, **QUIET).run()
        Process("seq 100000; seq 9000 >&2", shell=True).run()
        Process(r"printf '\377\000'", shell=True).run()
        Process("echo not kept", default_stdout_handler=False).run()
    run = load(folder)
    short, long, odd, dropped = run.processes
    assert (run.output(short), run.output(short, "stderr")) == (b"out\n", b"err\n")
    numbers = "".join(f"{number}\n" for number in range(1, 100_001)).encode()
    assert run.output(long) == numbers
    assert (long.stdout, long.stdout_size, long.truncated) == (None, len(numbers), False)
    assert run.output(long, "stderr").endswith(b"\n9000\n")
    assert run.output(odd) == b"\xff\x00"
    assert run.output(dropped) == b"not kept\n"
    assert sorted(file.name for file in (folder / "outputs").iterdir()) == [
        *("1.stderr", "1.stdout", "2.stdout"),
    ]
    with pytest.raises(ValueError, match="stdin"):
        run.output(odd, "stdin")


@pytest.mark.parametrize("most", [0, 10, 5000])
def test_outputs_may_be_cut(folder: Path, most: int) -> None:
    with Record(folder, max_output=most):
        Process("seq 10000; sleep 0.2; seq 10000; echo 1 >&2", shell=True).run()
        Process("true").run()
    run = load(folder)
    cut, whole = run.processes
    text = "".join(f"{number}\n" for number in range(1, 10_001)).encode()
    assert run.output(cut) == text[:most]
    assert (cut.truncated, cut.stdout_size) == (True, 2 * len(text))
    assert not whole.truncated


def test_a_run_can_be_read_while_it_goes_on(folder: Path) -> None:
    with Record(folder):
        process = Process("echo so far; cat", shell=True).start()
        done = threading.Event()
        for _ in range(PATIENCE * 10):
            run = load(folder)
            if run.processes and run.output(run.processes[0]):
                break
            done.wait(0.1)
        assert run.output(run.processes[0]) == b"so far\n"
        assert (run.processes[0].outcome, run.processes[0].stdout_size) == ("running", 7)
        process.close_stdin().wait(PATIENCE)
    assert load(folder).processes[0].outcome == "ok"


def test_many_that_print_at_once(folder: Path) -> None:
    commands = [f"yes {index} | head -c 100000" for index in range(20)]
    with Record(folder):
        ParallelActions([Local(c, process_args={"shell": True}) for c in commands]).run()
    run = load(folder)
    for process in run.processes:
        word = process.cmd.split()[1]
        assert run.output(process) == (f"{word}\n" * 100_000).encode()[:100_000]


# -- its size -------------------------------------------------------------------------------------


def test_a_long_command_is_written_once(folder: Path) -> None:
    command = f"true {'x' * 20_000}"
    with Record(folder):
        ParallelActions([Local(command, name="short") for _ in range(50)]).run()
    run = load(folder)
    assert [p.cmd for p in run.processes] == [command] * 50
    assert (folder / "events.jsonl").stat().st_size < 20_000 + 50 * 1000


def test_many_long_commands_are_cut_in_the_end(folder: Path) -> None:
    with Record(folder):
        for index in range(25):
            Process(["true", f"{index}{'x' * 60_000}"]).run()
    run = load(folder)
    assert len({p.cmd for p in run.processes}) == 25
    assert run.processes[0].cmd == f"true 0{'x' * 60_000}"
    assert run.processes[-1].cmd.endswith("x...")
    assert len(run.processes[-1].cmd) < 300
    assert (folder / "events.jsonl").stat().st_size < 1_100_000


def test_less_than_a_kilobyte_a_process(folder: Path) -> None:
    text = "é" * 100
    with Record(folder):
        ParallelActions([Local(["echo", text]) for _ in range(100)]).run()
    size = len(everything(folder)) - (folder / "manifest.json").stat().st_size
    # Here with an action for each, and characters that take six each.
    assert size / 200 < 1024
    run = load(folder)
    assert {run.output(p) for p in run.processes} == {f"{text}\n".encode()}


# -- secrets --------------------------------------------------------------------------------------

SECRET = "fi5h&ch1ps"


def test_no_secret_is_in_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.py", "--api-token", "t0ken", f"-p{SECRET}", "--n=3"])
    monkeypatch.setenv("PATH", f"/opt/{SECRET}:{os.environ['PATH']}")
    env = {"TOKEN": SECRET}
    with Cluster(1) as cluster, Record(folder, secrets=[SECRET]) as record:
        params = {**cluster.params, "password": "pass-of-the-host"}
        Process("echo $TOKEN", shell=True, secret_env=env).run()
        Process("for i in 1 2 3; do printf fi5h; sleep 0.1; printf '&ch1ps'; done; seq 1000",
                shell=True, secret_env=env).run()  # fmt: skip
        Process(["echo", "another-one"], secret_env={"A": "another-one"}, name="another-one").run()
        host = cluster.hosts[0]
        SshProcess("echo pass-of-the-host; false", host, params, **QUIET).run()
        Process(f"false {SECRET}", **QUIET).run()
        record.result({"a": 1}, {"text": [SECRET]}, state="failed", reason=f"with {SECRET}")
    data = everything(folder)
    for word in (SECRET, "another-one", "pass-of-the-host", "t0ken"):
        assert word.encode() not in data
    run = load(folder)
    assert run.manifest["argv"] == ["bench.py", "--api-token", "***", "-p***", "--n=3"]
    assert run.output(run.processes[0]) == b"***\n"
    assert run.output(run.processes[1]).startswith(b"*********1\n2\n")
    assert run.results[0].result == {"text": ["***"]}


def test_a_secret_in_pieces_that_are_written_apart(folder: Path) -> None:
    with Record(folder):
        # The first piece waits longer than output is held back.
        Process("printf fi5h; sleep 1.7; printf '&ch1ps'; seq 1000", shell=True,
                secret_env={"A": SECRET}).run()  # fmt: skip
    run = load(folder)
    assert run.output(run.processes[0]).startswith(b"***1\n2\n")
    assert b"fi5h" not in everything(folder / "outputs")


def test_variables_that_hold_secrets_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MY_PASSWORD", "GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        with pytest.raises(ValueError, match=f"{name} is a secret"):
            Record(folder, environment=["LANG", name])
    with pytest.raises(TypeError, match="a list of names"):
        Record(folder, environment="LANG")
    monkeypatch.setenv("ALLOWED", "yes")
    monkeypatch.setenv("OTHER", "not-to-be-seen")
    with Record(folder, environment=["ALLOWED", "UNSET"]):
        pass
    assert load(folder).manifest["environment"] == {"ALLOWED": "yes"}
    assert b"not-to-be-seen" not in everything(folder)


# -- crashes --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run of each kind of line."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with Record(folder, environment=[]) as record:
        for one in sweep({"size": [1, 2]}):
            with record.combination(one):
                Local(f"echo {'é' * one['size']} {'x' * 300}").run()
            record.result(one, {"seconds": one["size"] / 3}, hosts=["a", "b"])
        Process("false", **QUIET).run()
    return folder


def test_cut_at_any_byte_it_is_what_came_before(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    shutil.copytree(finished, folder)
    whole = load(finished)
    for name in ("events.jsonl", "results.jsonl"):
        data = (finished / name).read_bytes()
        for size in range(len(data) + 1):
            with (folder / name).open("r+b" if size else "wb") as file:
                file.write(data[:size])
                file.truncate()
            run = load(folder)
            assert run.faults == []
            assert list(run.results) == list(whole.results[: len(run.results)])
            for row, then in zip(run.processes, whole.processes, strict=False):
                assert (row.cmd, row.start, row.combination) == (
                    *(then.cmd, then.start, then.combination),
                )
                assert row.outcome in ("running", then.outcome)
            lines = data[:size].count(b"\n")
            assert name != "results.jsonl" or len(run.results) == lines
    assert load(folder) == Run(**{**vars(whole), "folder": folder})


def test_a_manifest_that_was_cut_does_not_hide_the_rest(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    shutil.copytree(finished, folder)
    data = (folder / "manifest.json").read_bytes()
    for size in (0, 1, len(data) // 2, len(data) - 3):
        (folder / "manifest.json").write_bytes(data[:size])
        run = load(folder)
        assert len(run.processes) == 3
        assert ["manifest.json" in fault for fault in run.faults] == [True]
    (folder / "manifest.json").unlink()
    assert len(load(folder).processes) == 3


@pytest.mark.parametrize("size", [1, 100, 300, 700, 1000])
def test_a_torn_record_goes_on(finished: Path, tmp_path: Path, size: int) -> None:
    folder = tmp_path / "cut"
    shutil.copytree(finished, folder)
    path = folder / "events.jsonl"
    path.write_bytes(path.read_bytes()[:size])
    before = load(folder)
    name = before.manifest["name"]
    with Record(folder, name=name, resume=True):
        Process(["echo", "x" * 300]).run()
    run = load(folder)
    assert run.faults == []
    assert len(run.processes) == len(before.processes) + 1
    assert run.output(run.processes[-1]) == b"x" * 300 + b"\n"


def test_a_damaged_line_is_named_and_the_rest_used(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(finished, folder)
    path = folder / "events.jsonl"
    lines = path.read_bytes().split(b"\n")
    lines[1] = b"\x00\xff{"
    lines.insert(3, b'{"do":"end","n":77,"at":1,"outcome":"ok"}')
    lines.insert(4, b'["no object"]')
    path.write_bytes(b"\n".join(lines))
    run = load(folder)
    assert [fault.split(":")[0] for fault in run.faults] == [
        *("events.jsonl, line 2", "events.jsonl", "events.jsonl, line 5"),
    ] or len(run.faults) >= 3
    assert "events.jsonl, line 2" in run.faults[0]
    assert len(run.processes) == 3
    assert len(run.results) == 2


def test_a_script_that_is_killed_leaves_what_it_had(folder: Path) -> None:
    killed = script(
        """
        import sys, time
        from execo import Process
        from execo.engine import Record, load
        folder = sys.argv[1]
        record = Record(folder, name="killed").open()
        Process("echo first").run()
        record.result({"a": 1}, 17)
        process = Process("echo second; sleep 600", shell=True).start()
        while len(load(folder).processes) < 2 or not load(folder).output(load(folder).processes[1]):
            process.wait(0.1)
        print("now", flush=True)
        process.wait()
        """,
        folder,
    )
    assert killed.stdout is not None
    assert killed.stdout.readline() == "now\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=PATIENCE)
    run = load(folder)
    first, second = run.processes
    assert (first.outcome, second.outcome) == ("ok", "running")
    assert run.output(second) == b"second\n"
    assert run.results[0].result == 17
    assert "ended" not in run.manifest
    with Record(folder, name="killed", resume=True):
        Process("echo third").run()
    run = load(folder)
    assert [p.outcome for p in run.processes] == ["ok", "lost", "ok"]
    # It ends for us where its script was last heard of.
    lost = run.processes[1]
    assert lost.start is not None
    assert lost.end is not None
    assert run.processes[2].start is not None
    assert lost.start <= lost.end <= run.processes[2].start
    assert run.output(lost) == b"second\n"
    assert [p.number for p in run.processes] == [0, 1, 2]
    assert len(run.manifest["earlier"]) == 1


def test_a_record_without_an_end_ends_with_the_script(folder: Path) -> None:
    ended = script(
        """
        import sys
        from execo import Process
        from execo.engine import Record
        record = Record(sys.argv[1]).open()
        Process("echo first").run()
        left = Process("sleep 600").start()
        """,
        folder,
    )
    ended.communicate(timeout=PATIENCE)
    assert ended.returncode == 0
    run = load(folder)
    assert [p.cmd for p in run.processes] == ["echo first", "sleep 600"]
    assert run.processes[0].outcome == "ok"
    assert events(folder)[-1]["do"] == "close"


def test_an_exception_is_in_it(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), Record(folder):
        1 / 0  # noqa: B018
    run = load(folder)
    assert run.manifest["error"] == "ZeroDivisionError: division by zero"
    assert events(folder)[-1]["error"] == run.manifest["error"]


def test_a_full_disk_costs_the_record_alone(folder: Path) -> None:
    ended = script(
        """
        import resource, sys
        from execo import Process
        from execo.engine import Record
        with Record(sys.argv[1]) as record:
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
            for index in range(200):
                assert Process(f"echo {index}").run().stdout == f"{index}\\n"
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert Process("echo again").run().ok
        """,
        folder,
        stderr=subprocess.STDOUT,
    )
    said, _ = ended.communicate(timeout=PATIENCE)
    assert ended.returncode == 0, said
    assert said.count("the record has gaps") == 1
    assert "lines or outputs could not be written" in said
    run = load(folder)
    assert 0 < len(run.processes) < 201
    assert run.processes[-1].cmd == "echo again"


# -- folders --------------------------------------------------------------------------------------


def test_a_copy_is_as_good(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    shutil.copytree(finished, folder)
    for file in [*folder.rglob("*"), folder]:
        file.chmod(0o555 if file.is_dir() else 0o444)
    try:
        run, whole = load(folder), load(finished)
        assert run == Run(**{**vars(whole), "folder": folder})
        assert run.output(run.processes[0]) == whole.output(whole.processes[0]) != b""
    finally:
        for file in [folder, *folder.rglob("*")]:
            file.chmod(0o755)
    assert str(finished).encode() not in everything(folder)


def test_another_run_is_refused(finished: Path, folder: Path) -> None:
    shutil.copytree(finished, folder)
    name = load(folder).manifest["name"]
    before = everything(folder)
    with pytest.raises(RecordError, match="has a record already: use another folder"):
        Record(folder).open()
    with pytest.raises(RecordError, match=f"name is {name!r} there and 'other' here"):
        Record(folder, name="other", resume=True).open()
    with pytest.raises(RecordError, match="version is None there and 2 here"):
        Record(folder, name=name, version=2, resume=True).open()
    assert everything(folder) == before
    (folder / "manifest.json").unlink()
    with pytest.raises(RecordError, match=r"events of a run, and no manifest\.json"):
        Record(folder, resume=True).open()
    (folder / "manifest.json").write_text("{")
    with pytest.raises(RecordError, match="cannot be read"):
        Record(folder, resume=True).open()
    (folder / "manifest.json").write_text('{"format": 99}')
    with pytest.raises(RecordError, match="format is 99 there and 1 here"):
        Record(folder, resume=True).open()
    with pytest.raises(LoadError, match="format of the record: 99 there, 1 here"):
        load(folder)


def test_one_writes_at_a_time(folder: Path) -> None:
    with Record(folder) as record:
        who = rf"process {os.getpid()} on \S+, since 20.* writes the record of its run there now"
        with pytest.raises(RecordError, match=who):
            Record(folder, resume=True).open()
        with pytest.raises(RecordError, match="is open"):
            record.open()
    with pytest.raises(RecordError, match="has a record already"):
        record.open()


def test_no_record_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no record of a run"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "missing")


def test_two_records_at_once(tmp_path: Path) -> None:
    with Record(tmp_path / "outer"):
        Process("echo 1").run()
        with Record(tmp_path / "inner"):
            Process("echo 2").run()
    inner = [p.cmd for p in load(tmp_path / "inner").processes]
    outer = [p.cmd for p in load(tmp_path / "outer").processes]
    assert inner == ["echo 2"]
    assert [cmd for cmd in outer if cmd.startswith("echo")] == ["echo 1", "echo 2"]


def test_a_forked_child_writes_nothing(folder: Path) -> None:
    ended = script(
        """
        import os, sys
        from execo import Process
        from execo.engine import Record, RecordError
        with Record(sys.argv[1]) as record:
            Process("echo parent").run()
            if not os.fork():
                Process("echo child").run()
                try:
                    record.result({"a": 1})
                except RecordError as exc:
                    print(exc, flush=True)
                record.close()
                os._exit(0)
            os.wait()
            Process("echo parent again").run()
        """,
        folder,
    )
    said, _ = ended.communicate(timeout=PATIENCE)
    assert ended.returncode == 0
    assert "that of the parent of this process" in said
    assert [p.cmd for p in load(folder).processes] == ["echo parent", "echo parent again"]


# -- results --------------------------------------------------------------------------------------


def test_results(folder: Path) -> None:
    one, two = sweep({"size": [1, (2, None)]})
    with Record(folder) as record:
        record.result(one, {"x": [1, 2.5, None]}, start=10.0, end=12.5, hosts=["h1", "h2"])
        record.result(two, state="failed", reason="no luck", attempt=3)
        for wrong in ({1, 2}, object()):
            with pytest.raises(TypeError, match="a result is what JSON has"):
                record.result(one, wrong)
        endless: list[Any] = []
        endless.append(endless)
        with pytest.raises(TypeError, match="a result is what JSON has"):
            record.result(one, endless)
        with pytest.raises(ValueError, match="one of done, failed, skipped"):
            record.result(one, state="finished")
    with pytest.raises(RecordError, match="not open"):
        record.result(one)
    first, second = load(folder).results
    assert (first.combination, first.result, first.start, first.end, first.hosts) == (
        *(one, {"x": [1, 2.5, None]}, 10.0, 12.5, ("h1", "h2")),
    )
    assert (second.combination, second.state, second.reason, second.attempt) == (
        *(two, "failed", "no luck", 3),
    )


def test_a_sweeper_within(folder: Path) -> None:
    combinations = sweep({"size": [1, 2, 3, 4, 5]})
    with Record(folder) as record:
        sweeper = ParamSweeper(folder / "sweep", combinations, save_sweeps=True, lease=None)
        for one in combinations[:4]:
            assert sweeper.get_next() == one
        sweeper.done(combinations[0], result={"seconds": 1})
        record.result(combinations[0], {"seconds": 1}, hosts=["h"])
        sweeper.done(combinations[1], result={"seconds": 2})
        sweeper.failed(combinations[2], "no luck")
        sweeper.close()
    run = load(folder)
    assert list(run.combinations) == combinations
    assert [run.states[one] for one in combinations] == [
        *("done", "done", "failed", "in progress", "to do"),
    ]
    assert [(row.combination["size"], row.state, row.result, row.hosts) for row in run.results] == [
        (1, "done", {"seconds": 1}, ("h",)),
        (2, "done", {"seconds": 2}, ()),
        (3, "failed", None, ()),
    ]
    alone = load(folder / "sweep")
    assert list(alone.combinations) == combinations
    assert len(alone.results) == 3


@pytest.fixture(scope="module")
def pandas() -> None:
    """Imported before the test: its threads stay."""
    importlib.import_module("pandas")


@pytest.mark.usefixtures("pandas")
def test_frames(folder: Path) -> None:
    with Record(folder) as record:
        for one in sweep({"size": [1, 2], "state": ["hot"]}):
            record.result(one, {"seconds": one["size"] / 2, "size": 9}, start=1.0, end=3.0)
        record.result({"size": 3}, 7, state="failed", reason="why")
        Local("echo 1").run()
    run = load(folder)
    frame = run.to_frame()
    assert list(frame["size"]) == [1, 2, 3]
    assert list(frame["seconds"])[:2] == [0.5, 1.0]
    assert list(frame["result.size"])[:2] == [9, 9]
    assert list(frame["run.state"])[:2] == ["done", "done"]
    assert list(frame["duration"])[:2] == [2.0, 2.0]
    assert list(frame["result"])[2] == 7
    processes = run.to_frame("processes")
    assert list(processes["cmd"]) == ["echo 1"]
    assert processes["duration"][0] >= 0
    assert list(run.to_frame("actions")["ok"]) == [True]
    with pytest.raises(ValueError, match="results, processes or actions"):
        run.to_frame("hosts")


def test_without_pandas(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pip install 'execo\[data\]'"):
        load(finished).to_frame()


# -- who observes ---------------------------------------------------------------------------------


def test_an_observer_that_raises_is_told_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        calls = 0

        def __getattr__(self, name: str) -> Any:
            if name.startswith(("process_", "action_")):
                self.calls += 1
                raise OSError("broken")
            raise AttributeError(name)

    broken = Broken()
    observing.observe(broken)
    with caplog.at_level(logging.ERROR, "execo"):
        assert Local("echo 1").run().processes[0].stdout == "1\n"
    assert broken.calls == 1
    assert "internal error" in caplog.text
