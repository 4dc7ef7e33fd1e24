"""strategy.py FIFO: builds the strategy as the worker that TF_CONFIG says, tells its process id, and sleeps."""

import os
import signal
import sys
from pathlib import Path

import tensorflow as tf

strategy = tf.distribute.MultiWorkerMirroredStrategy()
with Path(sys.argv[1]).open("w") as file:
    file.write(f"{os.getpid()}\n")
signal.pause()
