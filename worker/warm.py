"""The fork server: imports TensorFlow once, then forks workers that find it imported already.

``boot.py`` runs it for ``start.py --fork-server tensorflow``, with the agent's socket as descriptor 3, and goes on in every
worker that it forks as if that had been started by itself. What the worker's program does is what shows: until it imports
TensorFlow, TensorFlow is not there; at that import comes what importing it changes and prints, and nothing else.

Without ``tensorflow`` it imports nothing: what its workers are spared is the start of the interpreter. All that is loaded here
is copied and cleared up once by each of them, so this file and ``guise.py`` import next to nothing.

Standard library only, until TensorFlow. Sources: fork(2), unix(7), prctl(2).
"""
# ruff: noqa: PTH109, PTH112, PTH113, PTH115, PTH118, PTH120, PTH208 - as in boot.py

from __future__ import annotations

# What socket is made of, without its enums.
import _socket
import gc
import os
import sys
import time

from .guise import appear_as

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from .imported import Imported

SOCKET = 3
# Request: four bytes of length with the descriptors, then as many bytes of words, with zeros between.
# Reply: this many bytes, a process id.
REPLY = 8
_COVERAGE = ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
_CLONE_NEWNET = 0x40000000


class Request:
    """A worker to fork: ``agent`` is the process that is to be its parent, ``go`` says when it may begin.

    ``network`` is the network namespace that it is to be in; None for the fork server's own.
    """

    def __init__(self, words: Sequence[str], descriptors: Sequence[int]) -> None:
        agent, cwd, cores, count, *rest = words
        self.agent = int(agent)
        self.cwd = cwd
        self.cores = [int(core) for core in cores.split(",") if core]
        self.argv = rest[: int(count)]
        self.env = {name: value for name, _, value in (one.partition("=") for one in rest[int(count) :])}
        self.output, self.control, self.go, *networks = self.descriptors = descriptors
        self.network = networks[0] if networks else None


class UnfitError(Exception):
    """This process cannot fork workers that are as good as fresh ones; the message says why."""


def serve(
    module: str,
    replace_path0: Callable[..., None],
    after_import: Mapping[str, tuple[str, str]],
    at_start: frozenset[str],
) -> list[Imported]:
    """Import, then fork a worker for each request. Returns in the workers alone: the finder that TensorFlow comes back by, if any.

    Args:
        module: ``tensorflow``, or nothing.
        replace_path0: takes this package's own folder off ``sys.path``; TensorFlow is not to find ``data`` or ``task`` there.
        after_import: module -> the module of this package, and its function, that is called with it once it is imported.
        at_start: the modules that every Python process has loaded before its program runs.
    """
    link = _socket.socket(fileno=SOCKET)
    os.set_inheritable(SOCKET, False)
    collects = gc.isenabled()
    # What is imported stays. To look through it for garbage, again and again, is a fifth of what importing TensorFlow takes.
    gc.disable()
    own_folder = sys.path[:1]
    replace_path0()
    try:
        _require_nothing_open()
        finders = [_import(after_import)] if module else []
        _require_fitness("importing TensorFlow" if module else "starting Python")
    except (UnfitError, Exception) as error:  # noqa: BLE001 - whatever TensorFlow's import raises
        said = str(error) if isinstance(error, UnfitError) else f"{type(error).__name__}: {error}"
        link.sendall(_line({"unfit": said.splitlines()[0]}))
        os._exit(1)
    link.sendall(_line({"ready": True, "read": sorted(finders[0].read)}) if finders else b'{"ready": true}\n')
    loaded = {name.partition(".")[0] for name in sys.modules} - at_start
    # Here, once: the workers share what they do not write to, and taking this apart writes to all of it.
    for finder in finders:
        finder.hide()
    _forget_folders()
    if hasattr(gc, "freeze"):  # not in PyPy's
        # The collector would write to every object that it looks at.
        gc.freeze()
    if collects:
        gc.enable()
    request = _fork_for_each(link)
    # Its descriptor's number is about to be the control line's.
    os.close(link.detach())
    sys.path[:0] = own_folder
    _become(request, loaded, module)
    return finders


def _import(after_import: Mapping[str, tuple[str, str]]) -> Imported:
    from .imported import Imported

    return Imported(after_import)


def _require_nothing_open() -> None:
    # Say, by a sitecustomize: workers close all but what they are given, and one that has it still would write to what is
    # opened next under that number.
    if len(_open_files()) > SOCKET + 1:
        raise UnfitError("starting Python opened a file, which workers would lose")


def _require_fitness(deed: str) -> None:
    context = getattr(sys.modules.get("tensorflow.python.eager.context"), "_context", None)
    if why := unfitness(len(os.listdir("/proc/self/task")), context, _open_files()):
        raise UnfitError(f"{deed} {why}")


def unfitness(threads: int, context: object, files: Sequence[str]) -> str:
    """Why a process with so many threads, TensorFlow's context and these open files must not be forked; empty if it may."""
    if threads != 1:
        return f"started {threads - 1} threads, which a fork would lose"
    if context is not None:
        return "created its context, which cannot be shared"
    if any(path.startswith("/dev/nvidia") for path in files):
        return "opened the GPUs, which cannot be shared"
    return ""


