"""Files of any kind: execo reads them as ssh does, and refuses what ssh refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, note, settings
from hypothesis import strategies as st

from execo.errors import SshConfigError
from execo.transports.ssh_config import SshConfig
from ssh_dump import Refused, as_dump, dump, taken

HOSTS = [
    "web1",
    "WEB1",
    "web2.example.org",
    "10.0.0.7",
    "127.1",
    "gw",
    "a-b_c",
    "::1",
    "1node",
    "FE80::1",
    "2001:DB8:0::1",
    "A:b",
]
PATTERNS = [
    *("*", "web*", "web?", "WEB1", "web1", "gw", "*.org", "*.EXAMPLE.org", "10.0.*", "127.0.0.1"),
    *("*e*e*", "real*", "?????", "!web1", "!*.org", "!gw", "!*", "::1", "w**1", "[a-z]*"),
]
USERS = ["me", "you", "m*", "!you", "root", "*", "?e"]

# Values that ssh takes, and some that it refuses.
VALUES: dict[str, list[str]] = {
    "HostName": ["Real.Example.org", "%h.example.org", "10.1", "::1", "%%x", "web1", "0x7f.1"],
    "Port": ["22", "2222", "ssh", "+80", "022"],
    "User": ["me", "you", "root"],
    "IdentityFile": ["/k/a", "/k/b", "none", "/k/a"],
    "CertificateFile": ["/c/a", "/c/b"],
    "IdentitiesOnly": ["yes", "no", "TRUE", "false"],
    "IdentityAgent": ["/a/%h", "none", "~/a", "${HOME}/a", "/a/%%"],
    "StrictHostKeyChecking": ["yes", "no", "off", "ask", "accept-new", "True", "false"],
    "UserKnownHostsFile": [
        *("/u/%h", "/u/%n-%p-%r", "~/%k", "/u/%i%u%d", "/%L.%l", "/u/%C", "/$HOME"),
        *("~root/x", "~", "~/", "~//x", "~root", "${HOME}/%%h", "a~b"),
    ],
    "GlobalKnownHostsFile": ["/g/a", "/g/b"],
    "HostKeyAlias": ["Alias", "other"],
    "HashKnownHosts": ["yes", "no"],
    "SendEnv": ["LANG", "LC_*", "-LC_*", "-*", "LC_ALL", "A?"],
    "SetEnv": ["A=1", "B=2 3", "A=3", "C=", "D=x=y"],
    "ConnectTimeout": ["5", "1h30m", "none", "0", "2w", "10S"],
    "ServerAliveInterval": ["30", "1m", "none"],
    "ServerAliveCountMax": ["5", "0"],
    "AddressFamily": ["inet", "INET6", "any"],
    "RequiredRSASize": ["2048", "3072"],
    "ProxyJump": [
        *("gw", "me@gw:2222", "a,b@c:1", "ssh://u@h:33", "none", "NONE", "[::1]:22", "h:"),
        *("10.0.0.1", "a@b@c", "[a]", "a,none", "h:ssh"),
    ],
    "ProxyCommand": ["nc gw 22 # c", "none", "'a b' \"c\"", "=x", "None"],
    "Compression": ["no", "yes"],
    "ForwardAgent": ["no", "yes", "/s"],
    "ControlPath": ["none", "/c/x"],
    "ConnectionAttempts": ["1", "3"],
    "GSSAPIAuthentication": ["no", "yes"],
    "CanonicalizeHostname": ["no", "false"],
    "Tunnel": ["no", "yes"],
    "RSAAuthentication": ["yes"],
    "UseRoaming": ["no"],
    "IgnoreUnknown": ["odd*", "Odd*,x"],
    "OddThing": ["1"],
}
WRONG: dict[str, list[str]] = {
    "HostName": ["%n", "a%"],
    "Port": ["0", "65536", "1_0", "0x10", "no-such-service"],
    "IdentitiesOnly": ["maybe"],
    "IdentityAgent": ["${NO_SUCH}", "$a-b", "%x"],
    "StrictHostKeyChecking": ["new"],
    "UserKnownHostsFile": ["%q", "50%", "~no-such-user/x", "${NO_SUCH}", "${HOME"],
    "SendEnv": ["A=1"],
    "SetEnv": ["D"],
    "ConnectTimeout": ["1y", "-1", "5 5", "99999999999", "None"],
    "ServerAliveCountMax": ["-1", "2147483648", "x"],
    "AddressFamily": ["ipv4"],
    "ProxyJump": [
        *(
            "a:99999",
            "@h",
            "u@",
            "a,,b",
            "ssh://h/path",
            ":5",
            "[a",
            "[a]b",
            "ssh://@h",
            "a:-1",
            "h/22",
            "h/",
            "SSH://h",
        ),
    ],
    "Compression": ["true"],
    "Tunnel": ["sideways"],
}


def one_in(draw: st.DrawFn, times: int) -> bool:
    return draw(st.integers(1, times)) == times


SEVERAL = ("SendEnv", "SetEnv", "UserKnownHostsFile", "GlobalKnownHostsFile")


def several(keyword: str) -> int:
    return 3 if keyword in SEVERAL else 1


@st.composite
def words_of_a_line(draw: st.DrawFn, keyword: str, values: list[str]) -> str:
    """A keyword and its values in one of the ways in which they can be written."""
    written = draw(
        st.sampled_from([keyword] * 8 + [keyword.lower(), keyword.upper(), f'"{keyword}"'])
    )
    words = []
    for value in values:
        quotes = ["{}", '"{}"', "'{}'"]
        if keyword in ("ProxyJump", "ProxyCommand"):
            quotes = ["{}"]
        elif keyword == "Match" or " " in value or not value:
            quotes = ["{}", '"{}"'] if value and " " not in value else ['"{}"']
        words.append(draw(st.sampled_from([quotes[0], *quotes])).format(value))
    indent = draw(st.sampled_from(["", "", "  ", "\t"]))
    between = draw(st.sampled_from([" ", " ", "=", " = ", "\t", "  =", " ="]))
    after = draw(st.sampled_from(["", "", "", " ", "\r", "\f", " \t"]))
    if keyword not in ("ProxyJump", "ProxyCommand"):
        after = draw(st.sampled_from([after, after, after, " # more", " #"]))
    return indent + written + between + draw(st.sampled_from([" ", "  ", "\t"])).join(words) + after


@st.composite
def setting_lines(draw: st.DrawFn, keywords: list[str]) -> str:
    keyword = draw(st.sampled_from(keywords))
    wrong = keyword in WRONG and one_in(draw, 100)
    value = st.sampled_from((WRONG if wrong else VALUES)[keyword])
    words = st.lists(value, min_size=1, max_size=several(keyword))
    return draw(words_of_a_line(keyword, draw(words)))


@st.composite
def host_lines(draw: st.DrawFn) -> str:
    pattern = st.sampled_from(PATTERNS)
    return draw(words_of_a_line("Host", draw(st.lists(pattern, min_size=1, max_size=3))))


@st.composite
def criteria(draw: st.DrawFn) -> list[str]:
    kinds = "odd" if one_in(draw, 200) else "host originalhost user localuser final canonical HOST"
    kind = draw(st.sampled_from(kinds.split()))
    negated = draw(st.sampled_from(["", "", "!"]))
    if kind in ("final", "canonical"):
        return [negated + kind]
    choices = USERS if "user" in kind else PATTERNS
    values = draw(st.lists(st.sampled_from(choices), min_size=1, max_size=3))
    return [negated + kind, ",".join(values)]


@st.composite
def match_lines(draw: st.DrawFn) -> str:
    several_criteria = draw(st.lists(criteria(), max_size=3))
    words = [word for one in several_criteria for word in one]
    if len(several_criteria) < 2 or one_in(draw, 30):
        words += draw(st.sampled_from([[], ["all"], ["!all"]]))
    return draw(words_of_a_line("Match", words or ["all"]))


PIECES = ["a", "b", "ab", "*", "!", ",", "=", "A=b", " ", "\t", "#", " # ", "~", "%%"]
PIECES += ['"a b"', "'a b'", '""', "\\", "\\ ", '\\"', "\\'", '"', "'", "'\"'", '"\'"', "\\\\"]
SOUP = st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join)
ODD = st.builds(
    "{} {}".format,
    st.sampled_from(
        "Host|Match host|SetEnv A=|SendEnv|HostKeyAlias|HostName|UserKnownHostsFile".split("|")
    ),
    SOUP,
)
NOTHING = st.sampled_from(["", "# a comment", "   ", "\t# more", "\r"])


@st.composite
def files(draw: st.DrawFn) -> dict[str, list[str]]:
    """A file and two that it may include, about a few keywords: they must get into each other's
    way."""
    keywords = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=6, unique=True))
    setting = setting_lines(keywords)
    line = st.one_of(setting, setting, setting, host_lines(), match_lines(), NOTHING)
    lines = st.lists(line, max_size=8)
    include = draw(st.lists(INCLUDES, max_size=1))
    config = [*draw(lines), *include, *draw(lines)]
    return {"config": config, "a.conf": draw(lines), "b.conf": draw(lines)}


INCLUDES = st.sampled_from(
    ["Include {}/a.conf", "Include {0}/*.conf", "Include {0}/[b-z].conf {0}/no-such.conf"]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ssh")


def write(folder: Path, files: dict[str, list[str]]) -> Path:
    for name, lines in files.items():
        path = folder / name
        path.write_text("\n".join(lines))
        path.chmod(0o600)
    return folder / "config"


def compare(config: Path, host: str, *, user: str | None = None, port: int | None = None) -> None:
    """What execo reads is what ssh does, the refusals too."""
    words = [*(["-l", user] if user else []), *(["-p", str(port)] if port else [])]
    try:
        expected = taken(dump(config, host, *words))
    except Refused as exc:
        note(f"ssh: {exc}")
        with pytest.raises(SshConfigError):
            SshConfig.load_file(str(config)).lookup(host, user=user, port=port)
        return
    assert as_dump(SshConfig.load_file(str(config)).lookup(host, user=user, port=port)) == expected


@settings(max_examples=300)
@given(
    files(),
    st.sampled_from(HOSTS),
    st.sampled_from([None, None, "me", "you"]),
    st.sampled_from([None, None, 2022]),
)
def test_files_are_read_as_ssh_reads_them(
    folder: Path, texts: dict[str, list[str]], host: str, user: str | None, port: int | None
) -> None:
    for name, lines in texts.items():
        texts[name] = [
            line.format(folder) if line.startswith("Include") else line for line in lines
        ]
        note(f"{name}:")
        note("\n".join(texts[name]))
    compare(write(folder, texts), host, user=user, port=port)


@settings(max_examples=300)
@given(st.lists(ODD, max_size=4), st.sampled_from(["ab", "a", "web1"]))
@example(['Port "'], "a")
@example(["\f"], "a")
@example(["Port 22#"], "a")
@example(['"Port" = "22" # 23'], "a")
def test_quotes_are_read_as_ssh_reads_them(folder: Path, lines: list[str], host: str) -> None:
    config = write(folder, {"config": lines})
    note("\n".join(lines))
    compare(config, host)
