"""The agents of one run, and what is done with all of them: meet, lease, order, dismiss."""

from __future__ import annotations

import errno
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from launcher import events
from launcher.errors import DeadlineError, Interrupted, TflaunchError, UnavailableError
from launcher.gathering import Gathering, expect, is_there, listen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from launcher.engines import Channel, Docks
    from launcher.link import Link
    from launcher.loop import Loop
    from launcher.run_dir import RunDir
    from launcher.tree import Tree

_FAREWELL = 10.0


class Agents:
    """One agent on each host. As a context manager it leaves none behind, however the run ends.

    Args:
        docks: how to get one on a host, and how to meet it again.
        started: those that are on their way already.
    """

    def __init__(self, docks: Docks, started: Mapping[str, Channel], loop: Loop, run_dir: RunDir) -> None:
        self._docks = docks
        self._loop = loop
        self._run_dir = run_dir
        self._links: dict[str, Link] = {}
        self._leased: dict[str, tuple[int, ...]] = {}
        self._hosts: tuple[str, ...] = ()
        for host, channel in started.items():
            self._links[host] = expect(host, channel, docks, loop)

    @classmethod
    def at_work(cls, docks: Docks, links: Mapping[str, Link], loop: Loop, run_dir: RunDir) -> Agents:
        """Those that have been there for earlier runs."""
        made = cls(docks, {}, loop, run_dir)
        for host, link in links.items():
            made._links[host] = link
            listen(link, loop)
        return made

    def __enter__(self) -> Agents:
        return self

    def __exit__(self, *_: object) -> None:
        self.dismiss()

    def meet(self, hosts: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """Have every agent there and greeted. Returns host -> facts (``agent/facts.py``).

        Raises:
            UnavailableError: some could not be started, or not as it was asked for; the message has all of them.
            Interrupted: a signal came first.
        """
        if gone := self.seek(hosts):
            raise _missing(gone, len(hosts))
        return {host: self._links[host].facts for host in hosts}

    def seek(self, hosts: Sequence[str]) -> dict[str, UnavailableError]:
        """Have every agent there that can be had. Returns host -> why not, for the others.

        Raises:
            Interrupted: a signal came first.
        """
        self._hosts = tuple(dict.fromkeys((*self._hosts, *hosts)))
        return self._gather(hosts)

    def lost(self, hosts: Iterable[str]) -> list[str]:
        """Those of them whose agent is not there any more."""
        return [host for host in hosts if not self._is_there(host)]

    def facts(self, host: str) -> Mapping[str, Any]:
        """What the agent of a host said of it (``agent/facts.py``)."""
        return self._links[host].facts

    def took(self, host: str) -> float:
        """How many seconds it took until the agent of a host was there."""
        return self._links[host].took

    def revive(self) -> dict[str, str]:
        """Put a new agent in the place of each one that is lost; its ports are lost with it.

        Returns:
            Host -> why, in words, for those that still have none.

        Raises:
            Interrupted: somebody wants the run to end.
            DeadlineError: it may not take any longer.
        """
        lost = [host for host in self._hosts if not self._is_there(host)]
        gone = self._again(lost)
        return {host: error.args[0].removeprefix(f"{host}: ") for host, error in gone.items()}

    def _again(self, lost: Sequence[str]) -> dict[str, UnavailableError]:
        for host in lost:
            self._leased.pop(host, None)
            self._links.pop(host, None)
        gone = self._gather(lost)
        for host in lost:
            self.order(host, "sweep", run=self._run_dir.path.name)
        return gone

    def _gather(self, hosts: Sequence[str]) -> dict[str, UnavailableError]:
        """Wait until each host's agent has said hello, or will not; returns why for the latter."""
        gathering = Gathering(hosts, self._docks, self._loop, self._links)
        while gathering.goes_on():
            for event in self._happening():
                if isinstance(event, events.AgentFault):
                    self._raise_if_fatal(event)
                gathering.take(event)
        return gathering.gone

    def _is_there(self, host: str) -> bool:
        return is_there(self._links, host)

    def lease(
        self, needs: Mapping[str, Sequence[int]], ports: tuple[int, int] | None, *, listen: bool = False
    ) -> dict[int, int]:
        """Lease a port for each task, on the host that will use it. What is leased already stays.

        Args:
            needs: host -> numbers of its tasks that peers dial.
            ports: first and last port to lease from; None lets the kernel pick.
            listen: have all of them listened on until hosts are asked to ``deafen`` them.

        Returns:
            Task number -> port.

        Raises:
            UnavailableError: too few ports are free in the range, or one cannot be listened on.
            Interrupted: a signal came first.
        """
        missing = {host: len(numbers) - len(self._leased.get(host, ())) for host, numbers in needs.items()}
        waiting = {host for host, count in missing.items() if count > 0 or listen}
        for host in waiting:
            self._links[host].order("lease", count=max(0, missing[host]), ports=ports, listen=listen)
        for event in self._until(lambda: not waiting):
            if isinstance(event, events.PortsLeased):
                self._leased[event.host] = (*self._leased.get(event.host, ()), *event.ports)
                waiting.discard(event.host)
        # A host may hold more than it needs: what moved there, while another host was away, has moved back.
        return {number: port for host in needs for number, port in zip(needs[host], self._leased[host], strict=False)}

    def place(self, tree: Tree, hosts: Iterable[str]) -> dict[str, str]:
        """Have the working tree on these hosts; only what one lacks is sent. Returns host -> its folder there.

        Raises:
            UnavailableError: a host has no room for it.
            RequestError: a file has changed since the tree was read.
            Interrupted: a signal came first.
        """
        from launcher.tree import pieces

        waiting = set(hosts)
        for host in waiting:
            self._links[host].order("tree", name=tree.name, entries=tree.entries)
        placed: dict[str, str] = {}
        sending: dict[str, Iterator[tuple[int, bytes]]] = {}
        for event in self._until(lambda: self._send(sending) and waiting == placed.keys()):
            match event:
                case events.TreeLacks(host, numbers):
                    sending[host] = pieces(tree, numbers)
                case events.TreePlaced(host, folder):
                    placed[host] = folder
        return placed

    def _send(self, sending: dict[str, Iterator[tuple[int, bytes]]]) -> bool:
        """Send to each host what its connection takes now."""
        for host, left in list(sending.items()):
            while not self._links[host].full and (piece := next(left, None)):
                self._links[host].file(*piece)
            if not self._links[host].full:
                del sending[host]
        return True

    def fetch(self, host: str, folder: str, patterns: Sequence[str], into: Path) -> int:
        """Have files of a host here, in the place of those that are here. Returns how many.

        Args:
            folder: on the host; ``patterns`` are globs below it.

        Raises:
            UnavailableError: they did not come, or there is no room for them.
            Interrupted: a signal came first.
        """
        from launcher.arrivals import Arrivals

        if not self._is_there(host):
            raise UnavailableError(f"the agent on {host} is gone")
        self._links[host].order("fetch", folder=folder, patterns=patterns)
        arrivals = Arrivals(into)
        for event in self._until(lambda: arrivals.whole):
            match event:
                case events.FilesFound(_, entries):
                    arrivals.expect(entries)
                case events.FilePiece(_, number, data):
                    arrivals.take(number, data)
        return arrivals.count

    def rest(self, seconds: float) -> None:
        """Let time pass. An agent that is lost meanwhile is for ``revive``.

        Raises:
            Interrupted: somebody wants the run to end.
            DeadlineError: it may not take any longer.
        """
        self._loop.set_timer("rest", seconds)
        while not any(event == events.DeadlinePassed("rest") for event in self._happening()):
            pass

    def connect(self, tasks: Mapping[str, Sequence[int]]) -> dict[int, str]:
        """Give each task an address of its own, in a network that the agent of its host makes for them.

        Args:
            tasks: host -> numbers of its tasks.

        Returns:
            Task number -> address.

        Raises:
            UnavailableError: there can be no such network.
            Interrupted: a signal came first.
        """
        for host, numbers in tasks.items():
            self._links[host].order("connect", count=len(numbers))
        made: dict[str, tuple[str, ...]] = {}
        for event in self._until(lambda: len(made) == len(tasks)):
            if isinstance(event, events.TasksConnected):
                made[event.host] = event.addresses
        return {number: one for host, own in made.items() for number, one in zip(tasks[host], own, strict=True)}

    def release(self) -> None:
        """Give all ports back, for an agent that stays; returns when they are free."""
        holding = {host for host, link in self._links.items() if not link.lost}
        for host in holding:
            self._links[host].order("release")
        while holding:
            for event in self._loop.wait():
                match event:
                    case events.PortsReleased(host) | events.AgentLost(host):
                        holding.discard(host)

    def ask(
        self, about: str, questions: Mapping[str, Mapping[str, object]], seconds: float
    ) -> dict[str, events.HostAnswered]:
        """Ask hosts a question, each its own. Returns the answers of those that give one within so many seconds.

        Raises:
            Interrupted: a signal came first.
        """
        return self.ask_all({about: questions}, seconds)[about]

    def ask_all(
        self, questions: Mapping[str, Mapping[str, Mapping[str, object]]], seconds: float
    ) -> dict[str, dict[str, events.HostAnswered]]:
        """Ask several questions at a time: what it is about -> host -> the question. Agents that are lost are for ``lost``."""
        waiting = {(about, host) for about, asked in questions.items() for host in asked}
        for about, host in waiting:
            self.order(host, "ask", about=about, question=questions[about][host])
        answers: dict[str, dict[str, events.HostAnswered]] = {about: {} for about in questions}
        self._loop.set_timer("answers", seconds)
        while any(self._is_there(host) for _, host in waiting):
            for event in self._happening():
                match event:
                    case events.HostAnswered(host, about) if (about, host) in waiting:
                        waiting.discard((about, host))
                        answers[about][host] = event
                    case events.DeadlinePassed("answers"):
                        return answers
        self._loop.cancel_timer("answers")
        return answers

    def order(self, host: str, what: str, **fields: object) -> None:
        """Send an order to the agent of a host; to a lost one, nothing."""
        if self._is_there(host):
            self._links[host].order(what, **fields)

    def abandon(self, host: str) -> None:
        """Wait no longer for a connection that is lost."""
        for event in self._loop.drop(self._links[host], "it was waited for no longer"):
            self._loop.post(event)

    def _until(self, done: Callable[[], bool]) -> Iterator[events.Event]:
        """Yield what happens until ``done``; what must not happen before the workers start is raised."""
        while not done():
            for event in self._happening():
                self._raise_if_fatal(event)
                yield event

    def _happening(self) -> Iterator[events.Event]:
        """What happens next; that somebody wants the run to end is raised."""
        for event in self._loop.wait():
            if not isinstance(event, events.FilePiece):
                self._run_dir.event(event, time.time())
            match event:
                case events.Signalled(number):
                    raise Interrupted(number)
                case events.StopAsked():
                    raise Interrupted(signal.SIGTERM)
                case events.HostTerminated(host):
                    raise Interrupted(signal.SIGTERM, host)
                case events.DeadlinePassed("run"):
                    raise DeadlineError("the run's deadline passed")
            yield event

    def _raise_if_fatal(self, event: events.Event) -> None:
        match event:
            case events.AgentLost(host, why):
                raise UnavailableError(f"the agent on {host} was lost: {why}")
            case events.AgentFault(host, "lease", errno.EMFILE, reason):
                hint = "each port takes a descriptor: raise the hard limit (ulimit -Hn), or ask for fewer tasks"
                raise UnavailableError(f"{host}: cannot lease ports: {reason}", hint)
            case events.AgentFault(host, "lease", _, reason):
                raise UnavailableError(
                    f"{host}: cannot lease ports: {reason}", "name another range with --ports, or none"
                )
            case events.AgentFault(host, "tree", _, reason):
                raise UnavailableError(f"{host}: cannot keep the program's files: {reason}")
            case events.AgentFault(host, "fetch", _, reason):
                raise UnavailableError(f"{host}: cannot read what was asked for: {reason}")
            case events.AgentFault(host, "connect", _, reason):
                raise UnavailableError(f"{host}: no network between its tasks: {reason}")
            case events.AgentFault(host, "private", _, reason):
                hint = "this system does not let you make one: run without --private, or as root"
                raise UnavailableError(f"{host}: no private network: {reason}", hint)

    def dismiss(self) -> None:
        """Send the agents home and wait until they are gone, so that whatever they left is gone too."""
        with suppress(TflaunchError):
            self._again([host for host, link in self._links.items() if link.lost and link.channel.stranded])
        for link in self._links.values():
            # It may be a host that never answers, or does not any more; what it has of ours ends by itself.
            if not link.facts or link.down is not None:
                list(self._loop.drop(link, "did not say hello"))
            link.bye()
        self._loop.set_timer("farewell", _FAREWELL)
        while any(not link.lost for link in self._links.values()):
            if any(event == events.DeadlinePassed("farewell") for event in list(self._loop.wait())):
                break
        for link in self._links.values():
            list(link.give_up("did not leave when told to"))


def _missing(gone: Mapping[str, UnavailableError], count: int) -> UnavailableError:
    if len(gone) == 1:
        return next(iter(gone.values()))
    lines = [f"  {error.args[0]}{f' ({error.hint})' if error.hint else ''}" for error in gone.values()]
    return UnavailableError("\n".join([f"{len(gone)} of {count} hosts are not to be had", *lines]))