def _open_files() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue
    return found


def _fork_for_each(link: _socket.socket) -> Request:
    """Answer requests until the agent is gone; returns in each worker."""
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
        for descriptor in (read, write, *request.descriptors):
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


def _receive(link: _socket.socket) -> Request | None:
    head, ancillary, _, _ = link.recvmsg(4, _socket.CMSG_SPACE(4 * 4))
    if not head:
        return None
    numbers = b"".join(data for _, _, data in ancillary)
    descriptors = [int.from_bytes(numbers[at : at + 4], sys.byteorder) for at in range(0, len(numbers), 4)]
    missing = int.from_bytes(head, "big")
    data = b""
    while len(data) < missing:
        piece = link.recv(missing - len(data))
        if not piece:
            return None
        data += piece
    return Request([os.fsdecode(word) for word in data.split(b"\0")], descriptors)


def _become(request: Request, loaded: set[str], module: str) -> None:
    """In the worker: have all that a process of its own would have. Never returns where that cannot be had.

    ``loaded`` are the modules, or packages, that its own would not have loaded by now.
    """
    step = "start a session"
    control = request.control
    try:
        os.setsid()
        # Until the agent knows this process it may start the task another way.
        if not os.read(request.go, 1) or os.getppid() != request.agent:
            os._exit(1)
        if request.network is not None:
            step = "enter its network"
            _enter(request.network)
        _wire_up(request)
        control = SOCKET
        if request.cwd:
            step = f"change to {request.cwd}"
            os.chdir(request.cwd)
        if request.cores:
            step = f"use cores {request.cores}"
            os.sched_setaffinity(0, request.cores)
        step = f"run {request.argv[0]}"
        os.environ.clear()
        os.environ.update(request.env)
        sys.argv[:], sys.orig_argv[:] = request.argv[1:], request.argv
        if neighbour := hidden_by(_program_folder(sys.argv), loaded):
            if module:  # otherwise nobody has been promised anything
                _tell(control, kind="cold", why=f"{neighbour} would be imported instead of what is loaded already")
            os.execvpe(request.argv[0], request.argv, os.environ)
    except OSError as error:
        _tell(control, kind="not-started", step=step, error=error.strerror, errno=error.errno)
        os._exit(127)
    appear_as(request.argv, request.env)
    _refresh()


def _enter(network: int) -> None:
    import ctypes

    if ctypes.CDLL(None, use_errno=True).setns(network, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _wire_up(request: Request) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    # Received while 0 to 3 were open, so all of them lie above.
    for target, source in enumerate((null, request.output, request.output, request.control)):
        os.dup2(source, target)
    os.closerange(SOCKET + 1, os.sysconf("SC_OPEN_MAX"))


def _tell(control: int, **fields: object) -> None:
    os.write(control, _line({**fields, "time": time.time()}))


def _line(record: object) -> bytes:
    import json

    return json.dumps(record).encode() + b"\n"


def _program_folder(argv: Sequence[str]) -> str | None:
    """What will be first on ``sys.path``; None where nothing of the program's will."""
    if sys.flags.safe_path:
        return None
    match argv[1:]:
        case ["--trainer" | "--call", *_]:
            return None
        case ["-m", *_]:
            return os.getcwd()
        case [script, *_]:
            real = os.path.realpath(script)
            return real if os.path.isdir(real) else os.path.dirname(real)
    return None


def hidden_by(folder: str | None, loaded: set[str]) -> str | None:
    """What lies in ``folder``, which comes first on the path, under the name of a module that was ``loaded`` without it."""
    try:
        found = [] if folder is None else sorted(os.listdir(folder))
    except OSError:
        return None
    for name in found:
        if name.removesuffix(".py") in loaded:
            path = os.path.join(str(folder), name)
            if name.endswith(".py") or os.path.isfile(os.path.join(path, "__init__.py")):
                return path
    return None


def _refresh() -> None:
    """Whatever a process has of its own, and this one has already."""
    _invalidate_caches()
    # The random module and tempfile see to it themselves.
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    if "multiprocessing.process" in sys.modules:
        process: Any = sys.modules["multiprocessing.process"]
        process.current_process().authkey = os.urandom(32)
        process.ORIGINAL_DIR = os.getcwd()
    if any(name in os.environ for name in _COVERAGE):
        try:
            import coverage
        except ImportError:
            return
        # What its .pth file does at the start of a process; the fork server itself is not measured.
        coverage.process_startup()


def _forget_folders() -> None:
    """What was seen in them while importing. An archive is not forgotten, as it would be remembered otherwise."""
    from _frozen_importlib_external import FileFinder

    for path, finder in list(sys.path_importer_cache.items()):
        if isinstance(finder, FileFinder):
            del sys.path_importer_cache[path]


def _invalidate_caches() -> None:
    """What importlib.invalidate_caches does, without importing importlib.metadata, as that does (Python 3.12)."""
    from _frozen_importlib_external import PathFinder

    if "importlib.metadata" in sys.modules:
        PathFinder.invalidate_caches()
    for finder in [*sys.path_importer_cache.values(), *sys.meta_path]:
        if finder is not PathFinder and (forget := getattr(finder, "invalidate_caches", None)):
            forget()
    sys.path_importer_cache.clear()
