"""Host keys: recorded once, looked up in every form that known_hosts files have, refused."""

from __future__ import annotations

import base64
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from execo import Host, Remote
from execo.connection import connection_to
from execo.errors import Reason
from execo.transports import close_idle, known_hosts
from execo.transports.base import Target
from execo.transports.dial import known_name
from execo.transports.known_hosts import HostKey, KnownHosts, has_authority
from fuzzing import cheap
from remote_commands import QUIET, TIMEOUT, HostScript, run, until
from sshd import RealSshd

pytest_plugins = ["sshd", "remote_commands"]


@pytest.fixture
def known(tmp_path: Path) -> Path:
    return tmp_path / "known hosts"


def params(known: Path, policy: str = "strict", **more: Any) -> dict[str, Any]:
    options = ["-o", f'UserKnownHostsFile="{known}"']
    return {"host_key_policy": policy, "ssh_options": options, **more}


def named(host: Host) -> str:
    return f"[{host.address}]:{host.port}"


def other_key(sshd: RealSshd) -> str:
    """A key of the same type that is not the host's."""
    return " ".join(Path(f"{sshd.keyfile}.pub").read_text().split()[:2])


# -- accept-new -----------------------------------------------------------------------------------


def test_accept_new_records_a_key_once(sshd: RealSshd, known: Path) -> None:
    hosts = sshd.hosts(3)
    for _ in range(2):
        remote = Remote("true", [*hosts, *hosts], params(known, "accept-new")).run(TIMEOUT)
        assert remote.finished_ok
        close_idle()
    until(lambda: known.exists() and known.read_text().count("\n") >= 3)
    lines = sorted(known.read_text().splitlines())
    assert lines == sorted(f"{named(host)} {sshd.host_key}" for host in hosts)
    for host in hosts:
        found = subprocess.run(["ssh-keygen", "-F", named(host), "-f", known], check=False)
        assert found.returncode == 0


def test_accept_new_adds_to_what_is_there(plain: Host, sshd: RealSshd, known: Path) -> None:
    known.write_text(f"# mine\nweb1 {sshd.host_key}")  # without an end of line
    assert run(plain, "true", params(known, "accept-new")).ok
    until(lambda: known.read_text().count("\n") >= 3)
    assert known.read_text().splitlines() == [
        "# mine",
        f"web1 {sshd.host_key}",
        f"{named(plain)} {sshd.host_key}",
    ]


def test_many_connections_to_one_new_host_record_one_key(plain: Host, known: Path) -> None:
    assert Remote("true", [plain] * 40, params(known, "accept-new")).run(TIMEOUT).finished_ok
    until(known.exists)
    threading.Event().wait(0.3)
    assert known.read_text().count("\n") == 1


def test_the_users_file_is_the_default(plain: Host, sshd: RealSshd, tmp_path: Path) -> None:
    # Without the system's file, which may have names hashed.
    source = """
plain = {"ssh_config": False}
print(SshProcess("true", host, {"host_key_policy": "accept-new", **plain}).run().ok)
print(SshProcess("true", host, {"host_key_policy": "strict", **plain}).run().ok)
"""
    with HostScript(tmp_path, source, plain, env={"HOME": str(tmp_path)}) as script:
        assert script.finish() == (0, "True\nTrue\n", "")
    file = tmp_path / ".ssh/known_hosts"
    assert file.read_text() == f"{named(plain)} {sshd.host_key}\n"
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_an_end_of_the_script_right_after_does_not_lose_the_key(
    plain: Host, tmp_path: Path
) -> None:
    source = 'SshProcess("true", host, {"host_key_policy": "accept-new"}).run()'
    for number in range(5):
        home = tmp_path / str(number)
        home.mkdir()
        with HostScript(tmp_path, source, plain, env={"HOME": str(home)}) as script:
            assert script.finish() == (0, "", "")
        assert (home / ".ssh/known_hosts").exists()


