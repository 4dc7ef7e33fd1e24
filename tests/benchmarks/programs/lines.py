"""lines.py COUNT: writes that many lines of 100 bytes, in large pieces whatever PYTHONUNBUFFERED says."""

import sys

LINE = b"x" * 98 + b"~\n"

with open(1, "wb", buffering=1 << 16, closefd=False) as out:
    out.writelines(LINE for _ in range(int(sys.argv[1])))
