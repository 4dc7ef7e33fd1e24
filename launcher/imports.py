"""What a Python program imports, and which variables it sets first: read from its source, without running it.

It follows the imports that lead to modules of the program's own folder; what is installed elsewhere it does not look into.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import ast
    from collections.abc import Iterator, Mapping

FAMILY = frozenset({"tensorflow", "keras", "tf_keras"})
# Variables that TensorFlow 2.21 and Keras 3 read while they are imported, and not later (some are in worker/imported.py too).
READ_ONCE = frozenset(
    {
        "KERAS_BACKEND",
        "KERAS_HOME",
        "TF_USE_LEGACY_KERAS",
        "TF_CPP_MIN_LOG_LEVEL",
        "TF_CPP_MAX_VLOG_LEVEL",
        "TF_CPP_VMODULE",
        "TF_ENABLE_ONEDNN_OPTS",
        "TF2_BEHAVIOR",
    }
)
# A program with more modules than this is taken as it is known by then.
_MOST = 200


class Imports(NamedTuple):
    """What is known of a program.

    Attributes:
        tensorflow: it imports TensorFlow or Keras, or a module of its own folder does.
        early: variables of READ_ONCE that it sets, whatever they were, before it imports anything but the standard library.
        defaults: the same for those that it sets only where they are not set.
        elsewhere: where it may set one otherwise, as ``KERAS_BACKEND in train.py:12``; empty if nowhere.
    """

    tensorflow: bool = False
    early: Mapping[str, str] = {}
    defaults: Mapping[str, str] = {}
    elsewhere: str = ""


def read(program: Path, folder: Path) -> Imports:
    """Read a program's file, and the modules of ``folder`` that it imports, directly or not."""
    early: dict[str, str] = {}
    defaults: dict[str, str] = {}
    tensorflow, elsewhere = False, ""
    files, seen = [program], {program}
    while files and len(seen) <= _MOST:
        file = files.pop(0)
        tree = _parse(file)
        if tree is None:
            continue
        settled = _settled(tree, early, defaults) if file == program else set()
        for node in _run_nodes(tree):
            names = _imported(node, file, folder)
            tensorflow = tensorflow or any(name.partition(".")[0] in FAMILY for name in names)
            found = {path for name in names for path in _locate(name, folder)} - seen
            files += sorted(found)
            seen |= found
            if not elsewhere and node not in settled and (variable := _mentioned(node)):
                elsewhere = f"{variable} in {file.name}:{getattr(node, 'lineno', 0)}"
    return Imports(tensorflow, early, defaults, elsewhere)


def _parse(file: Path) -> ast.Module | None:
    try:
        source = file.read_bytes()
        # Most programs that have nothing to do with it end here, before the parser is even imported.
        if b"import" not in source:
            return None
        import ast

        return ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None


def _run_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield what may be run: everything but what is there for type checkers alone, and the reading of a variable."""
    import ast

    stack: list[ast.AST] = [tree]
    while stack:
        match node := stack.pop():
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                stack += node.orelse
                continue
            case ast.Call(func=ast.Attribute(attr="get" | "getenv")):
                continue
        yield node
        stack += ast.iter_child_nodes(node)


def _imported(node: ast.AST, file: Path, folder: Path) -> list[str]:
    """Full names of the modules that an import statement may import; relative ones as seen from ``folder``."""
    import ast

    match node:
        case ast.Import(names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module, names, level):
            base = module or ""
            if level:
                try:
                    parents = file.parents[level - 1].relative_to(folder).parts
                except (ValueError, IndexError):
                    return []
                base = ".".join([*parents, *filter(None, [module])])
            return [base, *(f"{base}.{alias.name}".lstrip(".") for alias in names)]
    return []


def _locate(name: str, folder: Path) -> Iterator[Path]:
    """Yield the files of ``folder`` that importing ``name`` runs."""
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        path = folder.joinpath(*parts[:depth])
        for file in (path.with_name(f"{path.name}.py"), path / "__init__.py") if path.name else ():
            if file.is_file():
                yield file


def _settled(tree: ast.Module, early: dict[str, str], defaults: dict[str, str]) -> set[ast.AST]:
    """Note what the program sets for sure before any import that matters; returns the strings that name it there."""
    import ast

    settled: set[ast.AST] = set()
    for statement in tree.body:
        match statement:
            case ast.Import() | ast.ImportFrom() if not _is_standard(statement):
                break
            case ast.Assign(
                targets=[ast.Subscript(value=environ, slice=ast.Constant(value=str(name)) as key)],
                value=ast.Constant(value=str(value)),
            ) if _is_environ(environ):
                early[name] = value
                settled.add(key)
            case ast.Expr(
                value=ast.Call(
                    func=ast.Attribute(value=environ, attr="setdefault"),
                    args=[ast.Constant(value=str(name)) as key, ast.Constant(value=str(value))],
                )
            ) if _is_environ(environ):
                defaults[name] = value
                settled.add(key)
    for found in (early, defaults):
        for name in found.keys() - READ_ONCE:
            del found[name]
    return settled


def _is_environ(node: ast.AST) -> bool:
    import ast

    return ast.unparse(node) in {"os.environ", "environ"}


def _is_standard(statement: ast.Import | ast.ImportFrom) -> bool:
    import ast

    if isinstance(statement, ast.ImportFrom):
        return not statement.level and (statement.module or "").partition(".")[0] in sys.stdlib_module_names
    return all(alias.name.partition(".")[0] in sys.stdlib_module_names for alias in statement.names)


def _mentioned(node: ast.AST) -> str:
    import ast

    match node:
        case ast.Constant(value=str(text)) if text in READ_ONCE:
            return text
        case ast.keyword(arg=str(name)) if name in READ_ONCE:
            return name
    return ""
