"""Commands as another user of the host, with the real sudo, su and doas."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import execo
from become_users import PASSWORD, People
from execo import Get, Host, Process, Put, Remote, SshProcess, TaktukRemote, transports
from execo._core.runtime import get_runtime
from execo.becoming.beginning import may_have_password
from execo.becoming.passwords import Passwords, Question
from execo.errors import Reason
from execo.transports.base import ConnectionOptions, Target
from execo.transports.questions import Questions
from sshd import RealSshd

pytest_plugins = ["become_users", "sshd"]

PATIENCE = 60.0

Run = Callable[..., SshProcess]


@pytest.fixture(autouse=True)
def nothing_is_kept() -> Iterator[None]:
    yield
    transports.close_idle()


@pytest.fixture(params=["paramiko", "openssh"])
def run(request: pytest.FixtureRequest, sshd: RealSshd, people: People) -> Run:
    """Run a command as one of the people."""

    def run_as(who: str, cmd: Any, params: dict[str, Any] | None = None, **options: Any) -> Any:
        given = {"transport": request.param, "host_key_policy": "off", **(params or {})}
        process = SshProcess(
            cmd,
            people.host(sshd, who),
            given,
            nolog_exit_code=True,
            nolog_error=True,
            **options,
        )
        return process.run(PATIENCE)

    return run_as


# -- somebody else ------------------------------------------------------------------------------


def test_a_command_runs_as_root(run: Run) -> None:
    process = run("free", 'id -un; echo "$HOME"; echo aside >&2; exit 3', become="root")
    assert process.stdout == "root\n/root\n"
    assert process.stderr == "aside\n"
    assert (process.exit_code, process.reason) == (3, Reason.EXIT_CODE)


def test_a_command_runs_as_root_on_a_terminal(run: Run) -> None:
    process = run(
        "free", "id -un; test -t 0 && test -t 2 && echo terminal", become="root", pty=True
    )
    assert process.stdout == "root\r\nterminal\r\n"


def test_who_has_no_shell_runs_commands_too(run: Run, people: People) -> None:
    process = run("free", 'id -un; echo "$SHELL"', become=people.daemon)
    assert process.stdout == f"{people.daemon}\n/bin/sh\n"


def test_folder_and_environment_are_those_of_the_other_user(run: Run, people: People) -> None:
    process = run("free", 'pwd; echo "$COLOUR"', become="root", cwd="~", env={"COLOUR": "it's red"})
    assert process.stdout == "/root\nit's red\n"
    missing = run("free", "true", become="root", cwd="/none")
    assert missing.exit_code == 126
    assert "/none" in missing.stderr


def test_words_reach_the_program_as_they_are(run: Run) -> None:
    words = ["printf", "%s|", "it's", "$HOME", 'a "b" \\n', "two\nlines", ""]
    process = run("free", words, become="root")
    assert process.stdout == 'it\'s|$HOME|a "b" \\n|two\nlines||'


def test_a_long_command_with_many_quotes(run: Run) -> None:
    text = "it''s " * 5000
    process = run("free", f"printf %s {''.join(text)!r} | wc -c", become="root")
    assert process.stdout.strip() == str(len(text))


def test_input_is_that_of_the_command(run: Run, sshd: RealSshd, people: People) -> None:
    block = os.urandom(300_000).hex()
    process = SshProcess("cat; id -un", people.host(sshd, "free"), become="root").start()
    process.write(block)
    process.close_stdin()
    assert process.wait(PATIENCE).stdout == block + "root\n"


def test_many_hosts_and_many_commands(sshd: RealSshd, people: People) -> None:
    hosts = [people.host(sshd, "asks", number) for number in (1, 2, 3, 4)] * 5
    asked: list[tuple[str, str]] = []

    def ask(host: str, user: str) -> str:
        asked.append((host, user))
        return PASSWORD

    action = Remote("id -un", hosts, {"become_password": ask}, become="root").run()
    assert [process.stdout for process in action.processes] == ["root\n"] * 20
    assert sorted(asked) == [(f"127.0.3.{number}", "root") for number in (1, 2, 3, 4)]


def test_the_parameters_of_a_connection_say_so_too(
    sshd: RealSshd, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(execo.default_connection_params, "become", "root")
    host = people.host(sshd, "free")
    assert SshProcess("id -un", host).run().stdout == "root\n"
    assert SshProcess("id -un", host, {"become": None}).run().stdout == people.free + "\n"


# -- passwords ----------------------------------------------------------------------------------


@pytest.mark.parametrize("pty", [False, True])
def test_sudo_is_given_the_password(run: Run, pty: bool) -> None:
    process = run(
        "asks", "id -un; cat", {"become_password": PASSWORD}, become="root", pty=pty, timeout=3
    )
    assert process.stdout.split() == ["root"]
    assert process.timeouted  # cat had nothing to read: what was sent was all for sudo


@pytest.mark.parametrize("pty", [False, True])
def test_su_is_given_the_password(run: Run, people: People, pty: bool) -> None:
    process = run(
        "none",
        "id -un; echo ${LC_ALL-unset}",
        {"become_password": PASSWORD},
        become=people.other,
        become_method="su",
        pty=pty,
    )
    assert process.stdout.split() == [people.other, "unset"]


def test_doas_is_given_the_password_on_a_terminal(run: Run) -> None:
    given = {"become_password": PASSWORD, "become_method": "doas"}
    assert run("asks", "id -un", given, become="root", pty=True).stdout == "root\r\n"
    without = run("asks", "id -un", given, become="root")
    assert without.reason is Reason.AUTH
    assert "pty=True" in without.message


def test_doas_without_a_password(run: Run) -> None:
    assert run("free", "id -un", become="root", become_method="doas").stdout == "root\n"


@pytest.mark.parametrize(
    ("who", "params", "said"),
    [
        ("asks", {}, "sudo: a password is required; give become_password"),
        ("asks", {"become_password": "wrong"}, "the password was refused: Sorry, try again."),
        ("asks", {"become_password": lambda host, user: None}, "'become_password' gave none"),
        ("asks", {"become_password": lambda host, user: 1 / 0}, "ZeroDivisionError"),
        ("asks", {"become_password": lambda host, user: "a\nb"}, "a line feed"),
        ("none", {"become_password": PASSWORD}, "is not in the sudoers file"),
        ("tty", {}, "you must have a tty to run sudo; give it a terminal: pty=True"),
        ("asks", {"become_method": "doas"}, "doas: Authentication required; give become_password"),
        ("none", {"become_method": "doas"}, "doas: Operation not permitted"),
        ("none", {"become_method": "su"}, "it asks for a password: give become_password"),
        (
            "none",
            {"become_method": "su", "become_password": "wrong"},
            "the password was refused: su: Authentication failure",
        ),
    ],
)
def test_who_may_not_become_the_other_is_told_why(
    run: Run, who: str, params: dict[str, Any], said: str
) -> None:
    process = run(who, "echo ran", params, become="root")
    method = params.get("become_method", "sudo")
    assert (process.reason, process.exit_code, process.stdout) == (Reason.AUTH, None, "")
    assert process.message.startswith(f"127.0.3.1: cannot become 'root' with {method}: ")
    assert said in process.message
    assert process.error_reason is not None
    assert "wrong" not in process.message
    assert PASSWORD not in process.message


def test_an_unknown_user_and_a_missing_program(run: Run, people: People) -> None:
    process = run("free", "true", become="nobody-of-that-name")
    assert process.reason is Reason.AUTH
    assert "nobody-of-that-name" in process.message


def test_a_terminal_where_sudo_wants_one(run: Run) -> None:
    assert run("tty", "id -un", become="root", pty=True).stdout == "root\r\n"


def test_no_password_is_sent_where_none_is_asked_for(run: Run) -> None:
    """The command prints every prompt there is, its own one, too, and reads."""
    prompts = (
        "tr '\\0' '\\n' </proc/$PPID/cmdline | grep '^execo-.*password:$'; "
        "printf '[sudo] password for me: '; printf 'Password: '; printf 'Password: ' >&2; cat"
    )
    process = run("free", prompts, {"become_password": PASSWORD}, become="root", timeout=3)
    assert process.timeouted
    assert "password:" in process.stdout.splitlines()[0]
    assert process.stdout.endswith("Password: ")
    assert PASSWORD not in process.stdout + process.stderr


@pytest.mark.parametrize("method", ["sudo", "su", "doas"])
def test_prompts_before_the_program_are_not_its_own(run: Run, people: People, method: str) -> None:
    def never(host: str, user: str) -> str:
        raise AssertionError("asked")

    user = people.other if method == "su" else "root"
    params = {"become_password": never, "become_method": method}
    process = run("noisy", "id -un; cat", params, become=user, timeout=3)
    if method == "sudo":
        # Once for each login shell, and that of the ssh command starts another one.
        assert process.stdout.replace("[sudo] password for me: Password: ", "") == "root\n"
        assert process.stderr.replace("doas (me@here) password: ", "") == ""
    else:
        assert process.reason is Reason.AUTH


def test_a_wrong_password_is_tried_once_by_many(sshd: RealSshd, people: People) -> None:
    asked: list[str] = []

    def ask(host: str, user: str) -> str:
        asked.append(host)
        return "wrong"

    hosts = [people.host(sshd, "asks", 7)] * 12
    args = {"nolog_error": True}
    action = Remote("true", hosts, {"become_password": ask}, args, become="root").run()
    reasons = {process.reason for process in action.processes}
    told = [process for process in action.processes if "another command" in process.message]
    assert reasons == {Reason.AUTH}
    assert len(asked) == 1
    assert len(told) == 11


def test_a_refused_password_is_asked_for_again(sshd: RealSshd, people: People) -> None:
    answers = iter(["wrong", PASSWORD])
    params = {"become_password": lambda host, user: next(answers)}
    host = people.host(sshd, "asks", 8)
    first = SshProcess("id -un", host, params, become="root", nolog_error=True).run(PATIENCE)
    second = SshProcess("id -un", host, params, become="root").run(PATIENCE)
    third = SshProcess("id -un", host, params, become="root").run(PATIENCE)
    assert first.reason is Reason.AUTH
    assert (second.stdout, third.stdout) == ("root\n", "root\n")


def test_what_is_killed_while_somebody_types_was_given_up(
    run: Run, sshd: RealSshd, people: People
) -> None:
    asked, typed = threading.Event(), threading.Event()

    def ask(host: str, user: str) -> str:
        asked.set()
        typed.wait(PATIENCE)
        return PASSWORD

    host = people.host(sshd, "asks", 9)
    params = {"become_password": ask, "connect_timeout": 0.5}
    process = SshProcess("echo ran", host, params, become="root").start()
    waits = SshProcess("id -un", host, params, become="root").start()
    assert asked.wait(PATIENCE)
    process.kill()
    waits.kill()
    assert process.wait(PATIENCE).cancelled
    assert waits.wait(PATIENCE).cancelled
    typed.set()
    params["connect_timeout"] = PATIENCE
    assert SshProcess("id -un", host, params, become="root").run(PATIENCE).stdout == "root\n"


def test_nobody_is_asked_for_what_nobody_wants_any_more(sshd: RealSshd, people: People) -> None:
    asked: list[str] = []
    typing, typed = threading.Event(), threading.Event()

    def ask(host: str, user: str) -> str:
        asked.append(host)
        typing.set()
        typed.wait(PATIENCE)
        return PASSWORD

    hosts = [people.host(sshd, "asks", number) for number in range(20, 25)]
    action = Remote("id -un", hosts, {"become_password": ask}, {"nolog_error": True}, become="root")
    action.start()
    assert typing.wait(PATIENCE)
    threading.Event().wait(1.0)  # the others come to their prompts
    try:
        action.kill().wait(PATIENCE)
        assert all(process.cancelled for process in action.processes)
    finally:
        typed.set()
    # Behind those that were in the queue; and what was given up is asked for anew.
    last = next(host for host in hosts if host.address not in asked)
    params = {"become_password": ask}
    assert SshProcess("id -un", last, params, become="root").run(PATIENCE).stdout == "root\n"
    assert asked == [asked[0], last.address]


class Waiter:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def take_password(self, password: str) -> None:
        self.heard.append(password)

    def no_password(self, why: str) -> None:
        self.heard.append(f"none: {why}")


def test_others_wait_for_the_first_one_to_try() -> None:
    passwords = Passwords(get_runtime())
    question = Question("h", "root", "sudo", "secret")
    first, second, third, late = Waiter(), Waiter(), Waiter(), Waiter()
    for waiter in (first, second, third):
        passwords.ask(question, waiter, time.monotonic())
    assert (first.heard, second.heard) == (["secret"], [])
    passwords.settle(question, first, None)  # lost on the way: the next one tries
    assert (second.heard, third.heard) == (["secret"], [])
    passwords.settle(question, second, True)
    assert third.heard == ["secret"]
    passwords.ask(question, late, time.monotonic())
    assert late.heard == ["secret"]
    passwords.settle(question, late, False)  # it was changed there
    again, other = Waiter(), Waiter()
    passwords.ask(question, again, time.monotonic())
    passwords.ask(question, other, time.monotonic())
    passwords.settle(question, again, False)
    assert other.heard == ["none: it was refused to another command that tried it first"]
    assert "secret" not in repr(question)


@pytest.mark.parametrize("answer", [None, b"bytes", "a\nb"])
def test_who_has_declined_is_not_asked_again_by_all(
    sshd: RealSshd, people: People, answer: Any
) -> None:
    asked: list[str] = []

    def ask(host: str, user: str) -> Any:
        asked.append(host)
        return answer

    hosts = [people.host(sshd, "asks", 11)] * 12
    args = {"nolog_error": True}
    action = Remote("true", hosts, {"become_password": ask}, args, become="root").run()
    assert {process.reason for process in action.processes} == {Reason.AUTH}
    assert all("become_password" in process.message for process in action.processes)
    assert len(asked) == 1


def test_prompts_of_all_kinds_are_asked_one_at_a_time() -> None:
    """Those of a login, of its keys, and of programs: a human has one keyboard."""
    runtime = get_runtime()
    typing, others, most = threading.Event(), [], []

    def type_in(name: str) -> str:
        others.append(name)
        most.append(len(others))
        typing.wait(0.05)
        others.remove(name)
        return name

    answers: list[str] = []
    done = threading.Event()

    def have(answer: str) -> None:
        answers.append(answer)
        if len(answers) == 6:
            done.set()

    for kind in range(2):
        questions = Questions(runtime)
        for name in "abc":
            runtime.loop.call_soon(
                questions.ask, name, lambda: True, have, type_in, f"{name}{kind}"
            )
    assert done.wait(PATIENCE)
    assert answers == ["a0", "b0", "c0", "a1", "b1", "c1"]
    assert most == [1] * 6


def test_a_function_may_run_commands_to_find_the_password(sshd: RealSshd, people: People) -> None:
    def ask(host: str, user: str) -> str:
        return Process(["printf", "%s", PASSWORD]).run(PATIENCE).stdout

    hosts = [people.host(sshd, "asks", number) for number in range(12, 18)]
    action = Remote("id -un", hosts, {"become_password": ask}, become="root").run()
    assert [process.stdout for process in action.processes] == ["root\n"] * 6


def test_no_password_goes_to_a_host_that_is_trusted_by_default_alone() -> None:
    near, far = Target("127.0.0.1"), Target("192.0.2.1")
    assert may_have_password(near, "paramiko")
    assert may_have_password(Target("::1"), "paramiko")
    assert not may_have_password(far, "paramiko")
    assert not may_have_password(Target("web1"), "paramiko")
    assert not may_have_password(replace(near, via=far), "paramiko")
    assert not may_have_password(replace(near, proxy_command="nc x 22"), "paramiko")
    assert may_have_password(
        replace(far, options=ConnectionOptions(host_key_policy="strict")), "paramiko"
    )
    # The files of ssh may lead from any address to any host.
    assert not may_have_password(near, "openssh")
    chosen = ConnectionOptions(policy_chosen=True)
    for through in ("paramiko", "openssh"):
        assert may_have_password(replace(far, options=chosen), through)


@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
def test_who_chooses_the_policy_of_host_keys(tmp_path: Path, transport: str) -> None:
    file = tmp_path / "config"
    file.write_text("Host web1\nStrictHostKeyChecking no\n")

    def trusted(host: str, **params: Any) -> bool:
        given = {"transport": transport, "become": "root", "ssh_config": "none", **params}
        request = SshProcess("true", host, given)._request()
        assert request.target is not None
        return may_have_password(request.target, request.through)

    assert not trusted("web1")
    assert not trusted("web1", host_key_policy=None)
    for policy in ("off", "accept-new", "strict"):
        assert trusted("web1", host_key_policy=policy)
    assert trusted("web1", ssh_config=file)
    assert not trusted("web2", ssh_config=file)


def test_the_ssh_command_sends_no_password_by_default(sshd: RealSshd, people: People) -> None:
    params = {"transport": "openssh", "become_password": PASSWORD}
    host = people.host(sshd, "asks")
    process = SshProcess("true", host, params, become="root", nolog_error=True).run(PATIENCE)
    assert process.reason is Reason.AUTH
    assert "set host_key_policy" in process.message


def test_the_password_is_shown_nowhere(
    sshd: RealSshd, people: People, caplog: pytest.LogCaptureFixture
) -> None:
    params = {"become_password": "swordfish", "become": "root"}
    with caplog.at_level(1):
        process = SshProcess("true", people.host(sshd, "asks", 10), params).run(PATIENCE)
        action = Remote("true", [people.host(sshd, "asks", 10)], params).run()
    assert process.reason is Reason.AUTH
    shown = [repr(process), str(process), process.dump(), process.message, repr(action)]
    shown += [repr(process.connection_params), repr(process._request()), caplog.text]
    assert "swordfish" not in "".join(shown)
    with pytest.raises(ValueError, match="a bytes") as info:
        SshProcess("true", "host", {"become_password": b"swordfish"})
    assert "swordfish" not in str(info.value)


# -- programs that do not do what they should ---------------------------------------------------


@pytest.fixture
def odd_sshd(people: People) -> Iterator[Callable[[str], RealSshd]]:
    """A server on whose host sudo is the script that is given."""
    servers: list[RealSshd] = []

    def serve(script: str) -> RealSshd:
        guard = {name: os.environ[name] for name in ("LEAK_GUARD_OF",) if name in os.environ}
        folder = Path(tempfile.mkdtemp(prefix="bin", dir=people.folder))
        folder.chmod(0o755)
        server = RealSshd(environment={**guard, "PATH": f"{folder}:/usr/bin:/bin"})
        server.start()
        servers.append(server)
        if script:
            (folder / "sudo").write_text(f"#!/bin/sh\n{script}\n")
            (folder / "sudo").chmod(0o755)
        return server

    yield serve
    for server in servers:
        server.stop()


def odd(server: RealSshd, people: People, **options: Any) -> SshProcess:
    params = {"connect_timeout": 2, "become": "root", "become_password": "pw"}
    process = SshProcess("echo ran", people.host(server, "free"), params, nolog_error=True)
    return process.run(PATIENCE)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exec sleep 1000", "no answer of the program for 2 s"),
        ("printf 'Second factor: '; exec sleep 1000", "it said: 'Second factor:'"),
        ('printf %s "$4" >&2; exec sleep 1000', "no word on the password for 2 s"),
        ("exit 0", "it has ended without a word"),
        ("echo no such luck >&2; exit 9", "no such luck"),
        ("exec cat /dev/zero", "prints without end"),
        ("exec nosuchprogram", "not found; install sudo on the host"),
        ('while :; do printf %s "$4" >&2; read -r line || exit 1; done', "password was refused"),
    ],
)
def test_a_program_that_does_not_answer_is_given_up(
    odd_sshd: Callable[[str], RealSshd], people: People, script: str, said: str
) -> None:
    process = odd(odd_sshd(script), people)
    assert said in process.message
    assert process.exit_code is None
    if "zero" not in script:
        assert process.reason is Reason.AUTH


# -- files, and other transports ----------------------------------------------------------------


@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
def test_files_are_put_and_got_as_root(
    sshd: RealSshd, people: People, tmp_path: Path, transport: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").write_bytes(os.urandom(100_000))
    (tmp_path / "file").write_text("root's\n")
    there = tmp_path / "there"
    there.mkdir(mode=0o700)  # of root alone
    params = {"transport": transport, "become": "root"}
    hosts = [people.host(sshd, "free")]
    put = Put(hosts, [str(tmp_path / "folder"), str(tmp_path / "file")], str(there), params).run()
    assert put.ok, put.processes[0].message
    assert (there / "folder" / "a").read_bytes() == (tmp_path / "folder" / "a").read_bytes()
    assert (there / "file").stat().st_uid == 0
    (there / "file").chmod(0o600)
    (tmp_path / "back").mkdir()
    got = Get(hosts, [str(there / "file")], str(tmp_path / "back"), params).run()
    assert got.ok, got.processes[0].message
    assert (tmp_path / "back" / "file").read_text() == "root's\n"


def test_scp_says_that_it_cannot(people: People) -> None:
    host, params = Host("127.0.3.1", people.free), {"scp": "scp"}
    for given, args in (({**params, "become": "root"}, {}), (params, {"become": "root"})):
        with pytest.raises(ValueError, match="scp copies as who logs in"):
            Put([host], ["/etc/hostname"], "/root", given, process_args=args)


def test_taktuk_says_that_it_cannot(sshd: RealSshd, people: People) -> None:
    action = TaktukRemote(
        "id", [people.host(sshd, "free")], None, {"nolog_error": True}, become="root"
    ).run()
    (process,) = action.processes
    assert "become does not go through the transport 'taktuk'" in process.message


# -- what is given ------------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["", "-u", "a b", "a\nb", 0])
def test_what_is_no_user_is_refused(user: Any) -> None:
    with pytest.raises(ValueError, match="become"):
        SshProcess("true", "host", become=user)


def test_what_is_no_method_is_refused() -> None:
    with pytest.raises(ValueError, match="'sudo', 'su' or 'doas'"):
        SshProcess("true", "host", become="root", become_method="pfexec")
    with pytest.raises(ValueError, match="become_method"):
        SshProcess("true", "host", {"become_method": "pfexec"})


def test_guards_that_nobody_needs_are_forgotten(
    sshd: RealSshd, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script may make a new function for each command."""
    monkeypatch.setattr("execo.becoming.guard.IDLE_TIME", 0.0)
    transport: Any = transports.get(get_runtime(), "become")
    kept = len(transport._guards)
    for _ in range(3):
        params = {"become_password": lambda host, user: PASSWORD}
        host = people.host(sshd, "asks", 18)
        assert SshProcess("id -un", host, params, become="root").run(PATIENCE).stdout == "root\n"
    nap, deadline = threading.Event(), time.monotonic() + PATIENCE
    while len(transport._guards) > kept:
        assert time.monotonic() < deadline
        nap.wait(0.02)


def test_a_command_that_cannot_be_one(sshd: RealSshd, people: People) -> None:
    process = SshProcess("a\0b", people.host(sshd, "free"), become="root", nolog_error=True)
    assert process.run(PATIENCE).reason is Reason.SPAWN
    assert "NUL" in process.message
    assert isinstance(process.host, Host)
