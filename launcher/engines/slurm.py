"""The nodes of a Slurm allocation. One step of one task a node starts all agents; each of them dials back.

srun hands the same stdin to every task and mixes what they print, so it carries no wire: the agents are told over it where to
dial, and a secret by which they are known. Whoever can start a step can be dialled from it, as srun itself is.
Sources: srun(1), tcp(7) for TCP_DEFER_ACCEPT.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from functools import partial
from hmac import compare_digest
from secrets import token_hex
from typing import TYPE_CHECKING, Any, NamedTuple

from launcher.agent.landing import DIAL
from launcher.engines.step import Step
from launcher.engines.travel import Arrival, first_lines, newcomer, visitor
from launcher.errors import UnavailableError
from launcher.slurm import controller

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from launcher.config import HostSpec
    from launcher.engines import Berth, Landing

_AGENT = "exec(open(0,'rb',0,closefd=False).readline())"


class _Remedy(NamedTuple):
    said: str
    hint: str


_REMEDIES = (
    _Remedy("No such file", 'is that Python on the nodes, too? Name one with --python, or "python" in cluster.json'),
    _Remedy("execve", 'is that Python on the nodes, too? Name one with --python, or "python" in cluster.json'),
    _Remedy("cannot reach the launcher", "nodes must reach this machine, as srun's own connections do"),
    _Remedy("Python 3.11 or later", 'name another with --python, or "python" in cluster.json'),
    _Remedy("Communication connection failure", "Slurm does not reach it either: scontrol show node says more"),
    _Remedy("not available", "a node of the allocation is down, or drained: scontrol show node says why"),
    _Remedy("xpired", "start another"),
)


class SlurmChannel:
    """An agent in a step: first a socket at which it is awaited, then its connection.

    Args:
        step: what brings it.
        abandoned: what to do when nobody comes back to the agent.
    """

    landed = False
    turned_away = False

    def __init__(
        self, node: str, step: Step, listener: socket.socket, token: bytes, abandoned: Callable[[], None]
    ) -> None:
        self.node = node
        self.here = False
        self._step = step
        self._listener = listener
        self._connection: socket.socket | None = None
        self._token = token
        self._abandoned = abandoned
        self._arrival = Arrival()
        self.stdin = self.stdout = listener.fileno()

    def read(self, size: int) -> bytes | None:
        """What has come; before that, whoever has."""
        if self._connection is None:
            return self._admit()
        try:
            return self._connection.recv(size)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _admit(self) -> bytes | None:
        try:
            guest = self._listener.accept()[0]
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
        self.here, self._connection = True, guest
        # The loop watches for reading and for writing apart, and tells by their numbers that these are others.
        self.stdout, self.stdin = os.dup(guest.fileno()), os.dup(guest.fileno())
        self._listener.close()
        return None

    def despair(self) -> None:
        """Nobody will come any more."""
        if not self.here:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RD)

    def land(self, data: bytes) -> Landing:
        """Wait for its mark; send what it lacks."""
        return self._arrival.take(data)

    @property
    def deserted(self) -> str:
        """Why there is no agent to come back to: the node was reached, and it is not there, or the job is over."""
        return self._arrival.deserted or (self._step.said(self.node) if self._step.came_too_late else "")

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
        """How the connection ended, in Slurm's words."""
        return self._step.said(self.node) or "its connection ended"

    def kill(self) -> None:
        """Expect nobody. To an agent that is here, nothing is said: the end of its connection is the launcher's end."""
        self.despair()

    def wake(self) -> None:
        """Nobody here can."""

    def close(self) -> None:
        """Close both descriptors. The connection stays until the agent is met again, or abandoned."""
        if self._connection is None:
            self._listener.close()
            self._step.leave(self.node)
        else:
            os.close(self.stdin)
            os.close(self.stdout)

    def abandon(self) -> None:
        """What the agent has ends as it hears of that, or with its lease; Slurm ends the agent with its step."""
        self._abandoned()

    def hang_up(self) -> None:
        """Close the connection itself."""
        if self._connection is not None:
            self._connection.close()

    def leave(self) -> None:
        """Hang up, and let the step end."""
        self.hang_up()
        self._step.leave(self.node)


