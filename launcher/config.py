"""What can be asked for, as one frozen value: what to run, on which hosts, and how. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

from launcher import rules

if TYPE_CHECKING:
    from collections.abc import Mapping


class Script(NamedTuple):
    """A Python script of the user."""

    path: str
    args: tuple[str, ...] = ()


class Module(NamedTuple):
    """A Python module, run as ``python -m`` runs it."""

    name: str
    args: tuple[str, ...] = ()


class Program(NamedTuple):
    """Any command, Python or not."""

    argv: tuple[str, ...]


class Trainer(NamedTuple):
    """A training of our own: ``tflaunch train TASK``."""

    task: str
    args: tuple[str, ...] = ()


class Function(NamedTuple):
    """A Python function, pickled into a file: how tests call one in every task (``launcher.testing``).

    Attributes:
        source: the Python file that defines it; empty when there is none.
    """

    payload: str
    source: str = ""


Command = Script | Module | Program | Trainer | Function


class HostSpec(NamedTuple):
    """A host as it was asked for.

    Attributes:
        address: what the other hosts dial.
        workers: workers on it; None for its even share of all workers.
        cores: these, or that many; None for all it has.
        gpus: these, by number or UUID, or that many; None for all it has.
        python: the interpreter of its agent and its workers; None for the cluster's.
        ssh: what the ssh client knows it as; None for its address.
        user, port, jump, ssh_options: how else to reach it; None and {} leave that to the user's ssh_config.
        node: what Slurm calls it; None for its address.
    """

    address: str
    workers: int | None = None
    cores: tuple[int, ...] | int | None = None
    gpus: tuple[str, ...] | int | None = None
    python: str | None = None
    ssh: str | None = None
    user: str | None = None
    port: int | None = None
    jump: str | None = None
    ssh_options: Mapping[str, str] = MappingProxyType({})
    node: str | None = None

    @property
    def is_this_machine(self) -> bool:
        return rules.is_this_machine(self.address)


class SlurmSpec(NamedTuple):
    """What is asked of Slurm, in its own terms; None leaves a thing to Slurm.

    Attributes:
        time: the limit, as sbatch takes it.
        warning: seconds before the limit at which the run is told to save its work and end.
        requeue: have the job queued again, under its id, when it was warned or Slurm has preempted it.
        until_done: submit another job for the rest when this one was warned.
        options: further options of sbatch, as they would stand on its command line.
    """

    nodes: int | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time: str | None = None
    cpus_per_task: int | None = None
    gpus_per_node: str | None = None
    mem: str | None = None
    constraint: str | None = None
    array: str | None = None
    dependency: str | None = None
    warning: int = 120
    requeue: bool = False
    until_done: bool = False
    options: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """All that can be asked for; ``launcher.keys`` says what each setting means.

    Attributes:
        workers: workers in all, over all hosts.
        subnet: the network whose addresses the tasks dial; None: that of the hosts' own.
        ports: first and last port to lease from; None lets the kernel pick.
        warm: whether workers are forked from a process that has imported TensorFlow; None lets ``launcher.warmth`` decide.
        grace: seconds from SIGTERM to SIGKILL, for each worker.
        timeout: seconds the whole run may take; None for no limit.
        join_deadline: seconds until all tasks must listen, 0 for never; None: as many as ``joining.JOIN``, from when one does.
        hang_deadline: seconds without progress after which the run counts as hung, 0 for never; None: as many as
            ``pulse.HANG`` once a task has told of progress.
        lease: seconds that workers go on while the connection to their host is lost, where one can be; 0: none.
        max_restarts: how often the cluster is started again after a failure.
        min_workers: as many have to be left for a restart without the hosts that stay gone; None: all.
        backoff: seconds of the pause before the second restart; each further one is twice as long.
        forgive_after: seconds of progress after which restarts are counted anew.
        sync: the files of the working tree that other hosts get, as globs; () for those that git would track, None for none.
        fetch: the files that come back from the chief's host at the end, as globs.
        never_restart, always_restart: exceptions and exit statuses that are no reason for a restart, or always are one.
        origins: for every other attribute "default", the file's name as it was given, or the flag; where several had
            a part in it, all of them, joined by ", ".
    """

    command: Command
    name: str
    engine: str
    hosts: tuple[HostSpec, ...]
    workers: int
    chief: int = 0
    evaluator: int = 0
    ps: int = 0
    python: str | None = None
    cwd: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    forward: tuple[str, ...] = ()
    subnet: str | None = None
    ports: tuple[int, int] | None = None
    partition: bool = True
    warm: bool | None = None
    gpus_per_task: int | None = None
    private: bool = False
    output: Literal["all", "chief", "failed", "none"] = "all"
    grace: float = 30.0
    timeout: float | None = None
    join_deadline: float | None = None
    hang_deadline: float | None = None
    lease: float = 60.0
    max_restarts: int = 0
    min_workers: int | None = None
    backoff: float = 1.0
    forgive_after: float = 600.0
    never_restart: tuple[str, ...] = ()
    always_restart: tuple[str, ...] = ()
    sync: tuple[str, ...] | None = None
    fetch: tuple[str, ...] = ()
    run_dir: str = "runs"
    checkpoint_dir: str | None = None
    slurm: SlurmSpec = field(default_factory=SlurmSpec)
    origins: Mapping[str, str] = field(default_factory=dict)
