"""Texts that name many hosts: ``node[1-99]``, set operations, groups.

Two doors, both on ClusterShell's node sets (imported when a text first needs them):

- :func:`expand` is for plain strings, as in ``Remote("uptime", "node[1-99]")``. A string is folded
  only if it has a ``[digit`` range, else it is one address. Order and duplicates stay.
- :func:`hostset` is for the full language: ``,`` ``!`` ``&`` ``^``, wildcards, ``@groups``.

:func:`fold` is the way back, for display. All say :class:`~execo.errors.HostSetError`
(a ValueError) when a text names no host.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from .errors import HostSetError

__all__ = ["MAX_HOSTS", "check_address", "expand", "fold", "group_names", "hostset"]

MAX_HOSTS = 1_000_000
"""How many hosts one text may name: a slip such as ``node[1-9999999999]`` is refused before it
fills the memory."""

# Patterns are compiled at first use (re keeps them), so that the import stays quick.
_IPV6_IN_BRACKETS = r"\[((?=[^\]]*:[^\]]*:)[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]"
_ONE_IPV6 = rf"(?:[^\[\]@]*@)?{_IPV6_IN_BRACKETS}"
_RANGE = r"\[([^\[\]]*)\]"
# At most 18 digits: Python refuses to convert very long ones, with an error of its own.
_SUBRANGE = r"\s*-?([0-9]{1,18})(?:\s*-\s*(-?[0-9]{1,18})(?:/([0-9]{1,18}))?)?\s*"
# ClusterShell pastes group names into shell commands (the upcalls of groups.conf).
_SHELL_CHARACTERS = r"[\x00-\x08\x0a-\x1f\x7f\"'`$\\;|<>(){}#~]"
_GROUP = r"@[\w@:.*?%+=-]*"
_FOLDABLE = r"(?:[A-Za-z_.:%@-]|(?<![0-9])[0-9]{1,15}(?![0-9]))+"


def check_address(address: str) -> str:
    """Return ``address`` if it can be the address of one host.

    Refused are texts that ssh or a shell would take for something else than a host, and texts
    that name several hosts. Names are not resolved. IPv6 passes, bare, with a zone or in brackets.

    :param address: a host name, an alias of ssh_config, an IPv4 or IPv6 address
    :raises HostSetError: it is empty, has a blank or a control character, starts with ``-``, or
        is an expression for :func:`expand` or :func:`hostset`
    :raises TypeError: it is not a str
    """
    _check_type(address)
    _check_characters(address, address)
    if _has_range(address):
        raise HostSetError(
            f"{address!r} names a range of hosts, not one: give the text to the action, or to "
            "get_hosts_list()"
        )
    return address


def expand(text: str) -> list[str]:
    """Return the addresses that a plain string names.

    A string with a ``[digit`` range gives one address per value, in the order written, duplicates
    and zero padding kept: ``node[3,1,001-002]`` gives node3, node1, node001, node002. Several
    ranges give all combinations, the last one varying fastest. Steps are ``[1-9/2]``. Any other
    string is one address: operators, commas between names, wildcards and ``@groups`` need
    :func:`hostset`.

    Source: our decision; the syntax is ClusterShell's, execo 2.8.2 has no folding.

    :param text: one address or one folded set
    :raises HostSetError: it names no host, see :func:`check_address`, or more than
        :data:`MAX_HOSTS`
    :raises TypeError: it is not a str
    """
    _check_type(text)
    if not _has_range(text):
        return [check_address(text)]
    pieces = re.split(_RANGE, text)
    literals, ranges = pieces[::2], pieces[1::2]
    for literal in literals:
        if "[" in literal or "]" in literal:
            raise HostSetError(f"{text!r} names no host: a bracket is missing")
    _check_characters("0".join(literals), text)
    _refuse_too_many(text)
    choices = [_values(text, one) for one in ranges]
    return [_interleave(literals, values) for values in itertools.product(*choices)]


def hostset(text: str) -> list[str]:
    """Return the addresses that a text of ClusterShell's node set language names.

    ``a,b`` is the union, ``a!b`` the difference, ``a&b`` the intersection, ``a^b`` what is in one
    only, from left to right; ``node[1-9/2]`` a range; ``@group``, ``@source:group`` and ``@*``
    come from ClusterShell's groups.conf; ``*`` and ``?`` match the nodes of the default group
    source. It is a set: sorted, without duplicates. Brackets around an IPv6 address are taken off.

    It may block: groups can run the commands that groups.conf names for them.

    :param text: such as ``"node[1-99]!node7,@gpu"``
    :raises HostSetError: it names no host, or more than :data:`MAX_HOSTS`, or is malformed, or a
        group cannot be resolved; what ClusterShell said is its ``__cause__``
    :raises TypeError: it is not a str
    """
    _check_type(text)
    if not text.strip():
        raise HostSetError(f"{text!r} names no host: it is empty")
    bare = re.sub(_IPV6_IN_BRACKETS, r"\1", text)
    _refuse_shell_text(text, bare)
    _refuse_too_many(bare)

    from ClusterShell.NodeSet import NodeSet, NodeSetException
    from ClusterShell.NodeUtils import GroupResolverError, GroupSourceError
    from ClusterShell.RangeSet import RangeSetException

    try:
        found = NodeSet(bare)
    except (NodeSetException, RangeSetException) as exc:
        place = _fault(text)
        where = "" if place is None else f", at character {place + 1}"
        raise HostSetError(f"{text!r} names no host: {exc}{where}", position=place) from exc
    # What ClusterShell lets out of some malformed ranges, "[-8--4-5]" for one.
    except ValueError as exc:
        place = _fault(text)
        where = "" if place is None else f", at character {place + 1}"
        raise HostSetError(
            f"{text!r} names no host: a range in it is malformed{where}", position=place
        ) from exc
    except (GroupResolverError, GroupSourceError) as exc:
        raise HostSetError(
            f"{text!r} names no host: its group cannot be resolved "
            f"({type(exc).__name__}: {exc}); see `nodeset --list-all` and groups.conf"
        ) from exc
    if not found:
        hint = "; unknown groups are empty: see `nodeset --list-all`" if "@" in text else ""
        raise HostSetError(f"{text!r} names no host: the result is empty{hint}")
    if len(found) > MAX_HOSTS:
        raise _too_many(text)
    return [check_address(address) for address in found]


def group_names(source: str | None = None) -> list[str]:
    """Return the groups of a group source, sorted, as :func:`hostset` takes them: ``@gpu``,
    ``@racks:r1``.

    It may block: a source can be a command that groups.conf names. (new)

    :param source: None = the default one, whose groups need no ``source:``
    :raises HostSetError: there is no such source, or it cannot list its groups
    """
    from ClusterShell.NodeSet import std_group_resolver
    from ClusterShell.NodeUtils import GroupResolverError, GroupSourceError

    resolver = std_group_resolver()
    try:
        names = resolver.grouplist(source)
    except (GroupResolverError, GroupSourceError) as exc:
        name = "the default source" if source is None else f"the source {source!r}"
        raise HostSetError(
            f"the groups of {name} cannot be listed ({type(exc).__name__}: {exc}); see groups.conf"
        ) from exc
    return sorted(f"@{name}" if source is None else f"@{source}:{name}" for name in names)


def fold(addresses: Iterable[str]) -> str:
    """Return a short text for many addresses: ``node[1-4,7],web1``.

    For display: duplicates are dropped and numbers sorted, in the order in which the first address
    of each kind came. In names with several numbers, the one that varies most is folded. Time is
    linear in the number of addresses. Unusual names stay as they are; it never fails on a str.

    :param addresses: such as the ``address`` of each host
    """
    kinds: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for address in dict.fromkeys(addresses):
        if re.fullmatch(_FOLDABLE, address):
            pieces = re.split(r"([0-9]+)", address)
            kinds.setdefault(tuple(pieces[::2]), []).append(tuple(pieces[1::2]))
        else:
            kinds[(address,)] = [()]
    return ",".join(text for names, rows in kinds.items() for text in _fold_kind(names, rows))


def _fold_kind(names: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    # ClusterShell's folding in several dimensions is quadratic (1000 random IPv4 addresses take
    # over a second), so only one number is folded here.
    if len(rows) == 1:
        yield _interleave(names, rows[0])
        return
    from ClusterShell.RangeSet import RangeSet

    axis = max(range(len(names) - 1), key=lambda i: (len({row[i] for row in rows}), i))
    lines: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        lines.setdefault((*row[:axis], "", *row[axis + 1 :]), []).append(row[axis])
    for line, numbers in lines.items():
        folded = f"[{RangeSet.fromlist(numbers)}]" if len(numbers) > 1 else numbers[0]
        yield _interleave(names, (*line[:axis], folded, *line[axis + 1 :]))


def _interleave(names: Sequence[str], numbers: Sequence[str]) -> str:
    return "".join(itertools.chain.from_iterable(zip(names, (*numbers, ""), strict=True)))


def _check_type(text: object) -> None:
    if not isinstance(text, str):
        raise TypeError(f"hosts are named by a str, not {text!r} ({type(text).__name__})")


def _check_characters(address: str, text: str) -> None:
    """Refuse an address; ``text`` is what the caller wrote, for the message."""
    if not address:
        raise HostSetError("a host address cannot be empty")
    if address[0] == "-":
        raise HostSetError(
            f"a host address cannot start with '-', ssh would take it as an option: {text!r}"
        )
    if re.search(r"[\s\x00-\x1f\x7f]", address):
        raise HostSetError(
            f"a host address cannot have blanks, newlines or control characters: {text!r}"
        )
    if address[0] == "@" or re.search(r"[,!&^*?]", address):
        raise HostSetError(
            f"{text!r} is not the address of one host: commas, operators (! & ^), wildcards "
            f"and @groups are for execo.hostset.hostset({text!r})"
        )


def _has_range(text: str) -> bool:
    return re.search(r"\[[0-9]", text) is not None and not re.fullmatch(_ONE_IPV6, text)


def _values(text: str, ranges: str) -> list[str]:
    """The values of one bracket, subrange by subrange, so that their order stays."""
    from ClusterShell.RangeSet import RangeSet, RangeSetException

    values: list[str] = []
    for subrange in ranges.split(","):
        if not re.fullmatch(_SUBRANGE, subrange) or subrange.lstrip().startswith("-"):
            raise HostSetError(
                f"{text!r} names no host: {subrange!r} is not a range such as 7, 1-9 or 1-9/2"
            )
        try:
            values.extend(RangeSet(subrange).striter())
        except RangeSetException as exc:
            raise HostSetError(f"{text!r} names no host: {exc}") from exc
    return values


def _refuse_too_many(text: str) -> None:
    total, product = 0, 1
    for match in re.finditer(rf"[,!&^]|{_RANGE}", text):
        if match[1] is None:
            total, product = total + product, 1
        else:
            product *= sum(_length(subrange) for subrange in match[1].split(","))
    if total + product > MAX_HOSTS:
        raise _too_many(text)


def _length(subrange: str) -> int:
    match = re.fullmatch(_SUBRANGE, subrange)
    if match is None:
        # Malformed, ClusterShell says why; but never let it count up to a number of 40 digits.
        return MAX_HOSTS + 1 if re.search(r"[0-9]{19}", subrange) else 1
    first, last, step = match[1], match[2], match[3]
    if last is None:
        return 1
    sign = -1 if subrange.lstrip().startswith("-") else 1
    return max(0, (int(last) - sign * int(first)) // max(1, int(step or 1))) + 1


def _fault(text: str) -> int | None:
    """Where a text that ClusterShell has refused is wrong, which it does not tell."""
    opened = None
    operand = False
    for place, character in enumerate(text):
        if character == "[" and opened is None:
            opened = place
        elif character == "]" and opened is not None:
            begin = opened + 1
            for subrange in text[begin:place].split(","):
                match = re.fullmatch(_SUBRANGE, subrange)
                if match is None or (match[2] and _is_empty(*match.groups())):
                    return begin
                begin += len(subrange) + 1
            opened = None
        elif character in "[]":
            return place if opened is None else opened
        elif character in ",!&^" and opened is None:
            if not operand:
                return place
            operand = False
            continue
        operand = operand or not character.isspace()
    if opened is not None:
        return opened
    return None if operand else len(text)


def _is_empty(first: str, last: str, step: str | None) -> bool:
    return int(last) < int(first) or (step is not None and int(step) == 0)


def _too_many(text: str) -> HostSetError:
    return HostSetError(f"{text!r} names more than {MAX_HOSTS} hosts: check its ranges")


def _refuse_shell_text(text: str, bare: str) -> None:
    match = re.search(_SHELL_CHARACTERS, bare)
    if match:
        raise HostSetError(f"{text!r} names no host: {match[0]!r} cannot be part of it")
    for operand in re.split(r"[,!&^]", re.sub(_RANGE, "", bare)):
        name = operand.strip()
        if name.startswith("@") and not re.fullmatch(_GROUP, name):
            raise HostSetError(f"{text!r} names no host: {name!r} is not the name of a group")