class SlurmEngine:
    """Runs on the nodes of an allocation."""

    # Heartbeats go every 2 s; a cut cable is noticed by nothing else.
    silence = 10.0
    # One srun for all.
    at_once = 1_000_000

    def __init__(self) -> None:
        self._steps: list[Step] = []
        self._gpus: Mapping[str, int] = {}
        # How each node's agent has come there, and how it was met again since.
        self._ways: dict[str, list[SlurmChannel]] = {}

    def open(self, berths: Sequence[Berth], *, private: bool, lease: float) -> list[SlurmChannel]:
        """Start a step with an agent on each node."""
        if private:
            raise UnavailableError("a private network is for this machine alone", "leave --private out")
        order = newcomer(private=private, silence=self.silence, lease=lease)
        channels: dict[str, SlurmChannel] = {}
        for group in self._grouped(berths):
            channels |= self._start(group, order)
        return [channels[_node(berth)] for berth in berths]

    def meet_again(self, berth: Berth, *, have: int) -> SlurmChannel:
        """Start a step of one task, which hands its connection to the agent."""
        # Only the last one that came may be the agent's still.
        for channel in [one for one in self._ways.get(_node(berth), ()) if one.here][:-1]:
            channel.hang_up()
        return self._start([berth], visitor(berth, have))[_node(berth)]

    def peek(self, host: HostSpec) -> Mapping[str, Any] | None:
        """Nothing is known before a step has been there."""
        del host
        return None

    def _grouped(self, berths: Sequence[Berth]) -> list[list[Berth]]:
        """Those that can be in one step: they run the same, and have as many GPUs each.

        Later ones have a step each: where one node is not there, another may be.
        """
        if self._steps:
            return [[berth] for berth in berths]
        self._gpus = controller.gpus(os.environ["SLURM_JOB_ID"])
        if len({self._gpus.get(_node(berth), 0) for berth in berths}) > 1:
            return [[berth] for berth in berths]
        pythons = dict.fromkeys(map(_python, berths))
        return [[berth for berth in berths if _python(berth) == python] for python in pythons]

    def _start(self, berths: Sequence[Berth], order: Mapping[str, object]) -> dict[str, SlurmChannel]:
        token = token_hex(16)
        listeners = {_node(berth): _listen() for berth in berths}
        places = {
            _node(berth): {"port": listeners[_node(berth)].getsockname()[1], "mooring": berth.mooring}
            for berth in berths
        }
        argv = command(list(listeners), _python(berths[0]), self._gpus.get(_node(berths[0]), 0))
        whole = {**order, "dial": {"token": token, "places": places}}
        try:
            step = Step(argv, first_lines(whole), berths[0].log.with_name("srun.log"))
        except UnavailableError:
            for listener in listeners.values():
                listener.close()
            raise
        self._steps.append(step)
        channels = {
            node: SlurmChannel(node, step, listener, token.encode(), partial(self._abandon, node))
            for node, listener in listeners.items()
        }
        for node, channel in channels.items():
            self._ways.setdefault(node, []).append(channel)
        step.await_(channels)
        return channels

    def _abandon(self, node: str) -> None:
        for channel in self._ways.pop(node, ()):
            channel.leave()
        # Whoever is the last waits, so that nothing is left of any when there is nothing to be done any more.
        if all(step.is_left for step in self._steps):
            for step in self._steps:
                step.wait()


def command(nodes: Sequence[str], python: str, gpus: int) -> list[str]:
    """The argument vector that starts one agent on each of these nodes, beside whatever else the job runs there.

    Args:
        gpus: how many the job has on each of them.
    """
    count = len(nodes)
    size = [f"--nodes={count}", f"--ntasks={count}", "--ntasks-per-node=1", f"--nodelist={','.join(nodes)}"]
    # All that the job has there: the agent shares it out.
    share = ["--overlap", "--mem=0", "--cpu-bind=none", "--mpi=none"]
    if gpus:
        # Left to itself, Slurm takes what the job has for one of its tasks. Of nodes with different numbers, it takes the second
        # for asking too much (22.05).
        share += [f"--gpus={gpus}" if count == 1 else f"--gpus-per-node={gpus}"]
    # A node that is lost, or an agent, is not the end of the others.
    fate = ["--no-kill", "--kill-on-bad-exit=0", "--wait=0", "--quit-on-interrupt"]
    return ["srun", "--job-name=tflaunch", "--label", *size, *share, *fate, python, "-I", "-S", "-c", _AGENT]


def _listen() -> socket.socket:
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    made = socket.create_server(("", 0), family=family, backlog=8, dualstack_ipv6=family == socket.AF_INET6)
    # Whoever connects is heard of once he has said something: nobody is ever waited for.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, int(DIAL))
    made.setblocking(False)
    return made


def _node(berth: Berth) -> str:
    return berth.host.node or berth.host.address


def _python(berth: Berth) -> str:
    # The allocation's environment is ours, and its file system mostly is.
    return berth.host.python or sys.executable
