"""The fork server: imports TensorFlow once, then forks workers that find it imported already.

``boot.py`` runs it for ``start.py --fork-server``, with the agent's socket as descriptor 3, and goes on in every worker
that it forks as if that had been started by itself. What the worker's program does is what shows: until it imports
TensorFlow, TensorFlow is not there; at that import comes what importing it changes and prints, and nothing else.

Standard library only, until TensorFlow. Sources: fork(2), unix(7), prctl(2).
"""
# ruff: noqa: PTH109, PTH112, PTH115, PTH120, PTH208 - as in boot.py

from __future__ import annotations

import ctypes
import importlib
import json
import os
import socket
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from .guise import appear_as
from .imported import Imported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SOCKET = 3
# Request: four bytes of length with the descriptors, then that much JSON. Reply: this many bytes, a process id.
REPLY = 8
_COVERAGE = ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
_CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


class Request(NamedTuple):
    """A worker to fork: ``agent`` is the process that is to be its parent, ``go`` says when it may begin.

    ``network`` is the network namespace that it is to be in; None for the fork server's own.
    """

    argv: list[str]
    cwd: str | None
    env: dict[str, str]
    cores: list[int]
    agent: int
    output: int
    control: int
    go: int
    network: int | None


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
    link.sendall(json.dumps({"ready": True, "read": sorted(imported.read)}).encode() + b"\n")
    request = _fork_for_each(link)
    # Its descriptor's number is about to be the control line's.
    os.close(link.detach())
    sys.path[:0] = own_folder
    _become(request, imported)
    return imported


def _require_fitness() -> None:
    context = getattr(sys.modules.get("tensorflow.python.eager.context"), "_context", None)
    if why := unfitness(len(os.listdir("/proc/self/task")), context, _open_files()):
        raise UnfitError(why)


def unfitness(threads: int, context: object, files: Sequence[str]) -> str:
    """Why a process with so many threads, TensorFlow's context and these open files must not be forked; empty if it may."""
    if threads != 1:
        return f"importing TensorFlow started {threads - 1} threads, which a fork would lose"
    if context is not None:
        return "importing TensorFlow created its context, which cannot be shared"
    if any(path.startswith("/dev/nvidia") for path in files):
        return "importing TensorFlow opened the GPUs, which cannot be shared"
    return ""


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
        for descriptor in (read, write, request.output, request.control, request.go, request.network):
            if descriptor is not None:
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
    head, descriptors, _, _ = socket.recv_fds(link, 4, 4)
    if not head:
        return None
    missing = int.from_bytes(head, "big")
    data = b""
    while len(data) < missing:
        piece = link.recv(missing - len(data))
        if not piece:
            return None
        data += piece
    output, control, go, *rest = descriptors
    return Request(**json.loads(data), output=output, control=control, go=go, network=rest[0] if rest else None)


def _become(request: Request, imported: Imported) -> None:
    """In the worker: have all that a process of its own would have. Never returns where that cannot be had."""
    step = "start a session"
    control = request.control
    try:
        os.setsid()
        # Until the agent knows this process it may start the task another way.
        if not os.read(request.go, 1) or os.getppid() != request.agent:
            os._exit(1)
        if request.network is not None and _libc.setns(request.network, _CLONE_NEWNET) != 0:
            step = "enter its network"
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))  # noqa: TRY301 - all of its steps end so
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
    appear_as(request.argv, request.env)
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


def _refresh() -> None:
    """Whatever a process has of its own, and the import has already made for this one."""
    importlib.invalidate_caches()
    # The random module and tempfile see to it themselves.
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    if "multiprocessing.process" in sys.modules:
        process: Any = sys.modules["multiprocessing.process"]
        process.current_process().authkey = os.urandom(32)
        process.ORIGINAL_DIR = os.getcwd()
    if any(name in os.environ for name in _COVERAGE):
        with suppress(ImportError):
            # What its .pth file does at the start of a process; the fork server itself is not measured.
            importlib.import_module("coverage").process_startup()
