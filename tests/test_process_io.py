"""What goes into a process and comes out of it: stdin, output, decoding, terminals."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import execo.feed
from execo import Process, Reason, configuration
from execo.process import ProcessOutputHandler

FOREVER = "sleep 1000"


class Seen(ProcessOutputHandler):
    """Keeps the pieces of output, and knows when the first has come."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._came = threading.Event()

    def read(self, process: Any, stream: int, string: str, eof: bool, error: bool) -> None:
        if string:
            self.pieces.append(string)
            self._came.set()

    def wait(self) -> str:
        assert self._came.wait(20), "no output came"
        return self.pieces[0]


def io_thread_cpu() -> float:
    """Seconds that the I/O thread has computed."""
    (thread,) = [t for t in threading.enumerate() if t.name == "execo-io"]
    stat = Path(f"/proc/self/task/{thread.native_id}/stat").read_text()
    user, system = stat.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def idle(process: Process) -> bool:
    """Whether the I/O thread sleeps while this process goes on for a second."""
    before = io_thread_cpu()
    process.wait(1)
    return process.running and io_thread_cpu() - before < 0.4


# -- stdin ------------------------------------------------------------------------------------


def test_write_and_end_of_file() -> None:
    p = Process("cat").start()
    assert p.write("héllo ") == 6
    assert p.write(b"\xff") == 1
    print("printed", 1, file=p, flush=True)
    assert p.close_stdin().wait().stdout_bytes == "héllo ".encode() + b"\xffprinted 1\n"
    assert p.ok


def test_stdin_stays_open_until_it_is_closed() -> None:
    p = Process("cat").start()
    assert p.wait(0.2).running
    p.close_stdin().close_stdin().wait()
    assert p.ok


def test_a_conversation() -> None:
    seen = Seen()
    p = Process("while read x; do echo got $x; done", shell=True, stdout_handlers=[seen]).start()
    print("one", file=p)
    assert seen.wait() == "got one\n"
    print("two", file=p)
    assert p.close_stdin().wait().stdout == "got one\ngot two\n"


@pytest.mark.parametrize("use", ["write", "close_stdin", "print"])
def test_writing_needs_a_start(use: str) -> None:
    p = Process("cat")
    with pytest.raises(ValueError, match="not started"):
        p.write("x") if use == "write" else print(
            "x", file=p
        ) if use == "print" else p.close_stdin()


def test_text_that_came_as_output_can_be_written_again() -> None:
    text = Process(r"printf '\351\377'", shell=True).run().stdout
    p = Process("cat").start()
    p.write(text)
    assert p.close_stdin().wait().stdout_bytes == b"\xe9\xff"


def test_many_small_writes_keep_their_order() -> None:
    p = Process("cat").start()
    for number in range(20_000):
        print(number, file=p)
    assert p.close_stdin().wait().stdout == "".join(f"{n}\n" for n in range(20_000))


def test_a_large_input_through_a_pipe_of_processes() -> None:
    data = os.urandom(5_000_000)
    p = Process("cat | cat", shell=True).start()
    p.write(data)
    assert p.close_stdin().wait().stdout_bytes == data


def test_a_process_as_the_output_handler_of_another() -> None:
    sink = Process("tr a-z A-Z").start()
    Process("echo hello", stdout_handlers=[sink]).run()
    assert sink.close_stdin().wait().stdout == "HELLO\n"


def test_the_user_may_close_the_descriptor_of_stdin() -> None:
    seen = Seen()
    p = Process("cat", stdout_handlers=[seen]).start()
    p.write("hello")
    seen.wait()
    fd = p.stdin_fd
    assert fd is not None
    os.close(fd)
    assert p.wait(20).finished_ok
    assert Process("echo others go on").run(20).ok


@pytest.mark.parametrize("before", [False, True])
def test_writing_after_the_end_is_a_write_error(before: bool) -> None:
    p = Process("cat").start()
    if before:
        p.write("read")
    p.close_stdin().wait()
    p.write("too late")
    for _ in range(1000):
        if p.write_error:
            break
        threading.Event().wait(0.01)
    assert p.write_error
    assert not p.ok


def test_writing_after_end_of_file_is_a_write_error() -> None:
    p = Process("cat", nolog_write_error=True).start().close_stdin()
    p.write("too late")
    assert p.wait().write_error


def test_input_that_is_not_read_is_a_write_error() -> None:
    p = Process("head -c 1", nolog_write_error=True).start()
    p.write("x" * 1_000_000)
    p.wait()
    assert (p.stdout, p.write_error, p.ok) == ("x", True, False)
    assert p.reason is Reason.WRITE
    assert "stdin" in p.message
    p.ignore_write_error = True
    assert p.ok


def test_killing_a_process_that_has_not_read_all_its_input_is_no_failure() -> None:
    p = Process(FOREVER, nolog_write_error=True).start()
    p.write("x" * 1_000_000)
    assert p.kill().wait().ok