def test_a_file_that_cannot_be_written_is_a_warning(
    plain: Host, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    known = tmp_path / "file" / "known_hosts"
    assert run(plain, "true", params(known, "accept-new")).ok
    until(lambda: "cannot record the key" in caplog.text)
    assert str(known) in caplog.text


def test_a_key_that_has_changed_is_refused(plain: Host, sshd: RealSshd, known: Path) -> None:
    known.write_text(f"{named(plain)} {other_key(sshd)}\n")
    good = sshd.hosts(1, first=1)[0]
    remote = Remote("true", [plain, good], params(known, "accept-new"), QUIET).run(TIMEOUT)
    bad, fine = remote.processes
    assert (bad.reason, bad.error, fine.ok) == (Reason.HOST_KEY, True, True)
    assert f"{plain.address}: its host key has changed" in bad.message
    assert "ssh-keygen" in bad.message
    assert f"-R '{named(plain)}'" in bad.message
    until(lambda: known.read_text().count("\n") == 2)  # that of the good one alone


def test_a_host_that_changes_its_key_while_the_script_runs(known: Path) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.1.1", 0))
        port = reserved.getsockname()[1]
    for number in range(2):
        settings = {"Port": str(port), "ListenAddress": "127.0.1.1"}
        with RealSshd(settings) as server:
            host = Host("127.0.1.1", server.hosts(1)[0].user, server.keyfile, port)
            process = run(host, "true", params(known, "accept-new"))
            close_idle()
        assert process.reason is (Reason.HOST_KEY if number else None), process.message


def test_a_file_that_is_mended_is_read_again(plain: Host, sshd: RealSshd, known: Path) -> None:
    # What the message advises helps, in an interactive session too.
    known.write_text(f"{named(plain)} {other_key(sshd)}\n")
    assert run(plain, "true", params(known)).reason is Reason.HOST_KEY
    subprocess.run(["ssh-keygen", "-q", "-R", named(plain), "-f", known], check=True)
    assert run(plain, "true", params(known, "accept-new")).ok


# -- strict ---------------------------------------------------------------------------------------


def test_an_unknown_host_is_refused_under_strict(plain: Host, known: Path) -> None:
    process = run(plain, "true", params(known))
    assert process.reason is Reason.HOST_KEY
    assert f"{plain.address}: its host key is not known" in process.message
    assert str(known) in process.message
    assert "accept-new" in process.message
    assert not known.exists()


def test_off_looks_at_nothing_and_writes_nothing(plain: Host, sshd: RealSshd, known: Path) -> None:
    assert run(plain, "true", params(known, "off")).ok
    assert not known.exists()
    known.write_text(f"{named(plain)} {other_key(sshd)}\n")
    assert run(plain, "true", params(known, "off", connect_timeout=9)).ok
    assert known.read_text() == f"{named(plain)} {other_key(sshd)}\n"


# -- what a file may say --------------------------------------------------------------------------


def entries(name: str, key: str, other: str) -> dict[str, tuple[str, bool]]:
    """Texts of known_hosts files, and whether they let a strict client in."""
    return {
        "the name": (f"{name} {key}", True),
        "with a comment": (f"{name} {key} root@web1 or so", True),
        "among names": (f"web1,{name},web2 {key}", True),
        "a pattern": (f"web*,[127.0.*]:* {key}", True),
        "a pattern with an exception": (f"[127.0.*]:*,!{name} {key}", False),
        "another port": (f"{name}1 {key}", False),
        "the address without its port": (f"{name[1:].partition(']')[0]} {key}", True),
        "another key without its port": (f"{name[1:].partition(']')[0]} {other}", False),
        "another key": (f"{name} {other}", False),
        "both keys": (f"{name} {other}\n{name} {key}", True),
        "junk around": (f"junk\n\n# x\n{name} ssh-nothing AAAA\n{name} {key}\nssh-x", True),
        "a certificate authority": (f"@cert-authority {name} {key}", False),
        "revoked": (f"@revoked {name} {key}\n{name} {key}", False),
        "revoked everywhere": (f"{name} {key}\n@revoked * {key}", False),
        "revoked somewhere else": (f"{name} {key}\n@revoked web9 {key}", True),
    }


@pytest.mark.parametrize("case", entries("[x]:1", "", ""))
def test_every_form_of_an_entry(plain: Host, sshd: RealSshd, known: Path, case: str) -> None:
    text, good = entries(named(plain), sshd.host_key, other_key(sshd))[case]
    known.write_text(text + "\n")
    process = run(plain, "true", params(known))
    assert process.reason is (None if good else Reason.HOST_KEY), process.message
    if "revoked" in case and not good:
        assert "is marked as revoked" in process.message
    words = ["-F", "/dev/null", "-o", f'UserKnownHostsFile="{known}"', "-o", "BatchMode=yes"]
    where = ["-p", str(plain.port), "-i", str(plain.keyfile), f"{plain.user}@{plain.address}"]
    more = ["-o", "StrictHostKeyChecking=yes", "-o", "GlobalKnownHostsFile=/dev/null"]
    real = subprocess.run(["ssh", *words, *more, *where, "true"], check=False, capture_output=True)
    assert (real.returncode == 0) == good, "ssh sees it otherwise"


def test_hashed_names(plain: Host, sshd: RealSshd, known: Path) -> None:
    stranger = sshd.hosts(1, first=1)[0]
    known.write_text(f"{named(plain)} {sshd.host_key}\n{named(stranger)} {other_key(sshd)}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", known], check=True, capture_output=True)
    assert plain.address not in known.read_text()
    remote = Remote("true", [plain, stranger], params(known), QUIET).run(TIMEOUT)
    assert [process.reason for process in remote.processes] == [None, Reason.HOST_KEY]
    assert "has changed" in remote.processes[1].message


