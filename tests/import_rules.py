"""Reads the source of a module and tells what it imports and uses, without running it."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Import:
    """One imported module, by its full name: ``execo.host``, ``os``."""

    target: str
    line: int
    in_function: bool = False
    types_only: bool = False


@dataclass
class Source:
    """What a module's text says. ``name`` is its full name, ``known`` are all modules of ours."""

    name: str
    text: str
    known: Collection[str]
    is_package: bool = False
    imports: list[Import] = field(default_factory=list)
    uses: list[tuple[str, int]] = field(default_factory=list)
    """Names of other modules that the text mentions: ``("os.read", 12)``."""
    faults: list[tuple[str, int]] = field(default_factory=list)
    """What no module may contain, with its line."""

    def __post_init__(self) -> None:
        tree = ast.parse(self.text)
        _Reader(self).visit(tree)
        body = [node for node in tree.body if not _is_docstring(node)]
        public = not any(part.startswith("_") for part in self.name.split("."))
        # What is sent to hosts is for older Pythons, too.
        sent = self.name in ("execo.transports.node", "execo.transfer.broadcast_node")
        if body and not (
            sent
            or any(
                isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in body
            )
        ):
            self.faults.append(("no 'from __future__ import annotations'", 1))
        if body and public and "__all__" not in set(_assigned(body)):
            self.faults.append(("no __all__", 1))


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _assigned(body: Iterable[ast.stmt]) -> Iterator[str]:
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name):
                yield target.id


class _Reader(ast.NodeVisitor):
    def __init__(self, source: Source) -> None:
        self.source = source
        self.aliases: dict[str, str] = {}
        self.functions = 0
        self.types_only = False

    def add(self, target: str, line: int) -> None:
        one = Import(target, line, self.functions > 0, self.types_only)
        if one not in self.source.imports:
            self.source.imports.append(one)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        self.functions += 1
        self.generic_visit(node)
        self.functions -= 1

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - ast names its visitors so
    visit_Lambda = visit_FunctionDef  # noqa: N815

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) not in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            self.generic_visit(node)
            return
        outer, self.types_only = self.types_only, True
        for child in node.body:
            self.visit(child)
        self.types_only = outer
        for child in node.orelse:
            self.visit(child)

    def visit_Import(self, node: ast.Import) -> None:
        for name in node.names:
            self.add(name.name, node.lineno)
            first = name.name.partition(".")[0]
            self.aliases[name.asname or first] = name.name if name.asname else first

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        if node.level:
            parts = self.source.name.split(".")
            up = node.level - self.source.is_package
            module = ".".join(parts[: len(parts) - up] + ([module] if module else []))
        for name in node.names:
            full = f"{module}.{name.name}"
            self.add(full if full in self.source.known else module, node.lineno)
            self.aliases[name.asname or name.name] = full
            self.source.uses.append((full, node.lineno))
            if name.name == "*":
                self.source.faults.append(("star import", node.lineno))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.value, ast.Name) and node.value.id in self.aliases:
            self.source.uses.append((f"{self.aliases[node.value.id]}.{node.attr}", node.lineno))
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        # A module that is named in a text is imported all the same.
        called = ast.unparse(node.func).rpartition(".")[2]
        if called in ("import_module", "__import__") and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                self.add(name.value, node.lineno)
        self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.type is None:
            self.source.faults.append(("bare except", node.lineno))
        self.generic_visit(node)


def package_sources(package: Path) -> list[Source]:
    """Every module under the folder of a package."""
    paths: dict[str, Path] = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return [
        Source(name, path.read_text(encoding="utf-8"), paths, path.name == "__init__.py")
        for name, path in paths.items()
    ]


def import_cycles(graph: Mapping[str, Collection[str]]) -> list[list[str]]:
    """The cycles that a walk along the imports meets, each as ``[a, b, a]``; empty if none."""
    cycles: list[list[str]] = []
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> None:
        if module in path:
            cycles.append([*path[path.index(module) :], module])
            return
        if module in done:
            return
        for target in sorted(graph.get(module, ())):
            walk(target, [*path, module])
        done.add(module)

    for module in sorted(graph):
        walk(module, [])
    return cycles
