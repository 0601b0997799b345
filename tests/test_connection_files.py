"""How hosts are reached where files of ssh_config say it: targets, hops, and who comes first."""

from __future__ import annotations

import itertools
import logging
import os
import pwd
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from execo import Host, Remote, connection
from execo.config import make_connection_params
from execo.connection import connection_to
from execo.errors import Reason, SshConfigError
from execo.testing import Cluster
from execo.transports import ssh_config_files
from execo.transports.base import Algorithms, ConnectionOptions, Login, Target
from execo.transports.openssh_words import Abilities, connection_options
from execo.transports.ssh_config import SshConfig
from execo.transports.ssh_target import SYSTEM_KNOWN_HOSTS, Finder
from ssh_dump import STRICT, Dump, Refused, dump, taken
from ssh_stock import debian, red_hat
from test_ssh_config_fuzz import HOSTS, files, write

Reach = Callable[..., tuple[str, Target]]
HOME = pwd.getpwuid(os.getuid()).pw_dir


@pytest.fixture(autouse=True)
def looks_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """No second in which a file that has changed is taken for the old one."""
    monkeypatch.setattr(ssh_config_files, "KEPT", 0.0)
    monkeypatch.setattr(connection, "_announced", set())
    ssh_config_files.files_of.cache_clear()
    connection._ways.clear()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config"


clock = itertools.count(10**18, 10**9)


@pytest.fixture
def reach(file: Path) -> Reach:
    """Write a file, and say how a host is reached."""

    def reach(text: str, host: Host | str = "web1", **params: Any) -> tuple[str, Target]:
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
            when = next(clock)  # the system's clock of files is a coarse one
            os.utime(file, ns=(when, when))
        params = {"ssh_config": str(file), **params}
        return connection_to(Host(host), make_connection_params(params))

    return reach


@pytest.fixture
def target(reach: Reach) -> Callable[..., Target]:
    def target(text: str, host: Host | str = "web1", **params: Any) -> Target:
        transport, found = reach(text, host, **params)
        assert transport == "paramiko"
        return found

    return target


Find = Callable[..., Target]


# -- what a file says -----------------------------------------------------------------------------


