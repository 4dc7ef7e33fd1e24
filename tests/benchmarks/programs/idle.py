"""idle.py FIFO: tells its process id, then sleeps until it is told to end."""

import os
import signal
import sys
from pathlib import Path

with Path(sys.argv[1]).open("w") as register:
    register.write(f"{os.getpid()}\n")
signal.pause()
