"""The fork server: imports TensorFlow once, then forks workers that find it imported already.

``boot.py`` runs it for ``start.py --fork-server``, with the agent's socket as descriptor 3, and goes on in every worker
that it forks as if that had been started by itself. What the worker's program does is what shows: until it imports
TensorFlow, TensorFlow is not there; at that import comes what importing it changes and prints, and nothing else.

Standard library only, until TensorFlow. Sources: fork(2), unix(7), prctl(2) PR_SET_MM_MAP, proc(5).
"""
# ruff: noqa: PTH109, PTH112, PTH113, PTH115, PTH118, PTH120, PTH123, PTH208 - as in boot.py

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import socket
import sys
import time
import warnings
from contextlib import suppress
from importlib.machinery import ModuleSpec
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import ModuleType

SOCKET = 3
# Request: four bytes of length with the descriptors, then that much JSON. Reply: this many bytes, a process id.
REPLY = 8
FAMILY = ("tensorflow", "keras", "tf_keras")
# What TensorFlow 2.21 and Keras 3 read while they are imported; launcher/imports.py looks for them in the program.
READ_ONCE = (
    "KERAS_BACKEND",
    "KERAS_HOME",
    "TF_USE_LEGACY_KERAS",
    "TF_CPP_MIN_LOG_LEVEL",
    "TF_CPP_MAX_VLOG_LEVEL",
    "TF_CPP_VMODULE",
    "TF_ENABLE_ONEDNN_OPTS",
    "TF2_BEHAVIOR",
)
BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")
_COVERAGE = ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
_PR_SET_PDEATHSIG = 1
_PR_SET_MM = 35
_PR_SET_MM_MAP = 14

_libc = ctypes.CDLL(None, use_errno=True)


class Request(NamedTuple):
    """A worker to fork: ``agent`` is the process that is to be its parent, ``go`` says when it may begin."""

    argv: list[str]
    cwd: str | None
    env: dict[str, str]
    cores: list[int]
    agent: int
    output: int
    control: int
    go: int


class UnfitError(Exception):
    """This process cannot fork workers that are as good as fresh ones; the message says why."""


def serve(
    replace_path0: Callable[..., None], after_import: Mapping[str, Callable[[Any], None]], at_start: frozenset[str]
) -> Imported:
    """Import, then fork a worker for each request. Returns in the workers alone: the finder that TensorFlow comes back by.

    Args:
        replace_path0: takes this package's own folder off ``sys.path``; TensorFlow is not to find ``data`` or ``task`` there.
        after_import: module -> what is to be done with it once it is imported.
        at_start: the modules that every Python process has loaded before its program runs.
    """
    link = socket.socket(fileno=SOCKET)
    link.set_inheritable(False)
    own_folder = sys.path[:1]
    replace_path0()
    try:
        imported = Imported(after_import, at_start)
        _require_fitness()
    except (UnfitError, Exception) as error:  # noqa: BLE001 - whatever TensorFlow's import raises
        said = str(error) if isinstance(error, UnfitError) else f"{type(error).__name__}: {error}"
        link.sendall(json.dumps({"unfit": said.splitlines()[0]}).encode() + b"\n")
        os._exit(1)
    link.sendall(b'{"ready": true}\n')
    request = _fork_for_each(link)
    # Its descriptor's number is about to be the control line's.
    os.close(link.detach())
    sys.path[:0] = own_folder
    _become(request, imported)
    return imported


def _require_fitness() -> None:
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise UnfitError(f"importing TensorFlow started {threads - 1} threads, which a fork would lose")
    context = sys.modules.get("tensorflow.python.eager.context")
    if getattr(context, "_context", None) is not None:
        raise UnfitError("importing TensorFlow created its context, which cannot be shared")
    if any(path.startswith("/dev/nvidia") for path in _open_files()):
        raise UnfitError("importing TensorFlow opened the GPUs, which cannot be shared")


def _open_files() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return found


def _fork_for_each(link: socket.socket) -> Request:
    """Answer requests until the agent is gone; returns in each worker."""
    import gc

    gc.collect()
    # The collector would write to every object that it looks at, and the workers share these pages as long as nobody does.
    gc.freeze()
    while True:
        request = _receive(link)
        if request is None:
            os._exit(0)
        read, write = os.pipe()
        try:
            child = os.fork()
            if child == 0 and _is_worker(write):
                return request
            os.waitpid(child, 0)
            # It is gone, so its child, the worker, is the agent's by now.
            link.sendall(os.read(read, REPLY))
        except OSError as error:
            link.sendall((-(error.errno or 1)).to_bytes(REPLY, "big", signed=True))
        for descriptor in (read, write, request.output, request.control, request.go):
            os.close(descriptor)


def _is_worker(write: int) -> bool:
    """In the child: fork once more, so that the worker is left to the agent, which adopts orphans. True in the worker."""
    try:
        worker = os.fork()
    except OSError as error:
        worker = -(error.errno or 1)
    if worker:
        os.write(write, worker.to_bytes(REPLY, "big", signed=True))
        os._exit(0)
    return True


