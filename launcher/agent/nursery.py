"""Where workers are started: each by itself, or forked from a process that is there already, with TensorFlow or without."""

from __future__ import annotations

import os
import selectors
import time
from functools import partial

from .process import Process, start
from .spawn import Command, NotStartedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .process import Starter
    from .warm import ForkServer, ForkServers


class Nursery:
    """Starts what it is ordered to, at once or when its fork server is ready. ``started`` is called with each worker."""

    def __init__(
        self, selector: selectors.BaseSelector, tell: Callable[..., None], started: Callable[[Process], None]
    ) -> None:
        self._selector = selector
        self._tell = tell
        self._started = started
        self._servers: ForkServers | None = None
        # Reading it takes as long as starting a process does, if it is done for each.
        self._environment = dict(os.environ)

    @property
    def servers(self) -> set[int]:
        """The process ids of the fork servers."""
        return self._servers.pids if self._servers else set()

    def spawn(self, order: dict[str, Any]) -> None:
        """Start a worker; what cannot be started is told of as a fault."""
        if order.get("warm") is None:
            self._begin_by_itself(order)
            return
        # It takes the socket module, which takes 3 ms to import.
        from .warm import ForkServers

        self._servers = self._servers or ForkServers()
        try:
            server, is_new = self._servers.get(order)
        except OSError as error:
            self._begin_cold(order, f"no fork server: {error.strerror}")
            return
        server.waiting.append(order)
        if is_new:
            self._selector.register(server.descriptor, selectors.EVENT_READ, partial(self._on_server, server))
        self._serve(server)

    def withdraw(self, task: int) -> bool:
        """Take back an order that waits for its fork server; False where there is none."""
        return self._servers is not None and self._servers.withdraw(task)

    def reaped(self, pid: int) -> None:
        """Learn that a child of this process has been reaped."""
        if self._servers is not None:
            self._servers.reaped(pid)

    def _on_server(self, server: ForkServer, descriptor: int) -> None:
        server.hear()
        if server.why:
            self._selector.unregister(descriptor)
            server.close()
        self._serve(server)

    def _serve(self, server: ForkServer) -> None:
        """Start what waits for a fork server, or what did, as soon as that is known to be of no use."""
        while server.waiting and (server.ready or server.why):
            order = server.waiting.pop(0)
            if server.why:
                self._begin_cold(order, server.why)
                continue
            try:
                self._begin(order, server.fork)
            except OSError as error:
                self._begin_cold(order, server.why or str(error))

    def _begin_cold(self, order: dict[str, Any], why: str) -> None:
        """Start by itself what was to be forked, and say why to those who were told that it would be."""
        if order["warm"]["module"]:
            self._tell("report", task=order["task"], record={"kind": "cold", "why": why, "time": time.time()})
        self._begin_by_itself(order)

    def _begin_by_itself(self, order: dict[str, Any]) -> None:
        try:
            self._begin(order, start)
        except OSError as error:
            step = error.step if isinstance(error, NotStartedError) else NotStartedError.step
            self._tell("fault", order="spawn", task=order["task"], errno=error.errno, error=error.strerror, step=step)

    def _begin(self, order: dict[str, Any], begin: Starter) -> None:
        command = Command(
            order["argv"], order["cwd"], {**self._environment, **order["env"]}, order["cores"], order["network"]
        )
        self._started(Process(order["task"], command, begin))
