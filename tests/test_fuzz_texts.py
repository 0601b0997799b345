"""What users and their files say, damaged: an answer, or an error of ours that says where.

No crash, no hang, and nothing in it is ever run.
"""

from __future__ import annotations

import base64
import math
import os
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import assume, example, given
from hypothesis import strategies as st

from execo import Host, time_utils
from execo.config import (
    configuration,
    default_connection_params,
    load_configuration,
    make_connection_params,
)
from execo.connection import connection_to
from execo.errors import ConfigError, ExecoError, HostSetError, SshConfigError, SubstitutionError
from execo.host import get_hosts_list, get_hosts_set
from execo.hostset import expand, fold, hostset
from execo.substitutions import remote_substitute
from execo.transports.key_files import (
    KeyFile,
    LoginProblem,
    PublicKey,
    public_file,
    read_key,
    rsa_bits,
    unlock,
)
from execo.transports.known_hosts import HostKey, KnownHosts
from execo.transports.ssh_config import SshConfig
from execo.transports.ssh_config_lines import split_line, split_words
from execo.transports.ssh_options import read_options
from fuzzing import cheap, damaged, examples, unlucky_numbers


@pytest.fixture(autouse=True)
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is damaged names it in commands of shells and in expressions: nobody runs them."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "canary").exists()


RUNS = ["$(touch canary)", "`touch canary`", "{{open('canary','w')}}", "<<open('canary','w')>>"]
RUNS += ["; touch canary", "|touch canary", "\ntouch canary\n", "-oProxyCommand=touch canary"]


# -- hosts ----------------------------------------------------------------

SETS = [
    *[
        "node[1-9]",
        "node[01-10/2,7]",
        "a[1-3]b[4-6]c",
        "web1",
        "web1.example.org",
        "10.0.0.[1-254]",
    ],
    *[
        "::1",
        "[fe80::1%eth0]",
        "[2001:db8::1]",
        "root@web1:2222",
        "me@[::1]:22",
        "a,b",
        "a[1-5]!a3",
    ],
    *["@group", "@*", "a*", "a[1-3]&a[2-9]", "a^b", "n[1-2,5,9-8]", "é[1-2]", "a[0001-0100]"],
]
OF_SETS = ["[1-999999999]", "[0-9]", "[1-9/0]", "[[1-2]]", "[1-2", "1-2]", "[-1-5]", "@", "!", "&"]
OF_SETS += ["[1]" * 200, "[1-99]" * 9, "[" * 500, "]" * 500, ",", "^", "/", "[1-2]-[3-4]", *RUNS]


@examples(200)
@given(damaged(st.sampled_from(SETS), OF_SETS))
@example("a" + "[1-999999]" * 2000)
@example("a[1-" + "9" * 100_000 + "]")
@example("[" * 50_000)
@example("a[" + "1," * 50_000 + "1]")
@example("x[1-10000]")
def test_hosts(text: str) -> None:
    def small(text: str) -> bool:
        return all(len(digits) < 5 for digits in re.findall("[0-9]+", text))

    for read in (expand, get_hosts_list, get_hosts_set, hostset):
        if read is hostset:
            assume(small(text))  # ClusterShell itself is slow with many dimensions, not without end
        with cheap():
            try:
                found = list(read(text))
            except HostSetError as exc:
                assert isinstance(exc, ValueError)
                continue
        assert found
        for host in found:
            address = str(host)
            assert not re.search(r"[\s\x00-\x1f\x7f]", address)
            assert not address.startswith("-")
    with cheap():
        fold([text, f"{text}2", "a1", "a2"])


@examples(100)
@given(
    damaged(st.sampled_from(["web1", "me", "/home/me/.ssh/id", "22"]), RUNS),
    st.sampled_from(["address", "user", "keyfile", "port"]),
)
def test_parts_of_a_host(text: str, name: str) -> None:
    values: dict[str, Any] = {"address": "web1", name: text}
    try:
        host = Host(**values)
    except ValueError:
        return
    assert getattr(host, name) in (text, None, int(text) if name == "port" else text)
    assert "\n" not in repr(host)


