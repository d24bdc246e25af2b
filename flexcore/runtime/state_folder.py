"""Whether a runtime that keeps its attempts in a folder of this machine can work there. It leaves nothing behind."""

import os
from pathlib import Path


def problem_with(folder: Path) -> str:
    """Make a state folder if it is not there, and say why it cannot be used; "" when it can."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        return f"the state folder cannot be made: {error}"
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"the state folder {folder} cannot be written"
