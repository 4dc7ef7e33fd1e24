"""The keys of cluster.json: the one table that the parser, ``tflaunch schema`` and ``tflaunch init`` all read.

What a single value may be stands in the table; what several values of one source must keep to stands in ``rules.py``.
"""

from __future__ import annotations

from launcher.host_keys import HOST, PORT
from launcher.schema import MOST_TASKS, Boolean, Choice, Either, Integer, Key, ListOf, MapOf, Object, Seconds, Text
from launcher.slurm.keys import SLURM

COMMANDS = ("script", "module", "command", "task", "function")
"""The keys that name what the workers run; one of them is needed."""

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
_GLOB = Text("a path below the working directory, ** for any folders", pattern=r"(?!/)(?!(.*/)?\.\.(/|$)).+")
_ENDING = Either(
    (Integer(1, 255), Text("the name of an exception or an exit status", pattern=r"[A-Za-z_][A-Za-z0-9_]*"))
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
                ListOf(PORT, least=2, most=2, noun="a list of two ports"),
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
        "For Python scripts and modules. The workers start in a fraction of the time, and share the memory of what they import. "
        "Where many that do not import it share a core, Python alone is started once for all of them.",
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