# -- substitutions ----------------------------------------------------------------


@examples(100)
@given(
    st.lists(damaged(st.sampled_from(["web1", "{{canary()}}", "<<canary()>>"]), RUNS), min_size=1),
    damaged(st.sampled_from(["cmd {{{host}}} {{values}}", "echo <<<host>>> <<values>>"])),
)
def test_addresses_and_values_are_not_run(addresses: list[str], text: str) -> None:
    def canary() -> list[str]:
        ran.append(1)
        return ["x"]

    ran: list[int] = []
    hosts = []
    for address in addresses:
        try:
            hosts.append(Host(address))
        except ValueError:
            continue
    assume(hosts)
    # Those that the damage has put into the template itself are the user's to run.
    assume("canary" not in text)
    scope = {"values": addresses, "canary": canary}
    for index in range(len(hosts)):
        try:
            assert isinstance(remote_substitute(text, hosts, index, scope), str)
        except SubstitutionError as exc:
            assert exc.text == text
    assert not ran


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "inside",
    [
        *["-" * 200_000 + "1", "not " * 100_000 + "1", "a" + ".a" * 50_000, "'\udc80'", "1" * 5000],
        *["(" * 5000 + ")" * 5000, "lambda:" * 5000 + "1", "[x " + "for x in [1] " * 2000 + "]"],
    ],
    ids=lambda inside: inside[:5],
)
def test_an_expression_that_no_parser_can_read(inside: str) -> None:
    with cheap():
        for text in (f"{{{{{inside}}}}}", f"<<{inside}>>"):
            try:
                assert isinstance(remote_substitute(text, [Host("a")], 0, {}), str)
            except SubstitutionError as exc:
                assert len(str(exc)) < 2000


# -- durations and dates ----------------------------------------------------------------

TIMES = ["12", "1.5", "0:01:30", "100:00:00.5", "2026-01-31 12:00:00", "26-01-31T12:00:00.5Z"]
TIMES += ["31 12:00:00+01:00", "12:00:00.123456789-11:59", "01-31 23:59:59", "1969-12-31 00:00:00Z"]
OF_TIMES = [
    "99",
    "00",
    "9999-",
    "10000-",
    "1000000000-",
    "+99:99",
    "Z",
    "T",
    ".",
    "24:00:00",
    ":60",
]


@examples(200)
@given(damaged(st.sampled_from(TIMES), OF_TIMES) | unlucky_numbers)
@example("1" * 200_000)
@example("1:" * 100_000)
@example("." + "9" * 200_000)
@example("1000000000-01-01 00:00:00")
@example("0000-01-01 00:00:00")
@example("9999-12-31 23:59:59-23:59")
def test_durations_and_dates(text: str) -> None:
    for read in (time_utils.get_seconds, time_utils.get_unixts):
        with cheap():
            try:
                seconds = read(text)
            except ValueError as exc:
                assert "accepted: " in str(exc)
                assert len(str(exc)) < 1000
                continue
        assert math.isfinite(seconds)
        for show in (time_utils.format_seconds, time_utils.format_unixts):
            try:
                assert show(seconds)
            except ValueError as exc:
                assert "not a date" in str(exc)  # outside of the calendar


NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.fractions(),
    st.decimals(),
    st.sampled_from([10**5000, -(10**400)]),
)


@examples(100)
@given(NUMBERS)
def test_numbers_for_durations_and_dates(number: Any) -> None:
    for use in (
        *(time_utils.get_seconds, time_utils.get_unixts, time_utils.format_seconds),
        *(time_utils.format_unixts, time_utils.unixts_to_datetime, time_utils.format_duration),
        *(time_utils.format_date, time_utils.Timer),
    ):
        call: Callable[[Any], object] = use
        try:
            call(number)
        except ValueError as exc:
            assert "accepted: " in str(exc)


