"""What an agent carries beside workers: the program's files on their way in, results on their way out, piece by piece."""

from __future__ import annotations

import errno

from . import trees

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


class Cargo:
    """One order after the other. ``tell`` sends a message, ``send`` a piece of a file; ``step`` is called while it is ``busy``."""

    def __init__(self, tell: Callable[..., None], send: Callable[[int, bytes], None]) -> None:
        self._tell = tell
        self._send = send
        self._tree: trees.Tree | None = None
        self._work: Iterator[object] | None = None
        self._order = ""

    @property
    def busy(self) -> bool:
        """There is something to do that waits for nobody."""
        return self._work is not None

    def expect(self, name: str, entries: Sequence[trees.Entry]) -> None:
        """A tree is to be here."""
        self._order, self._tree = "tree", trees.Tree(name, entries)
        self._work = self._tree.look()

    def receive(self, number: int, data: bytes) -> None:
        """A piece of it has come."""
        if self._tree is None:
            return
        try:
            self._tree.receive(number, data)
        except OSError as error:
            self._refuse(error)
        else:
            self._tell_if_whole()

    def collect(self, folder: str, patterns: Sequence[str]) -> None:
        """Files are asked for."""
        self._order = "fetch"
        entries = trees.found(folder, patterns)
        self._tell("found", entries=entries)
        self._work = (self._send(*piece) for piece in trees.pieces(folder, entries))

    def step(self) -> None:
        """Do a little."""
        assert self._work is not None  # noqa: S101 - whoever calls this has asked
        try:
            next(self._work)
        except StopIteration:
            self._work = None
            if self._order == "tree" and self._tree is not None:
                self._tell("lacking", numbers=self._tree.lacking)
                self._tell_if_whole()
        except OSError as error:
            self._refuse(error)

    def _tell_if_whole(self) -> None:
        if self._tree is not None and self._work is None and not self._tree.lacking:
            self._tell("placed", folder=self._tree.folder)

    def _refuse(self, error: OSError) -> None:
        self._work = self._tree = None
        self._tell(
            "fault", order=self._order, errno=error.errno or errno.EIO, error=f"{error.filename}: {error.strerror}"
        )
