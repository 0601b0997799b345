"""ssh_config: what it says of a host, compared with what ssh says where ssh can be asked."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from execo.errors import SshConfigError
from execo.transports.ssh_config import Hop, HostSettings, SshConfig
from execo.transports.ssh_config_keywords import ALIASES, KEYWORDS, Use
from fuzzing import cheap
from ssh_dump import as_dump, dump, taken

Look = Callable[..., HostSettings]

# The keywords of ssh_config(5) of OpenSSH 9.2, with those of Debian.
MANUAL = """
Host Match AddKeysToAgent AddressFamily BatchMode BindAddress BindInterface CanonicalDomains
CanonicalizeFallbackLocal CanonicalizeHostname CanonicalizeMaxDots CanonicalizePermittedCNAMEs
CASignatureAlgorithms CertificateFile CheckHostIP Ciphers ClearAllForwardings Compression
ConnectionAttempts ConnectTimeout ControlMaster ControlPath ControlPersist DynamicForward
EnableEscapeCommandline EnableSSHKeysign EscapeChar ExitOnForwardFailure FingerprintHash
ForkAfterAuthentication ForwardAgent ForwardX11 ForwardX11Timeout ForwardX11Trusted GatewayPorts
GlobalKnownHostsFile GSSAPIAuthentication GSSAPIClientIdentity GSSAPIDelegateCredentials
GSSAPIKeyExchange GSSAPIRenewalForcesRekey GSSAPIServerIdentity GSSAPITrustDns GSSAPIKexAlgorithms
HashKnownHosts HostbasedAcceptedAlgorithms HostbasedAuthentication HostKeyAlgorithms HostKeyAlias
Hostname IdentitiesOnly IdentityAgent IdentityFile IgnoreUnknown Include IPQoS
KbdInteractiveAuthentication KbdInteractiveDevices KexAlgorithms KnownHostsCommand LocalCommand
LocalForward LogLevel LogVerbose MACs NoHostAuthenticationForLocalhost NumberOfPasswordPrompts
PasswordAuthentication PermitLocalCommand PermitRemoteOpen PKCS11Provider Port
PreferredAuthentications ProxyCommand ProxyJump ProxyUseFdpass PubkeyAcceptedAlgorithms
PubkeyAuthentication RekeyLimit RemoteCommand RemoteForward RequestTTY RequiredRSASize
RevokedHostKeys SecurityKeyProvider SendEnv ServerAliveCountMax ServerAliveInterval SessionType
SetEnv StdinNull StreamLocalBindMask StreamLocalBindUnlink StrictHostKeyChecking SyslogFacility
TCPKeepAlive Tunnel TunnelDevice UpdateHostKeys User UserKnownHostsFile VerifyHostKeyDNS
VisualHostKey XAuthLocation
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config"


@pytest.fixture
def look(file: Path) -> Look:
    """Write a file, look a host up."""

    def look(text: str, host: str = "web1", **more: object) -> HostSettings:
        file.write_text(text)
        return SshConfig.load_file(str(file)).lookup(host, **more)  # type: ignore[arg-type]

    return look


@pytest.fixture
def same(file: Path, look: Look) -> Look:
    """The same, and ssh must agree."""

    def same(text: str, host: str = "web1", **more: object) -> HostSettings:
        settings = look(text, host, **more)
        assert as_dump(settings) == taken(dump(file, host))
        return settings

    return same


# -- the table ------------------------------------------------------------------------------------


def test_every_keyword_of_the_manual_has_a_row() -> None:
    assert {word.lower() for word in MANUAL.split()} <= set(KEYWORDS)


def test_every_keyword_that_ssh_tells_has_a_row(file: Path) -> None:
    file.write_text("")
    told = {keyword.lower() for keyword in dump(file, "web1")} - {""}
    assert told <= set(KEYWORDS)


