"""plan.py HOSTS WORKERS: what a cluster of so many hosts, with so many workers on each, costs without a single process.

Prints on a line the seconds of its plan and of what its supervisor does from the first start to the verdict, and the MB in memory.
"""

import gc
import resource
import sys
import time

from launcher import events, placement, plan
from launcher.cli.main import NEW_OBJECTS
from launcher.layers import Layer, build
from launcher.supervisor import Supervisor


def planned(hosts: int, workers: int) -> plan.Plan:
    addresses = [{"address": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"} for number in range(hosts)]
    config = build(Layer("cluster.json", {"command": ["true"], "hosts": addresses, "workers": hosts * workers}))
    there = [placement.found(host, None) for host in config.hosts]
    tasks = placement.place(config, there)
    ports = {task.number: 20_000 + task.number % workers for task in tasks}
    return plan.make(config, tasks, there, "python", {}, run="plan", ports=ports)


def judged(whole: plan.Plan) -> str:
    """All start, make a step and end; the last one fails."""
    supervisor = Supervisor(whole)
    supervisor.start()
    last = len(whole.tasks) - 1
    for number in range(len(whole.tasks)):
        supervisor.handle(events.TaskStarted(number, number + 1), 0.0)
    for number in range(len(whole.tasks)):
        supervisor.handle(events.TaskReport(number, {"kind": "progress", "step": 1}), 1.0)
    for number in range(len(whole.tasks)):
        ended = events.TaskExited(number, int(number == last), None, False, False, (), 0, 2.0)
        supervisor.handle(ended, 2.0)
        _ = supervisor.finished
    return supervisor.verdict().reason


gc.set_threshold(NEW_OBJECTS)  # as the launcher has it
count, each = map(int, sys.argv[1:3])
started = time.monotonic()
made = planned(count, each)
# What each task is told is put together for each alone, as the launcher does before it is sent.
told = len(made.launches[-1].tf_config)
between = time.monotonic()
if judged(made) != "exited with status 1":
    raise SystemExit("another verdict")
print(
    between - started, time.monotonic() - between, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, told / 1e3
)
