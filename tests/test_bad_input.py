"""What is wrong ends the process that it concerns, says why, and harms nobody else."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from execo import Process, Reason, configuration
from execo.process import ProcessLifecycleHandler, ProcessOutputHandler


@pytest.fixture(autouse=True)
def others_go_on() -> Iterator[None]:
    """A process that runs all the time, and one that comes after, are as they should be."""
    neighbour = Process("while read x; do echo $x; done", shell=True).start()
    neighbour.write("before\n")
    yield
    neighbour.write("after\n")
    assert neighbour.close_stdin().wait(30).stdout == "before\nafter\n"
    assert neighbour.finished_ok
    assert Process("echo next").run(30).stdout == "next\n"
    assert [t.name for t in threading.enumerate()].count("execo-io") == 1


# -- a command that cannot be started ---------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "text").write_text("not a program\n")
    (tmp_path / "plain").write_text("no first line\n")
    (tmp_path / "plain").chmod(0o755)
    (tmp_path / "lost").write_text("#!/no/such/interpreter\n")
    (tmp_path / "lost").chmod(0o755)
    return tmp_path


CANNOT_START: list[tuple[dict[str, Any], str]] = [
    ({"cmd": "echo 'unbalanced"}, "No closing quotation"),
    ({"cmd": "echo \\"}, "No escaped character"),
    ({"cmd": ""}, "empty"),
    ({"cmd": "   "}, "empty"),
    ({"cmd": []}, "empty"),
    ({"cmd": "echo a\0b"}, "NUL"),
    ({"cmd": ["a\0b"]}, "NUL"),
    ({"cmd": "echo a\0b", "shell": True}, "NUL"),
    ({"cmd": "true", "env": {"A": "\0"}}, "NUL"),
    ({"cmd": "true", "env": {"A=B": "x"}}, "environment"),
    ({"cmd": "echo \ud800"}, "surrogates"),
    ({"cmd": "no-such-command-anywhere"}, "not found"),
    ({"cmd": [""]}, "not found"),
    ({"cmd": "/no/such/command"}, "no such file"),
    ({"cmd": "./text"}, "permission denied"),
    ({"cmd": "/"}, "folder"),
    ({"cmd": ["true", "x" * 5_000_000]}, "too long"),
    ({"cmd": "true", "cwd": "/no/such/folder"}, "/no/such/folder"),
    ({"cmd": "true", "cwd": "/etc/passwd"}, "/etc/passwd"),
    ({"cmd": "true", "cwd": "/a\0b"}, "cwd|folder"),
    ({"cmd": "true", "cwd": ""}, "cwd|folder"),
]


@pytest.mark.parametrize("pty", [False, True])
@pytest.mark.parametrize(("options", "words"), CANNOT_START)
def test_a_command_that_cannot_be_started(
    options: dict[str, Any], words: str, pty: bool, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import re

    p = Process(**{"cwd": folder, "pty": pty, **options}).run(30)
    assert p.ended
    assert not p.ok
    assert p.reason is Reason.SPAWN
    assert p.error
    assert p.error_reason is not None
    assert re.search(words, p.message)
    assert (p.pid, p.exit_code, p.start_date) == (None, None, None)
    (record,) = caplog.records
    assert p.message in record.getMessage()
    assert len(repr(p)) < 200
    assert len(p.message) < 1000
    p.ignore_error = True
    assert p.ok
    assert p.reset().run(30).reason is Reason.SPAWN


def test_a_script_without_a_first_line_or_with_a_wrong_one(folder: Path) -> None:
    for name, words in (("plain", "first line"), ("lost", "interpreter")):
        p = Process([str(folder / name)], nolog_error=True).run(30)
        assert p.reason is Reason.SPAWN
        assert words in p.message


def test_an_unknown_command_of_a_shell_has_its_exit_code(caplog: pytest.LogCaptureFixture) -> None:
    p = Process("no-such-command-anywhere", shell=True).run(30)
    assert (p.exit_code, p.reason) == (127, Reason.EXIT_CODE)
    assert "no-such-command-anywhere" in p.stderr
    assert "not found" in caplog.text


def test_all_that_can_be_done_with_one_that_could_not_be_started() -> None:
    p = Process("no-such-command-anywhere", nolog_error=True).start()
    p.kill().kill(signal.SIGKILL)
    p.write("x")
    p.close_stdin().wait(30)
    assert (p.stdout, p.stderr, p.killed, p.reason) == ("", "", False, Reason.SPAWN)
    assert p.stats().num_errors == 1
    assert "no-such-command-anywhere" in p.dump()
    with p:
        pass


def test_a_long_command_has_a_short_message() -> None:
    p = Process(["x" * 100_000], nolog_error=True).run(30)
    assert p.reason is Reason.SPAWN
    assert len(p.message) < 1000


# -- a call that is wrong ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"cmd": None},
        {"cmd": 5},
        {"cmd": b"true"},
        {"cmd": {"a": "b"}},
        {"cmd": ["sleep", 5]},
        {"cmd": [b"true"]},
        {"cmd": "true", "no_such_argument": 1},
        {"cmd": "true", "cwd": 5},
        {"cmd": "true", "cwd": b"/tmp"},
        {"cmd": "true", "env": {"A": 5}},
        {"cmd": "true", "env": {5: "A"}},
        {"cmd": "true", "env": {b"A": "x"}},
        {"cmd": "true", "timeout": "soon"},
        {"cmd": "true", "timeout": -1},
        {"cmd": "true", "timeout": float("nan")},
        {"cmd": "true", "timeout": [1]},
        {"cmd": "true", "max_output": -1},
        {"cmd": "true", "max_output": "1k"},
        {"cmd": "true", "lifecycle_handlers": 5},
        {"cmd": "true", "stdout_handlers": [object()]},
    ],
    ids=lambda arguments: re.sub(r" at 0x\w+", "", str(arguments)),
)
def test_a_wrong_call_raises(arguments: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        Process(**arguments)
    assert str(caught.value)


def test_a_misspelt_argument_is_named_with_the_right_one() -> None:
    options: Any = {"ignore_exitcode": True}
    with pytest.raises(TypeError, match=r"'ignore_exitcode'.*'ignore_exit_code'"):
        Process("true", **options)


@pytest.mark.parametrize("timeout", ["soon", [1], -1])
def test_a_wrong_timeout_set_later(timeout: Any) -> None:
    p = Process("true")
    with pytest.raises((TypeError, ValueError)):
        p.timeout = timeout
    assert p.run(30).ok


@pytest.mark.parametrize("timeout", ["soon", [1]])
def test_a_wrong_timeout_of_wait_and_kill(timeout: Any) -> None:
    p = Process("cat").start()
    with pytest.raises((TypeError, ValueError)):
        p.wait(timeout)
    with pytest.raises((TypeError, ValueError)):
        p.kill(auto_force_kill_timeout=timeout)
    with pytest.raises((TypeError, ValueError)):
        p.kill(sig=1000)
    assert p.running
    assert not p.killed
    assert p.close_stdin().wait(30).ok


def test_a_huge_timeout() -> None:
    p = Process("cat", timeout=1e300).start()
    p.close_stdin().wait(1e300)
    assert p.ok
    assert Process("sleep 1000").start().kill(auto_force_kill_timeout=1e300).wait(1e300).killed


@pytest.mark.parametrize("data", [None, 5.5, ["x"], object()])
def test_writing_what_is_no_text(data: Any) -> None:
    p = Process("cat").start()
    with pytest.raises((TypeError, AttributeError)):
        p.write(data)
    p.write("text")
    assert p.close_stdin().wait(30).stdout == "text"


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("cmd", 5), ("cmd", [1, 2]), ("cwd", 3.5), ("cwd", b"\xff"), ("env", {"A": 5}), ("env", 7)],
)
def test_attributes_that_are_set_to_nonsense(attribute: str, value: Any) -> None:
    p = Process("true", nolog_error=True)
    try:
        setattr(p, attribute, value)
    except (TypeError, ValueError):
        return  # as good
    p.start().wait(5)
    assert p.ended
    assert not p.ok
    assert p.reason is Reason.SPAWN


@pytest.mark.parametrize("key", ["kill_timeout", "drain_timeout", "compact_output_threshold"])
@pytest.mark.parametrize("value", ["nonsense", None])
def test_nonsense_in_the_configuration_hangs_nobody(
    key: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = Process("sleep 1000 & echo $!; exit 1", shell=True)
    with monkeypatch.context() as patch:
        patch.setitem(configuration, key, value)
        try:
            p.start().wait(5)
        except (TypeError, ValueError):
            assert not p.started
            return
    ended = p.ended
    if p.stdout:
        os.kill(int(p.stdout), signal.SIGKILL)
    p.wait(30)
    assert ended


# -- handlers ---------------------------------------------------------------------------------


class Bad(ProcessLifecycleHandler, ProcessOutputHandler):
    """Raises wherever it is called."""

    def start(self) -> None:  # type: ignore[override]
        """With a wrong signature."""

    def end(self, process: Any) -> None:
        raise KeyboardInterrupt

    def read(self, *args: Any) -> None:
        raise RecursionError


def test_handlers_that_raise_everywhere() -> None:
    p = Process(
        "seq 100000; exit 2",
        shell=True,
        lifecycle_handlers=[Bad()],
        stdout_handlers=[Bad(), "/no/such/folder/file", 12345],
        stderr_handlers=[Bad()],
    )
    p.lifecycle_handlers.append(object())
    p.run(30)
    assert p.ended
    assert (p.exit_code, p.reason, p.message) == (2, Reason.EXIT_CODE, "exited 2")
    assert p.stdout.endswith("\n100000\n")


# -- processes that behave badly --------------------------------------------------------------


@pytest.mark.parametrize("pty", [False, True])
@pytest.mark.parametrize(
    ("cmd", "code"),
    [
        ("exec >&- 2>&-; sleep 0.2; exit 5", 5),
        ("exec <&- >&- 2>&-; sleep 0.2; exit 5", 5),
        ("setsid -w sh -c 'sleep 0.1; exit 5'", 5),
        ("timeout 10 sh -c 'sleep 0.1; exit 5'", 5),
        ("sh -mc 'sleep 0.1 & wait; exit 5'", 5),
        ("trap '' TERM HUP; sleep 0.2; exit 5", 5),
        ("(sleep 0.2; kill -CONT $$) & kill -STOP $$; exit 5", 5),
        ("kill -KILL $$", -9),
        ("kill -SEGV $$", -11),
        ("head -c 1000000 /dev/urandom; exit 5", 5),
    ],
)
def test_wait_returns_and_the_exit_code_is_right(cmd: str, code: int, pty: bool) -> None:
    p = Process(cmd, shell=True, pty=pty, nolog_exit_code=True).run(30)
    assert p.ended
    assert p.exit_code == code
    assert p.reason is (Reason.SIGNAL if code < 0 else Reason.EXIT_CODE)
    assert p.message == (f"died of {signal.Signals(-code).name}" if code < 0 else "exited 5")


@pytest.mark.parametrize("pty", [False, True])
@pytest.mark.parametrize(
    "cmd",
    [
        "trap '' TERM; while :; do sleep 0.05; done",
        "trap '' TERM; exec >&- 2>&- <&-; while :; do sleep 0.05; done",
        "trap '' TERM; while :; do timeout 10 sleep 0.05; done",
        "trap '' TERM; exec yes",
    ],
)
def test_one_that_ignores_term(cmd: str, pty: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(configuration, "kill_timeout", 0.3)
    p = Process(cmd, shell=True, pty=pty, timeout=0.3, max_output=10, nolog_timeout=True).run(30)
    assert p.ended
    assert (p.timeouted, p.forced_kill, p.exit_code) == (True, True, -9)
    assert p.reason is Reason.TIMEOUT
    assert "TERM" in p.message


def test_one_that_is_killed_by_somebody_else(caplog: pytest.LogCaptureFixture) -> None:
    p = Process("sleep 1000").start()
    assert p.pid is not None
    os.kill(p.pid, signal.SIGKILL)
    p.wait(30)
    assert (p.exit_code, p.reason, p.killed, p.ok) == (-9, Reason.SIGNAL, False, False)
    assert "SIGKILL" in caplog.text


def test_one_whose_status_somebody_else_has_taken() -> None:
    previous = signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps, no status is left
    try:
        p = Process("exit 3", shell=True, nolog_error=True).run(30)
    finally:
        signal.signal(signal.SIGCHLD, previous)
    assert p.ended
    assert not p.ok
    assert p.exit_code is None
    assert "status" in p.message


def test_a_failure_that_also_leaves_its_input_unread_still_tells_its_exit_code() -> None:
    p = Process("head -c 1; exit 3", shell=True, nolog_exit_code=True, nolog_write_error=True)
    p.start()
    p.write("x" * 1_000_000)
    p.wait(30)
    assert p.exit_code == 3
    assert p.write_error
    assert "3" in p.message
    assert "exited 3" in repr(p)
