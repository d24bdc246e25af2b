"""The runtime of the guide passes the kit, by the lines that the guide gives for it."""

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from flexcore.testing.runtime_suite import CHECKS, Check

PAGE = Path(__file__).parents[2] / "docs" / "write-a-runtime.md"
RUNTIME, TEST, _ = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def loaded(name: str, text: str) -> ModuleType:
    """Make a module of a block of the page."""
    module = ModuleType(name)
    exec(compile(text, f"{PAGE.name}: {name}", "exec"), module.__dict__)
    return module


@pytest.fixture(scope="module")
def guide() -> Any:
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "shell_runtime", loaded("shell_runtime", RUNTIME))
        yield loaded("test_shell_runtime", TEST)


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_the_example_passes(check: Check, guide: Any, tmp_path: Path) -> None:
    await guide.test_runtime(check, tmp_path)
