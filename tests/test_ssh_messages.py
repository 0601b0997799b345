"""What the messages of ssh are taken for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from execo.errors import Reason
from execo.transports.base import Target
from execo.transports.ssh_messages import (
    SSH_FAILED,
    MasterEvent,
    SshLog,
    diagnose,
    failure,
    place,
    read_event,
    read_log,
)

WEB1 = Target("10.0.0.1", "ann", 2222, name="web1")

TABLE = {
    "ssh: connect to host web1 port 22: Connection refused": Reason.CONNECT,
    "ssh: connect to host web1 port 22: Connection timed out": Reason.CONNECT,
    "ssh: connect to host web1 port 22: No route to host": Reason.CONNECT,
    "ssh: connect to host web1 port 22: Network is unreachable": Reason.CONNECT,
    "ssh: Could not resolve hostname web1: Name or service not known": Reason.CONNECT,
    "Connection timed out during banner exchange": Reason.CONNECT,
    "kex_exchange_identification: Connection closed by remote host": Reason.CONNECT,
    "kex_exchange_identification: read: Connection reset by peer": Reason.CONNECT,
    "kex_exchange_identification: banner line contains invalid characters": Reason.CONNECT,
    "banner exchange: Connection to 10.0.0.1 port 22: invalid format": Reason.CONNECT,
    "Connection closed by 10.0.0.1 port 22": Reason.CONNECT,
    "Connection reset by 10.0.0.1 port 22": Reason.CONNECT,
    "Connection to web1 closed by remote host.": Reason.CONNECT,
    "Read from remote host web1: Connection reset by peer": Reason.CONNECT,
    "client_loop: send disconnect: Broken pipe": Reason.CONNECT,
    "Timeout, server web1 not responding.": Reason.CONNECT,
    "exec request failed on channel 0": Reason.CONNECT,
    "ann@web1: Permission denied (publickey).": Reason.AUTH,
    "Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures": Reason.AUTH,
    "Unable to negotiate with 10.0.0.1 port 22: no matching key exchange method found. "
    "Their offer: diffie-hellman-group1-sha1": Reason.AUTH,
    "Unable to negotiate with 10.0.0.1 port 22: no matching host key type found. "
    "Their offer: ssh-dss": Reason.HOST_KEY,
    "Host key verification failed.": Reason.HOST_KEY,
    "No ED25519 host key is known for web1 and you have requested strict checking.": (
        Reason.HOST_KEY
    ),
    "command-line: line 0: Bad configuration option: foo": Reason.SPAWN,
    "Couldn't open logfile /tmp/x/1: No such file or directory": Reason.SPAWN,
    "Bad owner or permissions on /home/ann/.ssh/config": Reason.SPAWN,
}


@pytest.mark.parametrize("message", TABLE)
def test_a_message_has_a_reason_and_says_what_to_do(message: str) -> None:
    trouble = diagnose([message], "10.0.0.1")
    assert trouble is not None
    assert trouble.reason is TABLE[message]
    assert trouble.cause == message.rstrip(".")
    assert trouble.hint


def test_a_message_that_nobody_knows_is_none() -> None:
    assert diagnose(["something new"], "web1") is None


def test_a_changed_host_key_comes_before_the_general_message() -> None:
    trouble = diagnose(
        [
            "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @",
            "Host key verification failed.",
        ],
        "10.0.0.1",
    )
    assert trouble is not None
    assert trouble.cause == "WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!"
    assert "ssh-keygen -R 10.0.0.1" in trouble.hint


def test_what_ssh_says_of_a_key_stands_before_the_refusal() -> None:
    trouble = diagnose(
        ['Load key "/k": bad permissions', "ann@web1: Permission denied (publickey)."], "web1"
    )
    assert trouble is not None
    assert trouble.reason is Reason.AUTH
    assert trouble.cause.startswith('Load key "/k": bad permissions; ann@web1')


FORCED = "clientloop.c:client_status_confirm():669 (pid=7): exec request accepted on channel 0"
EXIT = (
    "debug1: clientloop.c:client_input_channel_req():1821 (pid=7): "
    "client_input_channel_req: channel 0 rtype exit-{} reply 0"
)
END = "nchan.c:chan_rcvd_ieof():257 (pid=7): channel 0: rcvd eof"


def test_the_log_says_how_far_it_came() -> None:
    assert read_log("") == SshLog()
    assert read_log(f"debug2: {FORCED}\r\n") == SshLog(accepted=True)
    ended = read_log(f"debug2: {FORCED}\n{EXIT.format('status')}\n")
    assert ended == SshLog(accepted=True, exited=True)
    died = read_log(f"debug2: {FORCED}\n{EXIT.format('signal')}\n")
    assert died == SshLog(accepted=True, exited=True, by_signal=True)
    whole = read_log(f"{EXIT.format('status')}\ndebug2: {END}\n")
    assert whole == SshLog(exited=True, complete=True)


@pytest.mark.parametrize("status", [0, 3 << 8, SSH_FAILED])
def test_output_that_is_lost_behind_an_exit(status: int) -> None:
    log = SshLog(("client_loop: send disconnect: Broken pipe",), accepted=True, exited=True)
    error = failure(WEB1, status, log, [], follows=True)
    assert error is not None
    assert error.reason is Reason.CONNECT
    assert "was lost: client_loop: send disconnect" in str(error)


def test_the_log_leaves_out_what_is_no_trouble() -> None:
    text = (
        "OpenSSH_9.2p1, OpenSSL 3\r\n"
        "debug1: Connecting to web1 [10.0.0.1] port 22.\r\n"
        "Warning: Permanently added '[web1]:22' (ED25519) to the list of known hosts.\r\n"
        "clientloop.c:server_alive_check():503 (pid=1): Timeout, server web1 not responding.\r\n"
    )
    assert read_log(text).messages == ("Timeout, server web1 not responding.",)


def test_a_command_that_speaks_of_its_exit_is_not_believed() -> None:
    line = "debug1: Sending command: echo client_input_channel_req: channel 0 rtype exit-status"
    assert not read_log(line).exited


def test_what_the_command_itself_exits_with_is_no_failure() -> None:
    exited = SshLog(accepted=True, exited=True, complete=True)
    assert failure(WEB1, SSH_FAILED, exited, ["Permission denied"], follows=True) is None
    assert failure(WEB1, 3 << 8, SshLog(), [], follows=True) is None
    assert failure(WEB1, SSH_FAILED, SshLog(), ["Permission denied"], follows=False) is None


def test_a_failure_names_the_host_the_cause_and_what_to_do() -> None:
    log = SshLog(("ssh: connect to host 10.0.0.1 port 2222: Connection refused",))
    error = failure(WEB1, SSH_FAILED, log, [], follows=True)
    assert error is not None
    assert (error.reason, error.host) == (Reason.CONNECT, "10.0.0.1")
    assert str(error) == (
        "cannot connect to web1 (address 10.0.0.1, user ann, port 2222): "
        "ssh: connect to host 10.0.0.1 port 2222: Connection refused; "
        "is sshd running there, and is the port right?"
    )


@pytest.mark.parametrize("tail", [["Connection to 10.0.0.1 closed by remote host."], []])
def test_a_connection_that_goes_after_the_start_is_lost(tail: list[str]) -> None:
    error = failure(WEB1, SSH_FAILED, SshLog(accepted=True), tail, follows=True)
    assert error is not None
    assert error.reason is Reason.CONNECT
    assert "the connection to web1" in str(error)
    assert "lost" in str(error)


def test_a_key_file_that_is_missing_is_named(tmp_path: Path) -> None:
    log = SshLog(("ann@web1: Permission denied (publickey).",))
    key = tmp_path / "id_gone"
    target = replace(WEB1, keyfile=str(key))

    def said() -> str:
        error = failure(target, SSH_FAILED, log, [], follows=True)
        assert error is not None
        assert error.reason is Reason.AUTH
        return str(error)

    assert said().endswith(f"the key file {key} does not exist on this machine")
    key.with_suffix(".pub").touch()  # ssh finds the key in the agent by this half
    assert "check user and keyfile" in said()
    key.with_suffix(".pub").unlink()
    key.touch()
    assert "check user and keyfile" in said()


def test_an_ssh_that_somebody_has_killed_is_a_lost_connection() -> None:
    error = failure(WEB1, 9, SshLog(accepted=True), [], follows=True)
    assert error is not None
    assert "SIGKILL" in str(error)


def test_a_place_says_no_more_than_there_is() -> None:
    assert place(Target("10.0.0.1")) == "10.0.0.1"
    assert place(WEB1) == "web1 (address 10.0.0.1, user ann, port 2222)"


def test_a_real_time_signal_has_no_name() -> None:
    error = failure(WEB1, 40, SshLog(), [], follows=True)
    assert error is not None
    assert error.reason is Reason.CONNECT
    assert "(signal 40)" in str(error)


def test_a_number_of_any_length_is_no_channel() -> None:
    line = "clientloop.c:client_session2_setup():1 (pid=7): id "
    assert read_event(f"{line}7") == (MasterEvent.SESSION, 7, "")
    assert read_event(f"{line}{'7' * 5000}") is None
