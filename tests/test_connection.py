"""From a host and its connection parameters to a transport and a target, without a connection."""

from __future__ import annotations

import getpass
import logging
import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from execo import Host, connection
from execo.config import make_connection_params
from execo.connection import connection_to
from execo.transports.base import Algorithms, Login, Target
from execo.transports.ssh_target import SYSTEM_KNOWN_HOSTS

EXECO_2_OPTIONS = (
    "-tt",
    *("-o", "BatchMode=yes"),
    *("-o", "PasswordAuthentication=no"),
    *("-o", "StrictHostKeyChecking=no"),
    *("-o", "UserKnownHostsFile=/dev/null"),
    *("-o", "ConnectTimeout=20"),
)
"""The default ssh_options of execo 2.8.2, which scripts extend and give again."""


def reach(host: Host | str = "web1", **params: Any) -> tuple[str, Target]:
    return connection_to(Host(host), make_connection_params(params))


def transport_of(*options: str) -> str:
    return reach(ssh_options=options)[0]


def target_of(*options: str) -> Target:
    transport, target = reach(ssh_options=options)
    assert transport == "paramiko", f"{options} need not lead to the ssh command"
    return target


@pytest.fixture(autouse=True)
def nothing_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_announced", set())


# -- the target -----------------------------------------------------------------------------------


def test_by_default_all_is_left_to_the_transport() -> None:
    transport, target = reach("web1")
    assert transport == "paramiko"
    me = getpass.getuser()  # asked for in the user's thread, not on the I/O thread
    assert target == Target("web1", me)
    assert (target.user, target.port, target.keyfile, target.name) == (me, None, None, "web1")
    assert reach("web1", transport="openssh")[1].user is None  # the ssh command knows better
    assert target.options.host_key_policy == "off"
    assert target.options.connect_timeout == 20.0
    assert target.options.guard is True


@pytest.mark.parametrize(
    ("host", "params", "options", "expected"),
    [
        (
            Host("h", "ann", "/h", 1),
            {"user": "bob", "keyfile": "/p", "port": 2},
            (),
            ("ann", "/h", 1),
        ),
        (Host("h"), {"user": "bob", "keyfile": "/p", "port": 2}, (), ("bob", "/p", 2)),
        (
            Host("h"),
            {"user": "bob", "keyfile": "/p", "port": 2},
            ("-l", "cid", "-p", "3"),
            ("bob", "/p", 2),
        ),
        (Host("h"), {}, ("-l", "cid", "-p", "3"), ("cid", None, 3)),
        (Host("h", port=1), {"user": "bob"}, ("-p", "3"), ("bob", None, 1)),
    ],
    ids=["host", "params", "params before options", "options", "mixed"],
)
def test_the_host_comes_first_then_the_parameters_then_ssh_options(
    host: Host, params: dict[str, Any], options: tuple[str, ...], expected: tuple[str, str, int]
) -> None:
    _, target = reach(host, **params, ssh_options=options)
    assert (target.user, target.keyfile, target.port) == expected


def test_the_home_folder_in_a_keyfile_is_ours() -> None:
    home = os.path.expanduser("~")
    assert reach(Host("h", keyfile="~/key"))[1].keyfile == f"{home}/key"
    assert reach(keyfile="~/key")[1].keyfile == f"{home}/key"
    assert reach(keyfile=Path("/etc/key"))[1].keyfile == "/etc/key"


def test_keys_of_ssh_options_are_tried_as_ssh_does() -> None:
    def login(*options: str, **params: Any) -> Login:
        return reach(ssh_options=options, **params)[1].options.login

    assert login().identities is None  # the usual ones
    assert login("-i", "/a", "-o", "IdentityFile=/b").identities == ("/a", "/b")
    assert login("-i", "/a").identities_only is False  # those of the agent, too
    assert login("-o", "IdentityFile=none").identities == ()
    assert login("-i", '/k/a "b"\\c').identities == ('/k/a "b"\\c',)
    assert login("-o", 'IdentityFile="/my key"').identities == ("/my key",)
    assert login("-o", "IdentityFile /keys/a=b").identities == ("/keys/a=b",)
    home = pwd.getpwuid(os.getuid()).pw_dir  # that of ssh
    assert login("-i", "~/key", "-o", "IdentityFile=%d/lab").identities == (
        f"{home}/key",
        f"{home}/lab",
    )
    mine = login("-i", "/a", keyfile="/mine")
    assert (mine.identities, mine.identities_only) == (("/a",), True)
    assert login(keyfile="/mine").identities == ()


