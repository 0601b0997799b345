"""Any text, any value, any address: a text comes out, or one kind of error."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execo.errors import SubstitutionError
from execo.host import get_hosts_list
from execo.substitutions import Template, remote_substitute

HOSTS = get_hosts_list(["a", "b", "c"])
SCOPE: dict[str, Any] = {"names": ["x", "y"], "hosts": HOSTS, "d": {"k": ["v"]}, "n": 2}

# No "*": a random power of powers would compute for ever.
PIECES = [
    *["{{", "}}", "<<", ">>", "{{{host}}}", "<<<host>>>", "\\", "{", "}", "<", ">", "[", "]", "("],
    *[")", "names", "n", "d", "EOF", "host", " ", "\n", ",", ":", "1", "'", '"', "for i in ", "#"],
    *["$", ".", "-", "é", "\0", "lambda", "=", "!"],
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


def outcome(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except SubstitutionError as exc:
        return exc


@given(st.text(), st.text(), st.text())
def test_values_and_addresses_are_never_read_as_patterns(
    address: str, first: str, second: str
) -> None:
    values = [first, second]
    template = Template("{{values}}|{{{host}}}|<<values>>|<<<host>>>", {"values": values})
    for i, value in enumerate(values):
        expected = f"{value}|{address}|{value}|{address}"
        assert template.expand([address] * 2, i) == expected


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
@given(TEXTS)
def test_any_text_gives_a_text_or_one_kind_of_error(text: str) -> None:
    result = outcome(lambda: [remote_substitute(text, HOSTS, i, SCOPE) for i in range(3)])
    if isinstance(result, SubstitutionError):
        assert text.startswith("{{", result.position)
        assert "cannot substitute: " in str(result)
    elif "{{" not in text and "<<" not in text:
        assert result == [text] * 3


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
@given(TEXTS)
def test_without_names_angles_belong_to_the_shell(text: str) -> None:
    text = text.replace("{{", "{").replace("\\", "").replace("<<<host>>>", "")
    text = text.replace("for", "").replace("lambda", "")  # these bring names of their own
    if "{{" not in text and "<<<host>>>" not in text:
        assert remote_substitute(text, HOSTS, 0, {}) == text


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
@given(TEXTS)
def test_an_escaped_text_comes_back(text: str) -> None:
    text = text.replace("\\", "")
    escaped = re.sub(r"\{\{+|<<+", lambda match: "\\" + match[0], text)
    assert remote_substitute(escaped, HOSTS, 0, SCOPE) == text


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "text",
    [
        "{" * 20000,
        "{{" + "}" * 20000,
        "<<" * 20000,
        "<<(" * 300 + ">>" * 300,
        "<<n>>" * 500,
        "\\" * 20000 + "{{x}}",
        "{{{host}}}" * 5000,
    ],
)
@pytest.mark.timeout(60)
def test_a_long_run_of_marks_does_not_hang(text: str) -> None:
    result = outcome(lambda: remote_substitute(text, HOSTS, 0, {}))
    assert isinstance(result, (str, SubstitutionError))
