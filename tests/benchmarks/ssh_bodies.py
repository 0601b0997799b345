"""Bodies that several benchmarks of commands on hosts share: ours, the floor, and the peers.

Each runs ``true`` on all hosts twice, and begins when the sessions of the one before are gone:
*first* makes the connections, *next* finds those that were kept, if they were.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import PEERS as PEERS_FOLDER
from harness import Numbers, body, raise_limit
from ssh_server import addresses, hosts, server, ssh_options, wait_for_quiet

if TYPE_CHECKING:
    import paramiko

AT_ONCE = 64
"""Hosts at a time, for what has a fanout."""

ONE_SSH_EACH = {
    "peer_execo2": "execo 2.8.2",
    "peer_clustershell": "ClusterShell",
    "peer_pdsh": "pdsh",
    "peer_ansible": "Ansible",
}
"""Those that run an ``ssh`` for each command. Ansible has pipelining and ControlPersist."""

IN_PROCESS = {
    "peer_parallel_ssh": f"parallel-ssh, {AT_ONCE}",
    "peer_parallel_ssh_default": "parallel-ssh, 100",
    "peer_asyncssh": "asyncssh",
}
"""Those that speak SSH themselves."""

IDLE_SECONDS = 5.0


def when_quiet() -> float:
    """The time at which no session of the body before is left."""
    wait_for_quiet()
    return time.perf_counter()


def twice(run: Callable[[], None], begin: float) -> Numbers:
    """The seconds of two runs.

    :param begin: of the first one: before what it needs was imported, since some import it when
      they are first used and others do not
    """
    run()
    middle = time.perf_counter()
    run()
    return {"first": middle - begin, "next": time.perf_counter() - middle}


def often(run: Callable[[], None], begin: float) -> Numbers:
    """The seconds of two runs, and the median of five more: ``later``."""
    numbers = twice(run, begin)
    later = []
    for _ in range(5):
        start = time.perf_counter()
        run()
        later.append(time.perf_counter() - start)
    return {**numbers, "later": statistics.median(later)}


# -- ours -------------------------------------------------------------------------------------


@body
def ours(scale: float) -> Numbers:
    begin = when_quiet()
    from execo import Remote

    targets = hosts(scale)

    used: list[float] = []

    def run() -> None:
        busy = time.process_time()
        remote = Remote("true", targets).run()
        assert remote.ok, repr(remote)
        used.append(time.process_time() - busy)

    return {**often(run, begin), "cpu": used[1]}


@body
def ours_kept(scale: float) -> Numbers:
    """What the kept connections cost: KB of memory each, and time of one core in percent."""
    from execo import Remote

    wait_for_quiet()
    targets = hosts(scale)
    assert Remote("true", targets[:1]).run().ok  # what is there once, however many hosts
    before = resident()
    remote = Remote("true", targets).run()
    assert remote.ok, repr(remote)
    growth = (resident() - before) / (len(targets) - 1)
    time.sleep(1)  # what the end has left to do
    busy, begin = time.process_time(), time.perf_counter()
    time.sleep(IDLE_SECONDS)
    idle = (time.process_time() - busy) / (time.perf_counter() - begin) * 100
    return {"memory": growth, "idle": idle}


def resident() -> float:
    """Kilobytes of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1000


# -- the floor --------------------------------------------------------------------------------


@body
def bare_paramiko(scale: float) -> Numbers:
    begin = when_quiet()
    from concurrent.futures import ThreadPoolExecutor

    import paramiko

    raise_limit()
    here = server()
    key = paramiko.Ed25519Key.from_private_key_file(here["keyfile"])
    targets = addresses(scale)
    transports: list[paramiko.Transport] = []

    def connect(address: str) -> paramiko.Transport:
        sock = socket.create_connection((address, here["port"]), 30)
        transport = paramiko.Transport(sock)
        # After the constructor, which makes the socket wake its thread up ten times a second.
        sock.settimeout(60)
        transport.start_client(timeout=60)
        transport.auth_publickey(here["user"], key)
        return transport

    def command(transport: paramiko.Transport) -> None:
        channel = transport.open_session()
        channel.exec_command("true")
        assert channel.recv_exit_status() == 0
        channel.close()

    def first(address: str) -> paramiko.Transport:
        transport = connect(address)
        command(transport)
        return transport

    with ThreadPoolExecutor(AT_ONCE) as pool:

        def run() -> None:
            if transports:
                list(pool.map(command, transports))
            else:
                transports.extend(pool.map(first, targets))

        numbers = often(run, begin)
    for transport in transports:
        transport.sock.shutdown(socket.SHUT_RDWR)  # its thread sleeps in a long recv()
        transport.close()
    return numbers


# -- the peers --------------------------------------------------------------------------------


