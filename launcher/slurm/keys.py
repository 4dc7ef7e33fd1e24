"""The key ``slurm`` of cluster.json: what to ask of Slurm, in its own terms. Source: sbatch(1)."""

from __future__ import annotations

from launcher.schema import MOST_TASKS, Boolean, Integer, Key, ListOf, Object, Text

_WORD = Text("a word without blanks", pattern=r"[^\s\u0000]+")

SLURM = Object(
    (
        Key("nodes", Integer(1, MOST_TASKS), "Nodes", otherwise="as many as the workers need", examples=(2,)),
        Key("partition", _WORD, "Partition", examples=("gpu",)),
        Key("account", _WORD, "Account to charge", examples=("astro",)),
        Key("qos", _WORD, "Quality of service", examples=("long",)),
        Key(
            "time",
            Text(
                'minutes, or "hours:minutes:seconds", or "days-hours"',
                pattern=r"\d+(:[0-5]?\d(:[0-5]?\d)?)?|\d+-\d+(:[0-5]?\d){0,2}",
            ),
            "Time limit of the job",
            examples=("04:00:00", "2-00"),
        ),
        Key("cpus_per_task", Integer(1, MOST_TASKS), "Cores for each worker", examples=(8,)),
        Key(
            "gpus_per_node",
            Text("a count, or type:count", pattern=r"([A-Za-z0-9_.-]+:)?\d+"),
            "GPUs on each node",
            examples=("4", "a100:4"),
        ),
        Key(
            "mem",
            Text("a size such as 64G", pattern=r"\d+[KMGTkmgt]?"),
            "Memory on each node, in MiB unless it says so",
            examples=("64G",),
        ),
        Key("constraint", _WORD, "Features that the nodes must have", examples=("a100&nvlink",)),
        Key(
            "array",
            Text("numbers such as 0-9, or 1,3,5%2", pattern=r"[0-9,:%-]+"),
            "Numbers of an array of jobs, each a run of its own",
            "Each has a directory of its own, and its number in SLURM_ARRAY_TASK_ID.",
            examples=("0-9%2",),
        ),
        Key("dependency", _WORD, "Jobs to wait for", examples=("afterok:1234",)),
        Key(
            "warning",
            Integer(1, 65_535),
            "Seconds before the time limit at which all workers save their work, and end",
            default=120,
        ),
        Key(
            "requeue",
            Boolean(),
            "Queue the job again when its time is over, or Slurm has preempted it",
            "It goes on from the last checkpoint, in the same directory.",
            default=False,
        ),
        Key(
            "until_done",
            Boolean(),
            "Submit another job for the rest when the time is over, until all is done",
            "In the same directory; for where a job may not be queued again, or loses its place by that.",
            default=False,
            excludes=("requeue", "array"),
        ),
        Key(
            "options",
            ListOf(Text("an option of sbatch such as --exclusive", pattern=r"-[^\u0000\n]+"), noun="a list of options"),
            "Further options of sbatch",
            default=[],
            examples=(["--exclusive", "--mail-type=END"],),
        ),
    )
)
