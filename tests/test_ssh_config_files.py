"""The files of ssh_config: which ones are read, what they include, who may write to them."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from execo.errors import SshConfigError
from execo.transports.ssh_config import HostSettings, SshConfig
from ssh_dump import Refused, as_dump, dump, taken
from ssh_stock import debian, put, red_hat

HOSTS = ["web1", "WEB1.example.org", "127.0.0.1", "::1", "root-only"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".ssh").mkdir(mode=0o700)
    return tmp_path


def load(home: Path, system: Path | None = None) -> SshConfig:
    return SshConfig.load(system_file=None if system is None else str(system), home=str(home))


def agree(file: Path, host: str = "web1") -> HostSettings:
    """What execo and ssh read alike."""
    found = SshConfig.load_file(str(file)).lookup(host)
    assert as_dump(found) == taken(dump(file, host))
    return found


# -- the system's file of the distributions -------------------------------------------------------


@pytest.fixture
def system(tmp_path: Path) -> Path:
    (tmp_path / "etc" / "ssh_config.d").mkdir(parents=True)
    return tmp_path / "etc"


@pytest.mark.parametrize("host", HOSTS)
def test_debian_keeps_every_host_in_process(system: Path, home: Path, host: str) -> None:
    file = debian(system)
    found = load(home, file).lookup(host)
    assert found.only_openssh == ()
    assert found.send_env == ("LANG", "LC_*")
    assert found.hash_known_hosts is True
    # As a file of the user's own (ssh -F), it asks for Kerberos.
    (kerberos,) = (alone := agree(file, host)).only_openssh
    assert "GSSAPIAuthentication yes" in kerberos
    assert replace(alone, only_openssh=()) == found


@pytest.mark.parametrize("host", HOSTS)
def test_red_hat_keeps_every_host_in_process(system: Path, home: Path, host: str) -> None:
    file = red_hat(system)
    found = load(home, file).lookup(host)
    assert found.only_openssh == ()
    assert found.send_env[-1] == "XMODIFIERS"
    assert found.required_rsa_size == 2048
    assert found.ciphers is not None
    assert found.ciphers.startswith("aes256-gcm@openssh.com,")
    # As a file of the user's own (ssh -F), it asks for Kerberos.
    (kerberos,) = (alone := agree(file, host)).only_openssh
    assert "GSSAPIAuthentication yes" in kerberos
    assert replace(alone, only_openssh=()) == found


def test_the_users_file_comes_before_red_hats_last_words(system: Path, home: Path) -> None:
    put(home / ".ssh" / "config", "Host *\n Ciphers aes128-ctr\n SendEnv -LC_*\n")
    found = load(home, red_hat(system)).lookup("web1")
    assert found.ciphers == "aes128-ctr"
    assert found.only_openssh == ()


def test_the_system_of_this_machine_keeps_hosts_in_process() -> None:
    assert SshConfig.load(user_file=None).lookup("web1").only_openssh == ()


# -- which files ----------------------------------------------------------------------------------


def test_files_may_be_missing(home: Path) -> None:
    assert load(home, home / "no-such").lookup("a") == HostSettings(hostname="a")


def test_a_file_that_was_named_must_be_there(home: Path) -> None:
    with pytest.raises(SshConfigError, match="No such file"):
        SshConfig.load_file(str(home / "no-such"))


def test_the_users_file_comes_first(home: Path) -> None:
    put(home / ".ssh" / "config", "User me\nIdentityFile ~/.ssh/mine\n")
    system = put(home / "system", "User you\nPort 2201\nIdentityFile /theirs\n")
    found = load(home, system).lookup("web1")
    assert (found.user, found.port) == ("me", 2201)
    assert found.identity_files == (f"{home}/.ssh/mine", "/theirs")


# -- Include --------------------------------------------------------------------------------------


def test_included_files_in_their_order(tmp_path: Path) -> None:
    put(tmp_path / "d" / "2.conf", "Port 2\nUser two")
    put(tmp_path / "d" / "1.conf", "Host web1\n Port 1\nHost db1\n Port 3")
    put(tmp_path / "d" / ".hidden.conf", "Port 4")
    (tmp_path / "d" / "folder.conf").mkdir()
    file = put(tmp_path / "f", f"Include {tmp_path}/d/*.conf {tmp_path}/no-such\nPort 9\nUser nine")
    assert (agree(file).port, agree(file, "db1").port, agree(file, "x").port) == (1, 3, 2)


def test_a_block_goes_on_after_what_it_includes(tmp_path: Path) -> None:
    put(tmp_path / "inner", "User in\nHost other\n Port 1\nMatch all\n ConnectTimeout 7\n")
    text = f"Host web1\n Include {tmp_path}/inner\n ServerAliveInterval 5\nHost db1\n Port 2\n"
    file = put(tmp_path / "f", text)
    found = agree(file)
    assert (found.user, found.connect_timeout, found.server_alive_interval) == ("in", 7, 5)
    assert agree(file, "other") == HostSettings(hostname="other")


def test_a_second_reading_is_asked_for_from_anywhere(tmp_path: Path) -> None:
    put(tmp_path / "inner", "Match host nothing final\n")
    text = f"HostName db1\nHost db1\n Port 1\nHost nothing\n Include {tmp_path}/inner\n"
    assert agree(put(tmp_path / "f", text)).port == 1


def test_names_without_a_folder_are_in_the_users_one(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(home))
    put(home / ".ssh" / "conf.d" / "a", "Port 1")
    put(home / "b", "User b")
    file = put(home / "f", "Include conf.d/*\nInclude ~/b\n")
    assert (agree(file).port, agree(file).user) == (1, "b")
    put(home / ".ssh" / "config", file.read_text())
    assert load(home).lookup("x").port == 1


def test_the_system_includes_nothing_of_a_home(home: Path) -> None:
    with pytest.raises(SshConfigError, match="cannot include a file of a user's home"):
        load(home, put(home / "system", "Include ~/x\n"))


def test_files_that_include_themselves_are_refused(tmp_path: Path) -> None:
    file = put(tmp_path / "f", f"Include {tmp_path}/f\n")
    with pytest.raises(SshConfigError, match="too many files include one another"):
        SshConfig.load_file(str(file))
    with pytest.raises(Refused, match="Too many recursive"):
        dump(file, "x")


def test_sixteen_files_deep(tmp_path: Path) -> None:
    for i in range(16):
        put(tmp_path / str(i), f"Include {tmp_path}/{i + 1}\n")
    put(tmp_path / "16", "Port 16\n")
    assert agree(tmp_path / "0").port == 16
    put(tmp_path / "first", f"Include {tmp_path}/0\n")
    with pytest.raises(SshConfigError, match="too many files"):
        SshConfig.load_file(str(tmp_path / "first"))


def test_a_mistake_in_an_included_file_names_that_file(tmp_path: Path) -> None:
    inner = put(tmp_path / "inner", "\nPort x\n")
    file = put(tmp_path / "f", f"Host other\n Include {inner}\n")
    with pytest.raises(SshConfigError, match=f"^{re.escape(str(inner))}:2: not a port"):
        SshConfig.load_file(str(file))


def test_a_link_that_leads_nowhere_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.conf").symlink_to(tmp_path / "gone")
    file = put(tmp_path / "f", f"Include {tmp_path}/*.conf\nPort 1\n")
    assert agree(file).port == 1


def test_any_bytes_may_be_in_it(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"# \xe9t\xe9\nUser \xe9t\xe9\n")
    assert agree(file).user == os.fsdecode(b"\xe9t\xe9")


# -- who may write to them ------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "good"), [(0o600, True), (0o644, True), (0o646, False)])
def test_nobody_else_may_write_to_the_users_file(home: Path, mode: int, good: bool) -> None:
    file = put(home / ".ssh" / "config", "Port 1\n", mode)
    if good:
        assert load(home).lookup("a").port == 1
        return
    with pytest.raises(SshConfigError, match="bad owner or permissions") as caught:
        load(home)
    assert caught.value.filename == str(file)
    # A file that is named for this use is the user's own affair, as for ssh -F.
    assert agree(file).port == 1


def test_nobody_else_may_write_to_an_included_file(tmp_path: Path) -> None:
    inner = put(tmp_path / "inner", "Port 1\n", 0o666)
    file = put(tmp_path / "f", f"Include {inner}\n")
    with pytest.raises(SshConfigError, match=f"^{re.escape(str(inner))}: bad owner or permissions"):
        SshConfig.load_file(str(file))
    with pytest.raises(Refused, match="Bad owner or permissions"):
        dump(file, "x")


@pytest.mark.parametrize("group", [0, 4, 50, 65534])
def test_a_group_of_one_may_write_as_debians_ssh_has_it(tmp_path: Path, group: int) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give files away")
    inner = put(tmp_path / "inner", "Port 1\n", 0o664)
    os.chown(inner, 0, group)
    file = put(tmp_path / "f", f"Include {inner}\n")
    try:
        expected = taken(dump(file, "x"))
    except Refused:
        with pytest.raises(SshConfigError, match="bad owner or permissions"):
            SshConfig.load_file(str(file))
    else:
        assert as_dump(SshConfig.load_file(str(file)).lookup("x")) == expected


def test_the_file_of_another_user_is_refused(home: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give files away")
    file = put(home / ".ssh" / "config", "Port 1\n")
    os.chown(file, 65534, 65534)
    with pytest.raises(SshConfigError, match="bad owner or permissions"):
        load(home)
