# Locals that nothing seems to use are what the templates use.
# ruff: noqa: F841

from __future__ import annotations

import array
import collections
import logging
import re
import subprocess
import sys
import threading
import types
from collections.abc import Mapping
from typing import Any

import pytest

from execo.errors import SubstitutionError
from execo.host import Host, get_hosts_list
from execo.substitutions import Raw, Template, raw, remote_substitute

HOSTS = get_hosts_list(["a", "b", "c"])


def expand_all(text: str, scope: Mapping[str, Any] | None = None) -> list[str]:
    template = Template(text, scope)
    return [template.expand(HOSTS, i) for i in range(len(HOSTS))]


def literal(text: str, scope: Mapping[str, Any] | None = None) -> bool:
    return expand_all(text, {} if scope is None else scope) == [text] * 3


# The patterns


def test_the_example_of_the_reference_document() -> None:
    hosts1 = get_hosts_list(list("abcdef"))
    hosts2 = [Host(address) for address in "123"]
    template = Template("iperf -c {{[host.address for host in hosts2]}}")
    commands = [template.expand(hosts1, i) for i in range(6)]
    assert commands == [f"iperf -c {n}" for n in (1, 2, 3, 1, 2, 3)]


@pytest.mark.parametrize("text", ["{{{host}}}", "<<<host>>>"])
def test_the_address_of_the_host(text: str) -> None:
    assert expand_all(f"ping {text} >{text}.log") == [f"ping {h} >{h}.log" for h in "abc"]
    assert remote_substitute(text, ["x", "y"], 1) == "y"


def test_one_command_for_one_host() -> None:
    sizes = [64, 1500]
    assert remote_substitute("ping -s {{sizes}} {{{host}}}", HOSTS, 1) == "ping -s 1500 b"
    assert remote_substitute("ping -s <<sizes>>", HOSTS, 2) == "ping -s 64"
    assert remote_substitute("{{sizes}}", HOSTS, 0, {"sizes": "xy".split()}) == "xy"


SCOPE: dict[str, Any] = {
    "names": ["x", "y"],
    "hosts": HOSTS,
    "d": {"k": ["v"], "m": {"n": ["deep"]}},
    "n": 2,
}


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("{{names}}", ["x", "y", "x"]),
        ("{{ names }}", ["x", "y", "x"]),
        ("{{{host}}}-{{names}}", ["a-x", "b-y", "c-x"]),
        ("{{names}}{{{host}}}", ["xa", "yb", "xc"]),
        ("{{names}}{{names}}", ["xx", "yy", "xx"]),
        ("{{names}}}", ["x}", "y}", "x}"]),
        ("{{names}}}}", ["x}}", "y}}", "x}}"]),
        ("{{{host}}}}", ["a}", "b}", "c}"]),
        ("{{{{host}}}}", ["{a}", "{b}", "{c}"]),
        ("${{{{host}}}}", ["${a}", "${b}", "${c}"]),
        ("${x} {{names}} $((1+2))", ["${x} x $((1+2))", "${x} y $((1+2))", "${x} x $((1+2))"]),
        ("awk '{print $1}' {{names}}", [f"awk '{{print $1}}' {n}" for n in "xyx"]),
        ("{{[h.address for h in hosts]}}", ["a", "b", "c"]),
        ("{{hosts}}", ["a", "b", "c"]),
        ("{{range(n)}}", ["0", "1", "0"]),
        ("{{[n * i for i in range(3)]}}", ["0", "2", "4"]),
        ("{{[(lambda k: k + n)(i) for i in range(3)]}}", ["2", "3", "4"]),
        ("{{[h.address for h in hosts if [x for x in names if n == 2]]}}", ["a", "b", "c"]),
        ("{{['x','y']}}", ["x", "y", "x"]),
        ("{{('x',)}}", ["x", "x", "x"]),
        ('{{ {"a": names}["a"] }}', ["x", "y", "x"]),
        ('{{{"a":names}["a"]}}', ["x", "y", "x"]),
        ('{{{"a":{"b":names}}["a"]["b"]}}', ["x", "y", "x"]),
        ("{{[{1:{2:i}} for i in names]}}", ["{1: {2: 'x'}}", "{1: {2: 'y'}}", "{1: {2: 'x'}}"]),
        ("{{sorted({*names})}}", ["x", "y", "x"]),
        ("{{['}}', '{{']}}", ["}}", "{{", "}}"]),
        ("{{d['m']['n']}}", ["deep"] * 3),
        ("{{(y := names) + y[:1]}}", ["x", "y", "x"]),
        ("{{[names for names in names]}}", ["x", "y", "x"]),
        ("{{names # which}}", ["x", "y", "x"]),
        ("a\n{{names}}\nb", ["a\nx\nb", "a\ny\nb", "a\nx\nb"]),
        ("{{names}}\n}}", ["x\n}}", "y\n}}", "x\n}}"]),
        ("<<names>>", ["x", "y", "x"]),
        ("<<[i * n for i in names]>>", ["xx", "yy", "xx"]),
        ("<<[4>>i for i in range(n)]>>", ["4", "2", "4"]),
        ("<<[1<<i for i in range(n)]>>", ["1", "2", "1"]),
        ("<<names>>>out", ["x>out", "y>out", "x>out"]),
        ("<<names>>>>out", ["x>>out", "y>>out", "x>>out"]),
        ("cat <<<<host>>>.txt", ["cat <a.txt", "cat <b.txt", "cat <c.txt"]),
        ("<<<host>>>>log", ["a>log", "b>log", "c>log"]),
        ("cat <<{{names}}>>out", ["cat <<x>>out", "cat <<y>>out", "cat <<x>>out"]),
        ("cat <<{{{host}}}>>out", ["cat <<a>>out", "cat <<b>>out", "cat <<c>>out"]),
        ("echo <<a<<names>>", ["echo <<ax", "echo <<ay", "echo <<ax"]),
    ],
)
def test_substitutions(text: str, commands: list[str]) -> None:
    assert expand_all(text, SCOPE) == commands


