"""First code of a Python worker: opens the control line to the agent, then becomes the user's program.

    PYTHON start.py SCRIPT [ARGS...]          as  PYTHON SCRIPT [ARGS...]
    PYTHON start.py -m MODULE [ARGS...]       as  PYTHON -m MODULE [ARGS...]
    PYTHON start.py --trainer TASK [ARGS...]  as  PYTHON -m worker TASK [ARGS...], and always this package's own trainer
    PYTHON start.py --call PAYLOAD            what a test has called in every task (call.py)
    PYTHON start.py --fork-server [tensorflow]  as any of these, once for each request (warm.py)

The program sees what plain Python would show it, and its output and exit status are the same. What remains to be seen:
this file's frames lie beneath the program's first one, the module ``_tflaunch_boot`` is loaded (its ``report`` writes
to the control line), and ``import worker`` finds this package where the program has no module of that name.

Every worker pays for this file before its own first line. So it imports only what the interpreter has loaded already,
and nothing of this package; the rest waits until there is something to report.
"""
# ruff: noqa: PTH100, PTH109, PTH118, PTH120 - importing pathlib costs more than all of this

import os
import sys
import time

TYPE_CHECKING = False  # as typing has it, without the cost of typing
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType, TracebackType
    from typing import Any

CONTROL_FD = "TFLAUNCH_CONTROL_FD"
COMPILED = "TFLAUNCH_COMPILED"
STACKS_FD = 255
LINE_LIMIT = 4096  # PIPE_BUF of Linux: shorter writes to a pipe never mix with those of another process
PACKAGE = os.path.dirname(os.path.abspath(__file__))
PRIVATE = "_tflaunch"
OWN_FILES = tuple(os.path.join(PACKAGE, name) for name in ("start.py", "boot.py", "call.py"))


class ControlLine:
    """Tells the agent about this worker, one JSON object a line; silent while it is not open."""

    def __init__(self) -> None:
        self._fd = -1
        self._owner = -1

    def open(self, descriptor: str) -> None:
        """Takes over the inherited descriptor of that number, keeps it from children, and says that the worker started.

        A number that is none, or no open descriptor, leaves the line silent.
        """
        python = sys.version.partition(" ")[0]
        # Put together by hand: json takes longer to import than all of this file to run.
        hello = f'{{"kind": "state", "time": {time.time()}, "state": "started", "python": "{python}", "stacks": %d}}\n'
        try:
            self._fd = int(descriptor)
            os.set_inheritable(self._fd, False)
            hello %= offer_stacks()
            self._pipe = os.fstat(self._fd)
            self._owner = os.getpid()
            self._write(hello.encode())
        except (ValueError, OSError):
            return

    def report(self, kind: str, **fields: object) -> None:
        """Writes ``{"kind": kind, "time": seconds since the epoch, **fields}``; never raises.

        Long strings are cut so that the line stays within LINE_LIMIT bytes. A forked child's report is dropped.
        """
        if os.getpid() != self._owner:
            return
        try:
            self._write(encode({"kind": kind, "time": time.time(), **fields}))
        except Exception:  # noqa: BLE001 - training goes on, even where nobody can be told
            return

    def _write(self, line: bytes) -> None:
        # A program that closes all descriptors may get this number again, for a file of its own.
        if os.path.samestat(os.fstat(self._fd), self._pipe):
            os.write(self._fd, line)


def offer_stacks() -> int:
    """Has SIGURG write the stacks of all threads to a file in memory, where the agent finds them; gives its descriptor.

    Whatever the program waits in, were it a C++ collective: no line of Python has to run for that. -1: not here.
    """
    import _signal  # type: ignore[import-not-found]  # what signal is made of, without its enums
    import faulthandler

    try:
        file = os.memfd_create("tflaunch-stacks")
        try:
            # Out of the way: a program may rely on the numbers that its own files get.
            os.dup2(file, STACKS_FD, inheritable=False)
            os.close(file)
            file = STACKS_FD
        except OSError:
            pass
        faulthandler.register(_signal.SIGURG, file, all_threads=True)
    except (AttributeError, OSError):  # not Linux; too many files
        return -1
    return file