@body
def peer_execo2(scale: float) -> Numbers:
    begin = when_quiet()
    from execo import Remote  # version 2.8.2

    raise_limit()
    here = server()
    options = tuple(ssh_options())
    params = {"user": here["user"], "ssh_options": options}
    targets = addresses(scale)

    def run() -> None:
        remote = Remote("true", targets, params).run()
        assert remote.ok

    return twice(run, begin)


@body
def peer_clustershell(scale: float) -> Numbers:
    begin = when_quiet()
    from ClusterShell.NodeSet import NodeSet
    from ClusterShell.Task import task_self

    raise_limit()
    task = task_self()
    task.set_info("fanout", AT_ONCE)
    task.set_info("ssh_user", server()["user"])
    task.set_info("ssh_options", " ".join(ssh_options()))
    targets = NodeSet.fromlist(addresses(scale))

    def run() -> None:
        task.run("true", nodes=targets)
        assert task.max_retcode() == 0

    return twice(run, begin)


@body
def peer_pdsh(scale: float) -> Numbers:
    begin = when_quiet()
    where = ["-l", server()["user"], "-w", ",".join(addresses(scale))]
    environment = {**os.environ, "PDSH_SSH_ARGS_APPEND": " ".join(ssh_options())}

    def run() -> None:
        subprocess.run(
            ["pdsh", "-S", "-R", "ssh", "-f", str(AT_ONCE), *where, "true"],
            env=environment,
            stdin=subprocess.DEVNULL,
            check=True,
        )

    return twice(run, begin)


@body
def peer_parallel_ssh(scale: float) -> Numbers:
    return parallel_ssh(scale, AT_ONCE)


@body
def peer_parallel_ssh_default(scale: float) -> Numbers:
    return parallel_ssh(scale, 100)


def parallel_ssh(scale: float, pool_size: int) -> Numbers:
    begin = when_quiet()
    from pssh.clients import ParallelSSHClient  # type: ignore[import-not-found]

    raise_limit()
    here = server()
    client = ParallelSSHClient(
        addresses(scale),
        user=here["user"],
        port=here["port"],
        pkey=here["keyfile"],
        allow_agent=False,
        pool_size=pool_size,
    )

    def run() -> None:
        output = client.run_command("true")
        client.join(output)
        assert all(one.exit_code == 0 for one in output)

    return often(run, begin)


@body
def peer_asyncssh(scale: float) -> Numbers:
    begin = when_quiet()
    import asyncio

    import asyncssh  # type: ignore[import-not-found]

    raise_limit()
    here = server()
    connections: list[Any] = []

    async def connect(address: str, window: asyncio.Semaphore) -> None:
        async with window:
            connections.append(
                await asyncssh.connect(
                    address,
                    here["port"],
                    username=here["user"],
                    client_keys=[here["keyfile"]],
                    known_hosts=None,
                    agent_path=None,
                    config=None,
                )
            )

    async def run() -> None:
        if not connections:
            window = asyncio.Semaphore(AT_ONCE)
            await asyncio.gather(*(connect(address, window) for address in addresses(scale)))
        for done in await asyncio.gather(*(one.run("true") for one in connections)):
            assert done.exit_status == 0

    with asyncio.Runner() as runner:
        return often(lambda: runner.run(run()), begin)


@body
def peer_ansible(scale: float) -> Numbers:
    begin = when_quiet()
    raise_limit()
    here = server()
    options = " ".join(ssh_options())
    with contextlib.ExitStack() as stack:
        folder = Path(here["scratch"], "ansible")
        folder.mkdir(mode=0o700, exist_ok=True)
        # The masters, told to end just before, remove their sockets at the same time.
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(end_masters, str(folder))
        inventory = folder / "hosts"
        inventory.write_text("\n".join(addresses(scale)) + "\n")
        environment = {
            **os.environ,
            "HOME": str(folder),
            "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
            "ANSIBLE_HOST_KEY_CHECKING": "False",
            "ANSIBLE_PIPELINING": "True",
            "ANSIBLE_SSH_ARGS": f"-C -o ControlMaster=auto -o ControlPersist=600 {options}",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(folder / "cp"),
            "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3",
        }
        command = [str(PEERS_FOLDER / "bin" / "ansible"), "all", "-i", str(inventory)]
        command += ["-u", here["user"], "-f", str(AT_ONCE), "-a", "true"]

        def run() -> None:
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout[-2000:]

        return twice(run, begin)


def end_masters(folder: str) -> None:
    """End the connections that Ansible keeps: they are no children of ours."""
    for pid in masters(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def masters(folder: str) -> Iterator[int]:
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes()
            if words.startswith(b"ssh:") and folder.encode() in words:
                yield int(process.name)
