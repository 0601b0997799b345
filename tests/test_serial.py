"""Serial ports: pseudo terminals stand for them, here, on embedded hosts and behind a real sshd."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from execo import Host, Process, Reason, default_connection_params
from execo.process_base import ProcessBase
from execo.remote import RemoteSerial
from execo.serial import Serial, SerialSsh, serial_command
from execo.testing import Cluster
from sshd import RealSshd

pytest_plugins = ["sshd", "execo.testing.pytest_plugin"]

TIMEOUT = 40.0
QUIET: dict[str, Any] = {"nolog_exit_code": True, "nolog_error": True, "nolog_write_error": True}
ALL_BYTES = bytes(range(256))


class Instrument:
    """What is at the other end of a serial cable."""

    def __init__(self) -> None:
        self.fd, port = os.openpty()
        self.device = os.ttyname(port)
        os.chmod(self.device, 0o666)
        os.close(port)

    def send(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.fd, data) :]

    def receive(self, count: int) -> bytes:
        data = b""
        deadline = time.monotonic() + TIMEOUT
        while len(data) < count and time.monotonic() < deadline:
            try:
                data += os.read(self.fd, 4096)
            except OSError:  # nobody has the port open yet
                threading.Event().wait(0.01)
        return data

    def unplug(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@pytest.fixture
def instrument() -> Iterator[Instrument]:
    one = Instrument()
    yield one
    one.unplug()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT
    nap = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        nap.wait(0.01)


def opened(device: str) -> list[int]:
    """The live processes that have the port open."""
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link) == device and int(link.parts[2]) != os.getpid():
                found.append(int(link.parts[2]))
        except OSError:
            continue
    return sorted(set(found))


def answered(process: ProcessBase, instrument: Instrument) -> None:
    """Wait until the port is open and set up: a question goes out and its answer comes back."""
    process.write("?")
    assert instrument.receive(1) == b"?"
    instrument.send(b"!")
    until(lambda: process.stdout.endswith("!") or process.ended)
    assert process.running, process.stderr


def closed(process: ProcessBase, instrument: Instrument) -> None:
    process.kill().wait(TIMEOUT)
    assert process.ended
    until(lambda: not opened(instrument.device))


# -- bytes ------------------------------------------------------------------------------------


def test_a_script_talks_to_an_instrument(instrument: Instrument) -> None:
    with Serial(instrument.device, 115200).start() as port:
        print("*IDN?", file=port)
        assert instrument.receive(6) == b"*IDN?\n"
        instrument.send(b"ACME,42\r\n")
        until(lambda: port.stdout == "ACME,42\r\n")
    port.wait(TIMEOUT)
    assert port.killed
    assert port.ok


@pytest.mark.parametrize("speed", [300, 9600, 115200, "115200"])
def test_bytes_pass_as_they_are_in_both_directions(instrument: Instrument, speed: Any) -> None:
    port = Serial(instrument.device, speed).start()
    port.write(ALL_BYTES)
    assert instrument.receive(256) == ALL_BYTES
    instrument.send(ALL_BYTES)
    until(lambda: len(port.stdout_bytes) >= 256)
    assert port.stdout_bytes == ALL_BYTES  # and no echo of what was written
    closed(port, instrument)


def test_the_port_gets_its_speed(instrument: Instrument) -> None:
    port = Serial(instrument.device, 19200).start()
    answered(port, instrument)
    settings = termios.tcgetattr(instrument.fd)
    assert settings[4:6] == [termios.B19200, termios.B19200]
    assert (port.device, port.speed) == (instrument.device, 19200)
    closed(port, instrument)


def test_much_data_arrives_whole(instrument: Instrument) -> None:
    port = Serial(instrument.device, 115200).start()
    answered(port, instrument)
    data = ALL_BYTES * 1000
    sender = threading.Thread(target=instrument.send, args=(data,))
    sender.start()
    until(lambda: len(port.stdout_bytes) > len(data))
    sender.join(TIMEOUT)
    assert port.stdout_bytes == b"!" + data
    port.write(data)
    assert instrument.receive(len(data)) == data
    closed(port, instrument)


def test_what_came_before_the_start_is_read(instrument: Instrument) -> None:
    # Somebody else has set the port up: nothing is echoed, and bytes wait in it.
    subprocess.run(["stty", "-F", instrument.device, "raw", "-echo"], check=True)
    instrument.send(b"booted\n")
    port = Serial(instrument.device, 9600).start()
    until(lambda: port.stdout == "booted\n")
    closed(port, instrument)


def test_the_end_of_stdin_ends_the_sending_alone(instrument: Instrument) -> None:
    port = Serial(instrument.device, 9600).start()
    port.write("last words")
    port.close_stdin()
    assert instrument.receive(10) == b"last words"
    # Two processes are left of those that had it open: dd, and nobody else.
    until(lambda: len(opened(instrument.device)) == 1)
    instrument.send(b"answer")
    until(lambda: port.stdout == "answer")
    assert port.running
    closed(port, instrument)


# -- its end ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
@pytest.mark.parametrize("together", [None, False])
def test_a_kill_ends_all_of_it(
    instrument: Instrument, number: signal.Signals, together: bool | None
) -> None:
    port = Serial(instrument.device, 9600, kill_subprocesses=together, **QUIET).start()
    answered(port, instrument)
    assert len(opened(instrument.device)) == 2
    port.kill(number).wait(TIMEOUT)
    assert port.exit_code == -number
    assert port.killed
    assert port.stderr == ""
    until(lambda: not opened(instrument.device))


def test_a_signal_to_the_shell_alone_ends_all_of_it(instrument: Instrument) -> None:
    port = Serial(instrument.device, 9600, **QUIET).start()
    answered(port, instrument)
    assert port.pid is not None
    os.kill(port.pid, signal.SIGTERM)
    port.wait(TIMEOUT)
    assert port.exit_code == -signal.SIGTERM
    until(lambda: not opened(instrument.device))


def test_a_port_that_hangs_up_is_a_failure(instrument: Instrument) -> None:
    port = Serial(instrument.device, 9600, **QUIET).start()
    answered(port, instrument)
    instrument.unplug()
    port.wait(TIMEOUT)
    assert port.ended
    assert not port.ok
    assert port.drained
    assert port.reason is Reason.EXIT_CODE
    assert port.message == (
        f"serial port {instrument.device} at 9600: exited 1: "
        f"{instrument.device}: the port has hung up"
    )


def test_its_end_leaves_the_port_to_others(instrument: Instrument) -> None:
    # It is nobody's controlling terminal, whose end would hang it up.
    other = os.open(instrument.device, os.O_RDWR | os.O_NOCTTY)
    try:
        port = Serial(instrument.device, 9600).start()
        answered(port, instrument)
        for pid in opened(instrument.device):
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            assert stat[4] == "0", "it has a controlling terminal"
        port.kill().wait(TIMEOUT)
        instrument.send(b"still there")
        assert os.read(other, 100) == b"still there"
    finally:
        os.close(other)


def test_it_can_be_reset_and_started_again(instrument: Instrument) -> None:
    port = Serial(instrument.device, 9600).start()
    answered(port, instrument)
    port.reset().start()
    answered(port, instrument)
    assert port.stdout == "!"
    closed(port, instrument)


# -- what cannot be used ----------------------------------------------------------------------


def refused(port: ProcessBase) -> str:
    port.run(TIMEOUT)
    assert port.ended
    assert not port.ok
    assert port.exit_code == 2
    return port.message


def test_an_absent_device_is_named(tmp_path: Path) -> None:
    device = str(tmp_path / 'it\'s "$(no)" port')
    message = refused(Serial(device, 9600, **QUIET))
    assert message.startswith(f"serial port {device} at 9600: exited 2: ")
    assert message.endswith("No such file or directory")
    assert not os.path.exists(device), "it was made"


def test_a_file_is_no_port(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("precious")
    assert refused(Serial(path, 9600, **QUIET)).endswith(f"{path}: not a serial port")
    assert path.read_text() == "precious"


def test_a_device_without_a_line_is_no_port() -> None:
    message = refused(Serial("/dev/null", 9600, **QUIET))
    assert message.startswith("serial port /dev/null at 9600: exited 2: stty")


@pytest.mark.parametrize("speed", [12345, 0, -9600, "fast", "raw", "-echo", "9600 echo", "$(id)"])
def test_a_wrong_speed_is_named(instrument: Instrument, speed: Any) -> None:
    message = refused(Serial(instrument.device, speed, **QUIET))
    assert message.startswith(f"serial port {instrument.device} at {speed}: exited 2: ")
    assert message.endswith(f": no speed: {speed}") or "invalid argument" in message


@pytest.mark.parametrize("args", [(3, 9600), (None, 9600), ("/dev/x", None), ("/dev/x", True)])
def test_arguments_of_a_wrong_type(args: Any) -> None:
    with pytest.raises(TypeError, match=r"a device is|a speed is"):
        Serial(*args)


@pytest.mark.parametrize("args", [("", 9600), ("/dev/x", "")])
def test_empty_arguments(args: Any) -> None:
    with pytest.raises(ValueError, match="needs a device and a speed"):
        Serial(*args)


def test_a_terminal_of_its_own_would_change_bytes(instrument: Instrument) -> None:
    port = Serial(instrument.device, 9600, pty=True).start()
    port.write(ALL_BYTES)
    assert instrument.receive(256) == ALL_BYTES
    closed(port, instrument)


def test_scripts_that_ask_for_a_shell_work(instrument: Instrument) -> None:
    port = Serial(instrument.device, 9600, shell=True).start()
    answered(port, instrument)
    closed(port, instrument)


def test_it_shows_what_it_is() -> None:
    port = Serial("/dev/ttyUSB0", 9600)
    assert port.name == "serial port /dev/ttyUSB0 at 9600"
    assert repr(port) == "<Serial 'serial port /dev/ttyUSB0 at 9600': not started>"
    remote = SerialSsh("web1", "/dev/ttyUSB0", 9600)
    assert repr(remote) == "<SerialSsh 'serial port /dev/ttyUSB0 at 9600' on web1: not started>"


# -- other shells -----------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["dash", "bash", "ksh", "busybox"])
def test_the_script_works_in_other_shells(
    shell: str, instrument: Instrument, tmp_path: Path
) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    env: dict[str, str | None] = {}
    if shell == "busybox":
        for name in ("sh", "cat", "dd", "ls", "stty"):
            (tmp_path / name).symlink_to(program)
        program = str(tmp_path / "sh")
        env["PATH"] = str(tmp_path)
    words = serial_command(instrument.device, 9600)[1:]
    port = Process((program, *words), env=env, **QUIET).start()
    port.write(ALL_BYTES)
    assert instrument.receive(256) == ALL_BYTES
    instrument.send(ALL_BYTES)
    until(lambda: len(port.stdout_bytes) >= 256)
    assert port.stdout_bytes == ALL_BYTES
    closed(port, instrument)
    assert refused(Process((program, *words[:-2], "/dev/absent", "9600"), env=env, **QUIET))
    again = Process((program, *words), env=env, **QUIET).start()
    answered(again, instrument)
    instrument.unplug()
    again.wait(TIMEOUT)
    assert again.stderr.endswith(f"{instrument.device}: the port has hung up\n")


# -- on hosts ---------------------------------------------------------------------------------


def talks(host: Host, params: dict[str, Any] | None, instrument: Instrument) -> None:
    port = SerialSsh(host, instrument.device, 9600, params).start()
    port.write(ALL_BYTES)
    assert instrument.receive(256) == ALL_BYTES
    instrument.send(ALL_BYTES)
    until(lambda: len(port.stdout_bytes) >= 256)
    assert port.stdout_bytes == ALL_BYTES
    closed(port, instrument)
    assert port.killed
    again = SerialSsh(host, instrument.device, 9600, params, **QUIET).start()
    answered(again, instrument)
    again.close_stdin()
    until(lambda: len(opened(instrument.device)) == 1)
    instrument.unplug()
    again.wait(TIMEOUT)
    assert again.message == (
        f"serial port {instrument.device} at 9600 on {host.address}: exited 1: "
        f"{instrument.device}: the port has hung up"
    )


def test_a_port_of_an_embedded_host(cluster: Cluster, instrument: Instrument) -> None:
    talks(cluster.hosts[0], None, instrument)


@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash", "/bin/tcsh"])
def test_a_port_of_a_real_host(
    sshd: RealSshd, instrument: Instrument, transport: str, shell: str
) -> None:
    user = sshd.user(shell) if os.geteuid() == 0 else None
    talks(sshd.hosts(1, user=user)[0], {"transport": transport}, instrument)


def test_a_port_that_the_user_may_not_open(sshd: RealSshd, instrument: Instrument) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a port that somebody else may not open")
    os.chmod(instrument.device, 0o600)
    message = refused(SerialSsh(sshd.hosts(1)[0], instrument.device, 9600, **QUIET))
    assert instrument.device in message
    assert message.endswith("Permission denied")


def test_a_terminal_by_default_does_not_reach_the_port(
    cluster: Cluster, instrument: Instrument, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(default_connection_params, "pty", True)
    talks(cluster.hosts[0], None, instrument)


def test_ports_of_many_hosts(cluster: Cluster) -> None:
    instruments = [Instrument() for _ in cluster.hosts]
    devices = [one.device for one in instruments]
    try:
        ports = RemoteSerial(cluster.hosts, "{{devices}}", 9600).start()
        assert [p.device for p in ports.processes if isinstance(p, SerialSsh)] == devices
        print("go", file=ports)
        for place, one in enumerate(instruments):
            assert one.receive(3) == b"go\n"
            one.send(b"%d" % place)
        until(lambda: all(process.stdout for process in ports.processes))
        assert [p.stdout for p in ports.processes] == [str(i) for i in range(len(devices))]
        ports.kill().wait(TIMEOUT)
        assert ports.ok
    finally:
        for one in instruments:
            one.unplug()


def test_the_names_of_ports_may_hold_the_host() -> None:
    ports = RemoteSerial(["a", "b"], "/dev/{{{host}}}", 9600, process_args={"timeout": 3})
    commands = [process.cmd for process in ports.processes]
    assert [words[-2:] for words in commands] == [("/dev/a", "9600"), ("/dev/b", "9600")]
    assert [process.timeout for process in ports.processes] == [3, 3]
    raw = RemoteSerial("a", "/dev/{{x}}", 9600, substitute=False).processes[0]
    assert raw.cmd[-2] == "/dev/{{x}}"


def test_no_host_is_a_process_that_fails() -> None:
    params = {"connect_timeout": 5}
    port = SerialSsh(Host("127.0.0.1", port=1), "/dev/x", 9600, params, **QUIET).run(TIMEOUT)
    assert port.reason is Reason.CONNECT
    assert "127.0.0.1" in port.message