def test_every_row_says_why() -> None:
    for name, keyword in KEYWORDS.items():
        assert bool(keyword.why) == (keyword.use in (Use.IGNORED, Use.LEFT)), name
        assert (keyword.read is None) == (keyword.use is Use.STRUCTURE), name
    assert set(ALIASES.values()) <= set(KEYWORDS)


# What came after OpenSSH 9.2, and what others have added.
ELSEWHERE = set(
    "channeltimeout obscurekeystroketiming refuseconnection tag versionaddendum warnweakcrypto"
    " rsaminsize usekeychain".split()
)


@pytest.mark.parametrize("name", sorted({*KEYWORDS, *ALIASES} - ELSEWHERE))
def test_ssh_knows_what_the_table_knows(name: str, file: Path) -> None:
    file.write_text(f"{name} ''\n")
    done = subprocess.run(["ssh", "-G", "-F", file, "h"], capture_output=True, check=False)
    assert b"Bad configuration option" not in done.stderr


# -- the first value wins, and other rules --------------------------------------------------------


def test_nothing_said_is_nothing_set(same: Look) -> None:
    assert same("") == HostSettings(hostname="web1")


def test_the_first_value_wins(same: Look) -> None:
    text = "Host web*\n Port 2201\n User me\nHost *\n Port 2202\n ConnectTimeout 5\n"
    found = same(text)
    assert (found.port, found.user, found.connect_timeout) == (2201, "me", 5)
    assert same(text, "db1").port == 2202


def test_what_the_call_says_comes_first(look: Look, file: Path) -> None:
    text = "User me\nPort 2201\nMatch user you\n IdentityFile /k/you\n"
    found = look(text, user="you", port=2202)
    assert (found.user, found.port, found.identity_files) == ("you", 2202, ("/k/you",))
    assert as_dump(found) == taken(dump(file, "web1", "-l", "you", "-p", "2202"))


def test_options_come_before_the_files(look: Look, file: Path) -> None:
    options = ["HostName=db.example.org", "ConnectTimeout 7", "SetEnv=A='b c'"]
    text = "HostName other\nMatch host db.*\n Port 2201\n"
    found = look(text, options=options)
    assert (found.hostname, found.port, found.connect_timeout) == ("db.example.org", 2201, 7)
    assert found.set_env == (("A", "b c"),)
    words = [word for option in options for word in ("-o", option)]
    assert as_dump(found) == taken(dump(file, "web1", *words))


@pytest.mark.parametrize("option", ["Host=a", "Match all", "Include=/x", "", "Port=x", "Odd=1"])
def test_an_option_that_is_none_is_named(option: str, look: Look) -> None:
    with pytest.raises(SshConfigError, match="ssh_options:1: "):
        look("", options=[option])


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("Host web* !web1\n Port 1", "web1", None),
        ("Host !web1 web*\n Port 1", "web1", None),
        ("Host !db\n Port 1", "web1", None),  # a negated pattern alone matches nothing
        ("Host # none\n Port 1", "web1", None),
        ("Host web1,web2\n Port 1", "web1", None),  # commas are for Match
        ("Match host web1,web2\n Port 1", "web1", 1),
        ("Host WEB1\n Port 1", "web1", None),
        ("Match host WEB1\n Port 1", "web1", 1),
        ("Host web1\n Port 1", "WEB1", None),  # before the second reading
        ("Host web1\n Port 1\nMatch final\n", "WEB1", 1),
        ("HostName db1\nHost db1\n Port 1", "web1", None),
        ("HostName db1\nMatch host db1\n Port 1", "web1", 1),
        ("HostName db1\nMatch originalhost web1\n Port 1", "web1", 1),
        ("HostName db1\nHost db1\n Port 1\nMatch final\n", "web1", 1),
        ("Match final\n Port 1\nMatch all\n Port 2", "web1", 2),
        ("Match canonical\n Port 1", "web1", None),
        ("Match canonical\n Port 1\nMatch !final all\n User x", "web1", 1),
        ("Match !all\n Port 1", "web1", None),
        ("Match host web1 all\n Port 1", "web1", 1),
        ("Match user root\n Port 1\nUser root", "web1", 1 if os.getuid() == 0 else None),
        ("Port=1", "web1", 1),
        ("Port = 1", "web1", 1),
        ('"Port" "1"', "web1", 1),
        ("  pOrT\t1  # one", "web1", 1),
        ("#Port 1", "web1", None),
        ("Port 1\r\nUser me\r\n", "web1", 1),
        ("Port ssh", "web1", 22),
        ('Port" 1', "web1", None),  # ssh passes this over
    ],
)
def test_lines_and_hosts(text: str, host: str, port: int | None, same: Look) -> None:
    assert same(text, host).port == port