def _receive(link: socket.socket) -> Request | None:
    head, descriptors, _, _ = socket.recv_fds(link, 4, 3)
    if not head:
        return None
    missing = int.from_bytes(head, "big")
    data = b""
    while len(data) < missing:
        piece = link.recv(missing - len(data))
        if not piece:
            return None
        data += piece
    output, control, go = descriptors
    return Request(**json.loads(data), output=output, control=control, go=go)


def _become(request: Request, imported: Imported) -> None:
    """In the worker: have all that a process of its own would have. Never returns where that cannot be had."""
    step = "start a session"
    control = request.control
    try:
        os.setsid()
        # Until the agent knows this process it may start the task another way.
        if not os.read(request.go, 1) or _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) < 0:
            os._exit(1)
        if os.getppid() != request.agent:
            os._exit(1)
        _wire_up(request)
        control = SOCKET
        if request.cwd is not None:
            step = f"change to {request.cwd}"
            os.chdir(request.cwd)
        if request.cores:
            step = f"use cores {request.cores}"
            os.sched_setaffinity(0, request.cores)
        step = f"run {request.argv[0]}"
        os.environ.clear()
        os.environ.update(request.env)
        sys.argv[:], sys.orig_argv[:] = request.argv[1:], request.argv
        if neighbour := imported.hidden_by(_program_folder(sys.argv)):
            _tell(control, kind="cold", why=f"{neighbour} would be imported instead of TensorFlow's own")
            os.execvpe(request.argv[0], request.argv, os.environ)
    except OSError as error:
        _tell(control, kind="not-started", step=step, error=error.strerror, errno=error.errno)
        os._exit(127)
    _appear_as(request.argv, request.env)
    _refresh()
    imported.hide()


def _wire_up(request: Request) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    # Received while 0 to 3 were open, so all of them lie above.
    for target, source in enumerate((null, request.output, request.output, request.control)):
        os.dup2(source, target)
    os.closerange(SOCKET + 1, os.sysconf("SC_OPEN_MAX"))


def _tell(control: int, **fields: object) -> None:
    os.write(control, json.dumps({**fields, "time": time.time()}).encode() + b"\n")


def _program_folder(argv: Sequence[str]) -> str | None:
    """What will be first on ``sys.path``; None where nothing of the program's will."""
    match argv[1:]:
        case ["--trainer" | "--call", *_]:
            return None
        case ["-m", *_]:
            return os.getcwd()
        case [script, *_] if not sys.flags.safe_path:
            real = os.path.realpath(script)
            return real if os.path.isdir(real) else os.path.dirname(real)
    return None


def _refresh() -> None:
    """Whatever a process has of its own, and the import has already made for this one."""
    importlib.invalidate_caches()
    # The random module and tempfile see to it themselves.
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    if "multiprocessing.process" in sys.modules:
        process = sys.modules["multiprocessing.process"]
        process.current_process().authkey = os.urandom(32)
    if any(name in os.environ for name in _COVERAGE):
        with suppress(ImportError):
            # What its .pth file does at the start of a process; the fork server itself is not measured.
            importlib.import_module("coverage").process_startup()


def _set_blas_threads() -> None:
    """Give OpenBLAS the threads that it would have taken when it was loaded; the fork server allows it none but its own."""
    wanted = next((os.environ[name] for name in BLAS_THREADS if os.environ.get(name, "").isdigit()), None)
    number = int(wanted) if wanted else len(os.sched_getaffinity(0))
    with suppress(OSError), open("/proc/self/maps") as maps:
        files = {line.split(maxsplit=5)[5].strip() for line in maps if "openblas" in line}
        for library in map(ctypes.CDLL, sorted(files)):
            for name in (
                f"{prefix}openblas_set_num_threads{suffix}" for prefix in ("scipy_", "") for suffix in ("64_", "")
            ):
                if hasattr(library, name):
                    getattr(library, name)(number)