def test_an_ipv6_address_is_reached_without_its_brackets() -> None:
    for text in ("[::1]", "::1"):
        _, target = reach(text)
        assert (target.address, target.name) == ("::1", text)
    assert reach(Host("[fe80::1%eth0]", port=23))[1].address == "fe80::1%eth0"


def test_the_address_may_be_rewritten_and_messages_keep_the_name() -> None:
    _, target = reach("web1", host_rewrite_func=lambda address: f"{address}.example.org")
    assert (target.address, target.name) == ("web1.example.org", "web1")
    assert reach("web1", host_rewrite_func=lambda _: "[::1]")[1].address == "::1"


@pytest.mark.parametrize("wrong", ["-oProxyCommand=false", "", "a b", None])
def test_what_a_rewritten_address_cannot_be(wrong: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        reach("web1", host_rewrite_func=lambda _: wrong)


def test_equal_hosts_share_a_connection_and_their_names_do_not_count() -> None:
    short = reach("web1", host_rewrite_func=lambda _: "10.0.0.1")[1]
    assert short == reach("10.0.0.1")[1]
    assert hash(short) == hash(reach("10.0.0.1")[1])
    assert short != reach(Host("10.0.0.1", "somebody"))[1]
    assert short != reach("10.0.0.1", connect_timeout=1)[1]


def test_the_parameters_of_the_connection_itself() -> None:
    options = reach(connect_timeout=3, guard=False, host_key_policy="strict")[1].options
    assert (options.connect_timeout, options.guard) == (3.0, False)
    assert options.host_key_policy == "strict"
    assert reach(connect_timeout=None)[1].options.connect_timeout is None


def test_a_host_key_policy_that_is_set_comes_before_ssh_options() -> None:
    ask = ("-o", "StrictHostKeyChecking=no")
    assert reach(ssh_options=ask, host_key_policy="strict")[1].options.host_key_policy == "strict"


# -- which transport ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["paramiko", "openssh", "fake"])
def test_a_transport_that_is_named_is_taken(name: str) -> None:
    assert reach(transport=name)[0] == name


def test_the_ssh_command_is_taken_when_it_is_set() -> None:
    transport, target = reach(ssh="/opt/ssh/bin/ssh -F 'my file'", ssh_options=("-v",))
    assert transport == "openssh"
    assert target.options.ssh == ("/opt/ssh/bin/ssh", "-F", "my file")
    assert target.options.ssh_options == ("-v",)


@pytest.mark.parametrize(
    "options",
    [
        ("-A",),
        ("-v",),
        ("-C",),
        ("-n",),
        ("-N",),
        ("-L", "1:localhost:2"),
        ("-S", "/socket"),
        ("-M",),
        ("-K",),
        ("-qX",),
        ("-b", "127.0.0.1"),
        ("-I", "/lib/pkcs11.so"),
        ("-c", "chacha20-poly1305@openssh.com"),
        ("-o", "ForwardAgent=yes"),
        ("-o", "LocalForward=1 a:2"),
        ("-o", "StrictHostKeyChecking=perhaps"),
        ("-o", "Port"),
        ("-o", ""),
        ("-o",),
        ("-p",),
        ("gateway",),
        ("--",),
        ("-",),
        ("",),
        ("-p", "22", "-W", "a:1"),
    ],
    ids=" ".join,
)
def test_what_only_the_ssh_command_understands_leads_to_it(options: tuple[str, ...]) -> None:
    transport, target = reach(ssh_options=options)
    assert transport == "openssh"
    assert target.options.ssh_options == options


def test_in_this_process_no_option_is_left_for_a_command() -> None:
    assert target_of("-p", "22").options.ssh_options == ()


def test_the_ssh_command_is_announced_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "execo")
    for number in range(5):
        reach(f"web{number}", ssh_options=("-q", "-o", "ForwardAgent=yes"))
        reach(f"web{number}")
    (message,) = caplog.messages
    assert message == (
        "hosts are reached with the ssh command: 'ForwardAgent=yes' in ssh_options:1: lends the "
        "host the agent"
    )
    reach(ssh="/opt/ssh")
    reach(ssh="/opt/ssh")
    assert len(caplog.messages) == 2
    assert "ssh is set to '/opt/ssh'" in caplog.messages[1]


