"""Fork servers as their agent sees them: each has imported TensorFlow, or nothing, and forks workers that become the agent's children.

What runs in them is worker/warm.py. Sources: unix(7) for descriptors over a socket, prctl(2) for the adoption of orphans.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from contextlib import suppress

from . import kernel, strays
from .leash import Leash
from .spawn import Command, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

# Differs from task to task, and is read only after the import: not part of what a fork server is started with.
_LATE = frozenset(
    {
        *("TF_CONFIG", "CUDA_VISIBLE_DEVICES", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),
        # The worker does for these what would have been done at the start or the import (worker/warm.py).
        *("OMP_NUM_THREADS", "GOTO_NUM_THREADS", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"),
        # Differs from test to test.
        "PYTEST_CURRENT_TEST",
    }
)
_OURS = "TFLAUNCH_"
# What is read beneath Python, at the start of a process or in the import, cannot be seen: by these it is taken for read.
_BENEATH = (
    *("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "GLIBC_"),
    *("TF_", "XLA_", "CUDA_", "NVIDIA_", "NCCL_", "OPENBLAS_", "MKL_", "KMP_", "GRPC_", "ABSL_", "GLOG_"),
)
# A session of tests may come by many directories and environments; each server holds the memory of an import.
_MOST = 2
_REPLY = 8
_GO = b"!"
# A fork takes some 10 ms; a server that needs this long is suspended, or the machine is out of memory.
_PATIENCE = 5.0


class ForkServer:
    """One fork server.

    Attributes:
        command: what it was started with.
        descriptor: readable when there is news.
        ready: it has imported what it is to.
        reaped: its process id is not its own any more.
        why: in words, why it cannot be used (any more); empty while it may be.
        waiting: orders that came before it was ready.
    """

    def __init__(self, command: Command) -> None:
        self._socket, theirs = socket.socketpair()
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # What it says is for the agent's log.
            self.pid = spawn(command, (null, 2, 2, theirs.fileno()))
        except OSError:
            self._socket.close()
            raise
        finally:
            os.close(null)
            theirs.close()
        self._leash = Leash(self.pid)
        self.command = command
        self.descriptor = self._socket.fileno()
        self.ready = False
        self.reaped = False
        self.why = ""
        self.waiting: list[dict[str, Any]] = []
        self._words = b""
        self._read: frozenset[str] | None = None

    def stands_for(self, command: Command) -> bool:
        """Whether a server that was started with ``command`` would be no other than this one."""
        one, other = self.command.env, command.env
        names = {*one, *other}
        if self.ready and self._read is not None:
            # Now it is known what the import depended on.
            names = {name for name in names if name in self._read or name.startswith(_BENEATH)}
        same_place = self.command.cwd == command.cwd or not _depends_on_place(command)
        return (
            self.command.argv == command.argv and same_place and all(one.get(name) == other.get(name) for name in names)
        )

    def hear(self) -> None:
        """Take in what it says; its end of the socket is closed by its death alone."""
        data = b""
        with suppress(ConnectionError):
            data = self._socket.recv(4096)
        if not data:
            self.give_up("the fork server ended")
        elif not self.why:
            self._words += data
            self._understand()

    def fork(self, command: Command, output_end: int, control_end: int) -> int:
        """Have it fork a worker, which becomes a child of this process. Returns the worker's process id.

        Raises:
            OSError: it did not; ``why`` is set if nothing else is to be expected of it.
        """
        go, go_end = os.pipe()
        try:
            network = () if command.network is None else (command.network,)
            pid = self._ask(command, (output_end, control_end, go, *network))
            os.write(go_end, _GO)
        except (TimeoutError, ConnectionError, EOFError):
            # A worker that has been forked all the same ends by itself: it was never told to go.
            self.give_up("the fork server did not answer")
            raise OSError(errno.EPIPE, self.why) from None
        else:
            return pid
        finally:
            os.close(go)
            os.close(go_end)

    def give_up(self, why: str) -> None:
        """End it; what waits for it has to be started another way. Its descriptor then tells of its end."""
        self.why = self.why or why
        self.ready = False
        if not self.reaped:
            strays.end(self.pid)

    def has_ended(self) -> None:
        """It has been reaped: its process id is not its own any more."""
        self.reaped = True
        self._leash.loosen()

    def close(self) -> None:
        """Forget its descriptor."""
        self._socket.close()

    def _understand(self) -> None:
        line, newline, _ = self._words.partition(b"\n")
        if newline:
            match json.loads(line):
                case {"ready": True, "read": [*names]}:
                    self.ready = True
                    self._read = frozenset(names)
                case {"ready": True}:
                    self.ready = True
                case {"unfit": str(why)}:
                    self.give_up(why)

    def _ask(self, command: Command, descriptors: Sequence[int]) -> int:
        place = [str(os.getpid()), command.cwd or "", ",".join(map(str, command.cores)), str(len(command.argv))]
        words = [*place, *command.argv, *(f"{name}={value}" for name, value in command.env.items())]
        payload = b"\0".join(map(os.fsencode, words))
        self._socket.settimeout(_PATIENCE)
        socket.send_fds(self._socket, [len(payload).to_bytes(4, "big")], descriptors)
        self._socket.sendall(payload)
        reply = self._socket.recv(_REPLY)
        if len(reply) < _REPLY:
            raise EOFError
        pid = int.from_bytes(reply, "big", signed=True)
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        return pid


class ForkServers:
    """The fork servers of an agent."""

    def __init__(self) -> None:
        self._servers: list[ForkServer] = []
        # With those that have made room for others.
        self._every: list[ForkServer] = []

    @property
    def pids(self) -> set[int]:
        """The process ids of those that are not reaped."""
        return {server.pid for server in self._every if not server.reaped}

    def reaped(self, pid: int) -> None:
        """Learn that a child of this process has been reaped."""
        for server in self._every:
            if server.pid == pid:
                server.has_ended()

    def withdraw(self, task: int) -> bool:
        """Take back what waits to be spawned as this task; False where nothing does."""
        for server in self._servers:
            for order in server.waiting:
                if order["task"] == task:
                    server.waiting.remove(order)
                    return True
        return False

    def get(self, order: Mapping[str, Any]) -> tuple[ForkServer, bool]:
        """The server for what is to be spawned, and whether it is a new one.

        Raises:
            OSError: it cannot be started.
        """
        if not kernel.LINUX:
            raise OSError(errno.ENOSYS, "warm start is for Linux")
        command = _server_for(order)
        for server in self._servers:
            if server.stands_for(command):
                return server, False
        self._make_room()
        server = ForkServer(command)
        self._servers.append(server)
        self._every.append(server)
        return server, True

    def _make_room(self) -> None:
        """End the oldest that nobody waits for; what they have forked lives on."""
        free = [server for server in self._servers if not server.waiting]
        for server in free[: max(0, len(self._servers) - _MOST + 1)]:
            self._servers.remove(server)
            server.give_up("it made room for another fork server")


def _server_for(order: Mapping[str, Any]) -> Command:
    env = {**os.environ, **order["env"], **order["warm"]["env"]}
    early = {name: value for name, value in env.items() if not name.startswith(_OURS) and name not in _LATE}
    # Its pool of threads would be lost in a fork; the worker sets it up as it would have been (worker/imported.py).
    early["OPENBLAS_NUM_THREADS"] = "1"
    what = ["--fork-server", *filter(None, [order["warm"]["module"]])]
    return Command([*order["argv"][:2], *what], order["cwd"], early, ())


def _depends_on_place(command: Command) -> bool:
    """Whether where it starts makes a difference to where Python looks for modules."""
    return any(not entry.startswith("/") for entry in command.env.get("PYTHONPATH", "/").split(":"))