# -- files of ssh ----------------------------------------------------------------

KEY = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(32)).decode()
KNOWN = [
    f"web1,10.0.0.1 ssh-ed25519 {KEY} a comment",
    f"[web1]:2222 ssh-ed25519 {KEY}",
    f"*.example.org,!bad.example.org ssh-ed25519 {KEY}",
    f"|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= ssh-ed25519 {KEY}",
    f"@revoked * ssh-ed25519 {KEY}",
    f"@cert-authority *.example.org ssh-ed25519 {KEY}",
    f"web1 ssh-rsa {KEY}",
]
OF_KNOWN = [
    "|1|",
    "|",
    "@revoked ",
    "@x ",
    ",",
    "!",
    "*" * 50,
    "*a" * 30,
    "ssh-rsa",
    "ssh-dss",
    "=",
]


@examples(100)
@given(st.lists(damaged(st.sampled_from(KNOWN), OF_KNOWN), max_size=6))
def test_known_hosts(tmp_path: Path, lines: list[str]) -> None:
    path = tmp_path / "known_hosts"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    key = HostKey("ssh-ed25519", base64.b64decode(KEY))
    with cheap():
        files = KnownHosts((str(path),))
        for name in ("web1", "[web1]:2222", "bad.example.org", "a" * 50, "odd\udcff"):
            known = files.keys_of(name)
            for strict in (True, False):
                problem = files.problem(name, key, known, strict=strict)
                assert problem is None or problem.startswith(("its host key", "an authority"))


CONFIG = """\
Host web* !web9
  HostName %h.example.org
  Port 2222
  User "me"
  IdentityFile ~/.ssh/id_%r ${HOME}/k
  ProxyJump me@gw:22,[::1]:2222
Match host *.org user me exec "touch canary"
  UserKnownHostsFile ~/.ssh/known_%C
  SetEnv A=1 "B=2 3"
  ConnectTimeout 1h30m
Match originalhost gw final
  ProxyCommand touch canary; nc %h %p
  LocalCommand touch canary
  PermitLocalCommand yes
  KnownHostsCommand /bin/sh -c "touch canary"
  Ciphers +aes128-ctr,-3des*
Include conf.d/*.conf config
Host *
  IgnoreUnknown Odd*,x
  OddThing 1
  SendEnv LC_* -LANG
  ServerAliveInterval 30
"""
OF_CONFIG = ["%", "%%", "%x", "${", "${NO_SUCH}", "~nobody-of-this-name/", '"', "'", "\\", "#", "!"]
OF_CONFIG += [
    "Match all\n",
    "Host\n",
    "Match exec touch canary\n",
    "Include /dev/null\n",
    "=",
    ",,",
]
OF_CONFIG += ["*a" * 30, "99999999999", "Port 0\n", "Include " + "../" * 50 + "\n", *RUNS]


@examples(200)
@given(damaged(st.just(CONFIG), OF_CONFIG), st.sampled_from(["web1", "gw", "a" * 60, "::1"]))
def test_files_of_ssh_config(tmp_path: Path, text: str, host: str) -> None:
    path = tmp_path / "config"
    data = text.encode("utf-8", "surrogateescape")
    path.write_bytes(data)
    with cheap():
        try:
            settings = SshConfig.load_file(str(path), home=str(tmp_path)).lookup(host)
        except SshConfigError as exc:
            assert exc.filename
            assert exc.lineno is None or 1 <= exc.lineno <= data.count(b"\n") + 1
            assert str(exc).startswith(exc.filename)
            return
    assert settings.hostname


@pytest.mark.parametrize("name", ["a\0b", "odd\udfff", "~nobody-of-this-name/config", "no/such"])
def test_a_file_of_ssh_config_that_cannot_be(name: str) -> None:
    with pytest.raises(SshConfigError) as caught:
        SshConfig.load_file(name)
    assert caught.value.filename