def test_no_line_goes_on_in_the_next_one(look: Look) -> None:
    with pytest.raises(SshConfigError, match="not a port"):
        look("Port \\\n22\n")


def test_none_leaves_a_time_unset(same: Look) -> None:
    assert same("ConnectTimeout none\nConnectTimeout 1m30").connect_timeout == 90


def test_the_first_of_both_proxies_counts(same: Look) -> None:
    assert same("ProxyJump gw\nProxyCommand nc").proxy_command is None
    assert same("ProxyCommand nc\nProxyJump gw").proxy_jump == ()
    assert same("ProxyJump none\nProxyJump gw").proxy_jump == ()
    assert same("ProxyJump none\nProxyCommand nc").proxy_command == "nc"
    assert same("ProxyCommand none\nProxyJump gw").proxy_jump == ()


def test_several_hops(same: Look) -> None:
    assert same("ProxyJump me@a:1,b").proxy_jump == (Hop("a", "me", 1), Hop("b"))


def test_hops_of_every_form(look: Look) -> None:
    found = look("ProxyJump me@a:1,[::1]:2,ssh://you%40x@c:3,%r@%h-gw", user="u")
    assert found.proxy_jump == (
        Hop("a", "me", 1),
        Hop("::1", None, 2),
        Hop("c", "you@x", 3),
        Hop("web1-gw", "u"),
    )


def test_a_host_is_not_reached_through_itself(look: Look, file: Path) -> None:
    with pytest.raises(SshConfigError, match="through itself") as caught:
        look("Host *\n ProxyJump gw\n", "gw")
    assert (caught.value.filename, caught.value.lineno) == (str(file), 2)


def test_no_keys_is_not_the_usual_keys(same: Look) -> None:
    assert same("").identity_files is None
    assert same("IdentityFile none").identity_files == ()
    assert same("IdentityFile /a\nIdentityFile none\nIdentityFile /a").identity_files == ("/a",)


def test_no_known_hosts_is_not_the_usual_files(look: Look) -> None:
    found = look("UserKnownHostsFile none\nGlobalKnownHostsFile none")
    assert (found.user_known_hosts_files, found.global_known_hosts_files) == ((), ())


def test_variables_to_send_can_be_taken_back(same: Look) -> None:
    text = "SendEnv LANG LC_*\nSendEnv A\nHost web*\n SendEnv -LC_* B\nMatch final all\n"
    assert same(text).send_env == ("LANG", "A", "B")


def test_addresses_are_written_in_full(same: Look) -> None:
    assert same("", "127.1").hostname == "127.0.0.1"
    assert same("HostName 10.1").hostname == "10.0.0.1"


# -- tokens ---------------------------------------------------------------------------------------


