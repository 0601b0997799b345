"""The login: passwords, questions, passphrases, certificates, the agent, and what goes wrong."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import paramiko
import pytest
from paramiko.server import InteractiveQuery

from execo import Host, Remote, SshProcess
from execo._core.runtime import get_runtime
from execo.config import make_connection_params
from execo.connection import connection_to
from execo.errors import Reason
from execo.transports import close_idle, statistics
from execo.transports.base import Algorithms, Target
from execo.transports.key_files import PrivateKey
from remote_commands import QUIET, TIMEOUT, HostScript, run, until
from sshd import RealSshd

pytest_plugins = ["sshd", "remote_commands"]

SECRET = "correct horse battery"
SOON = {"connect_timeout": 2}


def at(host: Host, user: str | None = None, keyfile: Any = None) -> Host:
    """The host for another user, with another key or none."""
    return Host(host.address, user or host.user, keyfile, host.port)


def make_key(path: Path, *words: str, passphrase: str = "", kind: str = "ed25519") -> Path:
    command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", path.name, "-f", str(path)]
    subprocess.run([*command, *words], check=True, stdin=subprocess.DEVNULL)
    return path


@pytest.fixture(autouse=True)
def connections_of_its_own() -> Iterator[None]:
    """No test finds the connections of the one before."""
    yield
    close_idle()


# -- passwords ------------------------------------------------------------------------------------

WAYS = {
    "questions": {
        "UsePAM": "yes",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "yes",
    },
    "password": {
        "UsePAM": "yes",
        "PasswordAuthentication": "yes",
        "KbdInteractiveAuthentication": "no",
    },
    "password without PAM": {
        "UsePAM": "no",
        "PasswordAuthentication": "yes",
        "KbdInteractiveAuthentication": "no",
    },
    "both": {
        "UsePAM": "yes",
        "PasswordAuthentication": "yes",
        "KbdInteractiveAuthentication": "yes",
    },
}


@pytest.fixture(scope="module", params=WAYS)
def open_sshd(request: pytest.FixtureRequest) -> Iterator[RealSshd]:
    """A server that lets in with a password, in one of these ways."""
    with RealSshd({**WAYS[request.param], "MaxStartups": "100"}) as server:
        yield server


@pytest.fixture(scope="module")
def both_sshd() -> Iterator[RealSshd]:
    with RealSshd({**WAYS["both"], "MaxStartups": "100"}) as server:
        yield server


@pytest.fixture
def ann(both_sshd: RealSshd) -> Host:
    """A host for somebody with a password."""
    return at(both_sshd.hosts(1)[0], both_sshd.person("ann", SECRET))


def test_a_password(open_sshd: RealSshd) -> None:
    host = at(open_sshd.hosts(1)[0], open_sshd.person("ann", SECRET))
    assert run(host, "id -un", {"password": SECRET}).stdout == f"{host.user}\n"


def test_a_wrong_password_is_tried_once(open_sshd: RealSshd) -> None:
    host = at(open_sshd.hosts(1)[0], open_sshd.person("bob", SECRET))
    before = open_sshd.log
    process = run(host, "true", {"password": "wr0ng-secret"})
    assert process.reason is Reason.AUTH
    assert f"{host.address}: cannot log in as {host.user!r}: it refused the password" in str(
        process.message
    )
    assert "check user and password" in process.message
    # Hosts lock users out who try the same again and again.
    assert open_sshd.log[len(before) :].count("Failed password") <= 1


def test_a_password_that_has_expired(open_sshd: RealSshd) -> None:
    host = at(open_sshd.hosts(1)[0], open_sshd.person("old", SECRET, expired=True))
    process = run(host, "true", {"password": SECRET})
    assert process.reason is Reason.AUTH
    assert "expired" in process.message
    assert "log in by hand (ssh)" in process.message
    assert host.address in process.message


def test_an_expired_password_where_a_terminal_would_ask_for_a_new_one(ann: Host,
    both_sshd: RealSshd,
) -> None:  # fmt: skip
    user = both_sshd.person("old", SECRET, expired=True)
    keyed = at(ann, user, both_sshd.keyfile)
    for pty in (True, False):
        process = run(keyed, "echo never", pty=pty)
        assert (process.reason, process.exit_code) == (Reason.AUTH, None)
        assert "has expired" in process.message


def test_what_only_prints_such_words_is_not_taken_for_it(plain: Host) -> None:
    words = (
        "WARNING: Your password has expired.\\nPassword change required but no TTY available.\\n"
    )
    assert run(plain, "true").ok  # from now on the guard says that commands run there
    assert run(plain, f"sleep 0.3; printf '{words}' >&2; exit 1").exit_code == 1
    close_idle()
    process = run(plain, "(sleep 0.6; echo late) & exit 1")
    assert process.exit_code == 1
    assert run(plain, "printf WARN >&2; exit 1").stderr == "WARN"


def test_without_a_password_the_message_says_what_would_do(ann: Host) -> None:
    process = run(ann, "true")
    assert process.reason is Reason.AUTH
    assert "set keyfile, user or password" in process.message


def test_a_function_is_asked_once_for_each_host_and_user(both_sshd: RealSshd) -> None:
    user = both_sshd.person("ann", SECRET)
    hosts = [at(host, user) for host in both_sshd.hosts(3)]
    asked: list[tuple[str, str]] = []

    def password(host: str, user: str) -> str:
        asked.append((host, user))
        return SECRET

    for _ in range(2):
        # More at once than one connection carries.
        remote = Remote("true", [*hosts] * 12, {"password": password}).run(TIMEOUT)
        assert remote.finished_ok
        close_idle()
    assert sorted(asked) == [(host.address, user) for host in hosts]


def test_questions_come_one_at_a_time(both_sshd: RealSshd) -> None:
    user = both_sshd.person("ann", SECRET)
    hosts = [at(host, user) for host in both_sshd.hosts(5)]
    lock, most = threading.Lock(), []

    def password(host: str, user: str) -> str:
        most.append(lock.acquire(blocking=False))
        threading.Event().wait(0.05)
        lock.release()
        return SECRET

    assert Remote("true", hosts, {"password": password}).run(TIMEOUT).finished_ok
    assert most == [True] * 5


def test_after_a_refusal_the_function_is_asked_again(ann: Host) -> None:
    words = ["wrong", SECRET, "never asked for"]
    params = {"password": lambda host, user: words.pop(0)}
    assert run(ann, "true", params).reason is Reason.AUTH
    assert run(ann, "true", params).ok
    close_idle()
    assert run(ann, "true", params).ok
    assert words == ["never asked for"]


@pytest.mark.parametrize("kind", ["password", "answers"])
def test_nobody_is_asked_for_hosts_that_nobody_wants_any_more(
    both_sshd: RealSshd, kind: str
) -> None:
    user = both_sshd.person("ann", SECRET)
    hosts = [at(host, user) for host in both_sshd.hosts(5)]
    asked: list[str] = []
    typing, typed = threading.Event(), threading.Event()

    def ask(host: str, user: str, *more: Any) -> Any:
        asked.append(host)
        typing.set()
        typed.wait(TIMEOUT)
        return SECRET if kind == "password" else [SECRET]

    remote = Remote("true", hosts, {kind: ask}, QUIET).start()
    assert typing.wait(TIMEOUT)
    until(lambda: statistics().connections.setting_up == 5)
    threading.Event().wait(0.5)  # the others come to their questions
    try:
        remote.kill().wait(TIMEOUT)
        until(lambda: statistics().connections.hosts == 0)
    finally:
        typed.set()
    # Behind those that were in the queue, which nobody has seen.
    (last,) = [host for host in hosts[-2:] if host.address not in asked][-1:]
    assert run(last, "true", {kind: ask}).ok
    assert asked == [asked[0], last.address]


def test_what_some_still_want_is_asked(both_sshd: RealSshd) -> None:
    user = both_sshd.person("ann", SECRET)
    first, second = (at(host, user) for host in both_sshd.hosts(2))
    asked: list[str] = []
    typing, typed = threading.Event(), threading.Event()

    def ask(host: str, user: str) -> str:
        asked.append(host)
        typing.set()
        typed.wait(TIMEOUT)
        return SECRET

    params = {"password": ask}
    before = SshProcess("true", first, params, **QUIET).start()
    assert typing.wait(TIMEOUT)
    killed, kept = (SshProcess("true", second, params, **QUIET).start() for _ in range(2))
    until(lambda: statistics().connections.setting_up >= 2)
    try:
        killed.kill().wait(TIMEOUT)
    finally:
        typed.set()
    assert before.wait(TIMEOUT).ok
    assert kept.wait(TIMEOUT).ok
    assert asked == [first.address, second.address]


QUEUE = """
import atexit