def test_all_that_a_file_can_say_of_a_host(
    target: Find, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_A", "a")
    monkeypatch.setenv("LC_B", "b")
    found = target(
        "Host web1\n HostName Db.Example.org\n Port 2201\n User me\n AddressFamily inet6\n"
        " IdentityFile ~/%n\n IdentityFile /k\n CertificateFile /c\n IdentitiesOnly yes\n"
        " IdentityAgent /agent\n StrictHostKeyChecking accept-new\n UserKnownHostsFile /u /v\n"
        " GlobalKnownHostsFile /g\n HostKeyAlias Alias\n HashKnownHosts yes\n SendEnv LC_* NONE\n"
        " SetEnv LC_B=c 'D=d e'\n ConnectTimeout 7\n ServerAliveInterval 11\n"
        " ServerAliveCountMax 2\n Ciphers aes256-ctr\n MACs hmac-sha2-512\n RequiredRSASize 3000\n"
        " KexAlgorithms curve25519-sha256\n HostKeyAlgorithms ssh-ed25519\n"
        " PubkeyAcceptedAlgorithms rsa-sha2-512\n ProxyCommand nc %h %p\n"
    )
    assert found == Target(
        address="db.example.org",
        user="me",
        port=2201,
        family="inet6",
        proxy_command="nc db.example.org 2201",
        options=ConnectionOptions(
            host_key_policy="accept-new",
            policy_chosen=True,
            known_hosts=("/u", "/v", "/g"),
            hash_known_hosts=True,
            host_key_alias="alias",
            connect_timeout=7.0,
            keepalive=11.0,
            keepalive_count=2,
            login=Login(
                identities=(f"{HOME}/web1", "/k"),
                certificates=("/c",),
                identities_only=True,
                agent="/agent",
            ),
            algorithms=Algorithms(
                ciphers=("aes256-ctr",),
                macs=("hmac-sha2-512",),
                key_exchanges=("curve25519-sha256@libssh.org",),
                host_keys=("ssh-ed25519",),
                signatures=("rsa-sha2-512",),
                least_rsa_bits=3000,
            ),
            env=found.options.env,
        ),
    )
    assert dict(found.options.env) == {"LC_ALL": "C.UTF-8", "LC_A": "a", "LC_B": "c", "D": "d e"}
    assert found.name == "web1"


def test_an_empty_file_changes_nothing(target: Find) -> None:
    assert target("") == target("", ssh_config=False) == target("", ssh_config="none")
    assert target("").options == ConnectionOptions()


def test_a_command_is_run_as_a_file_says(cluster_with_files: Cluster) -> None:
    params = {"ssh_config": cluster_with_files.folder / "ssh_config"}
    keyfile = cluster_with_files.keyfile
    remote = Remote("echo {{{host}}}", ["host1", Host("host2")], {**params, "keyfile": keyfile})
    remote.run(30, check=True)
    assert [process.stdout for process in remote.processes] == ["host1\n", "host2\n"]


@pytest.fixture
def cluster_with_files() -> Any:
    with Cluster(2) as cluster:
        yield cluster


# -- who comes first ------------------------------------------------------------------------------


def test_the_host_the_parameters_ssh_options_the_file(target: Find) -> None:
    text = "User file\nPort 4\nMatch user params\n SetEnv A=1\n"
    options = ("-l", "options", "-p", "3")
    all_of_them = {"user": "params", "port": 2, "ssh_options": options}
    found = target(text, Host("web1", "host", port=1), **all_of_them)
    assert (found.user, found.port) == ("host", 1)
    found = target(text, **all_of_them)
    assert (found.user, found.port, found.options.env) == ("params", 2, (("A", "1"),))
    found = target(text, ssh_options=options)
    assert (found.user, found.port) == ("options", 3)
    found = target(text)
    assert (found.user, found.port) == ("file", 4)


def test_a_time_that_is_built_in_comes_after_the_file_and_one_that_is_set_before(
    target: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "ConnectTimeout 5\nServerAliveInterval 6\n"

    def times(text: str, **params: Any) -> tuple[float | None, float | None]:
        options = target(text, **params).options
        return options.connect_timeout, options.keepalive

    assert times("") == (20.0, 30.0)
    assert times(text) == (5.0, 6.0)
    assert times(text, connect_timeout=20, keepalive=30) == (20.0, 30.0)
    assert times(text, connect_timeout=None, keepalive=None) == (None, None)
    assert times("ConnectTimeout 0\nServerAliveInterval 0\n") == (None, None)
    assert times(text, ssh_options=("-o", "ConnectTimeout=4")) == (4.0, 6.0)
    monkeypatch.setitem(connection_params(), "connect_timeout", 20)
    assert times(text) == (20.0, 6.0)


def connection_params() -> dict[str, Any]:
    from execo.config import default_connection_params

    return default_connection_params


def test_the_policy_of_host_keys_is_the_parameters_then_the_files_then_off(target: Find) -> None:
    def policy(text: str, **params: Any) -> tuple[str, bool]:
        options = target(text, **params).options
        return options.host_key_policy, options.policy_chosen

    assert policy("") == ("off", False)
    # Where keys are looked up is not whether they are.
    assert policy("UserKnownHostsFile /k\n") == ("off", False)
    assert policy("StrictHostKeyChecking ask\n") == ("strict", True)
    assert policy("StrictHostKeyChecking no\n") == ("off", True)
    assert policy("StrictHostKeyChecking yes\n", host_key_policy="off") == ("off", True)
    assert policy("", host_key_policy="accept-new") == ("accept-new", True)


def test_a_key_that_is_named_comes_before_those_of_the_file(target: Find) -> None:
    found = target("IdentityFile /file\n", keyfile="/named")
    assert found.keyfile == "/named"
    assert (found.options.login.identities, found.options.login.identities_only) == (
        ("/file",),
        True,
    )


# -- which file -----------------------------------------------------------------------------------


def test_the_users_file_is_read_and_another_one_instead(file: Path) -> None:
    usual = Path(os.environ["HOME"], ".ssh", "config")
    usual.parent.mkdir(mode=0o700)
    usual.write_text("User usual\n")
    file.write_text("User other\n")
    try:

        def user(**params: Any) -> str | None:
            return connection_to(Host("web1"), make_connection_params(params))[1].user

        assert user() == "usual"
        assert user(ssh_config=file) == user(ssh_options=("-F", str(file))) == "other"
        mine = pwd.getpwuid(os.getuid()).pw_name
        assert user(ssh_config=False) == user(ssh_options=("-F", "none")) == mine
        assert user(ssh_config="none", ssh_options=("-F", str(file))) == mine
    finally:
        usual.unlink()
        usual.parent.rmdir()


def test_a_file_that_changes_is_read_again(target: Find, file: Path) -> None:
    (folder := file.parent / "more").mkdir()
    text = f"Include {folder}/*.conf\nUser first\n"
    assert target(text).user == "first"
    (folder / "a.conf").write_text("User included\n")
    assert target(text).user == "included"
    (folder / "a.conf").write_text("User changed\n")
    assert target(text).user == "changed"
    (folder / "a.conf").unlink()
    assert target(text).user == "first"


def test_the_same_target_is_given_again(
    target: Find, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("User me\n")
    params = {"ssh_config": str(file)}
    first = connection_to(Host("web1"), make_connection_params(params))
    assert connection_to(Host("web1"), make_connection_params(params)) is first
    assert target("", connect_timeout=1) is not target("", connect_timeout=1.5)
    monkeypatch.setattr(connection, "MOST_WAYS", 2)
    monkeypatch.setattr(connection, "MOST_HOSTS", 2)
    for number in range(10):
        assert target("", f"web{number}", connect_timeout=number + 1).address == f"web{number}"
        assert target("", f"db{number}").address == f"db{number}"


def test_a_variable_that_changes_is_sent_as_it_is(
    target: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_A", "1")
    assert ("LC_A", "1") in target("SendEnv LC_A\n").options.env
    monkeypatch.setenv("LC_A", "2")
    assert ("LC_A", "2") in target("SendEnv LC_A\n").options.env


def test_parameters_that_were_changed_to_a_list_are_understood() -> None:
    params = make_connection_params()
    params["ssh_options"] = ["-p", "23"]
    assert connection_to(Host("web1"), params)[1].port == 23


# -- on the way -----------------------------------------------------------------------------------

HOPS = """
Host gw1
 HostName gw1.example.org
 User me
 ProxyJump outer
Host gw2
 Port 2222
 IdentityFile /gw2
 ProxyJump elsewhere
Host web1
 ProxyJump gw1,you@gw2
Host outer
 ProxyCommand nc %h %p
"""


def test_each_host_on_the_way_is_one_of_its_own(target: Find) -> None:
    found = target(HOPS, host_key_policy="strict", connect_timeout=3, user="u", port=1)
    second = found.via
    assert second is not None
    assert (second.address, second.user, second.port) == ("gw2", "you", 2222)
    assert second.options.login.identities == ("/gw2",)
    first = second.via
    assert first is not None
    assert (first.address, first.user, first.port) == ("gw1.example.org", "me", None)
    outer = first.via  # of several, the ways to the first one count
    assert outer is not None
    assert (outer.address, outer.proxy_command, outer.via) == ("outer", "nc outer 22", None)
    for one in (found, first, second, outer):
        assert one.options.host_key_policy == "strict"
        assert one.options.connect_timeout == 3.0
    # It is shared with those who go there.
    assert target(HOPS, "gw1", host_key_policy="strict", connect_timeout=3) == first


def test_ssh_options_and_keys_are_for_the_host_not_for_those_on_the_way(target: Find) -> None:
    options = ("-i", "/k", "-p", "1", "-o", "ConnectTimeout=2", "-J", "gw2")
    found = target(HOPS, "db1", ssh_options=options, keyfile="/named", user="u")
    assert found.via is not None
    assert (found.port, found.user, found.via.port, found.via.keyfile) == (1, "u", 2222, None)
    assert found.via.options.login.identities == ("/gw2",)
    assert found.via.options.connect_timeout == 20.0


def test_a_password_is_not_for_those_on_the_way(file: Path) -> None:
    file.write_text(HOPS)
    config = SshConfig.load_file(str(file))

    def passwords(password: Any) -> list[Any]:
        base = ConnectionOptions(login=Login(password=password, passphrase="of files"))
        found = Finder(config, base).find(Target("web1")).target
        assert found.via is not None
        assert found.via.options.login.passphrase == "of files"
        return [found.options.login.password, found.via.options.login.password]

    assert passwords("secret") == ["secret", None]
    assert passwords(str.format) == [str.format, str.format]  # it is told whom it is for


def test_hosts_that_lead_in_a_circle_are_named(reach: Reach) -> None:
    text = "Host a\n ProxyJump b\nHost b\n ProxyJump a\n"
    with pytest.raises(ValueError, match="does ProxyJump lead in a circle"):
        reach(text, "a")


def test_a_host_on_the_way_that_only_ssh_can_reach(
    reach: Reach, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "execo")
    text = "Host web*\n ProxyJump gw\nHost gw\n PKCS11Provider /lib.so\n"
    for number in range(3):
        transport, target = reach(text, f"web{number}")
        assert (transport, target.address, target.via) == ("openssh", f"web{number}", None)
    (message,) = caplog.messages
    assert message == (
        "hosts are reached with the ssh command: gw, on the way: 'PKCS11Provider /lib.so' in "
        f"{file}:4: keys of a PKCS#11 token"
    )


# -- what only ssh can do -------------------------------------------------------------------------


def test_a_host_whose_key_an_authority_answers_for(
    reach: Reach, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "execo")
    known = tmp_path / "known"
    known.write_text("@cert-authority *.org,[web2]:2222 ssh-ed25519 AAAA\n")
    text = f"UserKnownHostsFile {known}\nHost web1\n HostKeyAlias one.org\n"

    def transport(host: Host | str, policy: str | None = "strict") -> str:
        return reach(text, host, host_key_policy=policy)[0]

    assert transport("web1") == "openssh"
    assert transport(Host("web2", port=2222)) == "openssh"
    assert transport("web2") == "paramiko"
    assert transport("web1", None) == "paramiko"  # no key is looked at
    assert caplog.messages[0] == (
        "hosts are reached with the ssh command: an authority answers for the key of web1 "
        "(known_hosts)"
    )


def test_a_reason_for_ssh_is_said_once_with_its_place(
    reach: Reach, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "execo")
    text = "Host db*\n BindAddress 127.0.0.1\n"
    for number in range(100):
        assert reach(text, f"db{number}")[0] == "openssh"
        assert reach(text, f"web{number}")[0] == "paramiko"
    (message,) = caplog.messages
    assert message == (
        f"hosts are reached with the ssh command: 'BindAddress 127.0.0.1' in {file}:2: connects "
        "from an address"
    )


def test_the_transport_in_process_says_what_it_cannot_do(reach: Reach, file: Path) -> None:
    with pytest.raises(ValueError, match=f"cannot reach db1 .* in {file}:2: connects from an"):
        reach("Host db*\n BindAddress 127.0.0.1\n", "db1", transport="paramiko")


def test_a_host_that_takes_no_keys_is_for_ssh_unless_there_is_a_password(reach: Reach) -> None:
    text = "PubkeyAuthentication no\n"
    assert reach(text)[0] == "openssh"
    name, target = reach(text, password="x")
    assert (name, target.options.login.methods) == (
        "paramiko",
        ("keyboard-interactive", "password"),
    )
    with pytest.raises(ValueError, match=r"logs in without a key.*set transport to"):
        reach(text, transport="paramiko")


def test_a_password_that_ssh_cannot_use_says_why_it_is_ssh(reach: Reach) -> None:
    with pytest.raises(ValueError, match=r"'BindAddress 127\.0\.0\.1' in .*cannot use 'password'"):
        reach("BindAddress 127.0.0.1\n", password="x")


@pytest.mark.parametrize("key", ["ssh", "taktuk_connector"])
@pytest.mark.parametrize("text", [" ", "'ssh"])
def test_a_command_that_is_none_names_its_parameter(reach: Reach, key: str, text: str) -> None:
    transport = "auto" if key == "ssh" else "taktuk"
    with pytest.raises(ValueError, match=f"connection parameter '{key}'"):
        reach("", **{key: text, "transport": transport})


def test_what_is_not_followed_is_said_once(
    reach: Reach, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "execo")
    for number in range(3):
        assert reach("ForwardAgent yes\nCompression yes\n", f"web{number}")[0] == "paramiko"
    (message,) = caplog.messages
    assert message == (
        f"'ForwardAgent yes' in {file}:1: lends the host the agent: this is not followed; "
        "ssh_options can ask for it"
    )


def test_ciphers_that_nobody_here_knows_are_left_to_ssh(
    reach: Reach, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "execo")
    assert reach("Ciphers chacha20-poly1305@openssh.com,aes128-ctr\n")[0] == "paramiko"
    assert reach("Ciphers chacha20-poly1305@openssh.com\n")[0] == "openssh"
    (message,) = caplog.messages
    assert "Ciphers chacha20-poly1305@openssh.com: none of these" in message


# -- the ssh command ------------------------------------------------------------------------------


def words(target: Target) -> list[str]:
    return connection_options(target, Abilities())


def test_ssh_gets_the_host_as_it_is_called_and_reads_the_files_itself(
    reach: Reach, file: Path
) -> None:
    text = "Host web1\n HostName db\n User me\n Port 3\n ProxyJump gw\n IdentityFile /k\n"
    transport, target = reach(text, transport="openssh", ssh_options=("-v",))
    assert transport == "openssh"
    assert target == Target(
        "web1", options=replace(ConnectionOptions(), ssh_options=("-v", "-F", str(file)))
    )
    assert reach(text, transport="openssh", ssh_config=False)[1].options.ssh_options == (
        "-F",
        "none",
    )
    assert reach(text, transport="openssh", ssh_config=None)[1].options.ssh_options == ()


def test_our_defaults_do_not_hide_from_ssh_what_files_say(reach: Reach) -> None:
    text = "StrictHostKeyChecking yes\nUserKnownHostsFile /k\nConnectTimeout 5\n"
    said = words(reach(text, transport="openssh")[1])
    assert "StrictHostKeyChecking=yes" in said
    assert "ConnectTimeout=5" in said
    assert not any("KnownHostsFile" in word for word in said)
    said = words(reach(text, transport="openssh", host_key_policy="off", connect_timeout=20)[1])
    assert "StrictHostKeyChecking=no" in said
    assert "ConnectTimeout=20" in said


def test_a_file_that_only_ssh_understands_is_left_to_it_when_it_is_asked_for(
    reach: Reach,
) -> None:
    text = "KeywordOfTomorrow yes\n"
    transport, target = reach(text, transport="openssh", user="me")
    assert (transport, target.user) == ("openssh", "me")
    assert reach(text, ssh="/opt/ssh")[0] == "openssh"
    with pytest.raises(SshConfigError, match="keywordoftomorrow"):
        reach(text)


@pytest.mark.parametrize("transport", ["openssh", "taktuk", "auto"])
def test_secrets_are_not_for_commands(transport: str) -> None:
    params = make_connection_params({"transport": transport, "ssh_options": ["-A"]})
    params["password"] = "hush"
    with pytest.raises(
        ValueError, match=r"which web1 is reached by.*, cannot use 'password'"
    ) as it:
        connection_to(Host("web1"), params)
    assert "hush" not in str(it.value)


# -- files that cannot be read --------------------------------------------------------------------


def test_a_broken_file_is_the_error_of_each_process(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text("User me\nHost other\n Prot 22\n")
    remote = Remote("true", [f"web{i}" for i in range(30)], {"ssh_config": file}).run(30)
    for process in remote.processes:
        assert process.reason is Reason.SPAWN
        assert f"{file}:3: ssh knows no 'prot'" in process.message
        assert "in 'Prot 22'" in process.message
    assert len(caplog.messages) == 11  # max_failure_logs, and a summary
    file.write_text("User me\nHost other\n Port 22\n")
    assert connection_to(Host("web1"), make_connection_params({"ssh_config": file}))


def test_a_file_that_is_not_there_is_an_error_if_it_was_named(tmp_path: Path) -> None:
    params = make_connection_params({"ssh_config": tmp_path / "none"})
    with pytest.raises(SshConfigError, match="it cannot be read: No such file"):
        connection_to(Host("web1"), params)


# -- as distributions install it ------------------------------------------------------------------


@pytest.mark.parametrize("install", [debian, red_hat])
@pytest.mark.parametrize("host", ["web1", "WEB1.example.org", "127.0.0.1", "::1", "a.local"])
def test_the_systems_file_of_a_distribution_keeps_every_host_in_process(
    install: Callable[[Path], Path], host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("execo.transports.ssh_config.SYSTEM_FILE", str(install(tmp_path)))
    for transport in ("auto", "paramiko"):
        taken, target = connection_to(Host(host), make_connection_params({"transport": transport}))
        assert (taken, target.address) == ("paramiko", host.lower())
        assert ("LC_ALL", "C.UTF-8") in target.options.env
        assert target.options.hash_known_hosts is (install is debian)
        policy = target.options.algorithms
        assert (policy.least_rsa_bits == 2048) is (install is red_hat)


# -- any file, as ssh reads it --------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ssh")


def as_target(said: Dump) -> dict[str, Any]:
    """What ``ssh -G`` says, as a target has it."""
    found = taken(said)
    strict = said["stricthostkeychecking"][0]
    identities = found["identityfile"]
    return {
        "address": found["hostname"],
        "user": found["user"],
        "port": int(said["port"][0]),
        "family": {"any": None}.get(str(found["addressfamily"]), found["addressfamily"]),
        "command": found["proxycommand"] or None,
        "jump": said.get("proxyjump", ["none"])[0] != "none",
        "identities": identities,
        "certificates": found["certificatefile"],
        "only": found["identitiesonly"] == "yes",
        "agent": found["identityagent"] or None,
        "alias": found["hostkeyalias"] or None,
        "hashed": found["hashknownhosts"] == "yes",
        "strict": STRICT.get(strict, strict),
        "timeout": {"none": 20.0, "0": None}.get(
            said["connecttimeout"][0], _float(said["connecttimeout"][0])
        ),
        "count": max(1, int(said["serveralivecountmax"][0])),
        "set": found["setenv"],
        "bits": int(said["requiredrsasize"][0]),
    }


def _float(text: str) -> float | None:
    return float(text) if text.isdigit() else None


def told(target: Target) -> dict[str, Any]:
    """The same of a target."""
    options = target.options
    login = options.login
    checking = {"strict": ("yes", "ask"), "accept-new": ("accept-new",), "off": ("no", "ask")}
    return {
        "address": target.address,
        "user": target.user,
        "port": target.port or 22,
        "family": target.family,
        "command": target.proxy_command,
        "jump": target.via is not None,
        "identities": list(login.identities or ()),
        "certificates": list(login.certificates),
        "only": login.identities_only,
        "agent": login.agent,
        "alias": options.host_key_alias,
        "hashed": options.hash_known_hosts,
        "strict": checking[options.host_key_policy],
        "timeout": options.connect_timeout,
        "count": options.keepalive_count,
        "set": [f"{name}={value}" for name, value in options.env if name not in os.environ],
        "bits": options.algorithms.least_rsa_bits or 1024,
    }


@settings(max_examples=200)
@given(
    files(),
    st.sampled_from(HOSTS),
    st.sampled_from([None, None, "me", "you"]),
    st.sampled_from([None, None, 2022]),
)
def test_targets_are_what_ssh_says(
    folder: Path, texts: dict[str, list[str]], host: str, user: str | None, port: int | None
) -> None:
    for name, lines in texts.items():
        texts[name] = [
            line.format(folder) if line.startswith("Include") else line for line in lines
        ]
        note(f"{name}:\n" + "\n".join(texts[name]))
    config = write(folder, texts)
    params = make_connection_params({"ssh_config": str(config), "user": user, "port": port})
    asked = [*(["-l", user] if user else []), *(["-p", str(port)] if port else [])]
    try:
        said = dump(config, host, *asked)
    except Refused as exc:
        note(f"ssh: {exc}")
        with pytest.raises(SshConfigError):
            connection_to(Host(host), params)
        return
    expected = as_target(said)
    try:
        transport, target = connection_to(Host(host), params)
    except (SshConfigError, ValueError) as exc:
        note(str(exc))
        # ssh -G does not look at the hosts on the way.
        assert expected["jump"]
        return
    if transport == "openssh":
        assert taken(said)["left"] or expected["jump"]
        return
    found = told(target)
    assert expected.pop("strict") in found.pop("strict")
    assert found == expected


WORDS = [
    *(["-l", "ann"], ["-lbob"], ["-p", "23"], ["-p24"], ["-4"], ["-6"], ["-q"], ["-xa"], ["-T"]),
    *(["-i", "{}/a"], ["-i{}/b"], ["-qi", '{}/c "d" \\e'], ["-o", "Port=25"], ["-oUser=cid"]),
    *(["-o", "ConnectTimeout 5"], ["-o", "connecttimeout=6"], ["-o", "AddressFamily=any"]),
    *(["-o", "IdentityFile=/k/f"], ["-o", "IdentitiesOnly=yes"], ["-o", "HostKeyAlias = A"]),
    *(["-J", "gw"], ["-o", "ProxyJump=none"], ["-o", "SetEnv=A=1"], ["-o", 'SetEnv="B=2 3"']),
    *(["-c", "aes128-ctr"], ["-c", "aes256-ctr"], ["-o", "StrictHostKeyChecking=accept-new"]),
    *(["-o", "RequiredRSASize=2048"], ["-F", "none"], ["-tt"], ["-o", "BatchMode=yes"]),
]


@settings(max_examples=150)
@given(st.lists(st.sampled_from(WORDS), max_size=6))
def test_ssh_options_are_what_ssh_says(folder: Path, parts: list[list[str]]) -> None:
    for name in ("a", "b", 'c "d" \\e'):
        (folder / name).touch()  # ssh passes over those of -i that are not there
    options = [word.replace("{}", str(folder)) for part in parts for word in part]
    try:
        said = dump(os.devnull, "web1", *options)
    except Refused:
        return  # for one: two -J
    params = make_connection_params({"ssh_options": options, "ssh_config": False})
    transport, target = connection_to(Host("web1"), params)
    assert transport == "paramiko"
    expected, found = as_target(said), told(target)
    assert expected.pop("strict") in found.pop("strict")
    assert found == expected
    if target.options.algorithms.ciphers is not None:
        assert list(target.options.algorithms.ciphers) == said["ciphers"]


def test_known_hosts_of_the_target_are_those_of_ssh(target: Find) -> None:
    assert target("UserKnownHostsFile ~/a\n").options.known_hosts == (
        f"{HOME}/a",
        *SYSTEM_KNOWN_HOSTS,
    )