def test_names_are_compared_without_case(sshd: RealSshd, known: Path) -> None:
    plain = sshd.hosts(1)[0]
    for name in ("localhost", "LOCALHOST"):
        known.write_text(f"[{name}]:{plain.port} {sshd.host_key}\n")
        host = Host("LocalHost", plain.user, plain.keyfile, plain.port)
        assert run(host, "true", params(known)).ok
        close_idle()


def test_a_changed_key_is_refused_however_its_name_is_written(sshd: RealSshd, known: Path) -> None:
    plain = sshd.hosts(1)[0]
    known.write_text(f"[LocalHost]:{plain.port} {other_key(sshd)}\n")
    host = Host("localhost", plain.user, plain.keyfile, plain.port)
    assert run(host, "true", params(known, "accept-new")).reason is Reason.HOST_KEY


def test_several_files_are_read_and_the_first_is_written(
    plain: Host, sshd: RealSshd, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    second.write_text(f"{named(plain)} {sshd.host_key}\n")
    options = ["-o", f"UserKnownHostsFile={first} {second}"]
    both = {"host_key_policy": "accept-new", "ssh_options": options}
    assert run(plain, "true", both).ok
    assert not first.exists()
    assert run(sshd.hosts(1, first=1)[0], "true", both).ok
    until(lambda: first.exists() and first.read_text())
    assert second.read_text() == f"{named(plain)} {sshd.host_key}\n"


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (Target("web1"), "web1"),
        (Target("web1", port=22), "web1"),
        (Target("web1", port=2222), "[web1]:2222"),
        (Target("fe80::1", port=22), "fe80::1"),
        (Target("fe80::1", port=2222), "[fe80::1]:2222"),
    ],
)
def test_the_name_of_a_host_in_these_files(target: Target, name: str) -> None:
    assert known_name(target) == name


# -- several keys ---------------------------------------------------------------------------------

ED25519 = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(32)).decode()
KINDS = ("ed25519", "ecdsa", "rsa")


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RealSshd, dict[str, str]]]:
    """A server with a host key of each type, and these."""
    folder = tmp_path_factory.mktemp("host-keys")
    keys: dict[str, str] = {}
    for kind in KINDS:
        words = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(folder / kind)]
        subprocess.run(words, check=True)
        keys[kind] = " ".join((folder / f"{kind}.pub").read_text().split()[:2])
    paths = "\nHostKey ".join(str(folder / kind) for kind in KINDS)
    with RealSshd({"HostKey": paths}) as server:
        yield server, keys


@pytest.mark.parametrize("kind", KINDS)
def test_the_known_type_is_asked_for(
    rich: tuple[RealSshd, dict[str, str]], known: Path, kind: str
) -> None:
    server, keys = rich
    host = server.hosts(1)[0]
    known.write_text(f"{named(host)} {keys[kind]}\n")
    for policy in ("strict", "accept-new"):
        assert run(host, "true", params(known, policy)).ok
    assert known.read_text() == f"{named(host)} {keys[kind]}\n"


@pytest.mark.parametrize("kind", KINDS)
def test_a_known_type_whose_key_has_changed(
    rich: tuple[RealSshd, dict[str, str]], sshd: RealSshd, known: Path, kind: str
) -> None:
    server, _ = rich
    host = server.hosts(1)[0]
    words = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(known.parent / "other")]
    subprocess.run(words, check=True)
    other = (known.parent / "other.pub").read_text()
    known.write_text(f"{named(host)} {other}")
    for policy in ("strict", "accept-new"):
        process = run(host, "true", params(known, policy))
        assert process.reason is Reason.HOST_KEY
        assert "has changed" in process.message


