"""The script that every Python child is started with: `python child.py MODULE`.

It makes `flexcore_local` importable whatever the child's environment says. It must stay importable by the oldest
Python that a user may set for `python` steps, so: nothing newer than 3.8 here and in the runners of user code.
"""

import importlib
import os
import sys

if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 (pathlib is slow to import)
    sys.path[0] = os.path.dirname(here)  # noqa: PTH120 (as above); a runner takes this entry away before user code
    sys.exit(importlib.import_module(sys.argv[1]).main())
