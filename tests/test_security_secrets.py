"""Secrets: passwords, passphrases, answers, secret variables. Nobody sees them who was not given
them: not in the words or the environment of a process, a log, a message, a report, an error with
all that hangs on it, a file.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import subprocess
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from become_users import PASSWORD, People
from execo import Host, Process, Remote, Report, SshProcess, transports
from execo.config import Secret, default_connection_params, make_connection_params
from execo.errors import ProcessesFailed, Reason
from execo.process import ProcessBase
from invariants import wait_until
from remote_commands import TIMEOUT, run
from sshd import RealSshd

pytest_plugins = ["become_users", "remote_commands", "sshd"]

FISH = "swordfish"
HALF = f"{FISH}\ud800"


@pytest.fixture(scope="module")
def login_sshd() -> Iterator[RealSshd]:
    """A server that lets in with keys, passwords and answers."""
    settings = {
        "UsePAM": "yes",
        "PasswordAuthentication": "yes",
        "KbdInteractiveAuthentication": "yes",
        "MaxStartups": "100",
    }
    with RealSshd(settings) as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_is_kept() -> Iterator[None]:
    yield
    transports.close_idle()


@pytest.fixture
def ann(login_sshd: RealSshd) -> Host:
    """A host for somebody whose password is FISH."""
    return Host("127.0.1.1", login_sshd.person("ann", FISH), None, login_sshd.port)


def locked_key(folder: Path, passphrase: str) -> Path:
    path = folder / "key"
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(path)]
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
    return path


def all_of(error: BaseException | None) -> str:
    """An error as the most curious would print it: with the variables of each frame, and with what
    hangs on it and on the errors behind it."""
    if error is None:
        return ""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    texts = ["".join(line for line in shown.format() if __file__ not in line)]
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        waiting += [one.__cause__, one.__context__]
        texts += [repr(one), repr(one.args), repr(vars(one)), repr(getattr(one, "object", ""))]
        frame = one.__traceback__
        while frame is not None:
            if frame.tb_frame.f_code.co_filename != __file__:
                texts += [repr(value) for value in frame.tb_frame.f_locals.values()]
            frame = frame.tb_next
        with contextlib.suppress(Exception):  # not all of Python's own can be
            texts.append(repr(pickle.dumps(one)))
    return "\n".join(texts)


def shown_by(process: ProcessBase) -> str:
    """All that a process shows of itself."""
    texts = [repr(process), str(process), process.dump(), process.message]
    texts += [repr(value) for value in vars(process).values()]
    report = Report([process])
    texts += [str(report), report.to_string(), repr(pickle.dumps(process.stats()))]
    texts += [all_of(process.error_reason)]
    with contextlib.suppress(ProcessesFailed):
        process.raise_if_failed()
        return "\n".join(texts)
    try:
        process.raise_if_failed()
    except ProcessesFailed as exc:
        texts.append(all_of(exc))
    return "\n".join(texts)


class Look:
    """Looks at all processes of this machine, their words and environments, and at the files that
    execo makes, all the time."""

    def __init__(self, *secrets: str) -> None:
        self._secrets = [secret.encode() for secret in secrets]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.words: list[bytes] = []
        self.environs: dict[bytes, bytes] = {}  # the words of those with one in theirs -> which
        self.files: set[str] = set()
        self.looks = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        own = str(os.getpid())
        while not self._over.is_set():
            for path in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    words = (path / "cmdline").read_bytes()
                    if self._has(words):
                        self.words.append(words)
                    if path.name != own and self._has(environ := (path / "environ").read_bytes()):
                        self.environs[words] = environ
            for folder in Path(tempfile.gettempdir()).iterdir():
                if folder.name.startswith("execo-ssh-"):
                    self._look_into(folder)
            self.looks += 1

    def _look_into(self, folder: Path) -> None:
        with contextlib.suppress(OSError):  # it may be gone since
            for path in folder.iterdir():
                with contextlib.suppress(OSError):
                    if self._has(path.read_bytes()):
                        self.files.add(str(path))

    def _has(self, data: bytes) -> bool:
        return any(secret in data for secret in self._secrets)


# -- while they are used --------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["password", "answers", "passphrase", "become_password"])
def test_a_secret_of_a_login_is_seen_nowhere(
    login_sshd: RealSshd,
    people: People,
    ann: Host,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    way: str,
) -> None:
    host, secret = ann, FISH
    params: dict[str, Any] = {"host_key_policy": "off", way: FISH}
    if way == "answers":
        params[way] = lambda host, user, title, text, questions: [FISH] * len(questions)
    elif way == "passphrase":
        key = locked_key(tmp_path, FISH)
        login_sshd.admit(key)
        host = Host(ann.address, ann.user, key, ann.port)
    elif way == "become_password":
        host, secret = people.host(login_sshd, "asks"), PASSWORD
        params |= {way: lambda host, user: PASSWORD, "become": "root"}
    for name in ("paramiko", "asyncio", "execo", None):
        caplog.set_level(1, name)
    with Look(secret) as look:
        right = run(host, "id -un", params)
        wrong = run(host, "true", {**params, way: f"{FISH}-2"}) if way != "answers" else right
        # Until it has looked at all that is left of them.
        seen = look.looks
        assert wait_until(lambda: look.looks >= seen + 2), "it does not look any more"
    assert right.ok, right.dump()
    assert (look.words, look.environs, look.files) == ([], {}, set())
    texts = shown_by(right) + shown_by(wrong) + repr(transports.statistics())
    for text in (texts, caplog.text, *(repr(vars(record)) for record in caplog.records)):
        assert secret not in text
        assert FISH not in text


@pytest.mark.parametrize("how", ["local", "paramiko", "openssh", "become", "become openssh"])
def test_a_secret_variable_is_seen_by_its_command_alone(
    login_sshd: RealSshd, people: People, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    caplog.set_level(1)
    command = ["/bin/sleep", "0.3"]
    env = {"TOKEN": FISH}
    with Look(FISH) as look:
        process: ProcessBase
        if how == "local":
            process = Process(command, secret_env=env).run(TIMEOUT)
        else:
            host = people.host(login_sshd, "free")
            become, _, name = how.rpartition(" ")
            params = {"transport": name if name != "become" else "paramiko"}
            become = "root" if "become" in how else ""
            process = run(host, command, params, secret_env=env, become=become or None)
    assert process.ok, process.dump()
    assert (look.words, look.files) == ([], set())
    # What becomes the command is a fork of what waits for it: never another program, nor ours.
    programs = {words.split(b"\0")[0].rpartition(b"/")[2] for words in look.environs}
    assert programs <= {b"sleep", b"env", b"sh", b""}, look.environs
    assert b"sleep" in programs
    assert FISH not in shown_by(process) + caplog.text


# -- in errors ------------------------------------------------------------------------------------

BAD_COMMANDS: dict[str, Any] = {
    "a NUL": {"cmd": "echo \0"},
    "half a character": {"cmd": "echo \ud800"},
    "no folder": {"cwd": ""},
    "no variable": {"env": {"A=B": "x"}},
    "no program": {"cmd": ["/no/such/program"]},
}


@pytest.mark.parametrize("case", BAD_COMMANDS)
@pytest.mark.parametrize("how", ["local", "paramiko", "openssh"])
def test_a_command_that_cannot_be_started_shows_no_secret_variable(
    login_sshd: RealSshd, people: People, how: str, case: str
) -> None:
    given = {
        "cmd": "true",
        "secret_env": {"TOKEN": FISH},
        "nolog_error": True,
        **BAD_COMMANDS[case],
    }
    process: ProcessBase
    if how == "local":
        process = Process(**given)
    else:
        process = SshProcess(
            host=people.host(login_sshd, "free"), connection_params={"transport": how}, **given
        )
    process.nolog_exit_code = True
    process.run(TIMEOUT)
    assert process.ended
    assert not process.ok
    assert FISH not in shown_by(process)


def test_the_environment_of_the_script_hangs_on_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_OF_THE_SCRIPT", FISH)
    for options in ({}, {"env": {"A": "b"}}, {"pty": True}, {"cwd": "/none"}):
        process = Process("/no/such/program", nolog_error=True, **options).run(TIMEOUT)
        assert process.reason is Reason.SPAWN
        assert FISH not in all_of(process.error_reason)


@pytest.mark.parametrize("key", ["password", "passphrase", "become_password"])
def test_parameters_that_are_refused_show_no_secret(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(default_connection_params, key, FISH)
    given: Any
    for given in ({"usr": "me"}, {"port": 0}, {key: Secret(FISH), "port": 0}, "root"):
        with pytest.raises((TypeError, ValueError)) as info:
            make_connection_params(given)
        assert FISH not in all_of(info.value)
    monkeypatch.setitem(default_connection_params, key, FISH.encode())
    with pytest.raises(ValueError, match="got a bytes") as wrong:
        SshProcess("true", "host")
    assert FISH not in all_of(wrong.value)
    with pytest.raises(TypeError, match="not a list") as pairs:
        make_connection_params([(key, FISH)])  # type: ignore[arg-type]
    assert FISH not in str(pairs.value)


@pytest.mark.parametrize("kind", ["sha256", "unreadable"])
def test_a_key_file_that_cannot_be_used_shows_no_passphrase(
    ann: Host, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = locked_key(tmp_path, FISH)
    if kind == "unreadable":
        # As a library does that lacks what the file is encrypted with.
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization

        real = serialization.load_ssh_private_key

        def load(data: bytes, password: bytes | None, *args: Any, **options: Any) -> Any:
            if password:
                raise UnsupportedAlgorithm("unknown cipher")
            return real(data, password, *args, **options)

        monkeypatch.setattr(serialization, "load_ssh_private_key", load)
    host = Host(ann.address, ann.user, key, ann.port)
    asks: list[Any] = [FISH, lambda path: FISH]
    for ask in asks:
        process = run(host, "true", {"passphrase": ask})
        assert process.reason is Reason.AUTH
        assert FISH not in shown_by(process)
        transports.close_idle()


# -- what can be none -----------------------------------------------------------------------------


def test_half_a_character_is_refused_before_anything_is_sent(ann: Host, people: People) -> None:
    """It has no bytes. It was noticed on the I/O thread, and the login waited in vain."""
    for key in ("password", "passphrase", "become_password"):
        with pytest.raises(ValueError, match=key) as info:
            SshProcess("true", ann, {key: HALF})
        assert FISH not in str(info.value)
    kinds: list[Callable[..., Any]] = [Process, lambda cmd, **args: SshProcess(cmd, ann, **args)]
    for kind in kinds:
        with pytest.raises(ValueError, match="secret_env: the value of TOKEN") as info:
            kind("true", secret_env={"TOKEN": HALF})
        assert FISH not in str(info.value)


@pytest.mark.parametrize("key", ["password", "answers", "become_password"])
def test_half_a_character_from_a_function_is_an_answer_that_fails(
    login_sshd: RealSshd, people: People, ann: Host, key: str
) -> None:
    given: dict[str, Any] = {"connect_timeout": None}
    if key == "answers":
        given[key] = lambda host, user, title, text, questions: [HALF] * len(questions)
    else:
        given[key] = lambda host, user: HALF
    host = ann
    if key == "become_password":
        host, given["become"] = people.host(login_sshd, "asks"), "root"
    process = run(host, "true", given)
    assert process.reason is Reason.AUTH
    assert "half a character" in process.message
    assert FISH not in shown_by(process)


# -- reports of many ------------------------------------------------------------------------------


def test_a_report_of_hosts_with_secrets_shows_none(
    login_sshd: RealSshd, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1)
    user = login_sshd.person("ann", FISH)
    hosts = [Host(f"127.0.1.{number}", user, None, login_sshd.port) for number in range(1, 4)]
    params = {"password": lambda host, user: FISH if host.endswith("1") else f"{FISH}-2"}
    action = Remote("echo hi", hosts, params, secret_env={"TOKEN": f"{FISH}-3"}).run()
    report = Report([action])
    assert [process.ok for process in action.processes] == [True, False, False]
    texts = [str(report), report.to_string(), repr(pickle.dumps(report.stats())), caplog.text]
    texts += [repr(action), str(action), *(shown_by(process) for process in action.processes)]
    texts += [repr(value) for value in vars(action).values()]
    assert not re.search(FISH, "\n".join(texts))
