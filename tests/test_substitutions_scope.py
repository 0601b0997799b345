"""Where the names in an expression are looked up, and what is kept of them."""

# Locals that nothing seems to use are what the templates use.
# ruff: noqa: F841

from __future__ import annotations

import collections
import gc
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from execo.errors import SubstitutionError
from execo.host import get_hosts_list
from execo.substitutions import Template, get_caller_context, remote_substitute

HOSTS = get_hosts_list(["a", "b", "c"])

at_module_level = ["m0", "m1"]


def expand_all(text: str, scope: Mapping[str, Any] | None = None) -> list[str]:
    template = Template(text, scope)
    return [template.expand(HOSTS, i) for i in range(len(HOSTS))]


def test_locals_of_the_caller() -> None:
    port, names = 80, ["x", "y"]
    assert expand_all("{{[f'{n}:{port}' for n in names]}}") == ["x:80", "y:80", "x:80"]


def test_globals_of_the_caller() -> None:
    assert expand_all("{{at_module_level}}") == ["m0", "m1", "m0"]


def test_a_local_hides_a_global_and_both_hide_a_builtin() -> None:
    at_module_level, ascii = ["local"], ["mine"]  # noqa: A001
    assert remote_substitute("{{at_module_level}}{{ascii}}", HOSTS, 0) == "localmine"


def test_inside_an_init() -> None:
    class Deployment:
        def __init__(self, names: list[str]) -> None:
            self.names = names
            suffix = ".log"
            self.template = Template("{{[n + suffix for n in self.names]}} {{names}}")

    assert Deployment(["x"]).template.expand(HOSTS, 0) == "x.log x"


def test_inside_a_helper_the_callers_names_are_found_too() -> None:
    def helper(text: str) -> str:
        inner = ["helper's"]
        return remote_substitute(text, HOSTS, 0)

    def user() -> tuple[str, str]:
        mine, inner = ["user's"], ["hidden"]
        return helper("{{mine}}"), helper("{{inner}}")

    assert user() == ("user's", "helper's")


def test_inside_a_comprehension_a_lambda_and_a_generator() -> None:
    base = ["b"]
    assert [remote_substitute("{{[i]}}{{base}}", HOSTS, 0) for i in range(2)] == ["0b", "1b"]
    shout: Callable[[str], str] = lambda one: remote_substitute("{{[one]}}{{base}}", HOSTS, 0)  # noqa: E731
    assert shout("z") == "zb"

    def generate() -> Iterator[str]:
        for i in range(2):  # noqa: B007
            yield remote_substitute("{{[i]}}{{base}}", HOSTS, 0)

    assert list(generate()) == ["0b", "1b"]


def test_inside_a_class_body_and_a_script() -> None:
    class Settings:
        names = ("c",)
        command = remote_substitute("{{names}}", HOSTS, 0)

    assert Settings.command == "c"
    script: dict[str, Any] = {"__name__": "__main__", "HOSTS": HOSTS}
    exec(
        "from execo.substitutions import remote_substitute\n"
        "names = ['s']\n"
        "command = remote_substitute('{{names}}', HOSTS, 0)\n"
        "commands = [remote_substitute('{{[n + i for n in names]}}', HOSTS, 0) for i in 'xy']\n",
        script,
    )
    assert script["command"] == "s"
    assert script["commands"] == ["sx", "sy"]


def test_frames_of_execo_are_passed_over() -> None:
    room: dict[str, Any] = {
        "__name__": "execo.pretended",
        "Template": Template,
        "names": ["execo's"],
    }
    exec(
        "def make(text):\n"
        "    names = inner = ['execo\\'s']\n"
        "    return Template(text)\n"
        "def call(function):\n"
        "    inner = ['execo\\'s']\n"
        "    return function()\n",
        room,
    )
    names = ["mine"]
    assert room["make"]("{{names}}").expand(HOSTS, 0) == "mine"
    # The same between the user's code and its callers, as in an engine that calls run().
    with pytest.raises(SubstitutionError, match="'inner' is not defined"):
        room["call"](lambda: Template("{{inner}}"))


@pytest.mark.parametrize(
    ("name", "package", "passed_over"),
    [
        ("execo", "execo", True),
        ("execo.process", "execo", True),
        ("__main__", "execo.cli", True),
        ("execo_lab", "", False),
        ("execonomics.data", "execonomics", False),
        ("__main__", None, False),
    ],
)
def test_which_frames_are_of_execo(name: str, package: str | None, passed_over: bool) -> None:
    module: dict[str, Any] = {"__name__": name, "__package__": package, "Template": Template}
    exec("def make():\n    names = ['inner']\n    return Template('{{names}}')", module)
    names = ["outer"]
    assert module["make"]().expand(HOSTS, 0) == ("outer" if passed_over else "inner")


def test_an_expression_may_make_templates_itself() -> None:
    names = ["x", "y"]

    def quoted() -> list[str]:
        return [remote_substitute("'{{names}}'", HOSTS, i) for i in range(2)]

    assert expand_all("echo {{quoted()}}") == ["echo 'x'", "echo 'y'", "echo 'x'"]


def test_the_context_of_the_caller() -> None:
    here, at_module_level = 1, 2
    assert get_caller_context(["here", "at_module_level", "nowhere", "len"]) == {
        "here": here,
        "at_module_level": at_module_level,
    }
    everything = get_caller_context()
    assert everything["here"] == 1
    assert everything["HOSTS"] is HOSTS
    assert remote_substitute("{{[here]}}", HOSTS, 0, get_caller_context()) == "1"
    assert remote_substitute("{{[here]}}", HOSTS, 0, get_caller_context({"here"})) == "1"


def test_a_given_scope_is_the_only_one() -> None:
    names = ["mine"]
    with pytest.raises(SubstitutionError, match="not defined"):
        Template("{{names}}", {})
    chained = collections.ChainMap({"names": ["first"]}, {"names": ["second"]})
    assert expand_all("{{names}}{{sorted(names)}}", chained) == ["firstfirst"] * 3


class Big:
    """Something that a script would want to see freed."""


def make_beside(big: Big, text: str) -> Template:
    sizes = [1, 2]
    return Template(text)


@pytest.mark.parametrize("text", ["{{sizes}}", "{{ {1: {2: sizes}}[1][2] }}", "<<sizes>> <<big>>"])
def test_a_template_keeps_no_frame_and_no_other_value(text: str) -> None:
    big = Big()
    seen = weakref.ref(big)
    gc.collect()
    gc.disable()  # not even in a cycle
    try:
        template = make_beside(big, text)
        del big
        assert seen() is None
    finally:
        gc.enable()
    assert template.expand(HOSTS, 1).startswith("2")
