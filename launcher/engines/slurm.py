"""The nodes of a Slurm allocation. One step of one task a node starts all agents; each of them dials back.

srun hands the same stdin to every task and mixes what they print, so it carries no wire: the agents are told over it where to
dial, and a secret by which they are known. Whoever can start a step can be dialled from it, as srun itself is.
Sources: srun(1), tcp(7) for TCP_DEFER_ACCEPT.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from hmac import compare_digest
from secrets import token_hex
from typing import TYPE_CHECKING, Any, NamedTuple

from launcher.engines.child import open_log, spawn
from launcher.engines.travel import Arrival, first_lines, newcomer, visitor
from launcher.errors import UnavailableError
from launcher.run_dir import last_lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from launcher.config import HostSpec
    from launcher.engines import Berth, Landing

# The agent's guard gives the last descendants 5 s (agent/guard.py).
_PATIENCE = 8.0
# Between two looks at what srun says while agents are awaited.
_LOOK = 0.1
# What the job asked for its own tasks: each would say something else of the agents' step.
_NOT_FOR_US = re.compile(
    r"SLURM_(NTASKS.*|NPROCS|TASKS_PER_NODE|CPUS_PER_TASK|GPUS_PER_TASK|TRES_PER_TASK|DISTRIBUTION|CPU_BIND.*|EXACT|HINT|ARBITRARY_NODELIST)"
    r"|SRUN_CPUS_PER_TASK|SLURM_(OVERLAP|LABELIO|STDIN|STDOUT|STDERR)MODE"
)
_AGENT = "exec(open(0,'rb',0,closefd=False).readline())"


class _Remedy(NamedTuple):
    said: str
    hint: str


_REMEDIES = (
    _Remedy("execve", 'is that Python on the nodes, too? Name one with --python, or "python" in cluster.json'),
    _Remedy("No such file", 'is that Python on the nodes, too? Name one with --python, or "python" in cluster.json'),
    _Remedy("cannot reach the launcher", "nodes must reach this machine, as srun's own connections do"),
    _Remedy("Python 3.11 or later", 'name another with --python, or "python" in cluster.json'),
    _Remedy("Invalid job id", "the allocation is over: start another"),
    _Remedy("not available", "a node of the allocation is down, or drained: scontrol show node says why"),
)


class Step:
    """One srun: an agent on each of its nodes."""

    def __init__(self, argv: list[str], order: Mapping[str, object], log: Path) -> None:
        self.log = log
        self.code: int | None = None
        self._nodes: dict[str, SlurmChannel] = {}
        self._over = threading.Event()
        reader, self._stdin = os.pipe()
        said = open_log(log)
        env = {name: value for name, value in os.environ.items() if not _NOT_FOR_US.fullmatch(name)}
        try:
            self._pid = spawn(argv, env, reader, said, said)
        except UnavailableError:
            os.close(self._stdin)
            raise
        self._order = first_lines(order)

    def await_(self, channels: Mapping[str, SlurmChannel]) -> None:
        """Tell the agents what they are to be; from now on, whoever does not come is told of."""
        self._nodes.update(channels)
        threading.Thread(target=self._watch, name="srun", daemon=True).start()

    def _watch(self) -> None:
        with suppress(BrokenPipeError), os.fdopen(self._stdin, "wb") as stdin:
            stdin.write(self._order)
        status = 0
        while not self._ended() and any(not channel.here for channel in self._nodes.values()):
            time.sleep(_LOOK)
            self._tell_of_the_lost()
        with suppress(ChildProcessError):  # whoever embeds us has SIGCHLD ignored, and the kernel keeps no status
            status = os.waitpid(self._pid, 0)[1]
        self.code = os.waitstatus_to_exitcode(status)
        self._over.set()
        for channel in self._nodes.values():
            channel.despair()

    def _ended(self) -> bool:
        with suppress(ChildProcessError):
            return os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        return True

    def _tell_of_the_lost(self) -> None:
        """The others' tasks go on, and so does srun, when one has ended."""
        for node in re.findall(r"^srun: error: (\S+): task", "".join(last_lines(self.log, 1000)), re.MULTILINE):
            if node in self._nodes:
                self._nodes[node].despair()

    def said(self, node: str) -> str:
        """What srun, or the agent there, has said last of a node; or of all of them."""
        lines = [line.strip() for line in last_lines(self.log, 1000)]
        about = [line for line in lines if re.search(rf"\b{re.escape(node)}\b", line)]
        return next(reversed(about or lines), "")

    def leave(self, node: str) -> None:
        """One node less; the last one waits for srun, and ends what does not end by itself."""
        self._nodes.pop(node, None)
        if self._nodes:
            return
        # With --quit-on-interrupt, the first one ends the step.
        for number in (0, signal.SIGINT, signal.SIGKILL):
            with suppress(ProcessLookupError):
                if not self._over.is_set():
                    os.kill(self._pid, number)
            if self._over.wait(_PATIENCE):
                return


