"""The process of a cluster: ``python -m execo.testing.sshd PID``, which a
:class:`~execo.testing.Cluster` starts in the process PID.

It reads a line of JSON from its stdin, the settings, and answers with one when all hosts listen.
Then it follows orders, a line each, and answers each. At the end of its stdin, when its parent is
not PID any more, or at SIGTERM or SIGINT, it kills the commands that it has started, removes the
cluster's folder and exits: a cluster does not outlive the program that has started it, however
that ends.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import selectors
import shutil
import signal
import socket
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import paramiko
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from .hostserver import HostServer, bind
from .leftovers import kill_leftovers
from .settings import Fault, Settings

__all__ = ["main"]

_MAX_DESCRIPTORS = 65536
_PARENT_LOOK = 0.5
_ADDRESSES_A_NET = 249
"""127.0.j.2 to 127.0.j.250."""


def main() -> None:
    """Serve until stdin ends. Does not return."""
    # A line goes out whole, and nothing else may write among the answers.
    answers = sys.stdout
    hosts: list[HostServer] = []
    settings = Settings(**json.loads(sys.stdin.readline()))
    try:
        signal.signal(signal.SIGTERM, _terminate)
        signal.signal(signal.SIGINT, _terminate)
        parent = int(sys.argv[1])
        threading.Thread(target=_watch, args=(parent,), name="watch", daemon=True).start()
        _raise_descriptor_limit()
        selector = selectors.DefaultSelector()
        hosts = _make_hosts(settings, selector)
        threading.Thread(target=_accept, args=(selector,), name="accept", daemon=True).start()
        _answer(answers, {"hosts": [host.address for host in hosts]})
        for line in sys.stdin:
            _answer(answers, _obey(json.loads(line), hosts))
    except (SystemExit, BrokenPipeError):
        pass
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        _kill_commands(settings, hosts)
    shutil.rmtree(settings.folder, ignore_errors=True)
    # Its threads are in the middle of something: nobody waits for them.
    os._exit(0)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit


def _watch(parent: int) -> None:
    # A forked child of the parent holds our stdin open after it. No death signal of Linux: that
    # comes already when the thread ends that has started us.
    never = threading.Event()
    while os.getppid() == parent:
        never.wait(_PARENT_LOOK)
    os.kill(os.getpid(), signal.SIGTERM)


def _answer(answers: Any, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def _obey(order: dict[str, Any], hosts: list[HostServer]) -> dict[str, Any]:
    host = hosts[order["host"]]
    match order["order"]:
        case "fault":
            fault = order["fault"]
            host.set_fault(None if fault is None else Fault(fault))
            return {}
        case "connections":
            return {"connections": host.connections}
        case other:
            raise ValueError(f"an unknown order: {other!r}")


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Not higher: commands inherit it, and some loop over all possible descriptors.
    wanted = _MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MAX_DESCRIPTORS)
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _accept(selector: selectors.BaseSelector) -> None:
    while True:
        for key, _ in selector.select():
            host: HostServer = key.data
            host.accept()


# -- what the hosts are made of ---------------------------------------------------------------


def _make_hosts(settings: Settings, selector: selectors.BaseSelector) -> list[HostServer]:
    folder = Path(settings.folder)
    host_key = _make_key(folder / "host_key")
    keys = host_key, _make_key(folder / "id_ed25519")
    hosts = []
    for number, sock in enumerate(_bind_all(settings.hosts), 1):
        home = folder / f"host{number}"
        home.mkdir()
        hosts.append(HostServer(sock, str(home), settings, keys, selector))
    known = "".join(
        f"[{address}]:{port} {host_key.get_name()} {host_key.get_base64()}\n"
        for address, port in (host.address for host in hosts)
    )
    (folder / "known_hosts").write_text(known)
    return hosts


def _make_key(path: Path) -> paramiko.PKey:
    """A new key, in ``path`` and ``path``.pub, in OpenSSH's formats."""
    text = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()
    )
    path.touch(mode=0o600)
    path.write_bytes(text)
    key = paramiko.Ed25519Key(filename=str(path))
    path.with_suffix(".pub").write_text(f"{key.get_name()} {key.get_base64()} execo-cluster\n")
    return key


def _bind_all(count: int) -> list[socket.socket]:
    """A socket for each host: 127.0.0.2 and on, all at one port if one is free everywhere; or else
    127.0.0.1, and a port for each."""
    addresses = []
    for number in range(count):
        net, place = divmod(number, _ADDRESSES_A_NET)
        addresses.append(f"127.0.{net}.{place + 2}")
    for _ in range(5):
        socks: list[socket.socket] = []
        try:
            for address in addresses:
                port = socks[0].getsockname()[1] if socks else 0
                socks.append(bind((address, port)))
        except OSError as error:
            for sock in socks:
                sock.close()
            if error.errno == errno.EADDRINUSE:
                continue
            if error.errno == errno.EADDRNOTAVAIL:
                break
            raise
        return socks
    return [bind(("127.0.0.1", 0)) for _ in range(count)]


def _kill_commands(settings: Settings, hosts: list[HostServer]) -> None:
    for host in hosts:
        for popen in list(host.running):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(popen.pid, signal.SIGKILL)
    kill_leftovers(settings.folder)


if __name__ == "__main__":
    main()