class _Map(ctypes.Structure):
    """``struct prctl_mm_map`` of linux/prctl.h."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("start_code", "end_code", "start_data", "end_data")),
        *((name, ctypes.c_uint64) for name in ("start_brk", "brk", "start_stack")),
        *((name, ctypes.c_uint64) for name in ("arg_start", "arg_end", "env_start", "env_end", "auxv")),
        ("auxv_size", ctypes.c_uint32),
        ("exe_fd", ctypes.c_uint32),
    )


_shown: list[object] = []


def _appear_as(argv: Sequence[str], env: Mapping[str, str]) -> None:
    """Have ``ps`` and /proc show this worker's own arguments and environment, not the fork server's.

    The agent finds a worker's descendants by their environment. A kernel without CONFIG_CHECKPOINT_RESTORE refuses: then
    the fork server's are shown, and the agent goes by sessions and pipes.
    """
    arguments = b"".join(os.fsencode(one) + b"\0" for one in argv)
    environment = b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in env.items())
    text = ctypes.create_string_buffer(arguments + environment)
    start = ctypes.addressof(text)
    with open("/proc/self/stat", "rb") as file:
        # Fields are numbered from 1 in proc(5); the name, field 2, may hold spaces.
        stat = [b"", b"", b"", *file.read().rpartition(b")")[2].split()]
    break_now = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_long)(("sbrk", _libc))(0)
    layout = _Map(
        *(int(stat[field]) for field in (26, 27, 45, 46, 47)),
        brk=break_now,
        start_stack=int(stat[28]),
        arg_start=start,
        arg_end=start + len(arguments),
        env_start=start + len(arguments),
        env_end=start + len(arguments) + len(environment),
        exe_fd=0xFFFFFFFF,
    )
    if _libc.prctl(_PR_SET_MM, _PR_SET_MM_MAP, ctypes.byref(layout), ctypes.sizeof(layout), 0) == 0:
        _shown.append(text)


class Imported:
    """What the import brought, put away; as a finder, what the worker's own imports get it from.

    It is made in the fork server, and ``hide`` is called in the worker. Then importing one of the packages brings that one
    back, and importing TensorFlow or Keras brings back all.
    """

    def __init__(self, after_import: Mapping[str, Callable[[Any], None]], at_start: frozenset[str]) -> None:
        self._after_import = after_import
        self._environment = {name: os.environ.get(name) for name in READ_ONCE}
        self._filters, self._finders = list(warnings.filters), list(sys.meta_path)
        before = _packages(sys.modules)
        self._words = _import_quietly()
        now = list(warnings.filters)
        self._first_filters = list(takewhile(lambda one: one not in self._filters, now))
        self._last_filters = [one for one in now[len(self._first_filters) :] if one not in self._filters]
        self._new_finders = [one for one in sys.meta_path if one not in self._finders]
        self._names = _packages(sys.modules) - at_start
        packages = _packages(sys.modules) - before - sys.stdlib_module_names
        self._modules = {name: one for name, one in sys.modules.items() if name.partition(".")[0] in packages}
        # In the order of their import.
        self._specs = {name: one.__spec__ for name, one in self._modules.items() if name in packages}

    def hidden_by(self, folder: str | None) -> str | None:
        """What lies in ``folder``, which comes first on the path, under the name of a module that was imported without it."""
        if folder is None:
            return None
        with suppress(OSError):
            for name in sorted(os.listdir(folder)):
                is_module = name.endswith(".py") or os.path.isfile(os.path.join(folder, name, "__init__.py"))
                if is_module and name.removesuffix(".py") in self._names:
                    return os.path.join(folder, name)
        return None

    def hide(self) -> None:
        """Have it look as if nothing had been imported."""
        for name in self._modules:
            del sys.modules[name]
        sys.meta_path[:] = self._finders
        self._set_filters(self._filters)

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """Finds the packages themselves; their modules are in sys.modules by the time that they are looked for."""
        return ModuleSpec(name, self) if name in self._specs else None  # type: ignore[arg-type] # a loader by its methods

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module that was imported before."""
        if spec.name in FAMILY:
            self._require_same_environment()
        return self._modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """Put the package back, and whatever else the import of it did."""
        whole = module.__name__ in FAMILY
        self._put_back(self._specs if whole else [module.__name__])
        if whole:
            self._finish_import()

    def _put_back(self, packages: Iterable[str]) -> None:
        for name, module in self._modules.items():
            if name.partition(".")[0] in packages:
                sys.modules.setdefault(name, module)
        for name in packages:
            self._modules[name].__spec__ = self._specs[name]
        # With the first of them: that of six finds modules of its own.
        sys.meta_path[:0] = [one for one in self._new_finders if one not in sys.meta_path]
        if "numpy" in packages:
            _set_blas_threads()

    def _finish_import(self) -> None:
        sys.meta_path.remove(self)
        self._set_filters([*self._first_filters, *warnings.filters, *self._last_filters])
        if self._words:
            sys.stderr.flush()
            os.write(2, self._words)
        for name, change in self._after_import.items():
            if name in self._modules:
                change(self._modules[name])

    def _require_same_environment(self) -> None:
        for name, value in self._environment.items():
            if os.environ.get(name) != value:
                raise ImportError(f"{name} was set too late: this worker was started warm, run it with --cold")

    @staticmethod
    def _set_filters(filters: list[Any]) -> None:
        warnings.filters[:] = filters  # type: ignore[index] # a list, though typeshed promises less
        warnings._filters_mutated()  # type: ignore[attr-defined] # what warnings.filterwarnings calls


def _packages(modules: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def _import_quietly() -> bytes:
    """Import TensorFlow and the Keras that it uses; returns what that printed."""
    kept = os.dup(1), os.dup(2)
    held = os.memfd_create("import")
    for descriptor in (1, 2):
        os.dup2(held, descriptor)
    try:
        importlib.import_module("tensorflow")
        if os.environ.get("TF_USE_LEGACY_KERAS", "").lower() in {"1", "true"}:
            importlib.import_module("tf_keras")
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for descriptor, original in zip((1, 2), kept, strict=True):
            os.dup2(original, descriptor)
            os.close(original)
        words = os.pread(held, os.fstat(held).st_size, 0)
        os.close(held)
    return words
