"""The script that every Python child is started with: `python start.py [MODULE [FOLDER]]`.

It makes this package importable as `flexcore_far` whatever the child's environment says, and then leaves one entry of
ours at the head of the path: the folder, or the one of the package. Who runs user code takes that away. Without a
module it runs the program of a step far away.
"""

import importlib
import os
import sys

if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 (pathlib is slow to import)
    sys.path[0] = os.path.dirname(here)  # noqa: PTH120 (as above)
    importlib.import_module("flexcore_far")
    if len(sys.argv) > 2:
        sys.path[0] = sys.argv[2]
    sys.exit(importlib.import_module(sys.argv[1] if len(sys.argv) > 1 else "flexcore_far.main").main())
