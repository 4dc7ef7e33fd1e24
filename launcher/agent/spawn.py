"""Start a program in a session of its own, as its user would have it start: of this process nothing is left in it.

By posix_spawn(3): it shares this process's memory until it is another program, where a fork copies the tables of that memory, and then
each page that Python touches. With Python 3.11 that takes 0.6 ms of CPU where a fork with the same steps takes 2.5. What the
call has no word for, this process takes upon itself for that moment, and the new one inherits it.
"""

from __future__ import annotations

import errno
import os
import signal
from contextlib import ExitStack, contextmanager

from . import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# The descriptor on which a worker tells more than its output does; the environment names it, so it may move one day.
CONTROL_FD = 3
# What Python ignores, or the agent, or may be ignored by whoever started us: an exec leaves it at that.
_RESET = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


class Command:
    """What is to become a process.

    Attributes:
        env: its whole environment.
        cores: those it may run on; none for all of the agent's.
        network: a descriptor of the network namespace that it is to be in; None for the agent's.
    """

    def __init__(
        self,
        argv: Sequence[str],
        cwd: str | None,
        env: Mapping[str, str],
        cores: Sequence[int],
        network: int | None = None,
    ) -> None:
        self.argv = argv
        self.cwd = cwd
        self.env = env
        self.cores = cores
        self.network = network

    def adding(self, variables: Mapping[str, str]) -> Command:
        """The same with these variables too."""
        return Command(self.argv, self.cwd, {**self.env, **variables}, self.cores, self.network)


class NotStartedError(OSError):
    """A command could not become a process; ``step`` is what could not be done, in words."""

    step = "be started"


def spawn(command: Command, descriptors: Sequence[int]) -> int:
    """Run a command. Returns its process id, which is its session's and its group's, too.

    Args:
        descriptors: what it gets as 0, 1, 2 and so on; all others stay here.

    Raises:
        NotStartedError: it cannot be run.
    """
    with ExitStack() as stack:
        # Out of the way first: they may have any numbers, those that they are about to take included.
        sources = [stack.enter_context(_above(descriptor, len(descriptors))) for descriptor in descriptors]
        if command.network is not None:
            with _step("enter its network"):
                stack.enter_context(kernel.inside(command.network))
        if command.cwd is not None:
            with _step(f"change to {command.cwd}"):
                stack.enter_context(_in_folder(command.cwd))
        if command.cores and hasattr(os, "sched_setaffinity"):
            with _step(f"use cores {list(command.cores)}"):
                stack.enter_context(_on_cores(command.cores))
        stack.enter_context(kernel.users_limits())
        with _step(f"run {command.argv[0]}"):
            return _begin(command, [(os.POSIX_SPAWN_DUP2, source, target) for target, source in enumerate(sources)])


def _begin(command: Command, actions: Sequence[tuple[int, int, int]]) -> int:
    """As execvpe does: where the program has no folder, in each one on the command's own PATH."""
    name = command.argv[0]
    folders = [""] if os.path.dirname(name) else os.get_exec_path(command.env)
    refused: OSError | None = None
    for folder in folders:
        path = os.path.join(folder, name)
        try:
            return _run(path, command, actions)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            refused = refused or error
    raise refused or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _run(path: str, command: Command, actions: Sequence[tuple[int, int, int]]) -> int:
    argv = list(command.argv)
    try:
        return os.posix_spawn(
            path, argv, command.env, file_actions=actions, setsid=True, setsigmask=(), setsigdef=_RESET
        )
    except NotImplementedError:
        return _fork(path, command, actions)


def _fork(path: str, command: Command, actions: Sequence[tuple[int, int, int]]) -> int:
    """The same for a Python that was built with a glibc before 2.26, which knows of no sessions there: conda's may be, or uv's."""
    told, tells = os.pipe()
    # Until it has become the program, the child answers SIGTERM as the agent does, through the agent's own wakeup pipe.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        with _above(tells, len(actions)) as teller:
            pid = os.fork()
            if pid == 0:
                _become(path, command, actions, teller)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(tells)
    with os.fdopen(told, "rb") as words:
        if why := words.read():
            os.waitpid(pid, 0)
            raise OSError(int(why), os.strerror(int(why)))
    return pid


def _become(path: str, command: Command, actions: Sequence[tuple[int, int, int]], teller: int) -> None:
    """In the child. Never returns; says by a number why not, on a descriptor that an exec closes."""
    try:
        os.setsid()
        for _, source, target in actions:
            os.dup2(source, target)
        for number in _RESET:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execve(path, list(command.argv), command.env)
    except OSError as error:
        os.write(teller, str(error.errno).encode())
    finally:
        os._exit(127)


@contextmanager
def _step(words: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        refused = NotStartedError(error.errno, error.strerror)
        refused.step = words
        raise refused from error


@contextmanager
def _above(descriptor: int, least: int) -> Iterator[int]:
    if descriptor >= least:
        yield descriptor
        return
    import fcntl

    copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, least)
    try:
        yield copy
    finally:
        os.close(copy)


@contextmanager
def _in_folder(folder: str) -> Iterator[None]:
    home = os.open(".", (os.O_PATH if kernel.LINUX else os.O_RDONLY) | os.O_CLOEXEC)
    try:
        os.chdir(folder)
        yield
    finally:
        os.fchdir(home)
        os.close(home)


@contextmanager
def _on_cores(cores: Sequence[int]) -> Iterator[None]:
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)
