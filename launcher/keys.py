"""The keys of cluster.json: the one table that the parser, ``tflaunch schema`` and ``tflaunch init`` all read.

What a single value may be stands in the table; what several values of one source must keep to stands in ``rules``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from launcher.schema import (
    MOST_TASKS,
    Boolean,
    Choice,
    Either,
    Flaw,
    Integer,
    Key,
    ListOf,
    MapOf,
    Object,
    Seconds,
    Text,
    flaws,
)
from launcher.slurm.keys import SLURM

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

COMMANDS = ("script", "module", "command", "task", "function")
"""The keys that name what the workers run; one of them is needed."""

_PORT = Integer(1, 65_535)
_FROM_HERE = "A relative path starts where tflaunch is run, not at this file."
_FROM_CWD = "A relative path starts in cwd, which is where tflaunch is run unless you say otherwise."
_STRING = Text()
_ARGUMENT = Text(pattern=r"[^\u0000]*")
_VARIABLE = Text(
    "the name of an environment variable, without =",
    # TensorFlow reads its place in the cluster there, and it differs from worker to worker.
    pattern=r"[^=\u0000]+",
    reserved=("TF_CONFIG",),
)
_ADDRESS = Text(
    "a host name or an IP address, with no user and no port",
    pattern=r"[A-Za-z0-9_][A-Za-z0-9._-]*|(?=.*:.*:)[0-9A-Fa-f:][0-9A-Fa-f:.]*(%[A-Za-z0-9._-]+)?",
)

_GLOB = Text("a path below the working directory, ** for any folders", pattern=r"(?!/)(?!(.*/)?\.\.(/|$)).+")
# What ssh is given begins with no dash, and holds nothing that a shell reads.
_ALIAS = Text("a host name or an alias of your ssh_config", pattern=r"[A-Za-z0-9_][A-Za-z0-9._:-]*")
_USER = Text("a user's name", pattern=r"[A-Za-z0-9_][A-Za-z0-9._@\\-]*")
_JUMP = r"([A-Za-z0-9_][A-Za-z0-9._-]*@)?[A-Za-z0-9_\[][A-Za-z0-9._:\]-]*"

_ENDING = Either(
    (Integer(1, 255), Text("the name of an exception or an exit status", pattern=r"[A-Za-z_][A-Za-z0-9_]*"))
)

HOST = Object(
    (
        Key(
            "address",
            _ADDRESS,
            "Name or IP address that the other hosts dial",
            "localhost, 127.0.0.1 and ::1 mean this machine.",
            required=True,
            examples=("10.0.0.11",),
        ),
        Key("workers", Integer(1, MOST_TASKS), "Workers on this host", otherwise="its even share of all workers"),
        Key(
            "cores",
            Either(
                (Integer(1, MOST_TASKS), ListOf(Integer(0, MOST_TASKS), least=1, unique=True, noun="a list of cores"))
            ),
            "Cores for the workers: how many, or which by number",
            otherwise="all that the host has",
        ),
        Key(
            "gpus",
            Either(
                (
                    Integer(0, MOST_TASKS),
                    ListOf(
                        Either(
                            (Integer(0, MOST_TASKS), Text("the number or UUID of a GPU", pattern=r"[A-Za-z0-9_/:.-]+"))
                        ),
                        unique=True,
                        noun="a list of GPUs",
                    ),
                )
            ),
            "GPUs for the workers: how many, or which by number or UUID",
            otherwise="all that the host has",
        ),
        Key(
            "python",
            _STRING,
            "Python interpreter of this host",
            "A name on its PATH, or a path from its root.",
            otherwise="the cluster's, else python3",
            examples=("/opt/train/venv/bin/python",),
        ),
        Key("ssh", _ALIAS, "What the ssh client knows it as", otherwise="its address", examples=("gpu2",)),
        Key("user", _USER, "User to log in as", otherwise="as your ssh_config says"),
        Key("port", _PORT, "Port of its sshd", otherwise="as your ssh_config says"),
        Key(
            "jump",
            Text("[user@]host[:port], several with commas between", pattern=f"{_JUMP}(,{_JUMP})*"),
            "Hosts to go through on the way, as ssh -J takes them",
            otherwise="as your ssh_config says",
            examples=("me@bastion.example.org",),
        ),
        Key(
            "ssh_options",
            MapOf(Text("the name of an ssh option", pattern=r"[A-Za-z][A-Za-z0-9]*"), _ARGUMENT),
            "Further options of the ssh client, as ssh_config names them",
            default={},
            examples=({"IdentityFile": "~/.ssh/cluster"},),
        ),
        Key("node", _ADDRESS, "What Slurm calls it", otherwise="its address", examples=("n17",)),
    )
)

JOBS = Object(
    (
        Key("chief", Integer(0, 1), "Chief beside the workers, 0 or 1; without one, worker 0 is chief", default=0),
        Key("evaluator", Integer(0, 1), "Evaluator beside the cluster, 0 or 1: TensorFlow knows one", default=0),
        Key("ps", Integer(0, MOST_TASKS), "Parameter servers; none for MultiWorkerMirroredStrategy", default=0),
    )
)

KEYS = (
    Key("$schema", _STRING, "Where an editor finds the schema of this file; tflaunch does not read it"),
    Key(
        "name",
        Text("1 to 100 of A-Z a-z 0-9 . _ -", pattern=r"[A-Za-z0-9._-]{1,100}"),
        "What the run is called, in its directory and its messages",
        otherwise="from script, module or program",
    ),
    Key(
        "script",
        _STRING,
        "Python script that every worker runs",
        f"Give at most one of script, module and command; the command line may name it instead. {_FROM_CWD}",
        excludes=("module", "command"),
        examples=("train.py",),
    ),
    Key(
        "module",
        Text("a module name, as python -m takes it", pattern=r"[^\s\u0000./-][^\s\u0000./]*(?:\.[^\s\u0000./]+)*"),
        "Python module that every worker runs, as python -m does",
        excludes=("command",),
        examples=("my_project.train",),
    ),
    Key(
        "command",
        ListOf(_ARGUMENT, least=1, first=_STRING, noun="a list that starts with a program"),
        "Any program that every worker runs, with its arguments",
        "No shell reads it.",
        excludes=("args",),
        examples=(["bash", "train.sh"],),
    ),
    Key(
        "args",
        ListOf(_ARGUMENT, noun="a list of strings"),
        "Arguments of the script or module",
        default=[],
        examples=(["--epochs", "10"],),
    ),
    Key(
        "workers",
        Integer(1, 1_000_000),
        "Workers in all",
        "Spread evenly over the hosts that do not give a number of their own.",
        otherwise="what the hosts give, else 1 each",
    ),
    Key(
        "hosts",
        ListOf(HOST, least=1, noun="a list of hosts"),
        "Hosts to run on",
        "Worker 0 is on the first.",
        otherwise="this machine",
    ),
    Key(
        "subnet",
        Text("a network such as 10.1.0.0/16", pattern=r"[0-9A-Fa-f:.]+/[0-9]{1,3}"),
        "Network whose addresses the tasks dial, where hosts are in several",
        otherwise="each host's address as it is given",
        examples=("10.1.0.0/16",),
    ),
    Key("engine", _STRING, "How the hosts are reached: local, ssh, slurm", otherwise="local, or ssh to other hosts"),
    Key("jobs", JOBS, "Tasks beside the workers"),
    Key(
        "python",
        _STRING,
        "Python interpreter of the workers",
        _FROM_HERE,
        otherwise="the one that runs tflaunch",
        examples=("venv/bin/python",),
    ),
    Key("cwd", _STRING, "Working directory of the workers", _FROM_HERE, otherwise="where tflaunch is run"),
    Key(
        "env",
        MapOf(_VARIABLE, _ARGUMENT),
        "Environment variables to set in every worker",
        "The values are kept with the run: forward secrets instead.",
        default={},
        examples=({"TF_CPP_MIN_LOG_LEVEL": "2"},),
    ),
    Key(
        "forward",
        ListOf(_VARIABLE, unique=True, noun="a list of names"),
        "Environment variables to pass on from where tflaunch is run",
        "Only the names are kept with the run, never the values.",
        default=[],
        examples=(["WANDB_API_KEY"],),
    ),
    Key(
        "ports",
        Either(
            (
                Text('two ports such as "20000-20100"', pattern=r"[0-9]{1,5}-[0-9]{1,5}"),
                ListOf(_PORT, least=2, most=2, noun="a list of two ports"),
            )
        ),
        "Ports that the workers may listen on, first and last",
        otherwise="any that is free",
        examples=("20000-20100", [20000, 20100]),
    ),
    Key("partition", Boolean(), "Give each task cores of its own, and as many threads", default=True),
    Key(
        "warm",
        Boolean(),
        "Import TensorFlow once for each host and fork the workers from that process",
        "For Python scripts and modules. The workers start in a fraction of the time, and share the memory of what they import.",
        otherwise="yes where it is right: several tasks on a host that will import TensorFlow anyway",
    ),
    Key("gpus_per_task", Integer(0, MOST_TASKS), "GPUs for each worker", otherwise="an even share of what there is"),
    Key(
        "private",
        Boolean(),
        "Close the cluster off in a network of its own",
        "Nobody else can reach the workers, who in turn cannot reach out. On this machine alone.",
        default=False,
    ),
    Key(
        "output",
        Choice(("all", "chief", "failed", "none")),
        "Whose output the console shows; the files have it all",
        default="all",
    ),
    Key("grace", Seconds(zero=True), "Seconds a worker has to end after SIGTERM, before SIGKILL", default=30),
    Key("timeout", Seconds(zero=False), "Seconds that the whole run may take", otherwise="no limit", examples=(3600,)),
    Key(
        "join_deadline",
        Seconds(zero=True),
        "Seconds until all tasks of the cluster must listen for their peers; 0 for never",
        "One that never does would be waited for without limit.",
        otherwise="180, and as many more as long as none of them listens",
        examples=(600,),
    ),
    Key(
        "hang_deadline",
        Seconds(zero=True),
        "Seconds without progress of any task after which the run counts as hung; 0 for never",
        "Progress is what tasks report; where none ever did, their output counts.",
        otherwise="600 once a task has reported progress, as tflaunch train does; else never",
        examples=(1800,),
    ),
    Key(
        "lease",
        Seconds(zero=True),
        "Seconds that workers go on while the connection to their host is lost; 0 for none",
        "Over ssh. What they say meanwhile is kept there, and comes when the connection is back.",
        default=60,
        examples=(300,),
    ),
    Key(
        "max_restarts",
        Integer(0, 1_000_000),
        "How often the cluster is started again after a failure",
        "All tasks, from the last checkpoint. Not after failures that a restart cannot help.",
        default=0,
    ),
    Key(
        "min_workers",
        Integer(1, 1_000_000),
        "Fewest workers to start again with, without the hosts that stay gone",
        "Each restart asks those hosts anew. The global batch stays as it is: the others share it.",
        otherwise="all workers, so that a host that stays gone ends the run",
        examples=(2,),
    ),
    Key(
        "backoff",
        Seconds(zero=True),
        "Seconds of the pause before the second restart, doubled for each further one",
        "The first is made at once. Up to half of each pause is left to chance.",
        default=1,
    ),
    Key(
        "forgive_after",
        Seconds(zero=True),
        "Seconds of progress after which restarts are counted anew",
        default=600,
    ),
    Key(
        "never_restart",
        ListOf(_ENDING, unique=True, noun="a list of exceptions and exit statuses"),
        "Exceptions, by name, and exit statuses that are no reason to start again",
        default=[],
        examples=(["ValueError", 3],),
    ),
    Key(
        "always_restart",
        ListOf(_ENDING, unique=True, noun="a list of exceptions and exit statuses"),
        "Exceptions, by name, and exit statuses that always are, up to max_restarts",
        default=[],
        examples=(["OSError", 75],),
    ),
    Key(
        "sync",
        Either((Boolean(), ListOf(_GLOB, least=1, noun="a list of globs"))),
        "Copy the working tree to the other hosts: true, or which files of it",
        "True means those that git tracks or would track, and without git all but hidden ones. Workers then run in the copy.",
        default=False,
        examples=(True, ["*.py", "configs/**"]),
    ),
    Key(
        "fetch",
        ListOf(_GLOB, noun="a list of globs"),
        "Files to bring back from the chief's host when the run is over",
        "Below the working directory there, and to the same place here.",
        default=[],
        examples=(["checkpoints", "exports/**"],),
    ),
    Key("run_dir", _STRING, "Directory under which each run gets one of its own", _FROM_HERE, default="runs"),
    Key(
        "checkpoint_dir",
        _STRING,
        "Directory for checkpoints, told to the workers in TFLAUNCH_CHECKPOINT_DIR",
        f"With several hosts, one that they share. {_FROM_CWD}",
        otherwise="the script's own choice",
    ),
    Key("slurm", SLURM, "What to ask of Slurm", "For tflaunch submit, which writes the job, and for run within it."),
)

TASK = Key("task", _STRING, "Training of our own", excludes=COMMANDS[:3])
FUNCTION = Key("function", _STRING, "File with a pickled function", excludes=COMMANDS[:4])

FILE = Object(KEYS)
FLAGS = Object((*KEYS, TASK, FUNCTION))


def check(values: Mapping[str, object], *, flags: bool) -> list[Flaw]:
    """Everything that is wrong with the settings of one source, each on its own and taken together.

    Args:
        values: by key, as in cluster.json.
        flags: whether the source is the command line, which also knows the key ``task``.
    """
    found = list(flaws(FLAGS if flags else FILE, dict(values)))
    return [*found, *rules(sound(values, found))]


def sound(values: Mapping[str, object], found: list[Flaw]) -> dict[str, Any]:
    """The values without those that a flaw was found in; what is left has the types that the table says."""
    broken = {flaw.path[0] for flaw in found}
    return {name: value for name, value in values.items() if name not in broken}


def rules(values: Mapping[str, Any]) -> Iterator[Flaw]:
    """Yield where values that are sound each by itself do not go together."""
    yield from _hosts_once(values.get("hosts", ()))
    yield from _workers_add_up(values)
    if "subnet" in values:
        yield from _is_network(values["subnet"])
    if "ports" in values:
        yield from _ports_in_order(*port_range(values["ports"]))
    for index, name in enumerate(values.get("forward", ())):
        if name in values.get("env", {}):
            yield Flaw(("forward", index), f"{name} is also in env", "set it or forward it")


def is_this_machine(address: str) -> bool:
    """Whether the address is one that every machine has for itself."""
    return address in {"localhost", "127.0.0.1", "::1"}


def port_range(value: str | list[int]) -> tuple[int, int]:
    """First and last port of ``"20000-20100"`` or of a pair."""
    first, last = value.split("-") if isinstance(value, str) else value
    return int(first), int(last)


def _hosts_once(hosts: list[dict[str, Any]]) -> Iterator[Flaw]:
    seen: dict[str, int] = {}
    for index, host in enumerate(hosts):
        address = host["address"]
        machine = "localhost" if is_this_machine(address) else address.lower()
        if machine in seen:
            message = f"{address} is the same host as hosts[{seen[machine]}]"
            yield Flaw(("hosts", index, "address"), message, "add its workers to that one")
        seen.setdefault(machine, index)


def _workers_add_up(values: Mapping[str, Any]) -> Iterator[Flaw]:
    given = [host["workers"] for host in values.get("hosts", ()) if "workers" in host]
    workers = values.get("workers")
    if workers is None or not given:
        return
    if sum(given) > workers or (len(given) == len(values["hosts"]) and sum(given) < workers):
        message = f"is {workers}, but the workers of the hosts add up to {sum(given)}"
        yield Flaw(("workers",), message, "leave one of the two out")


def _is_network(value: str) -> Iterator[Flaw]:
    import ipaddress

    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        yield Flaw(("subnet",), f"must be a network such as 10.1.0.0/16, got {value}")


def _ports_in_order(first: int, last: int) -> Iterator[Flaw]:
    for port in (first, last):
        for flaw in flaws(_PORT, port):
            yield flaw.below("ports")
    if first > last:
        yield Flaw(("ports",), f"run backwards, from {first} to {last}", f'write "{last}-{first}"')