@pytest.mark.parametrize(
    ("text", "result"),
    [
        (r"\{{names}}", "{{names}}"),
        (r"\<<names>>", "<<names>>"),
        (r"\{{{host}}}", "{{{host}}}"),
        (r"\<<<host>>>", "<<<host>>>"),
        (r"\{{.Names}} {{names}}", "{{.Names}} x"),
        (r"\\{{names}}", r"\{{names}}"),
        (r"\{{", "{{"),
        (r"\<<", "<<"),
        (r"\{x} \<y \n", r"\{x} \<y \n"),
    ],
)
def test_escapes(text: str, result: str) -> None:
    assert remote_substitute(text, HOSTS, 0, SCOPE) == result


@pytest.mark.parametrize(
    "values",
    [
        (1, 2),
        range(1, 3),
        array.array("i", [1, 2]),
        collections.deque([1, 2]),
        memoryview(b"\1\2"),
        collections.UserList([1, 2]),
    ],
)
def test_anything_with_a_length_and_ranks_is_a_sequence(values: Any) -> None:
    assert expand_all("{{values}}") == ["1", "2", "1"]


def test_an_array_like_object_is_a_sequence() -> None:
    class Vector:
        """What numpy's arrays have, and no more: not even a truth value."""

        def __len__(self) -> int:
            return 2

        def __getitem__(self, rank: int) -> float:
            return [0.5, 1.5][rank]

        def __bool__(self) -> bool:
            raise ValueError("ambiguous")

        def __eq__(self, other: object) -> bool:
            raise ValueError("ambiguous")

        __hash__ = None  # type: ignore[assignment]

    vector = Vector()
    assert expand_all("{{vector}} <<vector>>") == ["0.5 0.5", "1.5 1.5", "0.5 0.5"]


# What belongs to the shell


