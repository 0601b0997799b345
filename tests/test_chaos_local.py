"""Chaos on this side: no memory, no descriptors, no processes, no threads, no room on the disk, and
a wall clock that is set."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos import addresses, script
from execo.testing import Cluster

# -- memory -----------------------------------------------------------------------------------


def test_output_for_which_there_is_no_memory_is_a_failure() -> None:
    script(
        """
        size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        with Watch() as watch:
            many, few = (
                Process(command, shell=True, lifecycle_handlers=[watch.ends], nolog_error=True)
                for command in (
                    "yes 0123456789abcde | head -c 600000000",
                    "for i in 1 2 3 4 5 6 7 8 9; do echo $i; sleep 0.1; done",
                )
            )
            bounded = Process(
                "head -c 600000000 /dev/zero", max_output=1000, lifecycle_handlers=[watch.ends]
            )
            limit(resource.RLIMIT_AS, size + (200 << 20))
            for process in (many, few, bounded):
                process.start()
            for process in (many, few, bounded):
                process.wait(PATIENCE)
            limit(resource.RLIMIT_AS, -1)
            assert not many.ok and many.exit_code == 0, many
            assert "no memory" in many.message, many.message
            assert many.reason is Reason.WRITE, many.reason
            kept = many.stdout_bytes
            assert 0 < len(kept) == 600000000 - many.truncated, many.truncated
            assert kept == (b"0123456789abcde\\n" * (len(kept) // 16 + 1))[: len(kept)]
            assert few.ok and few.stdout == "".join(f"{i}\\n" for i in range(1, 10)), few
            assert bounded.ok and bounded.truncated == 600000000 - 1000
            watch.check(many, few, bounded)
        """
    )


def test_a_text_for_which_there_is_no_memory_can_be_asked_for_later() -> None:
    script(
        """
        with Watch() as watch:
            process = Process("head -c 100000000 /dev/zero", lifecycle_handlers=[watch.ends])
            process.run(PATIENCE)
            head = process.stdout_bytes[:3]
            size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            limit(resource.RLIMIT_AS, size + (50 << 20))
            try:
                process.stdout
            except MemoryError:
                pass
            else:
                raise AssertionError("there was memory")
            limit(resource.RLIMIT_AS, -1)
            assert len(process.stdout) == 100000000
            watch.check(process)
        """
    )


# -- descriptors ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(100) as one:
        yield one


FEW = """
    transport = sys.argv[1]
    limit(resource.RLIMIT_NOFILE, 64)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    with Watch() as watch:
        def run(count, then=None):
            if transport == "local":
                processes = [Process(f"echo {n}") for n in range(2 * count)]
                action = ParallelActions([Local(p.cmd) for p in processes])
            else:
                action = Remote("echo {{range(100)}}", hosts[:count], {"transport": transport})
            for process in action.processes:
                process.lifecycle_handlers.append(watch.ends)
                process.nolog_error = True
            action.start()
            if then is not None:
                then()
            action.wait(PATIENCE)
            assert action.ended, [p for p in action.processes if not p.ended][:3]
            failed = [p.dump() for p in action.processes if not p.ok]
            assert not failed, failed[0]
            wanted = [f"{n}\\n" for n in range(len(action.processes))]
            assert [p.stdout for p in action.processes] == wanted
            return action

        # Twice as many as there is room for, and more. Each ssh is a process, and takes its time.
        hosts = [Host(*words) for words in json.loads(sys.argv[2])]
        actions = [run(100 if transport in ("local", "paramiko") else 20)]
        for leave in (0, 1, 3, 6):
            transports.close_idle()
            wait_until(lambda: len(os.listdir("/proc/self/fd")) < 32, 5)
            hold(leave)
            timer = in_a_while(give)
            actions.append(run(4))
            timer.join()
        watch.check(*actions)
"""


@pytest.mark.parametrize("transport", ["local", "paramiko", "openssh", "taktuk"])
def test_many_hosts_with_64_descriptors_of_which_others_hold_most(
    cluster: Cluster, transport: str
) -> None:
    if transport == "taktuk" and shutil.which("taktuk") is None:
        pytest.skip("needs taktuk, see tests/install-servers")
    script(FEW, transport, json.dumps(addresses(cluster.hosts)))


def test_those_that_wait_for_descriptors_start_beside_servers_that_never_end() -> None:
    script(
        """
        with Watch() as watch:
            def make(count):
                return [
                    Process(f"sleep {watch.word}", lifecycle_handlers=[watch.ends])
                    for _ in range(count)
                ]
            limit(resource.RLIMIT_NOFILE, 64)
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            servers = make(3)
            for server in servers:
                server.start()
            hold(2)
            others = make(4)
            for other in others:
                other.start()
            assert not any(other.pid for other in others)
            give()
            assert wait_until(lambda: all(other.pid for other in others)), others
            for process in servers + others:
                process.kill()
            for process in servers + others:
                process.wait(PATIENCE)
            watch.check(*servers, *others)
        """
    )


def test_where_there_will_never_be_a_descriptor_all_fail_together() -> None:
    script(
        """
        from execo.transports import local
        local._RETRIES = 5
        with Watch() as watch:
            processes = [
                Process(f"echo {n}", lifecycle_handlers=[watch.ends], nolog_error=True)
                for n in range(100)
            ]
            limit(resource.RLIMIT_NOFILE, 64)
            hold(0)
            for process in processes:
                process.start()
            for process in processes:
                process.wait(PATIENCE / 3)
            give()
            assert all("ulimit -n" in process.message for process in processes), processes[-1]
            again = Process("echo x", lifecycle_handlers=[watch.ends]).run(PATIENCE)
            assert again.ok
            watch.check(*processes, again)
        """
    )


@pytest.mark.parametrize("what", ["descriptors", "threads"])
def test_a_first_start_for_which_there_is_no_room_can_be_made_later(what: str) -> None:
    script(
        """
        import asyncio, subprocess
        if sys.argv[1] == "descriptors":
            limit(resource.RLIMIT_NOFILE, 40)
            rooms, expected, todo = range(4), OSError, "ulimit -n"
        else:
            # The I/O thread takes one, another one is started with it.
            rooms, expected, todo = range(1, 3), RuntimeError, "ulimit -u"
        before = set(os.listdir("/proc/self/fd"))
        start = threading.Thread.start
        failures = 0
        gc.disable()
        for room in rooms:
            if sys.argv[1] == "descriptors":
                hold(room)
            else:
                left = list(range(room - 1))
                def few(thread):
                    if not left:
                        raise RuntimeError("can't start new thread")
                    left.pop()
                    start(thread)
                threading.Thread.start = few
            try:
                process = Process("true", nolog_error=True).start()
            except expected as exc:
                failures += 1
                assert todo in str(exc), exc
            else:
                in_a_while(give) if held else None
                process.wait(PATIENCE)
            give()
            threading.Thread.start = start
            if failures:
                assert set(os.listdir("/proc/self/fd")) == before or room == rooms[-1], room
                assert threading.active_count() == 1 or room == rooms[-1]
        assert failures > 1, failures
        with Watch() as watch:
            process = Process("echo x", lifecycle_handlers=[watch.ends]).run(PATIENCE)
            assert process.stdout == "x\\n"
            watch.check(process)
        """,
        what,
    )


def test_files_that_cannot_be_opened_for_want_of_descriptors_are_not_taken_for_missing(
    cluster: Cluster,
) -> None:
    script(
        """
        import tempfile
        from execo.transports import ssh_config
        address, user, keyfile, port = json.loads(sys.argv[1])[0]
        folder = tempfile.mkdtemp(prefix="chaos-")
        other = open(os.path.dirname(keyfile) + "/known_hosts").read().split()[2]
        changed = other[:-8] + ("AAAA" if other[-8:-4] != "AAAA" else "BBBB") + other[-4:]
        with open(f"{folder}/known", "w") as file:
            file.write(f"[{address}]:{port} ssh-ed25519 {changed}\\n")
        ssh_config.USER_FILE = f"{folder}/config"
        with open(ssh_config.USER_FILE, "w") as file:
            for name in ("web1", "web2"):
                file.write(f"Host {name}\\n HostName {address}\\n User {user}\\n Port {port}\\n")
                file.write(f" IdentityFile {keyfile}\\n")
        limit(resource.RLIMIT_NOFILE, 64)
        with Watch() as watch:
            def run(host, leave, **params):
                remote = Remote("echo x", [host], params)
                (process,) = remote.processes
                process.lifecycle_handlers.append(watch.ends)
                process.nolog_error = True
                transports.close_idle()
                os.utime(ssh_config.USER_FILE)  # it is read anew
                hold(leave)
                timer = in_a_while(give)
                remote.run(PATIENCE)
                timer.join()
                assert remote.ended, process
                return process

            here = {"keyfile": keyfile, "ssh_config": False}
            first = Remote("true", [Host(address, user, keyfile, port)], {"ssh_config": False})
            first.processes[0].lifecycle_handlers.append(watch.ends)
            assert first.run(PATIENCE).ok
            done = [first]
            # None for the file of ssh_config, and none for the connection.
            done.append(run("web1", 0))
            assert done[-1].ok, done[-1].dump()
            # One for the connection, none for the files of known hosts and of the key.
            for policy in ("off", "accept-new"):
                known = ("-o", f"UserKnownHostsFile={folder}/known")
                there = Host(address, user, None, port)
                done.append(run(there, 1, host_key_policy=policy, ssh_options=known, **here))
            assert done[-2].ok, done[-2].dump()
            assert done[-1].reason is Reason.HOST_KEY, done[-1].dump()
            watch.check(*done)
        """,
        json.dumps(addresses(cluster.hosts)),
    )


def test_known_hosts_wait_for_a_descriptor_and_let_nobody_in_without_one() -> None:
    script(
        """
        import tempfile
        from execo._core import room
        from execo.transports.known_hosts import HostKey, KnownHosts
        path = tempfile.mkstemp(prefix="chaos-")[1]
        key = "AAAAC3NzaC1lZDI1NTE5AAAA"
        with open(path, "w") as file:
            file.write(f"web1 ssh-ed25519 {key}\\n")
        shown = HostKey("ssh-ed25519", b"another")
        limit(resource.RLIMIT_NOFILE, 64)
        hold(0)
        timer = in_a_while(give)
        known = KnownHosts((path,))
        timer.join()
        problem = known.problem("web1", shown, known.keys_of("web1"), strict=False)
        assert "has changed" in problem, problem
        room.PATIENCE = 0.2
        hold(0)
        known = KnownHosts((path,))
        give()
        problem = known.problem("web1", shown, known.keys_of("web1"), strict=False)
        assert "cannot be looked up" in problem, problem
        """
    )


# -- processes and threads --------------------------------------------------------------------


def test_no_more_processes_for_a_while_and_for_good() -> None:
    # A limit of 1: whatever the user runs is too much, and threads count as well.
    script(
        """
        from execo.transports import local
        with Watch() as watch:
            def make(*commands):
                return [
                    Process(c, shell=True, lifecycle_handlers=[watch.ends], nolog_error=True)
                    for c in commands
                ]
            for process in (before := make("exec sleep 0.1", "exit 0")):
                process.run(PATIENCE)
            timer = in_a_while(limit, resource.RLIMIT_NPROC, -1)
            limit(resource.RLIMIT_NPROC, 1)
            a_while = make(*(f"echo {n}" for n in range(20)))
            for process in a_while:
                process.start()
            for process in a_while:
                process.wait(PATIENCE)
            assert [p.stdout for p in a_while] == [f"{n}\\n" for n in range(20)], a_while[-1].dump()
            timer.join()

            local._RETRIES = 5
            limit(resource.RLIMIT_NPROC, 1)
            for_good = make(*(f"echo {n}" for n in range(20)))
            group = ParallelActions([Local("echo x", {"nolog_error": True}) for _ in range(3)])
            for process in group.processes:
                process.lifecycle_handlers.append(watch.ends)
            for process in for_good:
                process.start()
            group.start()
            for process in for_good:
                process.wait(PATIENCE)
            group.wait(PATIENCE)
            limit(resource.RLIMIT_NPROC, -1)
            for process in (*for_good, *group.processes):
                assert process.reason is Reason.SPAWN and "ulimit -u" in process.message, process
            watch.check(*before, *a_while, *for_good, group)
        """,
        ordinary=True,
    )


def test_no_thread_for_handlers_and_for_those_who_look_at_children(cluster: Cluster) -> None:
    script(
        """
        import execo._core.child
        with Watch() as watch:
            host = Host(*json.loads(sys.argv[1])[0])
            execo._core.child.USE_PIDFD = False
            start = threading.Thread.start
            def fail(thread):
                raise RuntimeError("can't start new thread")
            threading.Thread.start = fail
            lines = []
            class Lines(ProcessOutputHandler):
                def read_line(self, process, stream, string):
                    lines.append(string)
            processes = [
                Process(f"echo {n}", lifecycle_handlers=[watch.ends], stdout_handlers=[Lines()])
                for n in range(30)
            ]
            group = SequentialActions([Local("true"), Local("true")])
            remote = Remote("echo x", [host])
            for process in (*group.processes, *remote.processes):
                process.lifecycle_handlers.append(watch.ends)
            remote.processes[0].nolog_error = True
            for one in (*processes, group, remote):
                one.start()
            for one in (*processes, group, remote):
                one.wait(PATIENCE)
            threading.Thread.start = start
            assert all(p.ok for p in processes) and group.ok
            assert sorted(lines, key=int) == [str(n) for n in range(30)], lines
            assert "no thread can be started" in remote.processes[0].message
            again = Remote("echo x", [host])
            again.processes[0].lifecycle_handlers.append(watch.ends)
            assert again.run(PATIENCE).ok
            watch.check(*processes, group, remote, again)
        """,
        json.dumps(addresses(cluster.hosts)),
    )


# -- the wall clock ---------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["local", "paramiko", "openssh", "taktuk"])
def test_a_wall_clock_that_is_set_back_and_forth(cluster: Cluster, transport: str) -> None:
    if transport == "taktuk" and shutil.which("taktuk") is None:
        pytest.skip("needs taktuk, see tests/install-servers")
    script(
        """
        with Watch() as watch:
            transport = sys.argv[1]
            hosts = [Host(*words) for words in json.loads(sys.argv[2])[:4]]
            clock = time.time
            for back in (-1e6, 1e6):
                def make(command, **args):
                    if transport == "local":
                        action = ParallelActions([Local(command, {"shell": True, **args})])
                    else:
                        action = Remote(command, hosts, {"transport": transport}, process_args=args)
                    for process in action.processes:
                        process.lifecycle_handlers.append(watch.ends)
                    return action

                good = make("sleep 0.5; echo x", timeout=PATIENCE)
                quiet = {"nolog_timeout": True, "nolog_exit_code": True}
                late = make(f"sleep {watch.word}", timeout=1, **quiet)
                killed = make(f"sleep {watch.word}")
                actions = (good, late, killed)
                for action in actions:
                    action.start()
                assert wait_until(lambda: all(p.start_date for a in actions for p in a.processes))
                time.time = lambda: clock() + back
                killed.kill()
                begun = time.monotonic()
                for action in actions:
                    action.wait(PATIENCE)
                assert time.monotonic() - begun < PATIENCE / 2
                assert good.ok and {p.stdout for p in good.processes} == {"x\\n"}, good.failed
                assert all(p.timeouted for p in late.processes)
                assert all(p.killed for p in killed.processes)
                of_actions = [action.stats() for action in actions]
                for one in (*of_actions, *(p for action in actions for p in action.processes)):
                    assert one.start_date <= one.end_date, one
                assert "good" in str(Report(actions, name="good"))
                time.time = clock
                watch.check(*actions)
        """,
        transport,
        json.dumps(addresses(cluster.hosts)),
    )


# -- the disk ---------------------------------------------------------------------------------


@pytest.fixture
def full_folder(tmp_path: Path) -> Iterator[Path]:
    """Where there is no room for a byte; without mounts, where nothing can be made."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        yield Path("/sys/kernel")
        return
    try:
        with contextlib.suppress(OSError), open(tmp_path / "fill", "wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        yield tmp_path
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


@pytest.mark.parametrize("transport", ["local", "paramiko", "openssh", "taktuk"])
def test_a_full_disk(cluster: Cluster, transport: str, full_folder: Path) -> None:
    if transport == "taktuk" and shutil.which("taktuk") is None:
        pytest.skip("needs taktuk, see tests/install-servers")
    script(
        """
        import tempfile
        transport, full = sys.argv[1], sys.argv[3]
        with Watch() as watch:
            tempfile.tempdir = full
            args = {"lifecycle_handlers": [watch.ends], "stdout_handlers": ["/dev/full"]}
            if transport == "local":
                action = ParallelActions([Local("seq 50000", args) for _ in range(3)])
            else:
                hosts = [Host(*words) for words in json.loads(sys.argv[2])[:3]]
                known = ("-o", f"UserKnownHostsFile={full}/known")
                params = {"transport": transport, "host_key_policy": "accept-new"}
                if transport != "taktuk":
                    params["ssh_options"] = known
                action = Remote("seq 50000", hosts, params, process_args=args)
            action.run(PATIENCE)
            for process in action.processes:
                if transport == "taktuk":  # its file of hosts has to be somewhere
                    assert "cannot write the file of hosts" in process.message, process.dump()
                    continue
                assert process.ok, process.dump()
                assert process.stdout == "".join(f"{n}\\n" for n in range(1, 50001))
                assert process.stdout_ioerror
            transports.close_idle()
            tempfile.tempdir = os.environ["TMPDIR"]
            watch.check(action)
        """,
        transport,
        json.dumps(addresses(cluster.hosts)),
        str(full_folder),
    )
