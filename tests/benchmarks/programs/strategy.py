"""strategy.py FIFO PORT...: builds the strategy as one of as many workers, tells its process id, and sleeps.

Without a TF_CONFIG it takes the first place that no other copy has taken yet.
"""

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import tensorflow as tf

register, *ports = sys.argv[1:]


def place() -> int:
    for index in range(len(ports)):
        with suppress(FileExistsError):
            Path(f"place-{index}").mkdir()
            return index
    raise SystemExit("more copies than ports")


if "TF_CONFIG" not in os.environ:
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": place()}})
strategy = tf.distribute.MultiWorkerMirroredStrategy()
with Path(register).open("w") as file:
    file.write(f"{os.getpid()}\n")
signal.pause()