def ask(host, user):
    print("asked", flush=True)
    typing.set()
    typed.wait(30)
    return "wrong"

def late():
    typed.set()
    time.sleep(1)  # the threads of execo still run

atexit.register(late)  # called after the end of execo, which comes later to the list
typing, typed = threading.Event(), threading.Event()
hosts = [Host(f"127.0.1.{n}", user, None, int(port)) for n in range(1, 6)]
Remote("true", hosts, {"password": ask}, {"nolog_error": True}).start()
typing.wait(30)
time.sleep(0.5)  # the others come to their questions
"""


def test_nobody_is_asked_after_the_end_of_the_script(ann: Host, tmp_path: Path) -> None:
    with HostScript(tmp_path, QUEUE, ann) as script:
        code, out, err = script.finish()
    assert (code, out, err) == (0, "asked\n", "")


def leaves(host: str, user: str) -> str:
    sys.exit(3)


def fails(host: str, user: str) -> str:
    raise LookupError("the safe is shut")


WRONG: dict[str, tuple[Any, str]] = {
    "raises": (fails, "the function 'password' raised LookupError: the safe is shut"),
    "exits": (leaves, "the function 'password' raised SystemExit: 3"),
    "gives nothing": (lambda host, user: None, "no password was given"),
    "gives bytes": (lambda host, user: b"x", "the function 'password' gave a bytes, not a string"),
    "takes no argument": (lambda: "x", "the function 'password' raised TypeError"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_function_that_gives_no_password(ann: Host, plain: Host, case: str) -> None:
    password, why = WRONG[case]
    good = at(plain, keyfile=plain.keyfile)
    remote = Remote("true", [ann, good], {"password": password}, QUIET).run(TIMEOUT)
    bad, fine = remote.processes
    assert (bad.reason, fine.ok) == (Reason.AUTH, True)
    assert why in bad.message
    assert ann.address in bad.message


def test_a_person_may_think_for_longer_than_a_host_may_take(ann: Host) -> None:
    def password(host: str, user: str) -> str:
        threading.Event().wait(1.5)
        return SECRET

    assert run(ann, "true", {"password": password, "connect_timeout": 1}).ok


def test_a_host_that_hangs_up_while_somebody_thinks() -> None:
    with RealSshd({**WAYS["password"], "LoginGraceTime": "1"}) as server:
        host = at(server.hosts(1)[0], server.person("ann", SECRET))
        asked = threading.Event()
        go = threading.Event()

        def password(host: str, user: str) -> str:
            asked.set()
            go.wait(TIMEOUT)
            return SECRET

        process = SshProcess("true", host, {"password": password}, **QUIET).start()
        assert asked.wait(TIMEOUT)
        process.wait(TIMEOUT)
        go.set()
        assert process.reason is Reason.AUTH
        assert "while we waited for the password" in process.message


@pytest.mark.parametrize(
    ("methods", "tried"),
    [
        ("password", "it refused the password"),
        ("password,publickey", "it refused the password, {key}"),
        ("publickey,password", "it refused {key}, the password"),
    ],
)
def test_the_methods_in_the_order_of_ssh_config(
    methods: str, tried: str, both_sshd: RealSshd, tmp_path: Path
) -> None:
    key = make_key(tmp_path / "other")
    host = at(both_sshd.hosts(1)[0], both_sshd.person("ann", SECRET), key)
    options = ["-o", f"PreferredAuthentications={methods}"]
    process = run(host, "true", {"password": "wrong", "ssh_options": options})
    assert process.reason is Reason.AUTH
    assert tried.format(key=key) in process.message
    assert (str(key) in process.message) == ("publickey" in methods)


def test_a_password_that_a_host_on_the_way_does_not_get(ann: Host) -> None:
    options = ["-J", f"{ann.user}@127.0.3.3:{ann.port}"]
    process = run(ann, "true", {"password": SECRET, "ssh_options": options})
    assert process.reason is Reason.AUTH
    assert f"a password that is a text is for {ann.address} alone" in process.message


# -- where secrets may go -------------------------------------------------------------------------


def test_no_password_goes_to_a_host_that_is_trusted_by_default_alone(
    ann: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("execo.transports.wire.Wire.is_loopback", False)
    for how in ({"password": SECRET}, {"answers": lambda *args: [SECRET]}):
        process = run(ann, "true", how)
        assert process.reason is Reason.AUTH
        assert "no password goes to a host whose key nobody has looked at" in process.message
        assert "set host_key_policy" in process.message
        close_idle()
    # It is a choice: then it is made.
    assert run(ann, "true", {"password": SECRET, "host_key_policy": "off"}).ok


# -- secrets stay secret --------------------------------------------------------------------------


def test_a_secret_appears_nowhere(
    ann: Host, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key(tmp_path / "key", passphrase="hidden-phrase")
    given = {"password": "hidden-word", "passphrase": "hidden-phrase-2"}
    with caplog.at_level(1):
        process = SshProcess("true", at(ann, keyfile=key), given, nolog_error=False)
        process.run(TIMEOUT)
    assert process.reason is Reason.AUTH
    target = connection_to(process.host, process.connection_params)[1]
    texts = [
        repr(process),
        process.dump(),
        process.message,
        repr(process.connection_params),
        repr(make_connection_params(given)),
        repr(target),
        caplog.text,
        Path("/proc/self/cmdline").read_bytes().decode(),
    ]
    assert not [text for text in texts if "hidden" in text]
    assert process.connection_params["password"] == "hidden-word"
    assert "hidden-word" in pickle.loads(pickle.dumps(make_connection_params(given))).values()
    for wrong in ({"password": ["hidden"]}, {"passphrase": b"hidden"}):
        try:
            make_connection_params(wrong)
        except ValueError:
            assert "hidden" not in traceback.format_exc().splitlines()[-1]
        else:
            pytest.fail("taken for a password")


def test_a_secret_that_was_right_appears_nowhere_either(
    ann: Host, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(1):
        assert run(ann, "true", {"password": SECRET}).ok
    assert SECRET not in caplog.text


@pytest.mark.parametrize("transport", ["openssh", "taktuk"])
@pytest.mark.parametrize("key", ["password", "answers"])
def test_the_ssh_command_takes_no_password(transport: str, key: str) -> None:
    value: Any = SECRET if key == "password" else lambda *args: []
    params = make_connection_params({"transport": transport, key: value})
    with pytest.raises(ValueError, match=f"'{transport}'.* cannot use '{key}'"):
        connection_to(Host("web1"), params)


# -- questions ------------------------------------------------------------------------------------


def test_answers_to_questions(ann: Host) -> None:
    seen: list[tuple[Any, ...]] = []

    def answers(
        host: str, user: str, title: str, text: str, questions: Sequence[tuple[str, bool]]
    ) -> list[str]:
        seen.append((host, user, [shown for _, shown in questions]))
        assert "assword" in questions[0][0]
        return [SECRET]

    assert run(ann, "true", {"answers": answers}).ok
    assert seen == [(ann.address, ann.user, [False])]


WRONG_ANSWERS: dict[str, tuple[Any, str]] = {
    "wrong": (lambda *args: ["wrong"], "it refused the answers to its questions"),
    "none": (lambda *args: None, "the function 'answers' gave no answer"),
    "a string": (lambda *args: "x", "gave a str, not a list"),
    "too many": (lambda *args: ["a", "b"], "has to give 1 strings"),
    "no strings": (lambda *args: [1], "has to give 1 strings"),
    "raises": (lambda *args: 1 // 0, "raised ZeroDivisionError"),
}


@pytest.mark.parametrize("case", WRONG_ANSWERS)
def test_answers_that_are_wrong(ann: Host, case: str) -> None:
    answers, why = WRONG_ANSWERS[case]
    process = run(ann, "true", {"answers": answers})
    assert process.reason is Reason.AUTH
    assert why in process.message


def test_an_expired_password_is_changed_by_whoever_answers(both_sshd: RealSshd) -> None:
    user = both_sshd.person("eve", SECRET, expired=True)
    host = at(both_sshd.hosts(1)[0], user)
    new = "staple 9 Zebra-crossing"

    def answers(host: str, user: str, title: str, text: str, questions: Any) -> list[str]:
        return [new if "ew password" in prompt else SECRET for prompt, _ in questions]

    assert run(host, "true", {"answers": answers}).ok
    close_idle()
    assert run(host, "true", {"password": new}).ok


# -- several methods ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strict_sshd() -> Iterator[RealSshd]:
    """A server that wants a key, and then a password."""
    settings = {**WAYS["both"], "AuthenticationMethods": "publickey,password"}
    with RealSshd(settings) as server:
        yield server


def test_a_key_and_then_a_password(strict_sshd: RealSshd) -> None:
    host = at(strict_sshd.hosts(1)[0], strict_sshd.person("ann", SECRET), strict_sshd.keyfile)
    assert run(host, "true", {"password": SECRET}).ok
    process = run(host, "true", {"password": "wrong"})
    assert process.reason is Reason.AUTH
    assert f"it refused the password after it took {strict_sshd.keyfile}" in process.message
    process = run(host, "true")
    assert process.reason is Reason.AUTH
    assert f"it wants more after it took {strict_sshd.keyfile}" in process.message


def test_a_password_and_then_a_key() -> None:
    settings = {**WAYS["both"], "AuthenticationMethods": "password,publickey"}
    with RealSshd(settings) as server:
        host = at(server.hosts(1)[0], server.person("ann", SECRET), server.keyfile)
        assert run(host, "true", {"password": SECRET}).ok
        process = run(host, "true")
        assert process.reason is Reason.AUTH
        assert "it takes no keys" in process.message


def test_two_keys(tmp_path: Path) -> None:
    with RealSshd({"AuthenticationMethods": "publickey,publickey"}) as server:
        host = server.hosts(1)[0]
        process = run(host, "true")
        assert process.reason is Reason.AUTH
        assert f"it wants more after it took {server.keyfile}" in process.message


# -- key files ------------------------------------------------------------------------------------

FORMATS = {
    "openssh": [],
    "openssh rsa": ["-b", "2048"],
    "PEM": ["-b", "2048", "-m", "PEM"],
    "PKCS8": ["-b", "2048", "-m", "PKCS8"],
}


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Key files with a passphrase, of every format."""
    folder = tmp_path_factory.mktemp("locked")
    return {
        kind: make_key(
            folder / kind.replace(" ", "-"),
            *words,
            passphrase=SECRET,
            kind="rsa" if words else "ed25519",
        )
        for kind, words in FORMATS.items()
    }