def test_tokens_of_files(same: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_NAME", "some~%h")
    found = same(
        "HostName %h.example.org\nPort 2201\nUser me\nHostKeyAlias Alias\n"
        "UserKnownHostsFile ~/%h /%n /%p /%r /%k /%d /%i /%u /%L /%l /%C /%% /${SOME_NAME}\n"
    )
    home = pwd.getpwuid(os.getuid()).pw_dir
    assert found.user_known_hosts_files is not None
    assert found.user_known_hosts_files[:6] == (
        *(f"{home}/web1.example.org", "/web1", "/2201", "/me", "/alias", f"/{home}"),
    )
    assert found.user_known_hosts_files[-2:] == ("/%", "/some~%h")


def test_tokens_of_keys(look: Look) -> None:
    found = look("IdentityFile ~/%h\nCertificateFile ${HOME}/%n", "WEB1")
    assert found.identity_files == (f"{pwd.getpwuid(os.getuid()).pw_dir}/web1",)
    assert found.certificate_files == (f"{os.environ['HOME']}/WEB1",)


def test_tokens_of_a_proxy_command_are_those_of_ssh(file: Path, tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    # A shell in the shell: ssh gives up as soon as nobody can write to it any more.
    command = f"sh -c 'echo %h %n %p %r %k %% \\# > {shown}' # more"
    file.write_text(f"HostName Db.Example.org\nPort 2201\nUser me\nProxyCommand = {command}\n")
    found = SshConfig.load_file(str(file)).lookup("Web1")
    subprocess.run(["ssh", "-F", file, "Web1"], capture_output=True, check=False, timeout=60)
    by_ssh = shown.read_text()
    assert by_ssh == "db.example.org Web1 2201 me Web1 % #\n"
    shown.unlink()
    assert found.proxy_command is not None
    subprocess.run(["sh", "-c", f"exec {found.proxy_command}"], check=True)
    assert shown.read_text() == by_ssh


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("HostName %n", "%n has no meaning here"),
        ("IdentityFile /%x", "%x has no meaning here"),
        ("IdentityFile 50%", "% has no meaning here"),
        ("UserKnownHostsFile ${NO_SUCH}", "'NO_SUCH' is not set"),
        ("UserKnownHostsFile ${HOME", "no closing brace"),
        ("UserKnownHostsFile ~no-such-user/x", "there is no user 'no-such-user'"),
        ("ProxyCommand nc %l", "%l has no meaning here"),
    ],
)
def test_what_cannot_be_expanded_names_its_line(
    text: str, why: str, look: Look, file: Path
) -> None:
    with pytest.raises(SshConfigError, match=re.escape(why)) as caught:
        look(f"User me\nHost *\n  {text}\n")
    assert (caught.value.filename, caught.value.lineno) == (str(file), 3)
    assert caught.value.text == text


@pytest.mark.parametrize("host", ["$(touch x)", "a;b", "-oProxyCommand=x", "a b", "a\nb"])
def test_a_host_is_no_command_of_the_shell(host: str, look: Look) -> None:
    with pytest.raises(SshConfigError, match="cannot be part of a command"):
        look("ProxyCommand nc %h 22", host)


def test_an_agent_can_be_named_by_a_variable(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_AGENT", "/a/socket")
    assert look("IdentityAgent $MY_AGENT").identity_agent == "/a/socket"
    assert look("IdentityAgent SSH_AUTH_SOCK").identity_agent is None
    assert look("IdentityAgent none").identity_agent == "none"
    assert look("IdentityAgent $NO_SUCH").identity_agent == "none"


@pytest.mark.parametrize(
    ("text", "methods", "keys"),
    [
        ("", None, True),
        ("PubkeyAuthentication unbound", None, True),
        ("PubkeyAuthentication no", ("keyboard-interactive", "password"), False),
        ("PreferredAuthentications password,publickey,x", ("password", "publickey"), True),
        ("PreferredAuthentications hostbased,password", ("password",), False),
        (
            "PubkeyAuthentication no\nPreferredAuthentications publickey,password",
            ("password",),
            False,
        ),
        (
            "PreferredAuthentications publickey,password\nPubkeyAuthentication no",
            ("password",),
            False,
        ),
    ],
)
def test_the_methods_of_login(
    text: str, methods: tuple[str, ...] | None, keys: bool, look: Look
) -> None:
    found = look(text + "\n")
    assert (found.methods, not found.no_keys, found.only_openssh) == (methods, keys, ())


# -- what only ssh can do -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        *("BindAddress 127.0.0.1", "BindInterface lo", "CanonicalizeHostname yes"),
        *("CanonicalizePermittedCNAMEs a:b", "CheckHostIP yes"),
        *("ConnectionAttempts 2", "GSSAPIAuthentication yes", "HostbasedAuthentication yes"),
        "KnownHostsCommand /x %H",
        *("NoHostAuthenticationForLocalhost yes", "PKCS11Provider /x.so", "ProxyUseFdpass yes"),
        "PreferredAuthentications gssapi-with-mic",
        *("RevokedHostKeys /x", "SecurityKeyProvider /x.so", "VerifyHostKeyDNS ask"),
        *("Match exec true\n User me", "Match localnetwork 10.0.0.0/8\n User me"),
        *("ProxyJump a # b", 'ProxyJump "a"', "User %u", "ProxyCommand -"),
        *("ProxyJump a\nIdentityFile /%C", "RefuseConnection no"),
    ],
)
def test_what_only_ssh_can_do_is_said_with_its_place(text: str, look: Look, file: Path) -> None:
    (reason,) = look(text + "\n").only_openssh
    assert f"in {file}:" in reason


