"""The keys that one logs in with: files of every type, the agent's, the usual ones."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from execo import Host
from execo.errors import Reason
from execo.transports import close_idle
from execo.transports.key_files import LoginProblem, public_file, read_key
from remote_commands import HostScript, run
from sshd import RealSshd

pytest_plugins = ["sshd", "remote_commands"]

TYPES = {
    "ed25519": ["-t", "ed25519"],
    "rsa": ["-t", "rsa", "-b", "2048"],
    "rsa as PEM": ["-t", "rsa", "-b", "2048", "-m", "PEM"],
    "ecdsa": ["-t", "ecdsa", "-b", "256"],
    "ecdsa 521": ["-t", "ecdsa", "-b", "521"],
}


def make_key(path: Path, kind: str = "ed25519") -> Path:
    words = ["ssh-keygen", "-q", *TYPES[kind], "-N", "", "-C", path.name, "-f", str(path)]
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
    return path


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Private keys of all types, and one ("stranger") that no server knows."""
    folder = tmp_path_factory.mktemp("keys")
    made = {kind: make_key(folder / kind.replace(" ", "-"), kind) for kind in TYPES}
    make_key(folder / "stranger")
    return {**made, "stranger": folder / "stranger"}


@pytest.fixture(scope="module")
def server(keys: dict[str, Path]) -> Iterator[RealSshd]:
    """A server that lets all of them in, but the stranger; it allows six tries."""
    with RealSshd({"MaxSessions": "50"}) as server:
        server.admit(*(keys[kind] for kind in TYPES))
        yield server


@pytest.fixture
def host(server: RealSshd) -> Host:
    """A host for which no key is set."""
    one = server.hosts(1)[0]
    return Host(one.address, one.user, port=one.port)


@pytest.mark.parametrize("kind", TYPES)
def test_a_key_file_of_any_type(host: Host, keys: dict[str, Path], kind: str) -> None:
    assert run(Host(host, keyfile=keys[kind]), "echo in").stdout == "in\n"
    close_idle()
    assert run(host, "echo in", {"keyfile": keys[kind]}).stdout == "in\n"
    close_idle()
    assert run(host, "echo in", {"ssh_options": ["-i", str(keys[kind])]}).stdout == "in\n"


