"""Who sits on the network, or on the way: between this machine and its hosts."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from execo import Host, PortForwarder, SshProcess, transports
from execo.errors import Reason
from sshd import RealSshd

pytest_plugins = ["sshd"]

PATIENCE = 60.0
SECRET = "swordfish"


@pytest.fixture(scope="module")
def open_sshd() -> Iterator[RealSshd]:
    """A server that lets in with a password, too."""
    with RealSshd({"PasswordAuthentication": "yes", "MaxStartups": "100"}) as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_is_kept() -> Iterator[None]:
    yield
    transports.close_idle()


def behind(folder: Path, sshd: RealSshd, host: Host, gateway: Host, lines: str = "") -> Path:
    """A file of ssh_config by which ``host`` is reached through ``gateway``."""
    config = folder / "config"
    config.write_text(
        f"{lines}\n"
        f"Host {host.address}\n  ProxyJump {gateway.address}\n"
        f"Host {host.address} {gateway.address}\n"
        f"  Port {sshd.port}\n  User {host.user}\n  IdentityFile {sshd.keyfile}\n"
    )
    return config


@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
@pytest.mark.parametrize("policy", ["accept-new", "strict"])
def test_a_gateway_cannot_be_the_host_behind_it(
    sshd: RealSshd, tmp_path: Path, policy: str, transport: str
) -> None:
    gateway, host = sshd.hosts(2)
    known = tmp_path / "known_hosts"
    with RealSshd() as another:
        names = (gateway.address, sshd.host_key), (host.address, another.host_key)
        known.write_text("".join(f"[{name}]:{sshd.port} {key}\n" for name, key in names))
    config = behind(tmp_path, sshd, host, gateway, f"UserKnownHostsFile {known}")
    params: dict[str, Any] = {
        "ssh_config": config,
        "host_key_policy": policy,
        "transport": transport,
    }
    refused = SshProcess("true", host.address, params, nolog_error=True).run(PATIENCE)
    assert refused.reason is Reason.HOST_KEY, refused.dump()
    assert SshProcess("true", gateway.address, params).run(PATIENCE).ok


@pytest.mark.parametrize("chosen", [False, True])
def test_a_password_goes_only_where_somebody_has_decided_about_keys(
    open_sshd: RealSshd, tmp_path: Path, chosen: bool
) -> None:
    """What is behind a gateway may be anybody, whatever its address is."""
    gateway, host = open_sshd.hosts(2)
    user = open_sshd.person("ann", SECRET)
    config = tmp_path / "config"
    config.write_text(
        f"Host gw\n  HostName {gateway.address}\n  User {gateway.user}\n"
        f"  IdentityFile {open_sshd.keyfile}\n  Port {open_sshd.port}\n"
        f"Host web\n  HostName {host.address}\n  ProxyJump gw\n  Port {open_sshd.port}\n"
        f"  User {user}\n  PubkeyAuthentication no\n"
    )
    params: dict[str, Any] = {"ssh_config": config, "password": SECRET, "transport": "paramiko"}
    if chosen:
        params["host_key_policy"] = "off"
    process = SshProcess("true", "web", params, nolog_error=True).run(PATIENCE)
    assert process.ok is chosen, process.dump()
    if not chosen:
        assert process.reason is Reason.AUTH
        assert "no password goes to a host whose key nobody has looked at" in process.message


@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
def test_a_forwarded_port_listens_on_loopback_alone(sshd: RealSshd, transport: str) -> None:
    host = sshd.hosts(1)[0]
    with PortForwarder(
        host, "127.0.0.1", sshd.port, None, None, {"transport": transport}
    ) as forwarder:
        port = f"{forwarder.local_port:04X}"
        listening = [
            line.split()[1]
            for name in ("tcp", "tcp6")
            for line in Path("/proc/net", name).read_text().splitlines()[1:]
            if line.split()[1].endswith(f":{port}") and line.split()[3] == "0A"
        ]
        assert listening == [f"0100007F:{port}"]
    forwarder.wait(PATIENCE)


def test_a_host_that_never_ends_its_greeting_is_given_up() -> None:
    """What it says before it is known who it is takes neither memory nor time without end."""
    over = threading.Event()

    def flood(server: socket.socket) -> None:
        sock, _ = server.accept()
        with sock:
            sock.settimeout(1)
            try:
                while not over.is_set():
                    sock.sendall(b"no line ends " * 1000)
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=flood, args=(server,))
        thread.start()
        try:
            host = Host("127.0.0.1", "x", None, server.getsockname()[1])
            params = {"connect_timeout": 3, "transport": "paramiko"}
            process = SshProcess("true", host, params, nolog_error=True).run(PATIENCE)
            assert process.reason is Reason.CONNECT
            assert len(process.message) < 2000
        finally:
            over.set()
            thread.join()
