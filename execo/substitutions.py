r"""Substitutions in commands and paths: one template, another text for each host.

===========================================  =====================================================
``{{{host}}}`` or ``<<<host>>>``             the address of the host
``{{expression}}`` or ``<<expression>>``     ``str(sequence[index % len(sequence)])``, where the
                                             Python expression gives the sequence and index is the
                                             rank of the host, from 0
``\{{`` or ``\<<`` (in a raw string)         literally ``{{`` or ``<<``; with all braces that follow
===========================================  =====================================================

Expressions see the variables of the code that makes the action, as if they were written there,
then those of its callers, then builtins. They are evaluated once, not once per host.

``{{`` is used by no shell: what cannot be substituted there is a
:class:`~execo.errors.SubstitutionError`. ``<<`` belongs to the shell first. It starts an expression
only if ``>>`` follows on the same line, with no blank just inside, and what is between compiles,
contains a name and gives a sequence of at least one value; else the text stays as it is. Thus in
``cat <<EOF>>out``, ``EOF`` is a heredoc, unless a variable named ``EOF`` holds a sequence. Three
or more ``<`` are the shell's here-string, except ``<<<host>>>``.

**Never build a template out of data**: it is code, run in this process with all its rights. Give
data as a sequence, ``files = [...]; Remote("wc {{files}}", hosts)``: a value and the address of a
host are inserted last, as they are, and never read as a pattern. They are not quoted for the
shell that runs the command: see :func:`shlex.quote`.

Source: the reference document, for ``{{{host}}}`` and ``{{expression}}``; the rest is our decision.
execo 2.8.2 evaluates after the host's address is inserted, knows no escape, fails on the caller's
locals inside comprehensions, and evaluates in the wrong frame inside ``__init__``.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import CodeType, FrameType
from typing import Any, NamedTuple

from .errors import SubstitutionError

__all__ = ["Raw", "Template", "get_caller_context", "raw", "remote_substitute"]

_PACKAGE = __name__.partition(".")[0]
# Patterns are compiled at first use (re keeps them), so that the import stays quick.
_TOKEN = r"""(?x)
      \\ (?P<escaped> \{\{+ | <<+ )
    | (?P<host> \{\{\{host\}\}\} | <<<host>>> )
    | (?P<literal> (?<!\{)\{(?=\{\{\{host\}\}\}) | <+(?=<<<host>>>) | <{3,} )
    | (?P<opening> \{\{ | << )
    """
_HOST_PATTERN = r"\{\{\{host\}\}\}|<<<host>>>"
_CLOSING = {"{{": "}}", "<<": ">>"}
# What compile() raises for a text that is no expression; the last three for very deep nesting.
_DOES_NOT_COMPILE = (SyntaxError, ValueError, MemoryError, RecursionError, OverflowError)
# A long run of braces must not cost one compilation per brace.
_MAX_ENDS = 64
_OPTIMIZED = 0x1  # inspect.CO_OPTIMIZED, without the import: locals are not in a dict
_WINDOW = 96
_ALMOST_HOST = r"\{\{+\s*host\s*\}+"
_DID_YOU_MEAN = "the address of the host is {{{host}}}, with three braces and no blank"
_WAYS_OUT = (
    "if it is not meant for execo (a Go or Jinja template, say), keep it with execo.raw(text), "
    r"substitute=False, or \{{ in a raw string"
)


class Raw(str):
    """A text in which nothing is ever substituted, made by :func:`raw`.

    Texts derived from it (``+``, ``format``, ``strip``) are plain str again.
    """

    __slots__ = ()


def raw(text: str) -> Raw:
    """Mark a command or path so that it is used as it is, without substitutions.

    :param text: as in ``Remote(execo.raw("docker ps --format '{{.Names}}'"), hosts)``
    :raises TypeError: it is not a str
    """
    _check_text(text)
    return Raw(text)


class Template:
    """A command or path, read once, that gives the text of each host.

    Its expressions are evaluated here, once; :meth:`expand` is quick and may be called from any
    thread. Only the values of the names in the expressions are kept, no frame.

    :param text: the template; a :class:`Raw` has no patterns
    :param scope: values of names; None (the default) for those that the caller sees, see
        :func:`get_caller_context`
    :raises SubstitutionError: a ``{{...}}`` cannot be evaluated or gives no sequence of at least
        one value
    :raises TypeError: the text is not a str
    """

    __slots__ = ("_parts", "text")

    def __init__(self, text: str, scope: Mapping[str, Any] | None = None) -> None:
        _check_text(text)
        self.text = text
        self._parts: tuple[_Part, ...] = ()
        if not isinstance(text, Raw) and ("{{" in text or "<<" in text):
            self._parts = tuple(_parse(text, scope))

    def expand(self, all_hosts: Sequence[Any], index: int) -> str:
        """Return the text for ``all_hosts[index]``.

        :param all_hosts: the hosts of the action, Host objects or addresses
        :param index: rank of the host, from 0
        :raises SubstitutionError: a sequence has changed and lacks the value, or the value has no
            text
        """
        if not self._parts:
            return self.text
        texts = []
        for part in self._parts:
            if isinstance(part, str):
                texts.append(part)
            elif isinstance(part, _HostPart):
                host = all_hosts[index]
                texts.append(str(getattr(host, "address", host)))
            else:
                values = part.values
                try:
                    texts.append(str(values[index % len(values)]))
                except Exception as exc:
                    raise _error(self.text, part.start, part.end, exc) from exc
        return "".join(texts)

    def reevaluate(self) -> None:
        """Evaluate the expressions again, on the values kept for their names.

        A list that the script has changed in place since then gives its new values; a name that
        it has bound to something else does not.

        :raises SubstitutionError: one fails now; then none has changed
        """
        parts: list[_Part] = []
        for part in self._parts:
            if isinstance(part, _Expression):
                try:
                    part = part._replace(values=_evaluate(part.code, part.names))
                except Exception as exc:
                    raise _error(self.text, part.start, part.end, exc) from exc
            parts.append(part)
        self._parts = tuple(parts)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.text!r})"


def remote_substitute(
    string: str,
    all_hosts: Sequence[Any],
    index: int,
    frame_context: Mapping[str, Any] | None = None,
) -> str:
    """Return a command or path with its patterns substituted for one host.

    For many hosts :class:`Template` is quicker: this one evaluates at each call.

    :param string: the template
    :param all_hosts: all hosts of the action, Host objects or addresses
    :param index: rank of the host in ``all_hosts``, from 0
    :param frame_context: values of names, as from :func:`get_caller_context`; None for the caller's
    :raises SubstitutionError: a ``{{...}}`` cannot be substituted
    """
    return Template(string, frame_context).expand(all_hosts, index)


def get_caller_context(names: Iterable[str] | None = None) -> dict[str, Any]:
    """Return what names mean where the innermost code outside of execo runs now.

    A name is looked up in the locals, then in the globals of that code, then likewise in its
    callers, outward; frames of execo itself are passed over. What is found nowhere is left out:
    builtins come last, when an expression is evaluated. The frames are not kept.

    :param names: those to look up; None for all (a copy of every variable in reach: it keeps
        their values alive)
    """
    wanted = None if names is None else set(names)
    found: dict[str, Any] = {}
    # Not inspect.stack(): it reads source files, and its records keep all locals alive.
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and wanted != set():
        if not _is_ours(frame):
            for variables in _variables(frame, wanted):
                for name in list(variables) if wanted is None else wanted:
                    if name in variables:
                        found.setdefault(name, variables[name])
            if wanted is not None:
                wanted -= found.keys()
        frame = frame.f_back
    return found


def _is_ours(frame: FrameType) -> bool:
    # By the package too: under `python -m execo...` the name is "__main__".
    variables = frame.f_globals
    return any(
        str(variables.get(key)).partition(".")[0] == _PACKAGE for key in ("__name__", "__package__")
    )


def _variables(frame: FrameType, wanted: set[str] | None) -> Iterator[Mapping[str, Any]]:
    code = frame.f_code
    own = {*code.co_varnames, *code.co_cellvars, *code.co_freevars}
    # Until Python 3.13, reading f_locals of a function copies its locals into a dict that lives
    # until the function returns: not unless it has one of the names.
    if wanted is None or not code.co_flags & _OPTIMIZED or not wanted.isdisjoint(own):
        yield frame.f_locals
    yield frame.f_globals


# -- the template -----------------------------------------------------------------------------


class _HostPart:
    """The place of the host's address."""


class _Expression(NamedTuple):
    code: CodeType
    names: dict[str, Any]
    values: Any
    start: int
    end: int


_Part = str | _HostPart | _Expression


class _Unusable(Exception):
    """Why a text or a value cannot be used, in words for the user."""


def _parse(text: str, scope: Mapping[str, Any] | None) -> Iterator[_Part]:
    """The parts of a text. Expressions are evaluated, since that decides what ``<<`` is."""
    done = position = 0
    token = re.compile(_TOKEN)
    while match := token.search(text, position):
        start, position = match.span()
        part: _Part | None
        if match["escaped"]:
            part = match["escaped"]
        elif match["host"]:
            part = _HostPart()
        elif match["literal"]:
            part = None
        elif match["opening"] == "{{":
            part = _read_braces(text, start, scope)
        else:
            part = _read_angles(text, start, scope)
        if part is not None:
            if isinstance(part, _Expression):
                position = part.end
            yield text[done:start]
            yield part
            done = position
    yield text[done:]


def _read_braces(text: str, start: int, scope: Mapping[str, Any] | None) -> _Expression:
    """The expression whose ``{{`` is at ``start``."""
    end = 0
    problem: Exception | None = None
    # The first end that compiles: "{{ {'a': {'b': x}}['a']['b'] }}" has another "}}" inside.
    for source, candidate in _candidates(text, start):
        end = end or candidate
        try:
            code = _compile(source.strip())
        except _DOES_NOT_COMPILE as exc:
            # Without its traceback, which would keep this frame and the caller's in a cycle.
            problem = problem or exc.with_traceback(None)
            continue
        end = candidate
        try:
            if re.search(_HOST_PATTERN, source):
                raise _Unusable(
                    "the host's address is inserted last, it cannot be part of an expression: "
                    "use a sequence with one value per host"
                )
            names, _ = _names(source.strip(), scope)
            return _Expression(code, names, _evaluate(code, names), start, end)
        except Exception as exc:
            raise _error(text, start, end, exc) from exc
    if problem is None:
        problem = _Unusable("there is no }} after it on the same line")
        end = start + 2
    raise _error(text, start, end, problem) from problem


def _read_angles(text: str, start: int, scope: Mapping[str, Any] | None) -> _Expression | None:
    """The expression whose ``<<`` is at ``start``; None if it is the shell's."""
    for source, end in _candidates(text, start):
        if source != source.strip():
            continue
        try:
            code = _compile(source)
        except _DOES_NOT_COMPILE:
            continue
        names, has_name = _names(source, scope)
        if not has_name:
            return None
        try:
            return _Expression(code, names, _evaluate(code, names), start, end)
        except Exception as exc:  # noqa: BLE001 - code of the user, or of the shell
            # A misspelt variable looks just like a heredoc.
            logging.getLogger(_PACKAGE).debug(
                "left as it is: %s (%s)", text[start:end], _describe(exc)
            )
            return None
    return None


def _candidates(text: str, start: int) -> Iterator[tuple[str, int]]:
    """What may stand between the opening at ``start`` and each closing after it, with its end."""
    closing = _CLOSING[text[start : start + 2]]
    line_end = _line_end(text, start)
    found = start + 1
    for _ in range(_MAX_ENDS):
        # By one, not by two: of "}}}" the first brace may belong to the expression.
        found = text.find(closing, found + 1, line_end)
        if found < 0:
            return
        yield text[start + 2 : found], found + 2


def _line_end(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end


# -- expressions ------------------------------------------------------------------------------


def _compile(source: str) -> CodeType:
    if not source:
        raise SyntaxError("it is empty")
    return compile(source, "<execo template>", "eval", dont_inherit=True)


def _names(source: str, scope: Mapping[str, Any] | None) -> tuple[dict[str, Any], bool]:
    """The values of the free names of an expression, and whether it has any name at all."""
    import symtable  # only for texts with an expression

    free: set[str] = set()
    has_name = False
    tables = [symtable.symtable(source, "<execo template>", "eval")]
    while tables:
        table = tables.pop()
        tables.extend(table.get_children())
        for symbol in table.get_symbols():
            if symbol.is_referenced():
                has_name = True
                if symbol.is_global():
                    free.add(symbol.get_name())
    if scope is None:
        return get_caller_context(free), has_name
    return {name: scope[name] for name in free if name in scope}, has_name


def _evaluate(code: CodeType, names: dict[str, Any]) -> Any:
    """The sequence that an expression gives."""
    # Globals, not locals: only these are seen from inside comprehensions and lambdas. A copy: ":="
    # and eval itself write into it.
    values = eval(code, dict(names))
    kind = type(values)
    if isinstance(values, (str, bytes, bytearray)):
        raise _Unusable(
            f"it gives a {kind.__name__}, not a sequence of values; [...] around it makes one"
        )
    if isinstance(values, Mapping) or not (
        hasattr(kind, "__len__") and hasattr(kind, "__getitem__")
    ):
        raise _Unusable(
            f"it gives a value of type {kind.__name__}, not a sequence; list() may help"
        )
    if len(values) == 0:
        raise _Unusable(f"it gives an empty {kind.__name__}")
    str(values[0])  # so that a sequence without ranks, or values without a text, fail here
    return values


# -- errors -----------------------------------------------------------------------------------


def _check_text(text: object) -> None:
    if not isinstance(text, str):
        raise TypeError(f"a template is a str, not {text!r} ({type(text).__name__})")


def _describe(problem: Exception) -> str:
    if isinstance(problem, _Unusable):
        return str(problem)
    if isinstance(problem, SyntaxError):
        return f"it is not a Python expression: {problem.msg}"
    return f"{type(problem).__name__}: {problem}"


def _error(text: str, start: int, end: int, problem: Exception) -> SubstitutionError:
    """The error for the pattern at ``text[start:end]``, with its line and a mark under it."""
    line_start = text.rfind("\n", 0, start) + 1
    line_end = _line_end(text, start)
    # A long line is cut around the pattern.
    shown_start = line_start if end - line_start <= _WINDOW else max(line_start, start - 32)
    shown_end = min(line_end, shown_start + _WINDOW)
    before = "..." if shown_start > line_start else ""
    after = "..." if shown_end < line_end else ""
    # One column per character, and nothing that a terminal would obey.
    shown = "".join(c if c.isprintable() else " " for c in text[shown_start:shown_end])
    mark = " " * (len(before) + start - shown_start) + "^" * (min(end, shown_end) - start)
    remedy = _DID_YOU_MEAN if re.fullmatch(_ALMOST_HOST, text[start:end]) else _WAYS_OUT
    message = f"{_describe(problem)}\n  {before}{shown}{after}\n  {mark}\n{remedy}"
    return SubstitutionError(f"cannot substitute: {message}", text=text, position=start)