def test_a_tilde_in_the_name_of_a_key_file(
    host: Host, keys: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my key").write_bytes(keys["ed25519"].read_bytes())
    assert run(host, "true", {"keyfile": "~/my key"}).ok


def test_a_key_file_is_the_only_key_tried(
    host: Host, keys: dict[str, Path], tmp_path: Path
) -> None:
    usual(tmp_path, id_ed25519=keys["ed25519"])
    params = {"keyfile": str(keys["stranger"])}
    source = f"print(SshProcess('true', host, {params}, nolog_error=True).run(30).reason)"
    with HostScript(tmp_path, source, host, env={"HOME": str(tmp_path)}) as script:
        assert script.finish() == (0, "auth\n", "")


def test_a_key_file_that_is_mended_is_read_again(
    host: Host, keys: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("execo.transports.keys.KEPT", 0.0)
    key = tmp_path / "key"
    assert run(Host(host, keyfile=key), "true").reason is Reason.AUTH
    key.write_bytes(keys["rsa"].read_bytes())
    assert run(Host(host, keyfile=key), "echo in").stdout == "in\n"


# -- without a key file: scripts with a home of their own -----------------------------------------

ASK = """
process = SshProcess("echo in", host, nolog_error=True).run(30)
print(process.ok, process.reason, process.message if process.error else process.stdout, end="")
"""


def usual(home: Path, **files: Path) -> None:
    """Put keys into the home's ``.ssh``."""
    (home / ".ssh").mkdir(mode=0o700)
    for name, key in files.items():
        (home / ".ssh" / name).write_bytes(key.read_bytes())
        (home / ".ssh" / name).chmod(0o600)


def ask(host: Host, home: Path, source: str = ASK, **env: str) -> str:
    """What a script prints that has this home."""
    with HostScript(home, source, host, env={"HOME": str(home), **env}) as script:
        code, out, err = script.finish()
    assert (code, err) == (0, "")
    return out


@pytest.mark.parametrize(
    ("name", "kind"), [("id_ed25519", "ed25519"), ("id_rsa", "rsa"), ("id_ecdsa", "ecdsa")]
)
def test_the_usual_keys(
    host: Host, keys: dict[str, Path], tmp_path: Path, name: str, kind: str
) -> None:
    usual(tmp_path, **{name: keys[kind]})
    assert ask(host, tmp_path) == "True None in\n"


def test_the_next_key_is_tried_where_one_is_refused_or_broken(
    host: Host, keys: dict[str, Path], tmp_path: Path
) -> None:
    usual(tmp_path, id_ed25519=keys["stranger"], id_rsa=keys["rsa"])
    (tmp_path / ".ssh/id_ecdsa").write_text("broken")
    assert ask(host, tmp_path) == "True None in\n"


def test_all_that_was_tried_is_named(host: Host, keys: dict[str, Path], tmp_path: Path) -> None:
    usual(tmp_path, id_ed25519=keys["stranger"])
    (tmp_path / ".ssh/id_ecdsa").write_text("broken")
    said = ask(host, tmp_path)
    assert said.startswith(f"False auth {host.address}: cannot log in as '{host.user}': it refused")
    assert "id_ed25519" in said
    assert "id_ecdsa" in said
    assert "there is no agent" in said


def test_no_key_at_all(host: Host, tmp_path: Path) -> None:
    said = ask(host, tmp_path)
    assert "there is no key to try (there is no agent (SSH_AUTH_SOCK is not set))" in said


# -- the agent ------------------------------------------------------------------------------------


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    """The socket of an agent without keys."""
    path = str(tmp_path / "agent")
    with subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()  # it listens
        yield path
        process.terminate()


def add(agent: str, *keys: Path) -> None:
    env = {**os.environ, "SSH_AUTH_SOCK": agent}
    subprocess.run(["ssh-add", "-q", *map(str, keys)], env=env, check=True)


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_a_key_of_the_agent(
    host: Host, keys: dict[str, Path], tmp_path: Path, agent: str, kind: str
) -> None:
    add(agent, keys["stranger"], keys[kind])
    assert ask(host, tmp_path, SSH_AUTH_SOCK=agent) == "True None in\n"


def test_many_connections_ask_the_agent_at_once(
    server: RealSshd, host: Host, keys: dict[str, Path], tmp_path: Path, agent: str
) -> None:
    add(agent, keys["stranger"], keys["ed25519"])
    source = """
hosts = [Host(f"127.0.4.{n}", user, port=int(port)) for n in range(1, 9)]
print([process.stdout for process in Remote("echo {{{host}}}", hosts).run(30).processes])
"""
    said = ask(host, tmp_path, source, SSH_AUTH_SOCK=agent)
    assert said == f"{[f'127.0.4.{n}' + chr(10) for n in range(1, 9)]}\n"


def test_the_agents_keys_come_before_the_usual_ones(
    server: RealSshd, host: Host, keys: dict[str, Path], tmp_path: Path, agent: str
) -> None:
    add(agent, keys["ed25519"])
    usual(tmp_path, id_rsa=keys["rsa"])
    before = server.log
    assert ask(host, tmp_path, SSH_AUTH_SOCK=agent) == "True None in\n"
    assert "ED25519" in server.log[len(before) :]


def test_the_usual_keys_come_after_the_agents(
    host: Host, keys: dict[str, Path], tmp_path: Path, agent: str
) -> None:
    add(agent, keys["stranger"])
    usual(tmp_path, id_rsa=keys["rsa"])
    assert ask(host, tmp_path, SSH_AUTH_SOCK=agent) == "True None in\n"


def test_an_agent_that_is_gone(host: Host, keys: dict[str, Path], tmp_path: Path) -> None:
    said = ask(host, tmp_path, SSH_AUTH_SOCK=str(tmp_path / "gone"))
    assert "False auth" in said
    assert "agent" in said


def test_an_empty_agent(host: Host, tmp_path: Path, agent: str) -> None:
    assert "the agent holds no key" in ask(host, tmp_path, SSH_AUTH_SOCK=agent)


LATER = """
import execo.transports.keys
execo.transports.keys.KEPT = 0.5
process = SshProcess("echo in", host, nolog_error=True).run(30)
print("ready", process.reason, flush=True)
sys.stdin.readline()
sleep(0.6)
print(process.reset().run(30).stdout, end="")
"""


def test_a_key_that_is_added_later_is_used(
    host: Host, keys: dict[str, Path], tmp_path: Path, agent: str
) -> None:
    env = {"HOME": str(tmp_path), "SSH_AUTH_SOCK": agent}
    with HostScript(tmp_path, LATER, host, env=env) as script:
        assert script.popen.stdout is not None
        assert script.popen.stdout.readline() == "ready auth\n"
        add(agent, keys["ed25519"])
        assert script.popen.stdin is not None
        script.popen.stdin.write("\n")
        assert script.finish() == (0, "in\n", "")


@pytest.mark.parametrize("name", ["a\0b", "odd\udfff"])
def test_a_name_that_no_file_can_have(name: str) -> None:
    with pytest.raises(LoginProblem, match=r"embedded null|can't encode"):
        read_key(name)
    with pytest.raises(LoginProblem, match=r"embedded null|can't encode"):
        public_file(name)