@examples(200)
@given(damaged(st.sampled_from(CONFIG.splitlines()), OF_CONFIG))
@example('"' * 20_000)
@example("a " + "\\" * 20_000)
@example("a " + "' " * 20_000)
def test_lines_of_ssh_config(line: str) -> None:
    with cheap():
        try:
            found = split_line(line)
            words = list(split_words(line))
        except ValueError:
            return
    assert found is None or found[0] == found[0].lower()
    assert "".join(words) == "" or len("".join(words)) <= len(line)


WORDS = [["-o", "Port=22"], ["-p", "22"], ["-4AC"], ["-i", "/k", "-l", "me"], ["-J", "a,b@c:1"]]
WORDS += [["-oProxyCommand=touch canary"], ["-F", "none"], ["-vvv"], ["-o", "User me"], ["--"]]


@examples(100)
@given(
    st.lists(
        st.sampled_from(WORDS).flatmap(
            lambda words: st.tuples(*(damaged(st.just(word), OF_CONFIG) for word in words))
        ),
        max_size=4,
    )
)
def test_words_of_ssh_options(tmp_path: Path, words: list[tuple[str, ...]]) -> None:
    options = tuple(word for some in words for word in some)
    assert isinstance(read_options(options).lines, tuple)
    for transport in ("auto", "paramiko", "openssh"):
        with cheap():
            try:
                params = make_connection_params({"ssh_options": options, "transport": transport})
                _, target = connection_to(Host("web1"), params)
            except (ExecoError, ValueError) as exc:
                assert str(exc)
                continue
        assert target.address


# -- keys ----------------------------------------------------------------


def _private_keys() -> dict[str, bytes]:
    kinds: dict[str, Any] = {
        "ed25519": ed25519.Ed25519PrivateKey.generate(),
        "ecdsa": ec.generate_private_key(ec.SECP256R1()),
        "rsa": rsa.generate_private_key(65537, 1024),
    }
    found = {}
    plain, formats = serialization.NoEncryption(), serialization.PrivateFormat
    for name, key in kinds.items():
        for name_of_form, form in (("openssh", formats.OpenSSH), ("pkcs8", formats.PKCS8)):
            text = key.private_bytes(serialization.Encoding.PEM, form, plain)
            found[f"{name} {name_of_form}"] = text
        locked = formats.OpenSSH.encryption_builder().kdf_rounds(1).build(b"secret")
        found[f"{name} locked"] = key.private_bytes(
            serialization.Encoding.PEM, formats.OpenSSH, locked
        )
    return found


KEYS = _private_keys()
OF_KEYS = [b"-----BEGIN", b"-----END", b"\n\n", b"ENCRYPTED", b"Proc-Type: 4,ENCRYPTED\n", b"AAAA"]


@st.composite
def damaged_keys(draw: st.DrawFn) -> bytes:
    """The text is damaged, or what it stands for."""
    text = draw(st.sampled_from(sorted(KEYS.values())))
    if draw(st.booleans()):
        return draw(damaged(st.just(text), OF_KEYS))
    first, *lines, last = text.strip().split(b"\n")
    body = draw(damaged(st.just(base64.b64decode(b"".join(lines))), [b"\xff" * 4, b"\0" * 4]))
    return b"\n".join([first, base64.encodebytes(body).strip(), last, b""])