@pytest.fixture(scope="module")
def key_sshd(locked: dict[str, Path]) -> Iterator[RealSshd]:
    """A server that knows these keys."""
    with RealSshd({"MaxStartups": "100"}) as server:
        server.admit(*locked.values())
        yield server


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("beside", [True, False])
def test_a_passphrase(
    key_sshd: RealSshd, locked: dict[str, Path], tmp_path: Path, kind: str, beside: bool
) -> None:
    key = tmp_path / "key"
    key.write_bytes(locked[kind].read_bytes())
    if beside:
        Path(f"{key}.pub").write_bytes(Path(f"{locked[kind]}.pub").read_bytes())
    host = at(key_sshd.hosts(1)[0], keyfile=key)
    assert run(host, "true", {"passphrase": SECRET}).ok


def test_a_passphrase_is_asked_for_once_in_a_process(
    key_sshd: RealSshd, locked: dict[str, Path], tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_bytes(locked["openssh"].read_bytes())
    asked: list[str] = []

    def passphrase(path: str) -> str:
        asked.append(path)
        threading.Event().wait(1.2)  # longer than a host may take
        return SECRET

    hosts = [at(host, keyfile=key) for host in key_sshd.hosts(20)]
    for _ in range(2):
        params = {"passphrase": passphrase, "connect_timeout": 1}
        assert Remote("true", hosts, params, QUIET).run(TIMEOUT).finished_ok
        close_idle()
    assert asked == [str(key)]


def test_nobody_is_asked_where_the_host_does_not_want_the_key(
    plain: Host, locked: dict[str, Path]
) -> None:
    asked: list[str] = []
    params = {"passphrase": asked.append}
    process = run(at(plain, keyfile=locked["openssh"]), "true", params)
    assert process.reason is Reason.AUTH
    assert f"it refused {locked['openssh']}" in process.message
    assert asked == []


def test_a_wrong_passphrase_is_asked_for_again_like_ssh_does(
    key_sshd: RealSshd, locked: dict[str, Path], tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_bytes(locked["openssh"].read_bytes())
    words = ["no", "neither", SECRET]
    host = at(key_sshd.hosts(1)[0], keyfile=key)
    assert run(host, "true", {"passphrase": lambda path: words.pop(0)}).ok


def test_a_wrong_passphrase(key_sshd: RealSshd, locked: dict[str, Path], tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(locked["openssh"].read_bytes())
    asked: list[str] = []

    def always(path: str) -> str:
        asked.append(path)
        return "wrong"

    hosts = [at(host, keyfile=key) for host in key_sshd.hosts(5)]
    for passphrase in ("wrong", always):
        remote = Remote("true", hosts, {"passphrase": passphrase}, QUIET).run(TIMEOUT)
        for process in remote.processes:
            assert process.reason is Reason.AUTH
            assert f"{key}: the passphrase is wrong" in process.message
    assert len(asked) == 2  # the same answer again: it is no person


def test_a_passphrase_that_nobody_wants_any_more_is_not_asked_for_again(
    key_sshd: RealSshd, locked: dict[str, Path], tmp_path: Path
) -> None:
    files = [tmp_path / "one", tmp_path / "two"]
    for file in files:
        file.write_bytes(locked["openssh"].read_bytes())
    asked: list[str] = []
    typing, typed = threading.Event(), threading.Event()

    def ask(path: str) -> str:
        asked.append(path)
        typing.set()
        typed.wait(TIMEOUT)
        return f"wrong {len(asked)}"

    hosts = [at(host, keyfile=file) for host, file in zip(key_sshd.hosts(2), files, strict=True)]
    remote = Remote("true", hosts, {"passphrase": ask}, QUIET).start()
    assert typing.wait(TIMEOUT)
    until(lambda: statistics().connections.setting_up == 2)
    threading.Event().wait(0.5)  # the other one comes to its question
    try:
        remote.kill().wait(TIMEOUT)
        until(lambda: statistics().connections.hosts == 0)
    finally:
        typed.set()
    done = threading.Event()
    get_runtime().questions.submit(done.set)
    assert done.wait(TIMEOUT)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("passphrase", "why"),
    [
        (lambda path: None, "its passphrase was not given"),
        (lambda path: "", "its passphrase was not given"),
        (lambda path: 7, "the function 'passphrase' gave a int, not a string"),
        (lambda path: 1 // 0, "the function 'passphrase' raised ZeroDivisionError"),
    ],
)
def test_a_function_that_gives_no_passphrase(
    key_sshd: RealSshd, locked: dict[str, Path], tmp_path: Path, passphrase: Any, why: str
) -> None:
    key = tmp_path / "key"
    key.write_bytes(locked["openssh"].read_bytes())
    process = run(at(key_sshd.hosts(1)[0], keyfile=key), "true", {"passphrase": passphrase})
    assert process.reason is Reason.AUTH
    assert why in process.message


def test_a_key_that_was_replaced_is_asked_for_again(
    key_sshd: RealSshd, locked: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("execo.transports.keys.KEPT", 0.0)
    key = tmp_path / "key"
    asked: list[str] = []

    def passphrase(path: str) -> str:
        asked.append(path)
        return SECRET

    for kind in ("openssh", "PEM"):
        key.write_bytes(locked[kind].read_bytes())
        host = at(key_sshd.hosts(1)[0], keyfile=key)
        assert run(host, "true", {"passphrase": passphrase}).ok
        close_idle()
    assert len(asked) == 2


ASKPASS = """
process = SshProcess("echo in", host, nolog_error=True).run(30)
print(process.ok, process.reason, process.message if process.error else process.stdout, end="")
"""


@pytest.mark.parametrize(
    ("env", "asks"),
    [
        ({"SSH_ASKPASS_REQUIRE": "force"}, True),
        ({"SSH_ASKPASS_REQUIRE": "prefer"}, True),
        ({"DISPLAY": ":9"}, True),
        ({"DISPLAY": ":9", "SSH_ASKPASS_REQUIRE": "never"}, False),
        ({}, False),
    ],
)
def test_the_program_that_asks_for_passphrases(
    key_sshd: RealSshd, locked: dict[str, Path], tmp_path: Path, env: dict[str, str], asks: bool
) -> None:
    program = tmp_path / "askpass"
    program.write_text(f'#!/bin/sh\necho "$1" >> {tmp_path}/asked\necho "{SECRET}"\n')
    program.chmod(0o755)
    host = at(key_sshd.hosts(1)[0], keyfile=locked["openssh"])
    env = {"SSH_ASKPASS": str(program), **env}
    with HostScript(tmp_path, ASKPASS, host, env=env) as script:
        code, out, err = script.finish()
    assert (code, err) == (0, "")
    if asks:
        assert out == "True None in\n"
        asked = (tmp_path / "asked").read_text()
        assert asked == f"Enter passphrase for key '{locked['openssh']}': \n"
    else:
        assert "False auth" in out
        assert "it needs a passphrase; add it to the agent (ssh-add), or set passphrase" in out
        assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("#!/bin/sh\nexit 1\n", "its passphrase was not given"),
        ("#!/nowhere\n", "(SSH_ASKPASS): No such file or directory"),
        ("#!/bin/sh\necho wrong\n", "the passphrase is wrong"),
    ],
)
def test_a_program_that_gives_no_passphrase(
    key_sshd: RealSshd, locked: dict[str, Path], tmp_path: Path, text: str, why: str
) -> None:
    program = tmp_path / "askpass"
    program.write_text(text)
    program.chmod(0o755)
    host = at(key_sshd.hosts(1)[0], keyfile=locked["openssh"])
    env = {"SSH_ASKPASS": str(program), "SSH_ASKPASS_REQUIRE": "force"}
    with HostScript(tmp_path, ASKPASS, host, env=env) as script:
        code, out, err = script.finish()
    assert (code, err) == (0, "")
    assert "False auth" in out
    assert why in out


# Who started the program may learn late that it runs: when the script is about to end.
LEARNS_LATE = """
import subprocess

class Popen(subprocess.Popen):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        time.sleep(0.5)

subprocess.Popen = Popen
"""


@pytest.mark.parametrize("before", ["", LEARNS_LATE], ids=["at once", "late"])
def test_a_program_that_nobody_answers_does_not_outlive_the_script(
    key_sshd: RealSshd, locked: dict[str, Path], tmp_path: Path, word: str, before: str
) -> None:
    program = tmp_path / "askpass"
    program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep {word}\n")
    program.chmod(0o755)
    source = f"""{before}
SshProcess("true", host, nolog_error=True).start()
while not os.path.exists(os.environ["PID"]) or not open(os.environ["PID"]).read():
    time.sleep(0.01)
"""
    host = at(key_sshd.hosts(1)[0], keyfile=locked["openssh"])
    env = {"SSH_ASKPASS": str(program), "SSH_ASKPASS_REQUIRE": "force",
           "PID": str(tmp_path / "pid")}  # fmt: skip
    with HostScript(tmp_path, source, host, env=env) as script:
        code, _, err = script.finish()
    assert (code, err) == (0, "")
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + TIMEOUT
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        threading.Event().wait(0.02)
    assert not os.path.exists(f"/proc/{pid}")


def test_a_key_of_a_security_key_says_what_to_do(plain: Host, tmp_path: Path) -> None:
    # As ssh-keygen -t ed25519-sk writes it: only the public half matters here.
    def text(*parts: bytes) -> bytes:
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)

    public = text(b"sk-ssh-ed25519@openssh.com", bytes(32), b"ssh:")
    body = b"openssh-key-v1\0" + text(b"none", b"none", b"") + bytes([0, 0, 0, 1])
    body += text(public, bytes(64))
    key = tmp_path / "sk"
    lines = base64.encodebytes(body).decode()
    key.write_text(
        f"-----BEGIN OPENSSH PRIVATE KEY-----\n{lines}-----END OPENSSH PRIVATE KEY-----\n"
    )
    process = run(at(plain, keyfile=key), "true")
    assert process.reason is Reason.AUTH
    assert "it belongs to a security key; add it to the agent (ssh-add), or set transport to " in (
        process.message
    )


def test_too_many_keys(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir(mode=0o700)
    for name in ("id_ed25519", "id_ecdsa", "id_rsa"):
        make_key(tmp_path / ".ssh" / name)
    with RealSshd({"MaxAuthTries": "2"}) as server:
        host = at(server.hosts(1)[0])
        with HostScript(tmp_path, ASKPASS, host, env={"HOME": str(tmp_path)}) as script:
            code, out, err = script.finish()
    assert (code, err) == (0, "")
    assert "False auth" in out
    assert "it takes no more tries (MaxAuthTries)" in out
    assert "too many keys; name the right one (keyfile)" in out


# -- the agent, certificates, which keys come when ------------------------------------------------


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Changes the options of all connections that follow, and their login: what files of ssh_config
    say."""

    def change(*, login: dict[str, Any] | None = None, **changes: Any) -> None:
        def changed(host: Host, params: Any) -> tuple[str, Target]:
            name, target = connection_to(host, params)
            new = dataclasses.replace(target.options.login, **(login or {}))
            given = dataclasses.replace(target.options, login=new, **changes)
            return name, dataclasses.replace(target, options=given)

        monkeypatch.setattr("execo.ssh_process.connection_to", changed)

    return change


@contextlib.contextmanager
def running_agent(path: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    command = ["ssh-agent", "-D", "-a", str(path), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()  # it listens
            yield process
        finally:
            process.kill()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    """The socket of an agent without keys."""
    path = tmp_path / "agent"
    with running_agent(path):
        yield path


def add(agent: Path, *words: str | Path) -> None:
    env = {**os.environ, "SSH_AUTH_SOCK": str(agent)}
    subprocess.run(["ssh-add", "-q", *map(str, words)], env=env, check=True)


@pytest.fixture
def opened(locked: dict[str, Path], tmp_path: Path) -> Path:
    """A key without a passphrase that the server knows."""
    key = tmp_path / "opened"
    key.write_bytes(locked["openssh"].read_bytes())
    key.chmod(0o600)
    command = ["ssh-keygen", "-q", "-p", "-P", SECRET, "-N", "", "-f", str(key)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return key


def test_an_agent_that_is_named(
    key_sshd: RealSshd, opened: Path, agent: Path, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(agent, opened)
    host = at(key_sshd.hosts(1)[0])
    for said in (str(agent), "$MY_AGENT", "SSH_AUTH_SOCK"):
        monkeypatch.setenv("MY_AGENT", str(agent))
        if said == "SSH_AUTH_SOCK":
            monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
        options(login={"agent": said})
        assert run(host, "true").ok, said
        close_idle()
    options(login={"agent": "none"})
    process = run(host, "true")
    assert process.reason is Reason.AUTH
    assert "there is no agent (none)" in process.message


def test_a_locked_file_whose_key_the_agent_holds(
    key_sshd: RealSshd,
    locked: dict[str, Path],
    opened: Path,
    agent: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    host = at(key_sshd.hosts(1)[0], keyfile=locked["openssh"])
    assert run(host, "true").reason is Reason.AUTH
    add(agent, opened)
    assert run(host, "true").ok
    close_idle()
    # The public half alone says which.
    assert run(at(host, keyfile=f"{locked['openssh']}.pub"), "true").ok


def test_the_agents_signatures_for_many_hosts(
    key_sshd: RealSshd, opened: Path, agent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    add(agent, opened)
    hosts = [at(host) for host in key_sshd.hosts(30)]
    assert Remote("true", hosts).run(TIMEOUT).finished_ok


def test_an_agent_that_wants_a_confirmation_and_gets_none(
    key_sshd: RealSshd, opened: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_ASKPASS", "/bin/false")
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")
    path = tmp_path / "confirming"
    with running_agent(path):
        add(path, "-c", opened)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        process = run(at(key_sshd.hosts(1)[0]), "true")
    assert process.reason is Reason.AUTH
    assert "the agent refused to sign with it" in process.message


def test_an_agent_that_freezes(
    key_sshd: RealSshd,
    opened: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plain: Host,
) -> None:
    path = tmp_path / "freezing"
    with running_agent(path) as process:
        add(path, opened)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        host = at(key_sshd.hosts(1)[0])
        assert run(host, "true").ok  # the keys that it holds are known now
        close_idle()
        process.send_signal(signal.SIGSTOP)
        hosts = [at(one) for one in key_sshd.hosts(3, first=3)]
        remote = Remote("true", [*hosts, plain], SOON, QUIET).run(TIMEOUT)
        assert [one.reason for one in remote.processes] == [Reason.AUTH] * 3 + [None]
        for one in remote.processes[:3]:
            assert "within 2 s (connect_timeout)" in one.message
            assert "waited for a signature by the agent's key" in one.message
        process.send_signal(signal.SIGCONT)
        assert run(hosts[0], "true").ok


def test_an_agent_that_never_says_what_it_holds(
    key_sshd: RealSshd, opened: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("execo.transports.keys.AGENT_PATIENCE", 0.5)
    path = tmp_path / "mute"
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(path))
        mute.listen(20)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        process = run(at(key_sshd.hosts(1)[0]), "true")
        assert process.reason is Reason.AUTH
        assert "the agent has not answered for 0.5 s" in process.message
        # Who names a key does not need it.
        assert run(at(key_sshd.hosts(1)[0], keyfile=opened), "true").ok


@pytest.mark.parametrize("answer", [b"", b"\0\0\0\1\5", b"\0\0\0\5\14\0\0\0\7", bytes(9),
                                    b"HTTP/1.1 400"])  # fmt: skip
def test_what_is_no_agent(
    key_sshd: RealSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    path = tmp_path / "no-agent"

    def serve() -> None:
        peer, _ = listening.accept()
        with peer:
            peer.recv(1000)
            peer.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        process = run(at(key_sshd.hosts(1)[0]), "true")
        thread.join(TIMEOUT)
    assert process.reason is Reason.AUTH
    assert "agent" in process.message


# -- certificates ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The key of an authority."""
    folder = tmp_path_factory.mktemp("authority")
    return make_key(folder / "authority")


@pytest.fixture(scope="module")
def ca_sshd(authority: Path) -> Iterator[RealSshd]:
    """A server that knows no key but those that the authority has signed."""
    settings = {"AuthorizedKeysFile": "none", "TrustedUserCAKeys": f"{authority}.pub"}
    with RealSshd(settings) as server:
        yield server


def certify(authority: Path, key: Path, user: str | None, *words: str) -> Path:
    command = ["ssh-keygen", "-q", "-s", str(authority), "-I", "test", "-n", str(user), *words]
    subprocess.run([*command, f"{key}.pub"], check=True, capture_output=True)
    return key.with_name(f"{key.name}-cert.pub")


KINDS = {"ed25519": [], "rsa": ["-b", "2048"], "ecdsa": ["-b", "384"]}


@pytest.mark.parametrize("kind", KINDS)
def test_a_certificate_beside_a_key(
    ca_sshd: RealSshd, authority: Path, tmp_path: Path, kind: str
) -> None:
    key = make_key(tmp_path / "key", *KINDS[kind], kind=kind)
    host = at(ca_sshd.hosts(1)[0], keyfile=key)
    assert run(host, "true").reason is Reason.AUTH
    certificate = certify(authority, key, host.user)
    process = run(at(host, keyfile=key), "true", {"connect_timeout": 19})
    # What was read is kept for some seconds.
    if not process.ok:
        close_idle()
        other = key.with_name("other")
        for ending in ("", ".pub", "-cert.pub"):
            Path(f"{other}{ending}").write_bytes(Path(f"{key}{ending}").read_bytes())
        process = run(at(host, keyfile=other), "true")
    assert process.ok, process.message
    assert certificate.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_certificate_and_the_agent(
    ca_sshd: RealSshd, authority: Path, tmp_path: Path, agent: Path, options: Any, kind: str
) -> None:
    key = make_key(tmp_path / "key", *KINDS[kind], kind=kind)
    host = at(ca_sshd.hosts(1)[0])
    certificate = certify(authority, key, host.user)
    # The agent holds both.
    add(agent, key)
    options(login={"agent": str(agent)})
    assert run(host, "true").ok
    close_idle()
    # The agent holds the key, a file named in the configuration is its certificate.
    elsewhere = tmp_path / "elsewhere.pub"
    certificate.rename(elsewhere)
    add(agent, "-D")
    add(agent, key)
    options(login={"agent": str(agent), "certificates": (str(elsewhere),)})
    assert run(host, "true").ok


def test_a_certificate_of_a_locked_key(ca_sshd: RealSshd, authority: Path, tmp_path: Path) -> None:
    key = make_key(tmp_path / "key", passphrase=SECRET)
    host = at(ca_sshd.hosts(1)[0], keyfile=key)
    certify(authority, key, host.user)
    assert run(host, "true", {"passphrase": SECRET}).ok


def test_a_certificate_that_is_not_good(
    ca_sshd: RealSshd, authority: Path, tmp_path: Path, options: Any
) -> None:
    key = make_key(tmp_path / "key")
    host = at(ca_sshd.hosts(1)[0], keyfile=key)
    certificate = certify(authority, key, "somebody-else")
    process = run(host, "true")
    assert process.reason is Reason.AUTH
    assert str(certificate) in process.message
    stranger = make_key(tmp_path / "stranger")
    foreign = certify(authority, stranger, host.user)
    junk = tmp_path / "junk"
    junk.write_text("junk\n")
    missing = tmp_path / "missing"
    options(login={"certificates": (str(foreign), str(junk), str(missing), f"{stranger}.pub")})
    process = run(host, "true")
    assert process.reason is Reason.AUTH
    for why in (
        f"{foreign}: the key that it belongs to is not there",
        f"{junk}: it is not a public key or certificate",
        f"{missing}: No such file or directory",
        f"{stranger}.pub: it is not a certificate",
    ):
        assert why in process.message


# -- which keys, in which order -------------------------------------------------------------------


def offered(server: RealSshd, before: str) -> list[str]:
    """The fingerprints that the server was shown since, in order."""
    return re.findall(r"(SHA256:\S+)", server.log[len(before) :])


def fingerprint(key: Path) -> str:
    words = ["ssh-keygen", "-l", "-f", str(key)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return done.stdout.split()[1]


@pytest.fixture(scope="module")
def loud_sshd(locked: dict[str, Path]) -> Iterator[RealSshd]:
    """A server that logs every key that it is shown, and knows the locked ones."""
    with RealSshd({"LogLevel": "VERBOSE", "MaxAuthTries": "20"}) as server:
        server.admit(locked["openssh"])
        yield server


def test_named_keys_come_before_the_agents(
    loud_sshd: RealSshd, tmp_path: Path, agent: Path, options: Any, opened: Path
) -> None:
    named = [make_key(tmp_path / name) for name in ("a", "b")]
    held = [make_key(tmp_path / name) for name in ("c", "d")]
    add(agent, *held, named[1], opened)
    options(login={"agent": str(agent), "identities": tuple(map(str, named))})
    before = loud_sshd.log
    assert run(at(loud_sshd.hosts(1)[0]), "true").ok
    seen = list(dict.fromkeys(offered(loud_sshd, before)))
    assert seen == [fingerprint(key) for key in (*named, *held, opened)]


def test_identities_only(
    loud_sshd: RealSshd, tmp_path: Path, agent: Path, options: Any, opened: Path
) -> None:
    named = make_key(tmp_path / "a")
    add(agent, opened)
    login = {"agent": str(agent), "identities": (str(named),), "identities_only": True}
    options(login=login)
    host = at(loud_sshd.hosts(1)[0])
    before = loud_sshd.log
    process = run(host, "true")
    assert process.reason is Reason.AUTH
    assert f"it refused {named}" in process.message
    assert set(offered(loud_sshd, before)) == {fingerprint(named)}
    options(login={**login, "identities": (str(named), str(opened))})
    assert run(host, "true").ok


def test_a_keyfile_comes_before_the_identities(
    loud_sshd: RealSshd, tmp_path: Path, options: Any, opened: Path
) -> None:
    keys = [make_key(tmp_path / name) for name in ("a", "b")]
    options(login={"identities": (str(keys[1]), str(tmp_path / "missing"), str(opened))})
    before = loud_sshd.log
    assert run(at(loud_sshd.hosts(1)[0], keyfile=keys[0]), "true").ok
    seen = list(dict.fromkeys(offered(loud_sshd, before)))
    assert seen == [fingerprint(key) for key in (*keys, opened)]


def test_the_algorithms_of_signatures(
    key_sshd: RealSshd, locked: dict[str, Path], options: Any
) -> None:
    rsa = at(key_sshd.hosts(1)[0], keyfile=locked["openssh rsa"])
    given = {"passphrase": SECRET}
    for names, good in (
        (("rsa-sha2-256",), True),
        (("ssh-ed25519", "rsa-sha2-512"), True),
        (("ssh-ed25519",), False),
    ):
        options(algorithms=Algorithms(signatures=names))
        process = run(rsa, "true", given)
        assert process.ok is good, process.message
        close_idle()
    assert process.reason is Reason.AUTH
    assert f"{locked['openssh rsa']}: it is of a type that may not be used" in process.message
    options(algorithms=Algorithms(least_rsa_bits=3072))
    process = run(rsa, "true", given)
    assert process.reason is Reason.AUTH
    assert "2048 bits are too few (RequiredRSASize)" in process.message


# -- a server that does what sshd does not --------------------------------------------------------


class Odd(paramiko.ServerInterface):
    """Asks, and refuses, in ways of its own."""

    def __init__(self, kind: str, transport: Any) -> None:
        self.kind = kind
        self.transport = transport
        self.rounds = 0

    def get_allowed_auths(self, username: str) -> str:
        return "password" if "password" in self.kind else "keyboard-interactive"

    def check_auth_password(self, username: str, password: str) -> int:
        if "always partial" in self.kind:
            return int(paramiko.common.AUTH_PARTIALLY_SUCCESSFUL)
        if "expired" in self.kind:
            wish = paramiko.Message()  # RFC 4252, 8
            wish.add_byte(bytes([60]))
            wish.add_string("Your password is too old")
            wish.add_string("")
            self.transport._send_message(wish)
        return int(paramiko.common.AUTH_FAILED)

    def check_auth_interactive(self, username: str, submethods: str) -> Any:
        questions = {
            "two questions": [("Colour? ", True), ("Password: ", False)],
            "one shown": [("Colour? ", True)],
            "says something first": [],
        }[self.kind]
        return InteractiveQuery("Hello", "You there", *questions)

    def check_auth_interactive_response(self, responses: Any) -> Any:
        self.rounds += 1
        if self.kind == "says something first":
            if self.rounds == 1:
                return InteractiveQuery("", "", ("Password: ", False))
            if self.rounds == 2 and responses == [SECRET]:
                return InteractiveQuery("", "Welcome")
            return paramiko.common.AUTH_SUCCESSFUL
        return paramiko.common.AUTH_SUCCESSFUL if responses else paramiko.common.AUTH_FAILED


@contextlib.contextmanager
def odd_server(kind: str, answers: type[Odd] = Odd) -> Iterator[Host]:
    """A host that lets in, or not, in a way of its own, and runs nothing."""
    transports: list[paramiko.Transport] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = listening.accept()
                transport = paramiko.Transport(peer)
                transport.add_server_key(paramiko.RSAKey.generate(2048))
                transports.append(transport)
                with contextlib.suppress(Exception):
                    transport.start_server(server=answers(kind, transport))

    with socket.create_server(("127.0.5.1", 0)) as listening:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield Host("127.0.5.1", "ann", port=listening.getsockname()[1])
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(TIMEOUT)
            for transport in transports:
                transport.close()
                transport.join(TIMEOUT)


def test_a_server_that_asks_for_another_password() -> None:
    with odd_server("expired password") as host:
        process = run(host, "true", {"password": SECRET})
    assert process.reason is Reason.AUTH
    assert "has expired, it has to be changed: 'Your password is too old'" in process.message


def test_a_server_that_always_wants_more() -> None:
    with odd_server("always partial password") as host:
        process = run(host, "true", {"password": SECRET})
    assert process.reason is Reason.AUTH


def test_questions_that_a_password_does_not_answer() -> None:
    for kind in ("two questions", "one shown"):
        with odd_server(kind) as host:
            process = run(host, "true", {"password": SECRET})
            assert process.reason is Reason.AUTH
            assert "it asks 'You there Colour?" in process.message
            assert "set answers" in process.message


def test_a_server_that_says_something_between_questions() -> None:
    # It lets in, and has no commands.
    with odd_server("says something first") as host:
        process = run(host, "true", {"password": SECRET})
    assert process.reason is not Reason.AUTH


# -- a connection that ends in the middle ---------------------------------------------------------


class Leaving(Odd):
    """Ends the connection in the middle of the login."""

    def get_allowed_auths(self, username: str) -> str:
        return "publickey,password"

    def check_auth_none(self, username: str) -> int:
        if self.kind == "at once":
            self.leave()
        return int(paramiko.common.AUTH_FAILED)

    def check_auth_password(self, username: str, password: str) -> int:
        if self.kind == "with a word":
            last = paramiko.Message()  # RFC 4253, 11.1
            last.add_byte(bytes([1]))
            last.add_int(2)
            last.add_string("Go\x1b[31m\r\naway")
            last.add_string("")
            self.transport._send_message(last)
        self.leave()
        return int(paramiko.common.AUTH_FAILED)

    def leave(self) -> None:
        self.transport.sock.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("kind", "reason", "text"),
    [
        ("at once", Reason.CONNECT, "the connection is lost during the login of 'ann'"),
        ("without a word", Reason.AUTH, "it may be closed to this user"),
        ("with a word", Reason.AUTH, r"after the password: Go\x1b[31m away;"),
    ],
)
def test_a_connection_that_is_lost_is_a_failed_login_only_if_that_may_be_why(
    kind: str, reason: Reason, text: str
) -> None:
    with odd_server(kind, Leaving) as host:
        process = run(host, "true", {"password": SECRET})
    assert process.reason is reason
    assert text in process.message


def test_a_host_that_says_nothing_to_the_first_question_is_not_a_failed_login() -> None:
    with odd_server("silent", Silent) as host:
        process = run(host, "true", {"password": SECRET, **SOON})
    assert process.reason is Reason.CONNECT
    assert "waited for what it lets in with" in process.message


class Silent(Odd):
    """Takes its time until the server ends."""

    def get_allowed_auths(self, username: str) -> str:
        return "password"

    def check_auth_none(self, username: str) -> int:
        nap = threading.Event()
        while self.transport.active:
            nap.wait(0.02)
        return int(paramiko.common.AUTH_FAILED)


def test_an_account_that_has_expired(open_sshd: RealSshd) -> None:
    user = open_sshd.person("old", SECRET)
    subprocess.run(["chage", "-E", "0", user], check=True)
    host = open_sshd.hosts(1)[0]
    process = run(at(host, user, open_sshd.keyfile), "true")
    assert process.reason is Reason.AUTH


class Renewing(Odd):
    """Has keys agreed on anew in the middle of the login."""

    renewed: threading.Event

    def get_allowed_auths(self, username: str) -> str:
        return "password"

    def check_auth_none(self, username: str) -> int:
        def renew() -> None:
            with contextlib.suppress(Exception):  # its side of the test tells
                self.transport.renegotiate_keys()
            self.renewed.set()

        threading.Timer(0.3, renew).start()
        return int(paramiko.common.AUTH_FAILED)

    def check_auth_password(self, username: str, password: str) -> int:
        return int(paramiko.common.AUTH_SUCCESSFUL)


def test_keys_that_are_agreed_on_anew_do_not_begin_a_second_login() -> None:
    Renewing.renewed = threading.Event()
    asked = []

    def password(host: str, user: str) -> str:
        asked.append(host)
        assert Renewing.renewed.wait(TIMEOUT)
        threading.Event().wait(0.3)
        return SECRET

    with odd_server("renewing", Renewing) as host:
        process = run(host, "true", {"password": password})
    # It lets in, and has no commands.
    assert (process.reason, len(asked)) == (Reason.SPAWN, 1)


class Babbling(Odd):
    """Refuses more often than it is asked."""

    def get_allowed_auths(self, username: str) -> str:
        return "publickey,password"

    def check_auth_publickey(self, username: str, key: Any) -> int:
        self.rounds += 1
        if self.rounds == 1:
            no = paramiko.Message()  # RFC 4252, 5.1
            no.add_byte(bytes([51]))
            no.add_string("publickey,password")
            no.add_boolean(False)
            self.transport._send_message(no)
        return int(paramiko.common.AUTH_FAILED)

    def check_auth_password(self, username: str, password: str) -> int:
        return int(paramiko.common.AUTH_SUCCESSFUL)


def test_a_server_that_refuses_what_it_was_not_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    signs = PrivateKey.sign
    asked, later = threading.Event(), threading.Event()

    def slowly(key: PrivateKey, data: bytes, algorithm: str) -> bytes:
        if later.is_set():
            assert asked.wait(TIMEOUT)
        later.set()
        return signs(key, data, algorithm)

    def password(host: str, user: str) -> str:
        asked.set()
        threading.Event().wait(0.3)  # the signature comes first
        return SECRET

    monkeypatch.setattr(PrivateKey, "sign", slowly)
    keys = [make_key(tmp_path / name) for name in ("first", "second")]
    options = [word for key in keys for word in ("-i", str(key))]
    with odd_server("babbling", Babbling) as host:
        process = run(host, "true", {"ssh_options": options, "password": password})
    # It lets in, and has no commands.
    assert (process.reason, [record.getMessage() for record in caplog.records]) == (
        Reason.SPAWN,
        [],
    )
