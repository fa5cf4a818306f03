"""Run a script that imports `pytorch3d`, unmodified: python -m unrender.compat.pytorch3d SCRIPT.py [args]."""

import os
import runpy
import sys
from pathlib import Path

from unrender.compat.pytorch3d._names import install

USAGE = "usage: python -m unrender.compat.pytorch3d SCRIPT.py [args]"


def main(arguments: list[str]) -> int:
    """Run the script as `python SCRIPT` would; return 2 if it does not exist."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__ if arguments else USAGE, file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    script = Path(arguments[0])
    if not script.is_file():
        print(f"{script}: no such file\n{USAGE}", file=sys.stderr)
        return 2
    install()
    sys.argv = [str(script), *arguments[1:]]
    sys.path[0] = str(script.resolve().parent)
    runpy.run_path(str(script), run_name="__main__")
    return 0


if __name__ == "__main__":
    # read when torch is loaded and first allocates: short waits between threads, and huge pages, with which large
    # tensors are allocated several times faster
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    sys.exit(main(sys.argv[1:]))
