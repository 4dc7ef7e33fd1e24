"""The agent: one per host, the same for every engine. It starts workers, relays what they say, and leaves nothing behind.

It is two processes. The guard starts the loop and waits; the loop does the work. Whichever dies, of whatever, the other
ends every descendant of both: the guard because orphans become its children, the loop because the kernel signals it.
The launcher holds the other ends of the loop's stdin and stdout; its end, or its silence, is the end of everything here.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import selectors
import signal
import time

from . import facts, guard, kernel, strays, wire
from .departures import Departures
from .intake import Intake
from .network import Network
from .nursery import Nursery
from .process import never_lived
from .stacks import RollCall
from .tether import Tether
from .unanswered import unanswered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .cargo import Cargo
    from .errands import Errands
    from .process import Process

HEARTBEAT = 2.0
_LONGEST_WAIT = 86_400.0
# Slurm tells every process of a step to end, and the guard passes on what it is told: for so many seconds that is once.
_ECHO = 1.0


class Agent:
    """The loop. It owns every worker of this host; all it knows comes through descriptors and SIGCHLD."""

    def __init__(self, silence: float | None, lease: float = 0.0, mooring: str = "") -> None:
        self._silence = silence
        self._processes: dict[int, Process] = {}
        # Those that live, by process id.
        self._living: dict[int, Process] = {}
        # What the variables of all tasks have in common.
        self._shared = ""
        self._selector = selectors.DefaultSelector()
        self._tether = Tether(self._selector, mooring, lease, self._take)
        self._tell: Callable[..., None] = self._tether.tell
        self._intake = Intake(self._selector, self._tether, self._on_report, self._bury)
        self._departures = Departures(self._intake)
        self._network = Network(self._tell)
        self._roll_call = RollCall(self._tell)
        self._nursery = Nursery(self._selector, self._tell, self._on_started)
        self._cargo: Cargo | None = None
        self._errands: Errands | None = None
        self._ending = False
        self._beat = time.monotonic()
        self._guard = os.getppid()
        self._told_to_end: float | None = None

    def run(self) -> None:
        """Serve the launcher until it says bye, goes away, or falls silent; then end whatever is left."""
        self._watch(_wakeup(), self._on_signal)
        self._tell("hello", protocol=wire.PROTOCOL, facts=facts.gather())
        while not self._ending and not self._tether.gone:
            self._intake.flush()
            self._intake.breathe()
            for key, _ in self._selector.select(self._until_next()):
                key.data(key.fd)
            self._on_time()
        self._leave()

    def _watch(self, descriptor: int, callback: Callable[[int], None]) -> None:
        self._selector.register(descriptor, selectors.EVENT_READ, callback)

    # From the launcher

    def _take(self, kind: int, number: int, payload: bytes) -> None:
        if kind == wire.FILE:
            self._carry().receive(number, payload)
        else:
            self._obey(json.loads(payload))

    def _obey(self, order: dict[str, Any]) -> None:
        match order["do"]:
            case "sweep":
                strays.sweep(order["run"])
            case "tree":
                self._carry().expect(order["name"], order["entries"])
            case "fetch":
                self._carry().collect(order["folder"], order["patterns"])
            case "lease":
                self._network.lease(order["count"], order["ports"], listen=order["listen"])
            case "connect":
                self._network.connect(order["count"])
            case "line":
                self._network.set_line(order["between"], up=order["up"])
            case "share":
                self._shared = order["text"]
            case "spawn":
                env = {name: self._shared.join(ends) for name, ends in order["around"].items()}
                network = self._network.of(order["address"])
                self._nursery.spawn({**order, "env": {**env, **order["env"]}, "network": network})
            case "stop":
                for task in order["tasks"]:
                    self._stop(task, order["grace"], look=order["look"])
            case "kill":
                if process := self._born(order["task"]):
                    process.kill()
            case "signal":
                self._signal(order["task"], order["signal"])
            case "stacks":
                self._roll_call.begin(self._living.values())
            case "listening":
                self._network.tell_who_listens()
            case "ask":
                self._ask(order["about"], order["question"])
            case "release":
                self._network.release()
            case "bye":
                self._ending = True

    def _carry(self) -> Cargo:
        # It takes hashlib, which takes 5 ms to import.
        from .cargo import Cargo

        self._cargo = self._cargo or Cargo(self._tell, self._tether.file)
        return self._cargo

    def _ask(self, about: str, question: dict[str, Any]) -> None:
        if about == "deafen":
            self._network.deafen()
            self._answer(about, None)
            return
        from .errands import Errands

        self._errands = self._errands or Errands(self._selector, self._answer)
        self._errands.begin(about, question)

    def _answer(self, about: str, said: object) -> None:
        self._tell("answer", about=about, said=said, clock=time.time())

    def _on_started(self, process: Process) -> None:
        self._processes[process.number] = self._living[process.pid] = process
        self._intake.add(process)
        self._tell("started", task=process.number, pid=process.pid)

    def _stop(self, number: int, grace: float, *, look: bool) -> None:
        if process := self._born(number):
            if look:
                self._look_for_silence(process)
            self._departures.stop(process, grace)

    def _born(self, number: int) -> Process | None:
        """One that is to end. Where it was not started yet, it never is."""
        if self._nursery.withdraw(number):
            self._tell("exited", task=number, **never_lived())
            return None
        return self._processes.get(number)

    def _signal(self, number: int, name: str) -> None:
        process = self._processes.get(number)
        alive = process is not None and process.deliver(name)
        self._tell("signalled", task=number, signal=name, alive=alive)

    # From the workers

    def _on_report(self, process: Process, data: bytes) -> None:
        for record in process.reports(data):
            self._tell("report", task=process.number, record=record)
            if record.get("victim"):
                self._look_for_silence(process)

    def _look_for_silence(self, process: Process) -> None:
        """Tell which peers leave a worker without an answer, while it is there to be looked at."""
        if process.ended is None and (places := unanswered(process.pid)):
            record = {"kind": "unanswered", "places": places, "time": time.time()}
            self._tell("report", task=process.number, record=record)

    def _on_signal(self, descriptor: int) -> None:
        if {signal.SIGTERM, signal.SIGHUP} & set(os.read(descriptor, 4096)):
            self._on_told_to_end()
        self._tell_of_stops()
        reaped = False
        while (pid := guard.zombie()) is not None:
            self._reap(pid)
            reaped = True
        if reaped:
            self._intake.flush()  # to the launcher, which has others to end, at once: what follows takes longer
            errands = self._errands.children if self._errands else set()
            gone = (process for process in self._processes.values() if process.ended is not None)
            strays.end_strays(self._living.keys(), gone, self._nursery.servers | errands)

    def _on_told_to_end(self) -> None:
        """The host goes down, say. The workers have time to save: the launcher stops them everywhere, and says bye."""
        now = time.monotonic()
        if os.getppid() != self._guard or (self._told_to_end is not None and now > self._told_to_end + _ECHO):
            self._ending = True  # by the kernel because the guard is gone, or told again
        elif self._told_to_end is None:
            self._told_to_end = now
            self._tell("terminated")

    def _tell_of_stops(self) -> None:
        """Somebody has stopped a worker, or let it go on: the kernel says so as it says that one has ended."""
        while (change := guard.stop_or_go()) is not None:
            pid, stopped = change
            if process := self._living.get(pid):
                self._tell("stopped" if stopped else "resumed", task=process.number, time=time.time())

    def _reap(self, pid: int) -> None:
        process = self._living.pop(pid, None)
        if process is not None:
            process.kill_group()
        _, status, usage = os.wait4(pid, 0)
        self._nursery.reaped(pid)
        if process is not None:
            process.has_ended(status, usage.ru_maxrss)
            self._departures.drain(process)
            self._bury(process)

    def _bury(self, process: Process) -> None:
        if self._departures.complete(process):
            self._tell("exited", task=process.number, **process.obituary())

    # Time

    def _until_next(self) -> float | None:
        if self._ending or self._tether.gone or self._can_carry():
            return 0.0
        moments = [] if self._silence is None else [self._beat + HEARTBEAT]
        moments += [] if self._tether.next is None else [self._tether.next]
        moments += [*self._departures.moments(), *self._roll_call.moments()]
        # epoll counts milliseconds in an int: some 24 days are as long as it can wait.
        return min(_LONGEST_WAIT, max(0.0, min(moments) - time.monotonic())) if moments else None

    def _can_carry(self) -> bool:
        return self._cargo is not None and self._cargo.busy and self._tether.idle

    def _on_time(self) -> None:
        if self._cargo is not None and self._can_carry():
            self._cargo.step()
        now = time.monotonic()
        self._departures.on_time(now)
        self._roll_call.on_time()
        # Where nobody would take silence for death, nobody is woken to break it.
        if self._silence is not None and now - self._beat >= HEARTBEAT:
            self._beat = now
            if now - self._tether.heard > self._silence:
                self._tether.lose()
            else:
                self._tether.beat()
        self._tether.on_time()

    # The end

    def _leave(self) -> None:
        self._tether.close()
        for process in self._processes.values():
            process.kill()
        self._network.close()
        guard.end_descendants()


def _wakeup() -> int:
    """A descriptor that becomes readable, with the signals' numbers, when one arrives."""
    read, write = os.pipe()
    for descriptor in (read, write):
        os.set_blocking(descriptor, False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    return read


def main(options: str) -> None:
    """Run the agent.

    Args:
        options: a JSON object: ``private`` (bool), ``silence`` (seconds, or null for never), and where the connection may be cut
            for a time, ``lease`` (seconds) and ``mooring`` (the path of a socket).
    """
    chosen = json.loads(options)
    # Whoever started this has put off all looking for garbage, as what is imported stays: that takes 1 of 23 ms.
    gc.freeze()
    gc.enable()
    kernel.keep_memory()
    kernel.allow_descriptors()
    kernel.keep_descriptors()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if chosen["private"]:
        try:
            kernel.enter_private_network()
        except OSError as error:
            _refuse(error)
            return
    tied = {name: chosen[name] for name in ("lease", "mooring") if name in chosen}
    guard.stand(lambda: Agent(chosen["silence"], **tied).run())


def _refuse(error: OSError) -> None:
    number = error.errno or errno.EIO
    os.write(1, wire.control({"do": "fault", "order": "private", "errno": number, "error": os.strerror(number)}))