class SlurmChannel:
    """An agent in a step: first a socket at which it is awaited, then its connection."""

    landed = False
    turned_away = False

    def __init__(self, node: str, step: Step, listener: socket.socket, token: bytes) -> None:
        self.node = node
        self.here = False
        self._step = step
        self._socket = listener
        self._token = token
        self._arrival = Arrival()
        self.stdin = self.stdout = listener.fileno()

    def read(self, size: int) -> bytes | None:
        """What has come; before that, whoever has."""
        if not self.here:
            return self._admit()
        try:
            return self._socket.recv(size)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _admit(self) -> bytes | None:
        try:
            guest = self._socket.accept()[0]
        except BlockingIOError:
            return None
        except OSError:  # shut down: nobody will come any more
            return b""
        guest.setblocking(False)
        said = b""
        with suppress(OSError):
            said = guest.recv(len(self._token))
        if not compare_digest(said, self._token):
            guest.close()
            return None
        self._socket.close()
        self._socket = guest
        # The loop watches for reading and for writing apart.
        self.stdout, self.stdin = guest.fileno(), os.dup(guest.fileno())
        self.here = True
        return None

    def despair(self) -> None:
        """Nobody will come any more."""
        if not self.here:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RD)

    def land(self, data: bytes) -> Landing:
        """Wait for its mark; send what it lacks."""
        return self._arrival.take(data)

    @property
    def deserted(self) -> bool:
        """The node was reached, and its agent is not there."""
        return self._arrival.deserted

    @property
    def stranded(self) -> bool:
        """Slurm tidies up when the step ends, and not before."""
        return self.here

    @property
    def hint(self) -> str:
        """What to do about the most common failures."""
        said = self._step.said(self.node)
        return next((remedy.hint for remedy in _REMEDIES if remedy.said in said), "")

    def wait(self) -> str:
        """Leave the step; says how it ended, in Slurm's words."""
        said = self._step.said(self.node)
        self._step.leave(self.node)
        return said or "its connection ended"

    def kill(self) -> None:
        """Hang up. What the agent has ends with that; Slurm ends the agent with its step."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def wake(self) -> None:
        """Nobody here can."""

    def close(self) -> None:
        """Close both descriptors."""
        if self.stdin != self.stdout:
            os.close(self.stdin)
        self._socket.close()


class SlurmEngine:
    """Runs on the nodes of an allocation."""

    # Heartbeats go every 2 s; a cut cable is noticed by nothing else.
    silence = 10.0
    # One srun for all.
    at_once = 1_000_000

    def open(self, berths: Sequence[Berth], *, private: bool, lease: float) -> list[SlurmChannel]:
        """Start a step with an agent on each node."""
        if private:
            raise UnavailableError("a private network is for this machine alone", "leave --private out")
        order = newcomer(private=private, silence=self.silence, lease=lease)
        channels: dict[str, SlurmChannel] = {}
        for python in dict.fromkeys(_python(berth) for berth in berths):
            channels |= _start([berth for berth in berths if _python(berth) == python], order)
        return [channels[_node(berth)] for berth in berths]

    def meet_again(self, berth: Berth, *, have: int) -> SlurmChannel:
        """Start a step of one task, which hands its connection to the agent."""
        return _start([berth], visitor(berth, have))[_node(berth)]

    def peek(self, host: HostSpec) -> Mapping[str, Any] | None:
        """Nothing is known before a step has been there."""
        del host
        return None


def command(nodes: Sequence[str], python: str) -> list[str]:
    """The argument vector that starts one agent on each of these nodes, beside whatever else the job runs there."""
    count = len(nodes)
    size = [f"--nodes={count}", f"--ntasks={count}", "--ntasks-per-node=1", f"--nodelist={','.join(nodes)}"]
    # All that the job has there: the agent shares it out.
    share = ["--overlap", "--mem=0", "--cpu-bind=none", "--mpi=none"]
    # A node that is lost, or an agent, is not the end of the others.
    fate = ["--no-kill", "--kill-on-bad-exit=0", "--wait=0", "--quit-on-interrupt"]
    return ["srun", "--job-name=tflaunch", *size, *share, *fate, python, "-I", "-S", "-c", _AGENT]


def _start(berths: Sequence[Berth], order: Mapping[str, object]) -> dict[str, SlurmChannel]:
    token = token_hex(16)
    listeners = {_node(berth): _listen() for berth in berths}
    places = {
        _node(berth): {"port": listeners[_node(berth)].getsockname()[1], "mooring": berth.mooring} for berth in berths
    }
    log = berths[0].log if len(berths) == 1 else berths[0].log.with_name("srun.log")
    try:
        step = Step(
            command(list(listeners), _python(berths[0])), {**order, "dial": {"token": token, "places": places}}, log
        )
    except UnavailableError:
        for listener in listeners.values():
            listener.close()
        raise
    channels = {node: SlurmChannel(node, step, listener, token.encode()) for node, listener in listeners.items()}
    step.await_(channels)
    return channels


def _listen() -> socket.socket:
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    made = socket.create_server(("", 0), family=family, backlog=8, dualstack_ipv6=family == socket.AF_INET6)
    # Whoever connects is heard of once he has said something: nobody is ever waited for.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
    made.setblocking(False)
    return made


def _node(berth: Berth) -> str:
    return berth.host.node or berth.host.address


def _python(berth: Berth) -> str:
    # The allocation's environment is ours, and its file system mostly is.
    return berth.host.python or sys.executable
