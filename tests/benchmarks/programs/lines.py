"""lines.py REGISTER GATE COUNT LENGTH: writes that many lines, in large pieces whatever PYTHONUNBUFFERED says.

It tells its process id, and begins once the gate is open.
"""

import os
import sys
from pathlib import Path

register, gate = sys.argv[1:3]
count, length = map(int, sys.argv[3:5])
line = b"x" * (length - 2) + b"~\n"

with Path(gate).open("rb") as opened:
    with Path(register).open("w") as file:
        file.write(f"{os.getpid()}\n")
    opened.read()
with open(1, "wb", buffering=1 << 16, closefd=False) as out:
    out.writelines(line for _ in range(count))
