"""Agents on their way: as many at a time as their engine lets in, and those that were turned away once more."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from launcher import events
from launcher.errors import UnavailableError
from launcher.link import Link

if TYPE_CHECKING:
    from collections.abc import Sequence

    from launcher.engines import Channel, Docks
    from launcher.loop import Loop

_HELLO = 30.0
# The last pause is of 6 to 13 s.
_KNOCKS = 6


class Gathering:
    """Has the agents of some hosts come. Tell it all that happens while it ``goes_on``.

    Args:
        links: host -> its link, of those that are there or on their way; others are added.

    Attributes:
        gone: host -> why there is no agent, nor will be.
    """

    def __init__(self, hosts: Sequence[str], docks: Docks, loop: Loop, links: dict[str, Link]) -> None:
        self.gone: dict[str, UnavailableError] = {}
        self._docks = docks
        self._loop = loop
        self._links = links
        self._knocks = dict.fromkeys(hosts, 0)

    def goes_on(self) -> bool:
        """Start those that there is room for; whether any is still awaited."""
        while awaited := [host for host in self._knocks if host not in self.gone and not is_there(self._links, host)]:
            not_started = [host for host in awaited if not self._knocks[host] and host not in self._links]
            room = self._docks.engine.at_once - (len(awaited) - len(not_started))
            if not not_started or room <= 0:
                return True
            self._knock(not_started[:room])
        return False

    def take(self, event: events.Event) -> None:
        """Something has happened."""
        match event:
            case events.AgentReady(host):
                self._loop.cancel_timer(f"hello {host}")
            case events.AgentLost(host, why) if host in self._knocks:
                self._loop.cancel_timer(f"hello {host}")
                channel = self._links[host].channel
                if channel.turned_away and self._knocks[host] < _KNOCKS:
                    self._loop.set_timer(f"knock {host}", _chance(0.2, 0.4) * 2 ** self._knocks[host])
                else:
                    self.gone[host] = UnavailableError(f"{host}: its agent did not start: {why}", channel.hint)
            case events.DeadlinePassed(name) if name.startswith("knock "):
                self._knock([name.removeprefix("knock ")])
            case events.DeadlinePassed(name) if name.startswith("hello "):
                host, why = name.removeprefix("hello "), f"no word from its agent within {_HELLO:g} s"
                list(self._loop.drop(self._links[host], why))
                self.gone[host] = UnavailableError(f"{host}: {why}", self._links[host].channel.hint)

    def _knock(self, hosts: Sequence[str]) -> None:
        for host in hosts:
            self._knocks[host] += 1
        try:
            for host, channel in self._docks.open(hosts).items():
                self._links[host] = expect(host, channel, self._docks, self._loop)
        except UnavailableError as error:
            self.gone.update(dict.fromkeys(hosts, error))


def expect(host: str, channel: Channel, docks: Docks, loop: Loop) -> Link:
    """Listen to an agent that is on its way."""
    link = Link(host, channel, again=docks.meet_again, lease=docks.lease)
    listen(link, loop)
    return link


def listen(link: Link, loop: Loop) -> None:
    """Listen to an agent; for its hello, if that is still to come, not for ever."""
    loop.add(link)
    if not link.facts:
        loop.set_timer(f"hello {link.host}", _HELLO)


def is_there(links: dict[str, Link], host: str) -> bool:
    """Whether the agent of this host has said hello, and is not lost."""
    link = links.get(host)
    return link is not None and bool(link.facts) and not link.lost


def _chance(low: float, high: float) -> float:
    """Where it falls, so that those who were turned away together do not come back together."""
    return low + (high - low) * int.from_bytes(os.urandom(2), "big") / 65_535
