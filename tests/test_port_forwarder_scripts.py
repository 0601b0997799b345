"""Scripts that forward ports: their end, their forks, their descriptors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from execo import Host
from remote_commands import HostScript
from tcp_services import connect, echo, serve

pytest_plugins = ["sshd", "remote_commands"]

_SCRIPT = """
import socket
from execo.port_forwarder import PortForwarder

f = PortForwarder(host, "127.0.0.1", int(os.environ["SERVICE"]))
f.connection_params["transport"] = os.environ["TRANSPORT"]
f.start()
f.forwarding.wait()
client = socket.create_connection(("127.0.0.1", f.local_port))
client.sendall(b"x")
client.recv(1)
"""


@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
def test_a_script_may_end_while_one_runs(plain: Host, tmp_path: Path, transport: str) -> None:
    with serve(echo) as port:
        env = {"SERVICE": str(port), "TRANSPORT": transport}
        with HostScript(tmp_path, _SCRIPT + "print(f.local_port)", plain, env=env) as script:
            code, out, err = script.finish()
    assert (code, err) == (0, "")
    with pytest.raises(ConnectionRefusedError):
        connect(int(out))


def test_a_forked_child_holds_no_port(plain: Host, tmp_path: Path) -> None:
    source = """
there, here = os.pipe()
ready, begun = os.pipe()
pid = os.fork()
if not pid:
    os.close(here)
    os.write(begun, b".")
    os.read(there, 1)
    os._exit(0)
os.read(ready, 1)
print(client.send(b"y"), client.recv(1))
client.close()
f.kill().wait()
try:
    socket.create_connection(("127.0.0.1", f.local_port))
except ConnectionRefusedError:
    print("free")
f.reset()
with f:
    print(f.running)
f.wait()
os.close(here)
os.waitpid(pid, 0)
"""
    with serve(echo) as port:
        env = {"SERVICE": str(port), "TRANSPORT": "paramiko"}
        with HostScript(tmp_path, _SCRIPT + source, plain, env=env) as script:
            code, out, err = script.finish()
    assert (code, out, err) == (0, "1 b'y'\nfree\nTrue\n", "")


def test_a_child_forked_before_it_listens_holds_no_port(plain: Host, tmp_path: Path) -> None:
    source = """
import threading
from execo._core.runtime import get_runtime
going_on = threading.Event()
get_runtime().loop.call_soon(going_on.wait)
second = PortForwarder(f.host, "127.0.0.1", 9, connection_params=f.connection_params).start()
there, here = os.pipe()
ready, begun = os.pipe()
pid = os.fork()
if not pid:
    os.close(here)
    os.write(begun, b".")
    os.read(there, 1)
    os._exit(0)
os.read(ready, 1)
going_on.set()
second.forwarding.wait()
second.kill().wait()
try:
    socket.create_connection(("127.0.0.1", second.local_port))
except ConnectionRefusedError:
    print("free")
os.close(here)
os.waitpid(pid, 0)
client.close()
f.kill().wait()
"""
    with serve(echo) as port:
        env = {"SERVICE": str(port), "TRANSPORT": "paramiko"}
        with HostScript(tmp_path, _SCRIPT + source, plain, env=env) as script:
            code, out, err = script.finish()
    assert (code, out, err) == (0, "free\n", "")


@pytest.fixture
def few_descriptors(plain: Host, tmp_path: Path) -> Iterator[tuple[HostScript, int]]:
    """A script that has few descriptors, and the port that it forwards."""
    source = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))\n" + _SCRIPT
    source += "print(f.local_port, flush=True)\nsys.stdin.read()\nf.kill().wait()\n"
    with serve(echo) as port:
        env = {"SERVICE": str(port), "TRANSPORT": "paramiko"}
        with HostScript(tmp_path, source, plain, env=env) as script:
            assert script.popen.stdout is not None
            yield script, int(script.popen.stdout.readline())


def test_connections_beyond_the_descriptors_wait(
    few_descriptors: tuple[HostScript, int],
) -> None:
    script, port = few_descriptors
    for _ in range(3):
        socks = [connect(port) for _ in range(80)]
        for number, sock in enumerate(socks):
            sock.sendall(b"%d" % number)
        # Those that wait are served as others end.
        for number, sock in enumerate(socks):
            assert sock.recv(10) == b"%d" % number
            sock.close()
    code, _, err = script.finish()
    assert code == 0
    assert err.count("connections wait to be accepted: too many open files") == 1