def encode(record: "Mapping[str, object]") -> bytes:
    """One line of JSON, at most LINE_LIMIT bytes: the longest strings lose their ends, a traceback its beginning.

    Raises ValueError where strings are not what makes it too long.
    """
    import json

    fields = dict(record)
    while True:
        line = json.dumps(fields, ensure_ascii=False, default=repr).encode(errors="replace") + b"\n"
        excess = len(line) - LINE_LIMIT
        if excess <= 0:
            return line
        length, name, text = max((len(value), name, value) for name, value in fields.items() if isinstance(value, str))
        if length == 0:
            raise ValueError(f"a record of {len(line)} bytes without a string to cut")
        # A character takes six bytes at most (\u0000), so no round cuts more than it must; nor all from one string.
        kept = min(LINE_LIMIT, max(length - excess // 6 - 1, length // 2))
        fields[name] = text[length - kept :] if name == "traceback" else text[:kept]


control = ControlLine()
report = control.report


def main() -> None:
    """Becomes the program that the command line names."""
    finders = worker_of_fork_server(*sys.argv[2:]) if sys.argv[1:2] == ["--fork-server"] else []
    control.open(os.environ.pop(CONTROL_FD, ""))
    interpreter, command = sys.orig_argv[: -len(sys.argv)], sys.argv[1:]
    run = run_script
    match command:
        case ["--trainer", *rest]:
            run, command = run_trainer, ["-m", "worker", *rest]
        case ["--call", _]:
            run = run_call
        case ["-m", _, *_]:
            run = run_module
        case []:
            sys.exit("usage: start.py SCRIPT | -m MODULE | --trainer TASK [ARGS...]")
    sys.orig_argv[:] = [*interpreter, *command]
    sys.argv[:] = command
    sys.meta_path[:0] = [*finders, AfterImport]
    try:
        run()
    except SystemExit as leaving:
        report_exit(leaving)
        raise
    except BaseException as error:
        report_last_once_shown(last_record("error", error))
        raise


def worker_of_fork_server(module: str = "") -> "list[Any]":
    """Becomes the fork server, and comes back in each of its workers, with what it has to import by."""
    at_start = frozenset(sys.modules)
    finders: list[Any] = own("warm").serve(module, replace_path0, AFTER_IMPORT, at_start)
    return finders


def run_script() -> None:
    """What ``python SCRIPT`` does, for a file and for a directory or zip file with a ``__main__.py``."""
    sys.meta_path.append(PackageFinder)
    path = sys.argv[0]
    # Absolute but not normalised, "." alone excepted, as Python has it.
    file = os.getcwd() if path == "." else os.path.join(os.getcwd(), path)
    if holds_main(file):
        replace_path0()
        sys.path.insert(0, file)
        run_as_main("__main__", alter_argv=False)
        return
    code = compiled_script(file, os.environ.pop(COMPILED, "")) or compile_script(file)
    replace_path0(os.path.dirname(os.path.realpath(path)))
    loader = type(__loader__)("__main__", file)  # type: ignore[name-defined]  # each module has one; mypy knows of none
    namespace = new_main()
    namespace.update(__file__=file, __cached__=None, __loader__=loader)
    exec(code, namespace)  # noqa: S102 - the user's program is what there is to run


def run_module() -> None:
    """What ``python -m MODULE`` does."""
    sys.meta_path.append(PackageFinder)
    replace_path0(os.getcwd())
    run_as_main(sys.argv.pop(1))


def run_trainer() -> None:
    """Runs this package, whatever else is called ``worker`` in the current directory or on the path."""
    sys.meta_path.insert(0, PackageFinder)
    replace_path0()
    run_as_main(sys.argv.pop(1))


def run_call() -> None:
    """What a test has asked for: its function, or a script with things that go wrong in it."""
    own("call").answer(sys.argv[1])


def replace_path0(*folders: str) -> None:
    """Puts the program's folder where Python put this file's own, which it does unless told not to (-P, -I)."""
    if not sys.flags.safe_path:
        sys.path[:1] = folders


def holds_main(file: str) -> bool:
    """Whether Python runs ``file`` by the ``__main__.py`` in it: a directory, a zip file, what a path hook can open."""
    for hook in sys.path_hooks:
        try:
            hook(file)
        except ImportError:
            continue
        return True
    return False


def compiled_script(file: str, compiled: str) -> "CodeType | None":
    """The code of a script as the launcher has compiled it (launcher/compiling.py), if it is that of the source that is there.

    A file of the kind that Python caches modules in, which is checked by a hash of the source (PEP 552).
    """
    if not compiled or sys.flags.optimize:
        return None
    import _imp
    import io
    import marshal
    from _frozen_importlib_external import MAGIC_NUMBER

    try:
        with io.open_code(file) as source, open(compiled, "rb") as kept:  # noqa: PTH123
            checked = _imp.source_hash(int.from_bytes(MAGIC_NUMBER, "little"), source.read())
            if kept.read(16) != MAGIC_NUMBER + b"\3\0\0\0" + checked:
                return None
            code: CodeType = marshal.load(kept)  # noqa: S302 - our own file
    except (OSError, EOFError, ValueError, TypeError):  # gone, or cut
        return None
    _imp._fix_co_filename(code, file)  # type: ignore[attr-defined]  # what import does
    return code


def compile_script(file: str) -> "CodeType":
    """The code of a script; one that cannot be read or compiled is left to plain Python, whose words for it differ."""
    import io

    try:
        with io.open_code(file) as source:
            return compile(source.read(), file, "exec", dont_inherit=True)
    except Exception as error:  # noqa: BLE001 - OSError, SyntaxError, ValueError, RecursionError, MemoryError ...
        record = last_record("error", error)
        _, ended = os.waitpid(os.posix_spawn(sys.executable, sys.orig_argv, os.environ), 0)
        if ended:
            report_last(record)
        os._exit(os.waitstatus_to_exitcode(ended) & 0xFF)


def new_main() -> "dict[str, object]":
    """The namespace of a new ``__main__`` module, as the interpreter makes it."""
    import builtins

    main_module = type(sys)("__main__")
    namespace = vars(main_module)
    namespace["__builtins__"] = builtins
    if sys.version_info < (3, 14):  # since then a module's annotations are made when asked for (PEP 649)
        namespace["__annotations__"] = {}
    sys.modules["__main__"] = main_module
    return namespace


def run_as_main(name: str, *, alter_argv: bool = True) -> None:
    """Runs a module with the very function that ``python -m`` calls, which shows in tracebacks."""
    import runpy

    new_main()
    runpy._run_module_as_main(name, alter_argv)  # type: ignore[attr-defined]  # private, and unchanged since 2.6


# Where TensorFlow 2.21 and Keras 3 need a hand: module -> the module of this package, and its function, that is called
# with it once it is loaded.
AFTER_IMPORT = {
    "tensorflow.python.autograph.pyct.loader": ("autograph", "after_loader"),
    "tensorflow.python.eager.context": ("spinning", "after_context"),
    "tensorflow.python.distribute.collective_all_reduce_strategy": ("sigterm", "after_strategy"),
    "tensorflow.python.distribute.failure_handling.failure_handling": ("sigterm", "before_handler"),
    "keras": ("keras3.repair", "repair"),
    "tf_keras": ("keras3.legacy", "repair"),
}


class AfterImport:
    """Has the modules of AFTER_IMPORT changed once they are loaded, whoever finds them.

    TensorFlow itself, too, whose import takes less time if no garbage is looked for meanwhile.
    """

    @staticmethod
    def find_spec(
        name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        if name not in AFTER_IMPORT and name != "tensorflow":
            return None
        spec = find_further(name, path, target)
        if spec is not None and name == "tensorflow":
            own("garbage").leave(spec)
        elif spec is not None and spec.loader is not None and hasattr(spec.loader, "exec_module"):
            change_after(spec.loader, *AFTER_IMPORT[name])
        return spec


def find_further(name: str, path: "Sequence[str] | None", target: "ModuleType | None") -> "ModuleSpec | None":
    """What import would find without AfterImport."""
    for finder in sys.meta_path[sys.meta_path.index(AfterImport) + 1 :]:
        find: Any = getattr(finder, "find_spec", None)
        spec: ModuleSpec | None = find and find(name, path, target)
        if spec is not None:
            return spec
    return None


def change_after(loader: "Loader", file: str, function: str) -> None:
    load = loader.exec_module

    def exec_module(module: "ModuleType") -> None:
        load(module)
        getattr(own(file), function)(module)

    loader.exec_module = exec_module  # type: ignore[method-assign]


def own(name: str) -> "ModuleType":
    """A module of this package, under a private name: ``worker`` may be the name of a module of the program's.

    What it imports of this package, it imports relative to itself.
    """
    # What importlib.import_module calls, without the file of that.
    from _frozen_importlib import _gcd_import  # type: ignore[attr-defined]

    if PRIVATE not in sys.modules:
        sys.modules[PRIVATE] = package = type(sys)(PRIVATE)
        package.__path__ = [PACKAGE]
    module: ModuleType = _gcd_import(f"{PRIVATE}.{name}")
    return module


class PackageFinder:
    """Finds the top-level name ``worker`` in the folder this file lies in, and nothing else."""

    @staticmethod
    def find_spec(
        name: str, _path: "Sequence[str] | None" = None, _target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        if name != "worker":
            return None
        from importlib.machinery import PathFinder

        return PathFinder.find_spec(name, [os.path.dirname(PACKAGE)])


def report_exit(leaving: SystemExit) -> None:
    """Reports the status, unless it is 0, and the text that the interpreter is about to make of ``leaving``."""
    if leaving.code is not None and not (isinstance(leaving.code, int) and leaving.code & 0xFF == 0):
        report_last(last_record("exit", leaving))


def last_record(kind: str, error: BaseException) -> "dict[str, Any]":
    """What is reported of what ends this process, an ``error`` or an ``exit``; empty where it cannot be made."""
    try:
        error.__traceback__ = without_boot(error.__traceback__)
        return {"kind": kind, "time": time.time(), **getattr(own("failure"), f"{kind}_record")(error)}
    except Exception:  # noqa: BLE001 - say, a traceback.py beside the script: the error itself must still be shown
        return {}


def report_last(record: "dict[str, Any]") -> None:
    if record:
        report(**record)


def without_boot(trace: "TracebackType | None") -> "TracebackType | None":
    while trace is not None and trace.tb_frame.f_code.co_filename in OWN_FILES:
        trace = trace.tb_next
    return trace


def report_last_once_shown(record: "dict[str, Any]") -> None:
    """Has the exception on its way out shown by the program's own sys.excepthook, as plain Python raises it, then reported.

    Not before: a peer's failure may have this process stopped in between, and what is told as a cause is to be in its log.
    Each frame that the exception leaves adds itself to the traceback, hence the last moment is the one to take them off.
    """
    hook = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, trace: "TracebackType | None") -> None:
        sys.excepthook = hook
        sys.last_traceback = error.__traceback__ = trace = without_boot(trace)
        try:
            hook(kind, error, trace)
        finally:
            report_last(record)

    sys.excepthook = show
