"""prints.py REGISTER GATE COUNT LENGTH RATE: prints that many lines of so many bytes, as most programs would.

It tells its process id, and begins once the gate is open. With a rate it prints so many lines a second, by the clock;
with 0 it prints as fast as it can.
"""

import os
import sys
import time
from pathlib import Path

register, gate = sys.argv[1:3]
count, length, rate = map(int, sys.argv[3:6])
line = "x" * (length - 2) + "~"

with Path(gate).open("rb") as opened:
    with Path(register).open("w") as file:
        file.write(f"{os.getpid()}\n")
    opened.read()
start = time.monotonic()
printed = 0
while printed < count:
    due = min(count, int((time.monotonic() - start) * rate)) if rate else count
    for _ in range(due - printed):
        print(line)
    printed = due
    if rate:
        time.sleep(1 / rate)