@pytest.mark.parametrize(
    "text",
    [
        "cat <<EOF>>out\nhello\nEOF\n",
        "cat <<'EOF'>>x\nEOF",
        'cat <<"EOF">>x\nEOF',
        "cat <<-EOF>>x\nEOF",
        "cat <<\\EOF>>x\nEOF",
        "cat <<A >>b\nA",
        "cat << A>>b\nA",
        "cat <<A\nx\nA\ncat x>>b",
        "echo $((1<<2>>1))",
        "echo $((a<<b>>c))",
        "echo $((1 << 2))",
        'wc <<<"$x">>log',
        "wc <<<word>>log",
        "wc <<<names>>log",
        "wc <<< 'x y' >>log",
        "sort <<<<names>>",
        "<<>>",
        "<<host>>",
        "<<1>>",
        "<<[1,2]>>",
        "<<'names'>>",
        "<<n>>",
        "<<d>>",
        "<<empty>>",
        "<<text>>",
        "<<unknown>>",
        "<<1/0*names>>",
        "<<names.nothing>>",
        "<<names",
        "names>>",
        "<< names >>",
        "<<names >>",
        "<<\nnames>>",
        "<<names\n>>",
        "{ { names }}",
        "}} >>",
        "",
    ],
)
def test_what_is_no_expression_stays_for_the_shell(text: str) -> None:
    assert literal(text, {**SCOPE, "empty": [], "text": "abc"})


def test_a_here_string_named_host_is_the_host() -> None:
    assert remote_substitute("echo <<<host>>> ", HOSTS, 0, {}) == "echo a "


def test_a_heredoc_word_that_names_a_list_is_an_expression() -> None:
    # The price of the second spelling; the ways out are raw(), a blank, quotes or a backslash.
    EOF = ["x"]  # noqa: N806
    assert remote_substitute("cat <<EOF>>out", HOSTS, 0) == "cat xout"
    for text in ("cat <<EOF >>out", "cat <<'EOF'>>out", raw("cat <<EOF>>out")):
        assert remote_substitute(text, HOSTS, 0) == text
    assert remote_substitute(r"cat \<<EOF>>out", HOSTS, 0) == "cat <<EOF>>out"


def test_what_was_left_to_the_shell_is_told_to_those_who_ask(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG, logger="execo"):
        assert literal("sleep <<delais>>", {"delays": [1, 2]})
    assert "<<delais>>" in caplog.text
    assert "'delais' is not defined" in caplog.text


# Data is never code (see test_substitutions_fuzz.py too)


@pytest.mark.parametrize(
    "hostile", ["{{boom()}}", "<<boom()>>", "{{{host}}}", "<<<host>>>", "\\{{"]
)
def test_hostile_data_is_inserted_as_it_is(hostile: str) -> None:
    def boom() -> list[str]:
        raise AssertionError("data was evaluated")

    hosts = [Host(hostile)]
    values = [hostile]
    assert remote_substitute("{{{host}}}{{values}}{{{host}}}", hosts, 0) == hostile * 3
    assert remote_substitute("{{[v for v in values]}}<<<host>>>", hosts, 0) == hostile * 2


def test_the_address_cannot_be_part_of_an_expression() -> None:
    ports = {"a": [1], "{{{host}}}": [2]}
    with pytest.raises(SubstitutionError, match="inserted last"):
        Template("{{ports['{{{host}}}']}}")
    with pytest.raises(SubstitutionError, match="inserted last"):
        Template("{{['x <<<host>>>']}}")


# Texts without substitutions


def test_a_text_without_patterns_is_returned_as_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_frames(depth: int = 0) -> types.FrameType:
        raise AssertionError("a frame was read")

    monkeypatch.setattr(sys, "_getframe", no_frames)
    for text in ("uptime", "awk '{print $1}' <a >>b", ""):
        assert remote_substitute(text, HOSTS, 0) is text
    assert remote_substitute("ping {{{host}}}", HOSTS, 0) == "ping a"


def test_a_raw_text_is_never_substituted() -> None:
    text = raw("docker ps --format '{{.Names}}' {{{host}}} \\{{ <<names>>")
    assert isinstance(text, Raw)
    assert isinstance(text, str)
    assert remote_substitute(text, HOSTS, 0) is text
    assert Template(text).expand(HOSTS, 0) is text


def test_only_a_str_is_a_template() -> None:
    for function in (raw, Template):
        with pytest.raises(TypeError, match="b'x'"):
            function(b"x")  # type: ignore[arg-type]


# Errors


