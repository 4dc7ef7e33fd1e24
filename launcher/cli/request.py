"""The options that ``run`` and ``train`` share, with ``plan`` or not, and the layers of a configuration that they make."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from launcher.layers import Layer, read_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

COMMAND_LINE = "command line"

_HERE: tuple[Callable[[Any], Any], ...] = (
    click.option("--engine", metavar="NAME", help="How hosts are reached: local, ssh, slurm. Default: as hosts need."),
    click.option("--partition/--no-partition", default=None, help="Share out the cores, or leave them alone."),
)
_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("-n", "--workers", type=int, metavar="N", help="Workers in all. Default: 1, or as the file says."),
    click.option("--chief", type=int, metavar="N", help="1: a chief of its own, beside the workers."),
    click.option("--evaluator", type=int, metavar="N", help="1: an evaluator, outside the collective."),
    click.option("--ps", type=int, metavar="N", help="Parameter servers."),
    click.option("--name", help="What to call the run. Default: after the script."),
    click.option("--python", metavar="PATH", help="Interpreter of the workers. Default: the launcher's."),
    click.option("--cwd", metavar="DIR", help="Working directory of the workers."),
    click.option("-e", "--env", multiple=True, metavar="K=V|K", help="Set a variable, or forward it by its name."),
    click.option("--subnet", metavar="NET", help="Network whose addresses the tasks dial. Default: the hosts' own."),
    click.option("--ports", metavar="LOW-HIGH", help="Lease ports from this range. Default: any that are free."),
    click.option("--warm/--cold", default=None, help="Import TensorFlow once a host and fork the workers, or not."),
    click.option("--gpus-per-task", type=int, metavar="N", help="GPUs for each task. Default: an even share."),
    click.option("--private/--no-private", default=None, help="A network of its own, which nobody else can reach."),
    click.option("--output", metavar="all|chief|failed|none", help="Whose lines to show. Default: all."),
    click.option("--grace", type=float, metavar="S", help="Seconds from SIGTERM to SIGKILL. Default: 30."),
    click.option("--timeout", type=float, metavar="S", help="Seconds the whole run may take."),
    click.option("--join-deadline", type=float, metavar="S", help="Seconds until all tasks must listen. Default: 180."),
    click.option(
        "--hang-deadline", type=float, metavar="S", help="Seconds without progress. Default: 600 if any is told."
    ),
    click.option("--lease", type=float, metavar="S", help="Seconds a host may be out of reach. Default: 60."),
    click.option("--max-restarts", type=int, metavar="N", help="Start again after failures, so often. Default: 0."),
    click.option("--min-workers", type=int, metavar="M", help="Restart with as few, without hosts that stay gone."),
    click.option("--sync/--no-sync", default=None, help="Copy the working tree to the other hosts, or not."),
    click.option("--fetch", multiple=True, metavar="GLOB", help="Bring files back from the chief's host at the end."),
    click.option("--run-dir", metavar="DIR", help="Where runs are kept. Default: runs."),
    click.option("--checkpoint-dir", metavar="DIR", help="Told to the workers as TFLAUNCH_CHECKPOINT_DIR."),
)
_SLURM_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "-N", "--nodes", "slurm_nodes", type=int, metavar="N", help="Nodes. Default: as many as the workers need."
    ),
    click.option("-p", "--partition", "slurm_partition", metavar="NAME", help="Partition."),
    click.option("-A", "--account", "slurm_account", metavar="NAME", help="Account to charge."),
    click.option("-q", "--qos", "slurm_qos", metavar="NAME", help="Quality of service."),
    click.option("-t", "--time", "slurm_time", metavar="TIME", help="Time limit: minutes, h:m:s, or days-hours."),
    click.option("-c", "--cpus-per-task", "slurm_cpus_per_task", type=int, metavar="N", help="Cores for each worker."),
    click.option("--gpus-per-node", "slurm_gpus_per_node", metavar="[TYPE:]N", help="GPUs on each node."),
    click.option("--mem", "slurm_mem", metavar="SIZE", help="Memory on each node, such as 64G."),
    click.option("-C", "--constraint", "slurm_constraint", metavar="LIST", help="Features that the nodes must have."),
    click.option(
        "-a", "--array", "slurm_array", metavar="LIST", help="A job for each of these numbers, each a run of its own."
    ),
    click.option("-d", "--dependency", "slurm_dependency", metavar="LIST", help="Jobs to wait for."),
    click.option(
        "--warning",
        "slurm_warning",
        type=int,
        metavar="S",
        help="Seconds before the limit to save all work at. Default: 120.",
    ),
    click.option("-o", "--option", "slurm_options", multiple=True, metavar="OPT", help="A further option of sbatch."),
)
requeue = click.option(
    "--requeue",
    "slurm_requeue",
    is_flag=True,
    default=None,
    help="On Slurm: queue the job again when its time is over.",
)
until_done = click.option(
    "--until-done",
    "slurm_until_done",
    is_flag=True,
    default=None,
    help="On Slurm: submit another job for the rest, until all is done.",
)
into = click.option("--into", metavar="DIR", help="Keep the run in DIR, and go on with one that is there.")
detach = click.option("--detach", is_flag=True, help="Go on in the background once the workers are started.")
_FLAGS = {"workers": "-n"}
# What the names of Slurm's own options begin with here: --partition means something else elsewhere.
_SLURM = "slurm_"
_JOBS = ("chief", "evaluator", "ps")


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the shared options to a click command."""
    return _with(command, *_HERE, *_OPTIONS)


