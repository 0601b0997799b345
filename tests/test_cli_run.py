"""``execo run``: what goes to stdout, what to stderr, which exit status."""

from __future__ import annotations

import array
import base64
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from command_line import PATIENCE, environment, execo, spawn
from execo.testing import Cluster
from sshd import RealSshd

pytest_plugins = ["sshd"]

Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(4) as made:
        yield made


@pytest.fixture
def words(cluster: Cluster) -> list[str]:
    """What leads to the hosts, host1 to host4: the file that ``execo.testing`` shows its users."""
    return ["--ssh-config", str(cluster.folder / "ssh_config")]


@pytest.fixture
def run(words: list[str]) -> Run:
    def call(hosts: str, *more: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        return execo("run", "-w", hosts, *words, *more, **options)

    return call


def lines(data: bytes) -> list[str]:
    return sorted(data.decode().splitlines())


# -- output --------------------------------------------------------------------------------------


def test_each_line_has_its_host_and_each_stream_its_own(run: Run) -> None:
    done = run("host[1-2]", "echo {{{host}}} one; printf two; echo oops >&2")
    assert lines(done.stdout) == [
        "host1: host1 one",
        "host1: two",
        "host2: host2 one",
        "host2: two",
    ]
    assert lines(done.stderr) == ["host1: oops", "host2: oops"]


def test_lines_of_many_hosts_stay_whole(run: Run) -> None:
    script = "for i in $(seq 300); do printf %s abcdefghij; printf '%s\\n' $i; done"
    done = run("host[1-4]", script)
    expected = [f"host{n}: abcdefghij{i}" for n in range(1, 5) for i in range(1, 301)]
    assert lines(done.stdout) == sorted(expected)


def test_bytes_come_as_they_are(run: Run) -> None:
    one = run("host1", "-N", "printf 'a\\377\\000b\\r\\nno end'")
    assert one.stdout == b"a\xff\x00b\r\nno end"
    two = run("host1", "printf 'a\\377\\r\\303\\nb\\251'")
    assert two.stdout == b"host1: a\xff\r\xc3\nhost1: b\xa9\n"


def test_gathered_output_is_there_once(run: Run) -> None:
    done = run("host[1-4]", "-b", "seq 2; echo {{[1, 1, 2, 1]}}")
    rule = "-" * 15
    assert done.stdout.decode().splitlines() == [
        *(rule, "host[1-2,4] (3)", rule, "1", "2", "1"),
        *(rule, "host3 (1)", rule, "1", "2", "2"),
    ]
    assert run("host[1-4]", "-b", "true").stdout == b""
    assert run("host[1-2]", "-b", "-N", "printf '\\377'").stdout == b"\xff\n"


def test_stderr_is_gathered_on_request(run: Run) -> None:
    script = "echo err >&2; echo out"
    kept = run("host[1-2]", "-B", script)
    assert b"host[1-2] (2)" in kept.stdout
    assert kept.stdout.endswith(b"out\nerr\n")
    assert lines(run("host[1-2]", "-b", script).stderr) == ["host1: err", "host2: err"]


def test_the_others_are_compared_with_the_largest_group(run: Run) -> None:
    done = run("host[1-4]", "--diff", "seq 3; echo {{[1, 1, 2, 1]}}")
    assert done.stdout.decode().splitlines()[:3] == [
        "--- host[1-2,4] (3)",
        "+++ host3 (1)",
        "@@ -1,4 +1,4 @@",
    ]
    assert done.stdout.endswith(b" 3\n-1\n+2\n")


def test_hosts_come_in_order(run: Run) -> None:
    done = run("host[1-3]", "-L", "sleep {{[0.3, 0.1, 0]}}; seq 2")
    assert done.stdout.decode() == "".join(f"host{n}: {i}\n" for n in (1, 2, 3) for i in (1, 2))


def test_json_has_a_line_for_each_host(run: Run) -> None:
    done = run("host[1-2],127.0.0.77", "--json", "printf '\\377'; exit 3", status=255)
    rows = {row["host"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert sorted(rows) == ["127.0.0.77", "host1", "host2"]
    assert (rows["host1"]["exit_code"], rows["host1"]["reason"]) == (3, "exit code")
    assert base64.b64decode(rows["host1"]["stdout_base64"]) == b"\xff"
    assert rows["127.0.0.77"]["reason"] == "connect"
    assert "connection refused" in rows["127.0.0.77"]["message"]
    words = ["-f", "1", "--max-failures", "0", "--json", "true"]
    given_up = run("127.0.0.77,host[1-2]", *words, status=255).stdout.splitlines()
    assert [json.loads(line)["reason"] for line in given_up] == ["connect", *["cancelled"] * 2]


def test_outputs_are_kept_in_files(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "host1").write_text("of yesterday\n")
    folders = ["--outdir", str(tmp_path / "out"), "--errdir", str(tmp_path / "err")]
    done = run(
        "host[1-2]", "-q", *folders, "echo {{{host}}}; echo no >&2; exit {{[0, 1]}}", status=1
    )
    assert lines(done.stdout) == ["host1: host1", "host2: host2"]
    found = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert found == {"host1": "host1\n", "host2": "host2\n"}
    assert (tmp_path / "err" / "host2").read_text() == "no\n"


def test_a_file_that_cannot_be_written_is_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "host1").symlink_to("/dev/full")
    done = run("host[1-2]", "-q", "--outdir", str(tmp_path), "echo x", status=1)
    assert b"cannot write the output of <SshProcess 'echo x' on host1" in done.stderr
    assert (tmp_path / "host2").read_text() == "x\n"


def test_colours_are_for_terminals_or_those_who_ask(run: Run) -> None:
    assert b"\x1b" not in run("host1", "echo hi").stdout
    done = run("host1", "--color", "always", "echo hi; exit 1", status=1)
    assert b"\x1b[" in done.stdout
    assert b"\x1b[" in done.stderr
    again = run("host1", "--color", "never", "echo hi", env=environment(FORCE_COLOR="1"))
    assert again.stdout == b"host1: hi\n"


# -- exit status ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hosts", "given", "status", "said"),
    [
        ("host[1-3]", ["exit {{[0, 3, 2]}}"], 3, ["host2: exited 3", "host3: exited 2"]),
        ("host[1-2]", ["kill -9 $$"], 137, ["execo: host[1-2] (2): died of SIGKILL"]),
        ("host[1-2]", ["-u", "0.3", "sleep {{[0, 60]}}"], 124, ["reached its timeout of 0.3 s"]),
        ("host1,127.0.0.[77-78]", ["exit 3"], 255, ["127.0.0.[77-78] (2): cannot connect to it"]),
        ("host[1-2]", ["--exit-zero", "exit 5"], 0, ["execo: host[1-2] (2): exited 5"]),
        ("host[1-2]", ["-S", "exit 5"], 5, []),
        ("host[1-2]", ["-q", "exit 5"], 5, None),
        (
            "127.0.0.77,host[1-4]",
            ["-f", "1", "--max-failures", "0", "true"],
            255,
            ["host[1-4] (4): given up before its start"],
        ),
    ],
)  # fmt: skip
def test_the_worst_status_counts(
    run: Run, hosts: str, given: list[str], status: int, said: list[str] | None
) -> None:
    done = run(hosts, *given, status=status)
    for text in said or []:
        assert text in done.stderr.decode()
    if said is None:
        assert done.stderr == b""


def test_a_host_that_comes_late_is_tried_again(cluster: Cluster, run: Run) -> None:
    cluster.fault(3, "refuse")
    try:
        threading.Timer(1.0, cluster.heal).start()
        done = run("host4", "--retry", "6", "-t", "5", "echo there")
    finally:
        cluster.heal()
    assert done.stdout == b"host4: there\n"


# -- stdin ---------------------------------------------------------------------------------------


def test_stdin_goes_to_all_hosts(run: Run) -> None:
    data = bytes(range(256)) * 4096
    digest = hashlib.sha256(data).hexdigest()
    done = run("host[1-3]", "-f", "2", "sha256sum", stdin=data)
    assert lines(done.stdout) == [f"host{n}: {digest}  -" for n in (1, 2, 3)]


def test_a_command_need_not_read_it(run: Run) -> None:
    done = run("host[1-2]", "head -c 3; echo", stdin=b"abc" * 1_000_000)
    assert lines(done.stdout) == ["host1: abc", "host2: abc"]


def test_stdin_can_be_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("host1\nhost2\n")
    with (tmp_path / "list").open("rb") as file:
        assert run("host1", "-n", "cat", stdin=file).stdout == b""
        assert file.read() == b"host1\nhost2\n"


def test_nobody_waits_for_an_input_that_does_not_end(words: list[str]) -> None:
    reader, writer = os.pipe()
    try:
        done = spawn(["run", "-w", "host1", *words, "echo done"], stdin=reader)
        out, _ = done.communicate(timeout=PATIENCE)
    finally:
        os.close(reader)
        os.close(writer)
    assert (done.returncode, out) == (0, b"host1: done\n")


MEASURING = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


def test_a_large_input_is_not_read_into_memory(words: list[str]) -> None:
    size = 150_000_000
    source = subprocess.Popen(["head", "-c", str(size), "/dev/zero"], stdout=subprocess.PIPE)
    assert source.stdout is not None
    # By way of a small process: the figure of a child begins with the memory of its parent, and
    # that of the tests may be large.
    command = [sys.executable, "-m", "execo", "run", "-w", "host[1-2]", *words, "wc -c"]
    run = subprocess.run(
        [sys.executable, "-S", "-c", MEASURING, *command],
        stdin=source.stdout,
        env=environment(),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    source.stdout.close()
    assert lines(run.stdout) == [f"host1: {size}", f"host2: {size}"], run.stderr
    assert run.returncode == 0
    assert source.wait(PATIENCE) == 0
    assert int(run.stderr) * 1024 < 160_000_000


# -- the ends ------------------------------------------------------------------------------------


def test_nobody_complains_if_nobody_reads(words: list[str], cluster: Cluster) -> None:
    begin = "while :; do echo line; done"
    run = spawn(["run", "-w", "host[1-2]", *words, begin])
    assert run.stdout is not None
    assert run.stderr is not None
    assert run.stdout.readline().endswith(b": line\n")
    run.stdout.close()
    assert run.wait(PATIENCE) == 141
    assert run.stderr.read() == b""
    run.stderr.close()


def test_a_full_disk_is_told(words: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        run = spawn(["run", "-w", "host1", *words, "seq 3"], stdout=full)
        _, err = run.communicate(timeout=PATIENCE)
    assert (run.returncode, err) == (
        1,
        b"execo: stdout cannot be written: No space left on device\n",
    )


def test_ctrl_c_tells_what_is_pending_and_ends_it(words: list[str], tmp_path: Path) -> None:
    mark = tmp_path / "ended"
    script = f"trap 'echo > {mark}; exit' TERM; echo ready; while :; do sleep 0.1; done"
    run = spawn(["run", "-w", "host[1-2]", *words, "-f", "1", "-b", script], start_new_session=True)
    _await_ready(run, words)
    os.kill(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=PATIENCE)
    assert run.returncode == 130
    assert b"ready\n" in out  # what had come
    text = err.decode()
    assert "execo: still running: host1 (1)" in text
    assert "execo: not started: host2 (1)" in text
    assert mark.exists()


def test_a_second_ctrl_c_kills(words: list[str]) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    run = spawn(["run", "-w", "host1", *words, script], start_new_session=True)
    assert run.stdout is not None
    assert run.stderr is not None
    assert run.stdout.readline() == b"host1: ready\n"
    os.kill(run.pid, signal.SIGINT)
    while b"Ctrl-C again" not in run.stderr.readline():
        pass
    os.kill(run.pid, signal.SIGINT)
    _, err = run.communicate(timeout=PATIENCE)
    assert run.returncode == 130
    assert b"killing" in err


def test_a_third_ctrl_c_waits_for_nobody(words: list[str]) -> None:
    reader, writer = os.pipe()  # that nobody reads: as behind a pager
    run = spawn(["run", "-w", "host[1-2]", *words, "yes"], stdout=writer, start_new_session=True)
    os.close(writer)
    assert run.stderr is not None
    nap = threading.Event()
    while _waiting(reader) < 60_000:
        nap.wait(0.05)
    os.kill(run.pid, signal.SIGINT)
    while b"Ctrl-C again" not in run.stderr.readline():
        pass
    os.kill(run.pid, signal.SIGINT)
    assert b"killing" in run.stderr.readline()
    nap.wait(0.5)
    os.kill(run.pid, signal.SIGINT)
    try:
        assert run.wait(PATIENCE) == 130
    finally:
        run.stderr.close()
        os.close(reader)


def _waiting(pipe: int) -> int:
    """Bytes that are in a pipe."""
    size = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, size)
    return size[0]


def _await_ready(run: subprocess.Popen[bytes], words: list[str]) -> None:
    """Until the command runs there: a second one sees it."""
    nap = threading.Event()
    for _ in range(400):
        found = subprocess.run(
            ["pgrep", "-f", "^/bin/sh -c.*echo ready; while"], capture_output=True, check=False
        )
        if found.returncode == 0:
            nap.wait(0.5)
            return
        nap.wait(0.05)
    raise AssertionError("the command does not run")


# -- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run"], "no host: give some"),
        (["run", "true"], "no host: give some"),
        (["run", "-w", "host1"], "no command: it comes after the options"),
        (["run", "-w", "host1", "--"], "no command"),
        (["run", "-w", "host1", "--bogus", "true"], "unrecognized arguments: --bogus"),
        (["run", "-w", "node[1-4,7", "true"], "at character 5\n  node[1-4,7\n      ^"),
        (["run", "-w", "a,,b", "true"], "at character 3\n  a,,b\n    ^"),
        (["run", "-w", "@nosuch", "true"], "unknown groups are empty"),
        (["run", "-w", "a", "-x", "a", "true"], "no host is left"),
        (["run", "--hostfile", "/nonexistent", "true"], "No such file"),
        (["run", "-w", "a", "-f", "0", "true"], "a number from 1 on, not '0'"),
        (["run", "-w", "a", "-t", "soon", "true"], "argument -t"),
        (["run", "-w", "a", "-u", "-1", "true"], "argument -u"),
        (["run", "-w", "a", "--retry", "-1", "true"], "at least 0"),
        (["run", "-w", "a", "--max-failures", "many", "true"], "a percentage such as '10%'"),
        (["run", "-w", "a", "--start-rate", "0", "true"], "above 0"),
        (["run", "-w", "a", "-b", "--json", "true"], "not allowed with"),
        (["run", "-w", "a", "-O", "keepalive", "true"], "missing its ="),
        (["run", "-w", "a", "-O", "keepalives=3", "true"], "did you mean 'keepalive'?"),
        (["run", "-w", "a", "--port", "70000", "true"], "a port from 1 to 65535"),
        (["run", "-w", "a", "--transport", "pigeon", "true"], "no transport named 'pigeon'"),
        (["run", "-w", "a", "echo {{nope}}"], "name 'nope' is not defined"),
        (["run", "-w", "a", "--outdir", "/dev/null/x", "true"], "Not a directory"),
        (["nosuch"], "invalid choice: 'nosuch'"),
        ([], "required: COMMAND"),
    ],
)
def test_bad_input_gets_the_usage(words: list[str], said: str, tmp_path: Path) -> None:
    # Not the groups that come with ClusterShell: their commands do not quote its folder.
    (tmp_path / "groups.conf").write_text("[Main]\ndefault: none\n[none]\nmap: true\n")
    done = execo(*words, status=2, env=environment(CLUSTERSHELL_CFGDIR=str(tmp_path)))
    assert done.stdout == b""
    text = done.stderr.decode()
    assert text.startswith("usage: execo ")
    assert said in text


def test_the_version_and_the_help() -> None:
    assert execo("--version").stdout.startswith(b"execo 3")
    assert b"--max-failures" in execo("run", "--help").stdout


# -- real servers --------------------------------------------------------------------------------


@pytest.mark.sshd
@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
def test_a_real_server(sshd: RealSshd, transport: str) -> None:
    host = sshd.hosts(1)[0]
    assert host.user is not None
    assert host.keyfile is not None
    words = ["-w", "127.0.0.[2-4]", "--port", str(sshd.port), "-l", host.user, "-i", host.keyfile]
    words += ["--transport", transport, "--ssh-config", "none", "--host-key-policy", "off"]
    done = execo("run", *words, "-b", "cat; exit 3", stdin=b"hello\n", status=3)
    assert b"127.0.0.[2-4] (3)\n---------------\nhello\n" in done.stdout
    assert b"execo: 127.0.0.[2-4] (3): exited 3" in done.stderr


def test_become(run: Run) -> None:
    if os.getuid() != 0:
        pytest.skip("sudo without a password is for root")
    done = run("host[1-2]", "--become", "nobody", "id -un")
    assert lines(done.stdout) == ["host1: nobody", "host2: nobody"]