def test_a_transport_that_is_named_is_not_announced(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "execo")
    reach(transport="openssh", ssh_options=("-A",))
    assert caplog.messages == []


def test_options_for_the_ssh_command_are_not_dropped_by_another_transport() -> None:
    for options, why in (
        (("-p", "23", "-A"), "'ForwardAgent=yes' in ssh_options:1: lends the host the agent"),
        (("-L", "1:a:2"), "ssh_options has '-L'"),
        (("-o", "Port=0"), "ssh_options:1: not a port: '0', in 'Port=0'"),
    ):
        with pytest.raises(ValueError, match=f"cannot reach web1 as it is asked to: .*{why}"):
            reach(transport="paramiko", ssh_options=options)


# -- ssh_options that every transport understands -------------------------------------------------


def test_the_default_options_of_execo_2_are_understood() -> None:
    options = target_of(*EXECO_2_OPTIONS).options
    assert (options.host_key_policy, options.policy_chosen) == ("off", True)
    assert options.known_hosts == ("/dev/null", *SYSTEM_KNOWN_HOSTS)
    assert options.connect_timeout == 20.0


def test_what_a_script_adds_to_them_is_understood() -> None:
    target = target_of("-i", "/root/key", *EXECO_2_OPTIONS, "-o", "Port=2222", "-q")
    assert (target.options.login.identities, target.port) == (("/root/key",), 2222)


@pytest.mark.parametrize(
    "options",
    [
        ("-p", "23"),
        ("-p23",),
        ("-o", "Port=23"),
        ("-o", "Port 23"),
        ("-o", "Port = 23"),
        ("-o", " port=23"),
        ("-oPort=23",),
        ("-oPort 23",),
        ("-o", "PORT=23"),
        ("-p", "23", "-p", "24"),
        ("-p", "23", "-o", "Port=24"),
        ("-o", "Port=23", "-p", "24"),
        ("-o", "port=23", "-oPORT=24"),
        ("-q", "-p", "23", "-x"),
        ("-qp23",),
        ("-qxp", "23"),
    ],
    ids=" ".join,
)
def test_a_port_in_all_its_spellings(options: tuple[str, ...]) -> None:
    assert target_of(*options).port == 23
    assert ssh_says(*options)["port"] == "23"


@pytest.mark.parametrize(
    "options",
    [
        ("-l", "ann"),
        ("-lann",),
        ("-o", "User=ann"),
        ("-oUser=ann", "-l", "bob"),
        ("-l", "ann", "-o", "User=bob"),
        ("-o", "User=ann", "-o", "user=bob"),
    ],
    ids=" ".join,
)
def test_a_user_in_all_its_spellings(options: tuple[str, ...]) -> None:
    assert target_of(*options).user == "ann"
    assert ssh_says(*options)["user"] == "ann"


@pytest.mark.parametrize(
    ("value", "policy"),
    [
        ("no", "off"),
        ("No", "off"),
        ("off", "off"),
        ("accept-new", "accept-new"),
        ("yes", "strict"),
        ("ask", "strict"),
    ],
)
def test_strict_host_key_checking_is_a_policy(value: str, policy: str) -> None:
    assert target_of("-o", f"StrictHostKeyChecking={value}").options.host_key_policy == policy


def test_files_of_known_hosts() -> None:
    def files(*options: str) -> tuple[str, ...]:
        return target_of(*options).options.known_hosts

    home = pwd.getpwuid(os.getuid()).pw_dir
    assert files() == ()  # the usual ones
    assert files("-o", "UserKnownHostsFile=/a ~/b") == ("/a", f"{home}/b", *SYSTEM_KNOWN_HOSTS)
    first = ("-o", "UserKnownHostsFile=/a", "-o", "UserKnownHostsFile=/b")
    assert files(*first) == ("/a", *SYSTEM_KNOWN_HOSTS)
    assert files("-o", "UserKnownHostsFile='/a b'", "-o", "GlobalKnownHostsFile=/g") == (
        "/a b",
        "/g",
    )
    both = ("-o", "UserKnownHostsFile=/k/%h", "-o", "GlobalKnownHostsFile=none")
    assert files(*both) == ("/k/web1",)
    # New keys go into the first one: it is never the system's.
    assert files("-o", "UserKnownHostsFile=none")[0] == "/dev/null"
    assert files("-o", "GlobalKnownHostsFile=/g")[0] == os.path.expanduser("~/.ssh/known_hosts")