@pytest.mark.parametrize(
    "text",
    [
        *("CanonicalizeHostname no", "CanonicalizePermittedCNAMEs none", "CheckHostIP no"),
        *("Compression no", "ConnectionAttempts 1", "ControlPath none", "ControlMaster auto"),
        *("ForwardAgent no", "ForwardX11Trusted yes", "GSSAPIAuthentication no"),
        *("PreferredAuthentications publickey,password", "PubkeyAuthentication unbound"),
        *("PKCS11Provider none", "SecurityKeyProvider internal", "KnownHostsCommand none"),
        *("ForwardAgent no\nForwardAgent yes", "Host other\n ForwardAgent yes"),
        *("Compression yes", "ControlPath ~/.ssh/%C", "ForwardAgent yes", "ForwardX11 yes"),
        *("ForwardAgent ~/socket", "PermitLocalCommand yes", "StdinNull yes", "Tunnel yes"),
        # Whether these commands would succeed makes no difference to this host.
        *("Match exec false", "Match exec false\n VisualHostKey yes"),
        *("Match host other exec true\n Port 1", "Match exec true host other\n Port 1"),
        *("Host other\n Include /no/such\nMatch exec true !all\n Port 1",),
        *("LocalForward 1 a:2", "RemoteCommand ls -l # x", "BatchMode yes", "IPQoS ef"),
    ],
)
def test_what_asks_for_nothing_stays_in_process(text: str, look: Look) -> None:
    assert look(text + "\n").only_openssh == ()


@pytest.mark.parametrize(
    "option",
    [
        *("Compression=yes", "ControlPath=/s", "ForwardAgent=yes", "ForwardX11=yes"),
        *("LocalForward=1 a:2", "RemoteCommand=ls", "StdinNull=yes", "GSSAPIAuthentication=yes"),
    ],
)
def test_what_files_say_for_sessions_a_script_can_ask_ssh_for(option: str, look: Look) -> None:
    (reason,) = look("", options=["Port=1", option]).only_openssh
    assert reason.startswith(f"{option!r} in ssh_options:2: ")


def test_what_will_be_missing_is_told(look: Look, file: Path) -> None:
    found = look("Host web1\n ForwardAgent yes\nHost *\n Compression yes\n ForwardX11 yes\n")
    assert found.passed_over == (
        f"'ForwardAgent yes' in {file}:2: lends the host the agent",
        f"'ForwardX11 yes' in {file}:5: lends the host the display",
    )
    assert look("ForwardAgent no\nForwardAgent yes").passed_over == ()


