"""The commands by name; a command's module is imported when it is the one that was called."""

from __future__ import annotations

import click

from launcher.version import __version__

_COMMANDS = {
    "run": "Run a script, a module or any command as a cluster.",
    "train": "Run one of the trainings that come with tflaunch.",
    "submit": "Have Slurm run it: write the job, and submit it.",
    "check": "Check whether hosts are ready for a run, and reach each other.",
    "plan": "Show what run would do, and start nothing.",
    "ps": "List the runs, and how each stands.",
    "status": "Say how a run stands: its tasks, and how far it is.",
    "attach": "Show what a run prints, until it ends or you leave.",
    "logs": "Show what the tasks of a run have written.",
    "stop": "Have a run end, and wait until it has.",
    "stacks": "Say where every worker of a run is, now.",
    "explain": "Say what a TF_CONFIG means, and what is wrong with it.",
    "init": "Write a cluster.json to start from.",
    "schema": "Print the JSON Schema of cluster.json.",
}


class _Commands(click.Group):
    """Imports a command's module only when it is the one: each costs time that every worker would wait for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        import importlib

        command: click.Command = getattr(importlib.import_module(f"launcher.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tflaunch")
def tflaunch() -> None:
    """Turn -n 4, or a list of hosts, into a running, supervised TensorFlow cluster."""
