"""Lists of algorithms: what ssh_config means by them, and what a connection then uses."""

from __future__ import annotations

from collections.abc import Iterator

import paramiko
import pytest

from execo.errors import Reason
from execo.transports import close_idle
from execo.transports.base import Algorithms
from execo.transports.ssh_algorithms import (
    _KINDS,
    CIPHERS,
    HOST_KEYS,
    MACS,
    SIGNATURES,
    algorithms_of,
)
from execo.transports.ssh_config import HostSettings
from remote_commands import run
from sshd import RealSshd

pytest_plugins = ["sshd", "remote_commands"]


def ciphers(text: str) -> tuple[str, ...] | None:
    algorithms, problems = algorithms_of(HostSettings(hostname="h", ciphers=text))
    assert not problems
    return algorithms.ciphers


def test_nothing_said_is_the_usual_ones() -> None:
    assert algorithms_of(HostSettings(hostname="h")) == (Algorithms(), ())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("aes256-ctr,aes128-ctr", ("aes256-ctr", "aes128-ctr")),
        (
            "chacha20-poly1305@openssh.com,aes256-ctr",
            ("chacha20-poly1305@openssh.com", "aes256-ctr"),
        ),
        ("+3des-cbc", (*CIPHERS, "3des-cbc")),
        ("+aes128-ctr", CIPHERS),
        ("^aes256-ctr", ("aes256-ctr", *(name for name in CIPHERS if name != "aes256-ctr"))),
        ("-aes*-ctr", ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")),
        ("-aes128-ctr,*gcm*", ("aes192-ctr", "aes256-ctr")),
    ],
)
def test_a_list_replaces_the_usual_one_or_changes_it(text: str, expected: tuple[str, ...]) -> None:
    assert ciphers(text) == expected


def test_each_list_has_its_own_usual_one() -> None:
    found, problems = algorithms_of(
        HostSettings(
            hostname="h",
            macs="+hmac-md5",
            kex_algorithms="-ecdh-*,diffie-*,mlkem*",
            host_key_algorithms="^rsa-sha2-512",
            pubkey_accepted_algorithms="-*cert*",
            required_rsa_size=3072,
        )
    )
    assert not problems
    assert found == Algorithms(
        macs=(*MACS, "hmac-md5"),
        key_exchanges=("curve25519-sha256@libssh.org",),
        host_keys=("rsa-sha2-512", *(name for name in HOST_KEYS if name != "rsa-sha2-512")),
        signatures=tuple(name for name in SIGNATURES if "cert" not in name),
        least_rsa_bits=3072,
    )


def test_one_algorithm_has_two_names() -> None:
    for text in ("curve25519-sha256", "curve25519-sha256@libssh.org"):
        found, _ = algorithms_of(HostSettings(hostname="h", kex_algorithms=text))
        assert found.key_exchanges == ("curve25519-sha256@libssh.org",)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"ciphers": "chacha20-poly1305@openssh.com"}, "Ciphers chacha20"),
        ({"macs": "umac-64@openssh.com"}, "MACs umac"),
        ({"kex_algorithms": "diffie-hellman-group1-sha1"}, "KexAlgorithms diffie"),
        ({"host_key_algorithms": "ssh-dss"}, "HostKeyAlgorithms ssh-dss"),
        ({"pubkey_accepted_algorithms": "sk-*"}, "PubkeyAcceptedAlgorithms sk"),
        ({"ciphers": "-*"}, "Ciphers -"),
    ],
)
def test_a_list_of_which_nothing_is_left_is_left_to_ssh(settings: dict[str, str], why: str) -> None:
    _, (problem,) = algorithms_of(HostSettings(hostname="h", **settings))  # type: ignore[arg-type]
    assert problem.startswith(why)
    assert problem.endswith("none of these can be done in process")


def test_paramiko_knows_what_we_count_on() -> None:
    tables = [
        getattr(paramiko.Transport, name)
        for name in ("_cipher_info", "_mac_info", "_kex_info", "_key_info", "_key_info")
    ]
    for (keyword, _, can), table in zip(_KINDS, tables, strict=True):
        assert can - set(table) == frozenset(), keyword


# -- a connection ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def old() -> Iterator[RealSshd]:
    """A server that knows one old cipher and one code alone."""
    with RealSshd({"Ciphers": "aes128-cbc", "MACs": "hmac-sha2-512"}) as server:
        yield server


def test_an_old_cipher_is_used_where_it_is_asked_for(old: RealSshd) -> None:
    (host,) = old.hosts(1)
    assert run(host, "true", {"transport": "paramiko"}, nolog_error=True).reason is Reason.CONNECT
    more = {"ssh_options": ("-o", "Ciphers=+aes128-cbc"), "transport": "paramiko"}
    assert run(host, "echo in", more).stdout == "in\n"
    close_idle()


def test_what_is_not_in_the_list_is_not_used(old: RealSshd) -> None:
    (host,) = old.hosts(1)
    for option in ("MACs=-hmac-sha2-512", "HostKeyAlgorithms=ecdsa-sha2-nistp521"):
        options = ("-c", "aes128-cbc", "-o", option)
        process = run(host, "true", {"ssh_options": options}, nolog_error=True)
        assert process.reason is Reason.CONNECT
        assert "no common algorithm" in process.message
    options = ("-c", "aes128-cbc", "-m", "umac-64@openssh.com,hmac-sha2-512")
    assert run(host, "echo in", {"ssh_options": options}).stdout == "in\n"