def test_kerberos_that_the_system_offers_to_all_is_not_asked_for(tmp_path: Path) -> None:
    system, user = tmp_path / "system", tmp_path / "user"
    system.write_text("Host *\n GSSAPIAuthentication yes\n")
    user.write_text("Host krb*\n GSSAPIAuthentication yes\n")
    config = SshConfig.load(str(user), str(system))
    assert config.lookup("web1").only_openssh == ()
    (reason,) = config.lookup("krb1").only_openssh
    assert reason == f"'GSSAPIAuthentication yes' in {user}:2: logs in with Kerberos"


# -- what ssh refuses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("Prot 22", "ssh knows no 'prot'"),
        ("Port", "nothing follows 'Port'"),
        ("Port 0", "not a port: '0'"),
        ("Port 22 23", "more words"),
        ('User "me', "a quote is not closed"),
        ("IdentitiesOnly maybe", "'maybe' is none of yes, true, no, false"),
        ("ConnectTimeout 5y", "not a time: '5y'"),
        ('ConnectTimeout "5 5"', "not a time: '5 5'"),
        ("Match hots x", "Match knows no 'hots'"),
        ("Match user", "Match needs a value for 'user'"),
        ("Match all user me", "cannot be combined"),
        ('Host ""', "an empty pattern"),
        ("SetEnv A", "not of the form NAME=value"),
        ("ProxyJump a,b:x", "not a port: 'x'"),
        ("UserKnownHostsFile none /x", "'none' must be alone"),
        ("IdentityAgent ${NO_SUCH}", "'NO_SUCH' is not set"),
    ],
)
def test_a_line_that_ssh_refuses_is_named(line: str, why: str, file: Path) -> None:
    file.write_text(f"# mine\nHost elsewhere\n\t{line}\n")
    with pytest.raises(SshConfigError, match=re.escape(why)) as caught:
        SshConfig.load_file(str(file))
    error = caught.value
    assert (error.filename, error.lineno, error.text) == (str(file), 3, line)
    assert str(error).startswith(f"{file}:3: ")
    done = subprocess.run(["ssh", "-G", "-F", file, "h"], capture_output=True, check=False)
    assert done.returncode == 255


def test_an_unknown_keyword_can_be_passed_over(same: Look) -> None:
    assert same("IgnoreUnknown Use*,x\nUseKeychain yes\nPort 1").port == 1


def test_it_is_passed_over_for_the_hosts_that_say_so(look: Look) -> None:
    text = "Host web*\n IgnoreUnknown odd*\nHost *\n OddThing 1\n"
    look(text)
    with pytest.raises(SshConfigError, match="no IgnoreUnknown passes it over for db1"):
        look(text, "db1")


def test_what_no_ssh_supports_any_more_is_passed_over(
    same: Look, caplog: pytest.LogCaptureFixture
) -> None:
    assert same("UseRoaming no\nRSAAuthentication yes\nPort 1").port == 1
    (record,) = caplog.records
    assert "RSAAuthentication yes" in record.getMessage()


# -- many hosts -----------------------------------------------------------------------------------


def test_ten_thousand_hosts_are_looked_up_in_a_blink(look: Look, file: Path) -> None:
    blocks = [f"Host a{i}\n HostName 10.0.0.{i}\n IdentityFile ~/.ssh/{i}" for i in range(100)]
    file.write_text("\n".join([*blocks, "Host *.example.org\n ProxyJump gw"]))
    config = SshConfig.load_file(str(file))
    names = {config.lookup(f"web{i}").hostname for i in range(10000)}
    assert len(names) == 10000
    assert config.lookup("a7").hostname == "10.0.0.7"


def test_patterns_with_many_stars_take_no_time(look: Look, file: Path) -> None:
    # Each star doubled the time.
    stars = "*a" * 25
    file.write_text(f"Host {stars}b\n  Port 1\nMatch user {stars}b\n  Port 2\n"
                    f"Host {stars}*\n  Port 3\n")  # fmt: skip
    with cheap():
        settings = SshConfig.load_file(str(file)).lookup("a" * 40, user="a" * 40)
    assert settings.port == 3