def test_only_an_unknown_type_is_shown(plain: Host, rich: Any, known: Path) -> None:
    _, keys = rich
    known.write_text(f"{named(plain)} {keys['rsa']}\n")
    process = run(plain, "true", params(known, "accept-new"))
    assert process.reason is Reason.HOST_KEY
    assert "another type than the known one" in process.message
    assert known.read_text() == f"{named(plain)} {keys['rsa']}\n"


# -- what files of ssh_config say -----------------------------------------------------------------


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Changes the options of all connections that follow."""

    def change(**changes: Any) -> None:
        def changed(host: Host, given: Any) -> tuple[str, Target]:
            name, target = connection_to(host, given)
            return name, replace(target, options=replace(target.options, **changes))

        monkeypatch.setattr("execo.ssh_process.connection_to", changed)

    return change


def finds(known: Path, name: str) -> bool:
    words = ["ssh-keygen", "-F", name, "-f", str(known)]
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


def test_names_are_hashed(plain: Host, sshd: RealSshd, known: Path, options: Any) -> None:
    options(hash_known_hosts=True)
    assert run(plain, "true", params(known, "accept-new")).ok
    until(lambda: known.exists() and known.read_text())
    text = known.read_text()
    assert text.startswith("|1|")
    assert text.count("\n") == 1
    assert plain.address not in text
    assert finds(known, named(plain))
    assert not finds(known, "web1")
    close_idle()
    # And they are known again, by ssh's own and by us, in a process that has not written them.
    copy = known.with_name("copy")
    copy.write_text(text)
    assert run(plain, "true", params(copy, "strict")).ok


def test_an_alias_takes_the_place_of_the_name(
    plain: Host, sshd: RealSshd, known: Path, options: Any
) -> None:
    options(host_key_alias="Nodes")
    hosts = sshd.hosts(3)
    assert Remote("true", hosts, params(known, "accept-new")).run(TIMEOUT).finished_ok
    until(lambda: known.exists() and known.read_text())
    # Without the port, and in small letters, as ssh does it; once for all of them.
    assert known.read_text() == f"nodes {sshd.host_key}\n"
    close_idle()
    assert Remote("true", hosts, params(known, "strict")).run(TIMEOUT).finished_ok
    other = known.with_name("other")
    other.write_text(f"nodes {other_key(sshd)}\n")
    process = run(plain, "true", params(other, "strict"))
    assert process.reason is Reason.HOST_KEY
    assert "-R nodes" in process.message


class CertifiedSshd(RealSshd):
    """A server whose host key an authority, its user's key, answers for."""

    def _launch(self, program: str) -> None:
        words = ["ssh-keygen", "-q", "-s", "user_key", "-h", "-I", "us", "host_key.pub"]
        subprocess.run(words, cwd=self.folder, check=True)
        with (self.folder / "sshd_config").open("a") as file:
            file.write(f"HostCertificate {self.folder}/host_key-cert.pub\n")
        super()._launch(program)


def test_an_authority_is_for_ssh(known: Path) -> None:
    with CertifiedSshd() as server:
        (host,) = server.hosts(1)
        known.write_text(f"@cert-authority [127.0.*]:*,web* {other_key(server)}\n")
        process = run(host, "true", params(known))
        assert (process.ok, process.transport) == (True, "openssh")
        close_idle()
        # Another authority, which has signed nothing.
        known.write_text(f"@cert-authority [127.0.*]:*,web* {server.host_key}\n")
        process = run(host, "true", params(known, transport="openssh"))
        assert process.reason is Reason.HOST_KEY
        close_idle()


def test_an_authority_of_which_nobody_has_known_before(plain: Host, sshd: RealSshd) -> None:
    name = named(plain)
    file = Path(sshd.folder, "authorities")
    file.write_text(f"@cert-authority {name} {other_key(sshd)}\n")
    files = KnownHosts((str(file),))
    kind, key, *_ = sshd.host_key.split()
    shown = HostKey(kind, base64.b64decode(key))
    for strict in (True, False):
        problem = files.problem(name, shown, files.keys_of(name), strict=strict)
        assert problem is not None
        assert "an authority answers for its host key (@cert-authority in" in problem
        assert "set transport to 'openssh'" in problem
    # A key that is known beside it is.
    file.write_text(file.read_text() + f"{name} {sshd.host_key}\n")
    files = KnownHosts((str(file),))
    assert files.problem(name, shown, files.keys_of(name), strict=True) is None


