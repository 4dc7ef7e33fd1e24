"""A step of a Slurm job: one srun, and what it says of its tasks. Source: srun(1); what it says is that of Slurm 22.05."""

from __future__ import annotations

import os
import re
import signal
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from launcher.engines.child import open_log, spawn
from launcher.errors import UnavailableError
from launcher.slurm.allocation import expand

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# The agent's guard gives the last descendants 5 s (agent/guard.py).
_PATIENCE = 8.0
# For srun to end a step, and to say no more.
_MOMENT = 2.0
# Between the news that a task has ended and what it has said last.
_LAST_WORDS = 1.0
# Lines of srun's.
_KEPT = 1000
# What the job asked for its own tasks: each would say something else of the agents' step.
_NOT_FOR_US = re.compile(
    r"SLURM_(NTASKS.*|NPROCS|TASKS_PER_NODE|CPUS_PER_.*|MEM_PER_.*|GPUS|GPUS_PER_.*|GPU_BIND|GRES|TRES_PER_TASK|TRES_BIND)"
    r"|SLURM_(DISTRIBUTION|CPU_BIND.*|EXACT|EXCLUSIVE|HINT|THREADS_PER_CORE|ARBITRARY_NODELIST|NO_KILL)"
    r"|SLURM_(OVERLAP|LABELIO|STDINMODE|STDOUTMODE|STDERRMODE)|SRUN_CPUS_PER_TASK|S(LURM|RUN)_EXPORT_ENV"
)
# That a job is over, in srun's words (22.05).
_JOB_OVER = re.compile(r"Invalid job id|job \d+ has expired|Job/step already complet")
# What srun says whatever happens, or behind the reason.
_IDLE_TALK = re.compile(r"lacks support for cpu binding|Force Terminated|Check SLURM_JOB_ID|srun: Job step aborted")
_ENDED = re.compile(r"srun: error: (\S+): tasks? ([\d,-]+): ")
# What a task suffers because of something else.
_FATE = re.compile(r"\*\*\* STEP \S+ ON \S+ CANCELLED|: (Killed|Terminated)$")
_NOT_LAUNCHED = re.compile(r"srun: error: Task launch for \S+ failed on node (\S+): ")


class Awaited(Protocol):
    """Somebody who is to come from a node."""

    def despair(self) -> None:
        """Nobody will come any more. From any thread."""


class Step:
    """One srun: an agent on each of its nodes.

    Args:
        log: what srun and the agents say is appended to it.
    """

    def __init__(self, argv: list[str], order: bytes, log: Path) -> None:
        self._log = log
        self._channels: dict[str, Awaited] = {}
        self._staying: set[str] = set()
        self._lines: list[str] = []
        self._numbers: dict[str, str] = {}
        self._over = threading.Event()
        reader, self._stdin = os.pipe()
        self._stdout, writer = os.pipe()
        env = {name: value for name, value in os.environ.items() if not _NOT_FOR_US.fullmatch(name)}
        try:
            self._pid = spawn(argv, env, reader, writer, writer)
        except UnavailableError as error:
            os.close(self._stdin)
            os.close(self._stdout)
            hint = "is this a machine of the cluster? A module may have to be loaded"
            raise UnavailableError(error.args[0], hint) from None
        self._order = order

    def await_(self, channels: Mapping[str, Awaited]) -> None:
        """Tell the agents what they are to be; from now on, whoever does not come is told of."""
        self._channels.update(channels)
        self._staying.update(channels)
        threading.Thread(target=self._attend, name="srun", daemon=True).start()

    def _attend(self) -> None:
        with suppress(BrokenPipeError), os.fdopen(self._stdin, "wb") as stdin:
            stdin.write(self._order)
        log = open_log(self._log)
        with os.fdopen(self._stdout, "rb") as said:
            for line in said:
                with suppress(OSError):  # a disk may be full
                    os.write(log, line)
                self._hear(line.decode(errors="replace").strip())
        os.close(log)
        with suppress(ChildProcessError):  # whoever embeds us has SIGCHLD ignored, and the kernel keeps no status
            os.waitpid(self._pid, 0)
        self._over.set()
        for channel in self._channels.values():
            channel.despair()

    def _hear(self, line: str) -> None:
        if not line or _IDLE_TALK.search(line):
            return
        self._lines.append(line)
        del self._lines[:-_KEPT]
        if ended := _ENDED.match(line):
            self._numbers.update(zip(expand(ended[1]), expand(f"[{ended[2]}]"), strict=False))
        # The others' tasks go on, and so does srun, when one has ended, or was never launched.
        if lost := ended or _NOT_LAUNCHED.match(line):
            for channel in filter(None, map(self._channels.get, expand(lost[1]))):
                # What a task has said last may come after the news of its end.
                threading.Timer(_LAST_WORDS, channel.despair).start()

    def said(self, node: str) -> str:
        """What the agent there has said last; or else srun, of this node or of all."""
        lines, number = list(self._lines), self._numbers.get(node)
        lines = [line for line in lines if not _FATE.search(line)] or lines
        # With --label, a task's lines begin with its number, which may have zeros in front.
        own = [line.partition(": ")[2] for line in lines if number and re.match(f"0*{number}: ", line)]
        about = [line for line in lines if re.search(rf"(?<![\w.-]){re.escape(node)}(?![\w.-])", line)]
        general = [line for line in lines if line.startswith("srun: ") and not _ENDED.match(line)]
        general += filter(_NOT_LAUNCHED.match, lines)
        return re.sub(r"^(\d+: |srun: error: )", "", next(reversed(own or about or general), ""))

    @property
    def came_too_late(self) -> bool:
        """The job is over: there is no step in it any more."""
        return self._over.is_set() and any(map(_JOB_OVER.search, list(self._lines)))

    @property
    def is_left(self) -> bool:
        """Nobody comes back to any of its agents."""
        return not self._staying

    def leave(self, node: str) -> None:
        """Nobody comes back to this one. A step that is left and does not end by itself is ended."""
        if node in self._staying:
            self._staying.discard(node)
            if self.is_left:
                threading.Thread(target=self._end, name="end of srun", daemon=True).start()

    def _end(self) -> None:
        # With --quit-on-interrupt, the first one ends the step. What waits then waits for a node that is not there.
        for patience, number in ((_PATIENCE, signal.SIGINT), (_MOMENT, signal.SIGKILL)):
            if self._over.wait(patience):
                return
            with suppress(ProcessLookupError):
                os.kill(self._pid, number)

    def wait(self) -> None:
        """Wait until one that is left has ended."""
        self._over.wait(_PATIENCE + 2 * _MOMENT)