def test_a_connect_timeout() -> None:
    assert target_of("-o", "ConnectTimeout=5").options.connect_timeout == 5.0
    both = target_of("-o", "ConnectTimeout=5", "-o", "ConnectTimeout=9").options
    assert both.connect_timeout == 5.0


@pytest.mark.parametrize(
    "options",
    [
        ("-q",),
        ("-x",),
        ("-a",),
        ("-T",),
        ("-o", "BatchMode=yes"),
        ("-o", "LogLevel=ERROR"),
        ("-o", "PasswordAuthentication=no"),
        ("-o", "PasswordAuthentication=yes"),  # a password is tried if the script gives one
        ("-t", "-tt", "-qxa"),
        ("-A", "-a"),
        ("-o", "ForwardAgent=No"),
        ("-o", "ForwardX11=no"),
        ("-o", "Compression=no"),
    ],
    ids=" ".join,
)
def test_what_has_no_effect_here_changes_nothing(options: tuple[str, ...]) -> None:
    assert target_of(*options) == target_of()


def test_quotes_around_a_value_do_not_belong_to_it() -> None:
    assert target_of("-o", "User='ann'").user == ssh_says("-o", "User='ann'")["user"] == "ann"
    assert target_of("-o", 'StrictHostKeyChecking="no"').options.host_key_policy == "off"


@pytest.mark.parametrize(
    "option",
    [
        "Port=0",
        "Port=65536",
        "Port=-1",
        "Port=2_2",
        "Port=\u0662\u0662",
        "ConnectTimeout=-1",
        "ConnectTimeout=nan",
        "ConnectTimeout=inf",
        "ConnectTimeout=2.5",
        "ConnectTimeout=1_0",
        "User=",
        "User=a b",
        "ProxyJump=web1",
    ],
)
def test_values_that_ssh_refuses_are_left_to_it(option: str) -> None:
    assert ssh_says("-o", option) == {}, "ssh takes it"
    assert transport_of("-o", option) == "openssh"


def test_other_words_of_ssh() -> None:
    assert target_of("-4").family == "inet"
    assert target_of("-o", "AddressFamily=inet", "-4", "-6").family == "inet6"
    assert target_of("-o", "AddressFamily=any").family is None
    assert target_of("-o", "ConnectTimeout=1m").options.connect_timeout == 60.0
    assert target_of("-o", "ProxyCommand=nc %h %p").proxy_command == "nc web1 22"
    assert target_of("-o", "Port=ssh").port == 22
    assert target_of("-c", "aes256-ctr", "-m", "hmac-sha2-512").options.algorithms == Algorithms(
        ciphers=("aes256-ctr",), macs=("hmac-sha2-512",)
    )
    assert target_of("-o", "SetEnv=A='b c'").options.env == (("A", "b c"),)
    via = target_of("-J", "me@gw:2222", "-l", "you").via
    assert via is not None
    assert (via.address, via.user, via.port, via.name) == ("gw", "me", 2222, "gw")


def test_a_connect_timeout_of_0_is_no_limit() -> None:
    assert target_of("-o", "ConnectTimeout=0").options.connect_timeout is None


def ssh_says(*options: str) -> dict[str, str]:
    """What the ssh command makes of these options; nothing if it refuses them."""
    ssh = shutil.which("ssh")
    if ssh is None:
        pytest.skip("needs the ssh command, see tests/install-servers")
    done = subprocess.run(
        [ssh, "-F", "/dev/null", "-G", *options, "web1"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,  # a refusal is an answer
    )
    if done.returncode:
        return {}
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


@pytest.mark.parametrize("given", [None, 5, "-v"])
def test_a_rewrite_that_gives_no_address(given: object) -> None:
    params = make_connection_params({"host_rewrite_func": lambda name: given})
    with pytest.raises(ValueError, match=f"host_rewrite_func made {given!r} of the host web1"):
        connection_to(Host("web1"), params)
