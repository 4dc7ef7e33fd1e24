"""prints.py COUNT: prints that many lines of 100 bytes, as most programs would."""

import sys

LINE = "x" * 98 + "~"

for _ in range(int(sys.argv[1])):
    print(LINE)