@pytest.mark.parametrize(
    ("text", "pattern", "cause"),
    [
        ("docker ps --format '{{.Names}}'", "{{.Names}}", "not a Python expression"),
        ("{{ if x }}yes{{ end }}", "{{ if x }}", "not a Python expression"),
        ("awk '{{print $1}}'", "{{print $1}}", "not a Python expression"),
        ("x {{}} y", "{{}}", "empty"),
        ("x {{ }} y", "{{ }}", "empty"),
        ("x {{names y", "{{", "no }} after it on the same line"),
        ("x {{names\n}} y", "{{", "no }} after it on the same line"),
        ("{{[i for\ni in names]}}", "{{", "no }} after it on the same line"),
        ("{{x = names}}", "{{x = names}}", "not a Python expression"),
        ("{{names\0}}", "{{names\0}}", "null bytes"),
        ("dd bs={{nams}}", "{{nams}}", "NameError: name 'nams' is not defined"),
        ("{{1 / 0}}", "{{1 / 0}}", "ZeroDivisionError: division by zero"),
        ("{{names.x}}", "{{names.x}}", "AttributeError"),
        ("{{n}}", "{{n}}", "type int"),
        ("{{'abc'}}", "{{'abc'}}", "gives a str"),
        ("{{b'abc'}}", "{{b'abc'}}", "gives a bytes"),
        ("{{[]}}", "{{[]}}", "empty list"),
        ("{{range(0)}}", "{{range(0)}}", "empty range"),
        ("{{d}}", "{{d}}", "type dict"),
        ("{{{*names}}}", "{{{*names}}}", "type set"),
        ("{{None}}", "{{None}}", "type NoneType"),
        ("{{list}}", "{{list}}", "type type"),
        ("{{(i for i in names)}}", "{{(i for i in names)}}", "type generator"),
        ("{{iter(names)}}", "{{iter(names)}}", "list() may help"),
        ("{{[Mute()]}}", "{{[Mute()]}}", "RuntimeError: no text"),
        ("{{Keyed()}}", "{{Keyed()}}", "KeyError: 0"),
        ("{{" + "(" * 5000 + ")" * 5000 + "}}", "{{" + "(" * 5000, "not a Python expression"),
        ("{{" + "-" * 100000 + "1}}", "{{" + "-" * 100, ""),
    ],
)
def test_what_cannot_be_substituted_is_an_error(text: str, pattern: str, cause: str) -> None:
    class Mute:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    class Keyed:
        def __len__(self) -> int:
            return 1

        def __getitem__(self, key: str) -> str:
            raise KeyError(key)

    with pytest.raises(SubstitutionError) as caught:
        Template(text, {**SCOPE, "Mute": Mute, "Keyed": Keyed})
    error = caught.value
    assert isinstance(error, ValueError)
    assert error.text == text
    assert text.startswith(pattern, error.position)
    assert error.__cause__ is not None
    message = str(error)
    assert cause in message
    for way_out in ("execo.raw(text)", "substitute=False", r"\{{ in a raw string"):
        assert way_out in message


def marked(error: SubstitutionError) -> str:
    """What the carets of a message point at."""
    _, line, carets, _ = str(error).split("\n")
    match = re.search(r"\^+", carets)
    assert match is not None
    return line[match.start() : match.end()]


@pytest.mark.parametrize("before", ["", "x ", "first line\nsecond ", "\tä", "z" * 90, "z" * 500])
@pytest.mark.parametrize("after", ["", " x", "\nnext line", "z" * 500])
def test_the_message_shows_the_place(before: str, after: str) -> None:
    with pytest.raises(SubstitutionError) as caught:
        Template(f"{before}{{{{nams}}}}{after}", {})
    assert marked(caught.value) == "{{nams}}"
    assert caught.value.position == len(before)
    assert max(map(len, str(caught.value).split("\n"))) < 140


def test_the_message_cannot_command_a_terminal() -> None:
    with pytest.raises(SubstitutionError) as caught:
        Template("\x1b[2J\r\u202e {{nams}}", {})
    assert all(line.isprintable() for line in str(caught.value).split("\n"))


