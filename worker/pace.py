"""How many steps TensorFlow makes in a call, without asking Python."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.checkpoint.state import State

# A call that takes this long costs nothing to make, and a worker that is to stop is not kept waiting.
_CALL_SECONDS = 0.2
_MOST_STEPS = 100


class Pace:
    """As many steps as fit into a call, or as many as are given. The chief's clock decides, and tells the others once."""

    def __init__(self, state: State, given: int | None, *, is_chief: bool) -> None:
        self._state = state
        self._is_chief = is_chief
        self.steps = given or 1
        # The first call compiles, so it is the second one that is timed.
        self._left = 0 if given else 2
        self._at = time.monotonic()

    def made(self, steps: int) -> None:
        """Every worker tells of each call. One of them is a collective."""
        if not self._left:
            return
        self._left -= 1
        now = time.monotonic()
        took, self._at = now - self._at, now
        if not self._left:
            many = max(1, min(_MOST_STEPS, int(_CALL_SECONDS * steps / max(took, 1e-6))))
            self.steps = int(self._state.from_chief(b"%d" % many if self._is_chief else None))