def test_which_hosts_have_an_authority(
    known: Path, sshd: RealSshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = sshd.host_key
    missing = str(known.with_name("missing"))
    paths = (missing, str(known))
    assert not has_authority(paths, "web1")
    monkeypatch.setattr("execo.transports.known_hosts.KEPT", 0.0)
    known.write_text(
        f"web1 {key}\n# @cert-authority web1 {key}\n"
        f"@cert-authority *.example.org,!old.example.org,[gw]:* {key} us\n@cert-authority broken\n"
    )
    # It is looked at again after a while.
    known_hosts._authorities.clear()
    assert {name for name in ("web1", "a.example.org", "old.example.org", "[gw]:2222", "gw")
            if has_authority(paths, name)} == {"a.example.org", "[gw]:2222"}  # fmt: skip
    known.write_text(f"@cert-authority web1 {key}\n")
    assert has_authority(paths, "web1")
    assert not has_authority(paths, "a.example.org")
    monkeypatch.setattr("execo.transports.known_hosts.USER_FILE", str(known))
    assert has_authority((), "web1")


def test_looking_for_authorities_needs_no_paramiko() -> None:
    source = (
        "import sys; from execo.transports.known_hosts import HostKey, KnownHosts, has_authority; "
        "print(has_authority(('/nowhere',), 'web1'), 'paramiko' in sys.modules)"
    )
    words = [sys.executable, "-c", source]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    assert done.stdout == "False False\n"


def test_files_are_read_again_only_when_they_have_changed(
    plain: Host, sshd: RealSshd, known: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("execo.transports.known_hosts.KEPT", 0.0)
    read: list[str] = []
    lines = known_hosts._lines

    def counted(path: str) -> list[str]:
        read.append(path)
        return lines(path)

    monkeypatch.setattr("execo.transports.known_hosts._lines", counted)
    known.write_text(f"{named(plain)} {sshd.host_key}\n")
    for _ in range(3):
        assert run(plain, "true", params(known)).ok
        close_idle()
    assert read.count(str(known)) == 2  # for the keys, and for the authorities
    with known.open("a") as file:
        file.write("# more\n")
    assert run(plain, "true", params(known)).ok
    assert read.count(str(known)) == 3  # how a host is reached is looked up once


def test_a_large_file_is_read_soon(plain: Host, sshd: RealSshd, known: Path) -> None:
    others = "".join(f"web{number},10.0.0.{number} {sshd.host_key}\n" for number in range(20_000))
    known.write_text(f"{others}{named(plain)} {sshd.host_key}\n")
    assert run(plain, "true", params(known, connect_timeout=15)).ok


def test_several_processes_write_at_once(sshd: RealSshd, known: Path, tmp_path: Path) -> None:
    source = f"""
hosts = [Host(f"127.0.{{os.environ['NET']}}.{{n}}", user, keyfile, int(port)) for n in range(1, 31)]
options = ["-o", 'UserKnownHostsFile="{known}"']
params = {{"host_key_policy": "accept-new", "ssh_options": options, "ssh_config": False}}
print(Remote("true", hosts, params).run().ok)
"""
    hosts = sshd.hosts(1)
    with ExitStack() as stack:
        scripts = [
            stack.enter_context(HostScript(tmp_path, source, hosts[0], env={"NET": str(net)}))
            for net in range(6, 9)
        ]
        for script in scripts:
            assert script.finish() == (0, "True\n", "")
    lines = known.read_text().splitlines()
    assert len(lines) == len(set(lines)) == 90
    assert all(line.endswith(sshd.host_key) and line.startswith("[127.0.") for line in lines)


def test_a_pattern_with_many_stars_takes_no_time(known: Path) -> None:
    # Each star doubled the time: one line of a file that somebody hands out, and nobody connects.
    known.write_text(f"{'*a' * 25}b ssh-ed25519 {ED25519}\n{'*a' * 25}* ssh-ed25519 {ED25519}\n")
    with cheap():
        found = KnownHosts((str(known),)).keys_of("a" * 40)
    assert [key.kind for key in found] == ["ssh-ed25519"]


def test_names_of_any_bytes_can_be_looked_up_and_written(known: Path) -> None:
    key = HostKey("ssh-ed25519", base64.b64decode(ED25519))
    KnownHosts((str(known),)).write("odd\udcff", key, hashed=True)
    KnownHosts((str(known),)).write("plain\udcff", key)
    again = KnownHosts((str(known),))
    assert again.keys_of("odd\udcff") == [key]
    assert KnownHosts(("no\0name",)).keys_of("web1") == []