def test_writing_to_one_that_never_reads_does_not_hang(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(execo.feed, "LIMIT", 1_000_000)
    monkeypatch.setattr(execo.feed, "PATIENCE", 0.2)
    p = Process(FOREVER, nolog_write_error=True, ignore_write_error=True).start()
    p.write(b"x" * 20_000_000)
    p.write(b"x" * 20_000_000)
    (record,) = caplog.records
    assert "reads nothing" in record.getMessage()
    assert idle(p)
    assert Process("echo others go on").run(20).ok
    p.kill().wait(20)
    assert p.ended


def test_the_patience_with_one_that_never_reads_is_for_all_writes_together(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(execo.feed, "LIMIT", 1000)
    monkeypatch.setattr(execo.feed, "PATIENCE", 0.5)
    p = Process(FOREVER, nolog_write_error=True, ignore_write_error=True).start()
    p.write("x" * 100_000)
    done = threading.Event()

    def work() -> None:
        for _ in range(200):
            p.write("a line\n")
        done.set()

    writer = threading.Thread(target=work)
    writer.start()
    in_time = done.wait(10)  # not 200 times the patience
    p.kill().wait()
    writer.join()
    assert in_time
    assert len(caplog.records) == 1


def test_writing_past_the_limit_waits_for_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execo.feed, "LIMIT", 100_000)
    p = Process("cat >/dev/null; echo done", shell=True).start()
    for _ in range(100):
        p.write(b"x" * 50_000)
    assert p.close_stdin().wait().stdout == "done\n"


# -- output -----------------------------------------------------------------------------------


def test_output_grows_while_it_runs() -> None:
    seen = Seen()
    p = Process("echo first; cat", shell=True, stdout_handlers=[seen]).start()
    seen.wait()
    assert (p.stdout, p.stdout_bytes, p.ended) == ("first\n", b"first\n", False)
    p.write("second")
    assert p.close_stdin().wait().stdout == "first\nsecond"


def test_all_output_is_there_although_it_exits_first() -> None:
    p = Process("head -c 300000 /dev/zero; exit 3", shell=True, nolog_exit_code=True).run()
    assert p.stdout == "\0" * 300_000
    assert p.drained


@settings(max_examples=25)
@given(st.binary(max_size=300))
def test_any_bytes_come_out_as_they_went_in(data: bytes) -> None:
    p = Process("cat").start()
    p.write(data)
    p.close_stdin().wait()
    assert p.stdout_bytes == data
    assert p.stdout == data.decode("utf-8", "surrogateescape")
    assert p.stdout_bytes == data  # after the text was asked for, too


def test_a_character_cut_by_a_read() -> None:
    seen = Seen()
    cmd = r"printf 'a\303'; sleep 0.2; printf '\251b\360\237'; sleep 0.2; printf '\230\200\303'"
    p = Process(cmd, shell=True, stdout_handlers=[seen]).start()
    seen.wait()
    assert (p.stdout, p.stdout_bytes) == ("a", b"a\xc3")
    p.wait()
    assert p.stdout == "aéb😀\udcc3"
    assert p.stdout_bytes == "aéb😀".encode() + b"\xc3"
    assert "".join(seen.pieces) == "aéb😀\udcc3"
    assert all("\udcc3" not in piece for piece in seen.pieces[:-1])


def test_line_ends_stay_as_they_are() -> None:
    assert Process(r"printf 'a\r\nb\rc\n'", shell=True).run().stdout == "a\r\nb\rc\n"


def test_output_may_be_left_out() -> None:
    p = Process("echo out; echo err >&2", shell=True, default_stdout_handler=False).run()
    assert (p.stdout, p.stdout_bytes, p.stderr, p.truncated) == ("", b"", "err\n", 0)
    p = Process("echo out; echo err >&2", shell=True, default_stderr_handler=False).run()
    assert (p.stdout, p.stderr) == ("out\n", "")


def test_max_output_keeps_the_first_bytes_and_counts_the_rest() -> None:
    seen = Seen()
    cmd = "echo 12345678; echo abcdef >&2"
    p = Process(cmd, shell=True, max_output=4, stdout_handlers=[seen]).run()
    assert (p.stdout, p.stderr, p.truncated) == ("1234", "abcd", 5 + 3)
    assert "".join(seen.pieces) == "12345678\n"
    assert "truncated" in repr(p)
    assert Process("echo x", max_output=0).run().truncated == 2
    assert Process("echo x", max_output=None).run().stdout == "x\n"


def test_max_output_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(configuration, "max_output", 3)
    assert Process("echo 12345").run().stdout == "123"
    assert Process("echo 12345", max_output=None).run().stdout == "12345\n"


def test_a_large_output() -> None:
    p = Process("head -c 50000000 /dev/zero; echo end", shell=True).run()
    assert len(p.stdout) == 50_000_004
    assert p.stdout.endswith("\0end\n")


def test_asking_for_a_growing_output_again_and_again() -> None:
    p = Process("i=0; while [ $i -lt 2000 ]; do echo $i; i=$((i+1)); done", shell=True).start()
    seen = ""
    while not p.ended:
        text = p.stdout
        assert text.startswith(seen)
        assert text.isascii()
        assert p.stdout_bytes.decode().startswith(text)
        seen = text
    assert p.wait().stdout == "".join(f"{n}\n" for n in range(2000))


def test_a_fast_producer_starves_nobody() -> None:
    fast = [Process("yes", max_output=1000).start() for _ in range(2)]
    try:
        others = [Process(f"echo {n}").start() for n in range(20)]
        assert [p.wait(30).stdout for p in others] == [f"{n}\n" for n in range(20)]
    finally:
        for p in fast:
            p.kill().wait()
    assert all(len(p.stdout) == 1000 and p.truncated for p in fast)


# -- descriptors that are closed --------------------------------------------------------------


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closing_its_descriptors_is_no_end_and_costs_no_cpu(closed: str) -> None:
    p = Process(f"exec sleep 1000 {closed}", shell=True).start()
    try:
        assert idle(p)
    finally:
        p.kill().wait()
    assert p.exit_code == -15
    assert p.drained


def test_a_full_pipe_costs_no_cpu() -> None:
    p = Process(FOREVER, ignore_write_error=True, nolog_write_error=True).start()
    p.write("x" * 1_000_000)
    try:
        assert idle(p)
    finally:
        p.kill().wait()


def test_input_for_a_terminal_that_was_closed_costs_no_cpu() -> None:
    seen = Seen()
    cmd = "echo ready >&2; exec sleep 1000 <&- >&-"
    p = Process(cmd, shell=True, pty=True, stderr_handlers=[seen])
    p.ignore_write_error = p.nolog_write_error = True
    p.start()
    seen.wait()
    for _ in range(1000):
        p.write("x" * 200 + "\n")
    try:
        assert idle(p)
    finally:
        p.kill().wait()


# -- terminals --------------------------------------------------------------------------------


def test_a_terminal_of_its_own() -> None:
    cmd = "tty; ps -o tty=,sid=,pgid=,tpgid= -p $$; stty size; stty -a; echo err >&2; test -t 2"
    p = Process(cmd, shell=True, pty=True, nolog_exit_code=True).run()
    lines = p.stdout.replace("\r\n", "\n").splitlines()
    assert lines[0].startswith("/dev/pts/")
    tty, *ids = lines[1].split()
    assert f"/dev/{tty}" == lines[0]
    assert ids == [str(p.pid)] * 3
    assert lines[2] == "24 80"
    assert " -echo " in p.stdout
    assert p.stderr == "err\n"
    assert p.exit_code == 1  # stderr stays a pipe


def test_a_conversation_over_a_terminal() -> None:
    seen = Seen()
    cmd = "while read x; do echo got $x; done"
    p = Process(cmd, shell=True, pty=True, stdout_handlers=[seen]).start()
    p.write("one\n")
    assert seen.wait() == "got one\r\n"
    p.write("two\n")
    assert p.close_stdin().wait().stdout == "got one\r\ngot two\r\n"
    assert p.ok
    assert not p.stdout_ioerror


@pytest.mark.parametrize("text", ["", "whole line\n", "half a line"])
def test_end_of_file_on_a_terminal(text: str) -> None:
    p = Process("cat", pty=True).start()
    p.write(text)
    p.close_stdin().wait(20)
    assert p.finished_ok
    assert p.stdout == text.replace("\n", "\r\n")


def test_many_lines_through_a_terminal() -> None:
    lines = [f"line {n}\n" for n in range(5000)]
    p = Process("cat", pty=True).start()
    for line in lines:
        p.write(line)
    assert p.close_stdin().wait().stdout.replace("\r\n", "\n") == "".join(lines)
    assert not p.write_error


def test_the_last_output_of_a_terminal_is_not_lost() -> None:
    p = Process("seq 20000; exit 3", shell=True, pty=True, nolog_exit_code=True).run()
    assert p.stdout.endswith("\r\n20000\r\n")
    assert p.exit_code == 3
    assert not p.stdout_ioerror


def test_a_process_with_a_terminal_is_killed_as_a_whole() -> None:
    p = Process("sh -c 'exec sleep 1000'", pty=True).start().kill().wait()
    assert (p.exit_code, p.killed, p.drained) == (-15, True, True)
    p = Process("sleep 1000 & wait", shell=True, pty=True).start().kill().wait()
    assert p.drained


def test_a_terminal_with_environment_and_folder(tmp_path: Path) -> None:
    p = Process('echo "$0 $1 $X"; pwd', shell=True, pty=True, cwd=tmp_path, env={"X": "a  b"}).run()
    assert p.stdout == f"/bin/sh  a  b\r\n{tmp_path.resolve()}\r\n"
    words = ["printf", "%s|", "a b", "$HOME", "", "*"]
    assert Process(words, pty=True).run().stdout == "a b|$HOME||*|"