def submit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add those that a run in a job has, and what is asked of Slurm, whose --partition is another one."""
    return _with(command, *_OPTIONS, *_SLURM_OPTIONS, requeue, until_done)


def _with(command: Callable[..., Any], *options: Callable[[Any], Any]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command


class RequestCommand(click.Command):
    """Parses ``[cluster.json] [options] [script args | -m module args | -- command args]``.

    Options end where the script begins: everything after it is the script's. click does not tell a script from a
    command behind ``--``, so this looks at what it left over.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Split the command line; the parts are left in ``ctx.meta``."""
        ctx.allow_interspersed_args = False
        rest, before = self._rest(ctx, args), args
        if rest and rest[0].endswith(".json") and not self._behind_dashes(args, rest):
            ctx.meta["file"] = rest[0]
            before = [*args[: len(args) - len(rest)], *rest[1:]]
            rest = self._rest(ctx, before)
        if rest:
            ctx.meta["dashes"] = self._behind_dashes(before, rest)
        ctx.meta["command"] = rest
        super().parse_args(ctx, before[: len(before) - len(rest)])
        return []

    def _rest(self, ctx: click.Context, args: Sequence[str]) -> list[str]:
        return self.make_parser(ctx).parse_args(args=list(args))[1]

    @staticmethod
    def _behind_dashes(args: Sequence[str], rest: Sequence[str]) -> bool:
        return len(args) > len(rest) and args[len(args) - len(rest) - 1] == "--"


def layers(command: dict[str, Any], file: str | None, **given: Any) -> tuple[Layer, ...]:
    """The file, if one was named, and the flags to lay over it.

    Args:
        command: what to run, under the keys of cluster.json; empty leaves it to the file.
        given: the shared options as click hands them over; None and () stand for "not given".
    """
    values = {name: value for name, value in given.items() if value is not None and value != ()}
    origins = {name: _FLAGS.get(name, "--" + name.replace("_", "-")) for name in values}
    if jobs := {name: values.pop(name) for name in _JOBS if name in values}:
        values["jobs"] = jobs
        origins |= {f"jobs.{name}": f"--{name}" for name in jobs}
    for name in [name for name in values if name.startswith(_SLURM)]:
        key, value = name.removeprefix(_SLURM), values.pop(name)
        values["slurm"] = {**values.get("slurm", {}), key: value}
        origins[f"slurm.{key}"] = "--option" if key == "options" else "--" + key.replace("_", "-")
        del origins[name]
    _split_environment(values, origins)
    origins |= dict.fromkeys(command, COMMAND_LINE)
    flags = Layer(COMMAND_LINE, {**values, **command}, origins)
    return (flags,) if file is None else (read_file(Path(file)), flags)


def _split_environment(values: dict[str, Any], origins: dict[str, str]) -> None:
    entries = values.pop("env", ())
    settings = dict(entry.split("=", 1) for entry in entries if "=" in entry)
    names = list(dict.fromkeys(entry for entry in entries if "=" not in entry))
    for key, found in (("env", settings), ("forward", names)):
        if found:
            values[key] = found
            origins[key] = "--env"


def command_of(ctx: click.Context, *, module: bool) -> dict[str, Any]:
    """What the command line names to run, under the keys of cluster.json; empty when it names nothing."""
    match ctx.meta["command"]:
        case []:
            if module:
                raise click.UsageError("-m needs the name of a module", ctx)
            return {}
        case words if ctx.meta["dashes"] and not module:
            return {"command": words}
        case [first, *args]:
            return {"module" if module else "script": first, **({"args": args} if args else {})}
    return {}