@pytest.mark.parametrize("text", ["{{host}}", "{{ host }}", "{{{ host }}}", "{{{host}}"])
def test_a_misspelt_host_is_recognised(text: str) -> None:
    with pytest.raises(SubstitutionError, match=re.escape("the address of the host is {{{host}}}")):
        Template(text, {})


def test_the_cause_is_the_users_own_error() -> None:
    error = LookupError("no such site")

    def site() -> list[str]:
        raise error

    with pytest.raises(SubstitutionError, match="LookupError: no such site") as caught:
        Template("{{site()}}")
    assert caught.value.__cause__ is error


def test_leaving_the_script_inside_an_expression_leaves_it() -> None:
    with pytest.raises(SystemExit):
        Template("{{sys.exit(3)}}", {"sys": sys})


# Evaluated once


def test_each_expression_is_evaluated_once() -> None:
    calls: list[str] = []

    def values(name: str) -> list[str]:
        calls.append(name)
        return [name + "0", name + "1"]

    assert expand_all("{{values('x')}} <<values('y')>>") == ["x0 y0", "x1 y1", "x0 y0"]
    assert calls == ["x", "y"]


def test_ten_thousand_commands() -> None:
    hosts = get_hosts_list("node[0-9999]")
    names = [f"n{i}" for i in range(7)]
    template = Template("run --as {{[n.upper() for n in names]}} >{{{host}}}.log")
    commands = [template.expand(hosts, i) for i in range(len(hosts))]
    assert commands[9999] == f"run --as N{9999 % 7} >node9999.log"
    assert len(set(commands)) == 10000


def test_reevaluation_sees_what_has_changed_in_place() -> None:
    names, delays = ["x"], [1]
    template = Template("{{[n + '!' for n in names]}} <<tuple(delays)>>")
    names[0] = "y"
    delays[0] = 2
    assert template.expand(HOSTS, 0) == "x! 1"
    names.append("z")
    template.reevaluate()
    assert [template.expand(HOSTS, i) for i in range(2)] == ["y! 2", "z! 2"]


def test_a_failed_reevaluation_changes_nothing() -> None:
    names, delays = ["x"], [1]
    template = Template("{{list(names)}} <<list(delays)>>")
    names[0] = "y"
    delays.clear()
    with pytest.raises(SubstitutionError, match="empty list") as caught:
        template.reevaluate()
    assert marked(caught.value) == "<<list(delays)>>"
    assert template.expand(HOSTS, 0) == "x 1"


def test_reevaluation_without_expressions_does_nothing() -> None:
    for text in ("uptime", "ping {{{host}}}", raw("{{x}}")):
        template = Template(text)
        before = template.expand(HOSTS, 0)
        template.reevaluate()
        assert template.expand(HOSTS, 0) == before


def test_a_sequence_that_was_emptied_is_an_error_not_a_crash() -> None:
    names = ["x"]
    template = Template("{{names}}")
    names.clear()
    with pytest.raises(SubstitutionError, match="ZeroDivisionError") as caught:
        template.expand(HOSTS, 0)
    assert marked(caught.value) == "{{names}}"


def test_a_template_serves_many_threads() -> None:
    names = [str(i) for i in range(100)]
    template = Template("{{names}} {{{host}}}")
    hosts = [f"h{i}" for i in range(1000)]
    results: list[list[str]] = []

    def work() -> None:
        results.append([template.expand(hosts, i) for i in range(1000)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == [[f"{i % 100} h{i}" for i in range(1000)]] * 4


def test_repr_shows_the_template() -> None:
    assert repr(Template("a {{{host}}}")) == "Template('a {{{host}}}')"


def test_a_shell_agrees_with_what_it_is_given() -> None:
    """Texts that are the shell's run as written, those with patterns as substituted."""
    words = ["one two", "three"]
    script = (
        "cat <<EOF>>/dev/stdout\nheredoc of {{{host}}}\nEOF\n"
        "echo $((1<<2>>1)); cat <<<'here-string'>>/dev/stdout\n"
        "for w in <<words>>; do echo \"$w\" '{{words}}'; done\n"
    )
    command = remote_substitute(script, HOSTS, 0)
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "heredoc of a",
        "2",
        "here-string",
        "one one two",
        "two one two",
    ]
