"""The file that a Python worker is started with: ``PYTHON start.py SCRIPT | -m MODULE | --trainer TASK [ARGS...]``.

All it does is run ``boot.py`` from its compiled form. Python caches that for what is imported, never for the file it is
started with, and compiling boot.py would cost every worker 2 ms.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036
    # This file alone is readable for an older one, so it has to say it.
    sys.exit("tflaunch: workers need Python 3.11 or later, not " + sys.version.split()[0] + ": " + sys.executable)

# Each module has a __loader__, though mypy knows of none.
loader = type(__loader__)("_tflaunch_boot", __file__[: -len("start.py")] + "boot.py")  # type: ignore[name-defined]
boot = type(sys)("_tflaunch_boot")
boot.__file__, boot.__loader__ = loader.path, loader
sys.modules[boot.__name__] = boot
exec(loader.get_code(boot.__name__), vars(boot))  # noqa: S102 - our own file
boot.main()