@examples(200)
@given(damaged_keys())
def test_files_of_keys(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(data)
    with cheap():
        try:
            found = read_key(str(path))
        except LoginProblem as exc:
            assert str(path) in str(exc)
            assert "secret" not in str(exc)
            return
    assert isinstance(found, KeyFile)
    if found.private is None and data.startswith(b"-----BEGIN OPENSSH"):
        with cheap():
            try:
                unlock(found, "secret")
            except LoginProblem as exc:
                assert str(path) in str(exc)


def test_a_damaged_number_of_rounds_is_refused(tmp_path: Path) -> None:
    # Four billion of them would keep a thread for years.
    path = tmp_path / "key"
    first, *lines, last = KEYS["ed25519 locked"].strip().split(b"\n")
    body = base64.b64decode(b"".join(lines))
    at = body.index(b"bcrypt") + len(b"bcrypt") + 4 + 4 + 16
    assert body[at : at + 4] == b"\0\0\0\1"
    body = body[:at] + b"\xff" * 4 + body[at + 4 :]
    path.write_bytes(b"\n".join([first, base64.encodebytes(body).strip(), last, b""]))
    with pytest.raises(LoginProblem, match="4294967295 rounds"):
        read_key(str(path))


@examples(100)
@given(
    damaged(st.just(f"ssh-ed25519 {KEY} me@here\n".encode()), [b"ssh-rsa", b"\n"]),
    damaged(st.just(base64.b64decode(KEY)), [b"\xff\xff\xff\xff", b"\0\0\0\0"]),
    st.sampled_from(["ssh-rsa", "ssh-ed25519-cert-v01@openssh.com", "sk-x-cert-v01@openssh.com"]),
)
def test_public_keys(tmp_path: Path, text: bytes, blob: bytes, kind: str) -> None:
    path = tmp_path / "key.pub"
    path.write_bytes(text)
    try:
        found = public_file(str(path))
    except LoginProblem as exc:
        assert str(path) in str(exc)
    else:
        assert isinstance(found, PublicKey)
    for key in (PublicKey(kind, blob), PublicKey("ssh-rsa", blob)):
        assert key.plain is None or not key.plain.is_certificate
        assert rsa_bits(key) is None or (rsa_bits(key) or 0) >= 0


# -- the configuration ----------------------------------------------------------------

CONF = """\
configuration = {
    'log_level': 'DEBUG',
    'kill_timeout': 10,
    'color_styles': {'emph': ('magenta', 'bold')},
    'port_range': (25500, 26700),
}
default_connection_params = {
    'user': 'me', 'port': 22, 'ssh_options': ('-o', 'Port=22'), 'connect_timeout': 20.5,
    'password': 'secret-word',
}
"""
OF_CONF = [
    "None",
    "True",
    "float('nan')",
    "float('inf')",
    "1e999",
    "0x" + "f" * 4000,  # not as a power: damaged, it could be one that takes years
    "[]",
    "{}",
    "()",
    ",",
]
OF_CONF += [
    "'x'",
    "b'x'",
    "lambda: 1",
    "...",
    "1/0",
    "raise",
    "import",
    "-" * 9999,
    "(" * 300,
    "\\\n",
]


@pytest.fixture
def same_settings() -> Iterator[None]:
    kept = [(each, dict(each)) for each in (configuration, default_connection_params)]
    yield
    for each, values in kept:
        each.clear()
        each.update(values)


@examples(150)
@given(damaged(st.just(CONF), OF_CONF))
@pytest.mark.filterwarnings("ignore")
def test_the_configuration_file(tmp_path: Path, same_settings: None, text: str) -> None:
    path = tmp_path / "conf.py"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    os.chmod(path, 0o600)
    with cheap(), warnings.catch_warnings(record=True):
        try:
            load_configuration(str(path))
        except ConfigError as exc:
            assert exc.filename == str(path)
            lines = re.split("\r\n|\r|\n", text)  # as Python counts them
            assert exc.lineno is None or 1 <= exc.lineno <= len(lines)
            assert "got 'secret-word" not in str(exc)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=5,
) | st.sampled_from([10**5000, object(), print, float("nan"), "\0", "\udc80"])


@examples(200)
@given(st.sampled_from(sorted(default_connection_params)), VALUES)
def test_values_of_connection_parameters(key: str, value: Any) -> None:
    try:
        params = make_connection_params({key: value})
    except (ValueError, TypeError) as exc:
        assert key in str(exc)
        return
    with cheap():
        try:
            connection_to(Host("web1"), params)
        except (ExecoError, ValueError) as exc:
            assert str(exc)
