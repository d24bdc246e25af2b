"""Runs a `python` step: loads its code, calls `main(**args)`, writes what it returns.

Runs in a child process, under the user's interpreter, standard library only, no newer than Python 3.8. The step's code
sees its own folder first on the path, ordinary packages after it, and nothing of ours.
"""

from __future__ import annotations

import linecache
import os
import sys
import traceback
import types
from typing import Any

from . import runner


def main() -> int:
    """Run the step and say the exit code."""
    failure = os.environ.pop(runner.FAILURE)
    order = runner.read_order()
    name, code = order["name"], order["code"]
    sys.path[0:1] = [os.path.dirname(name), os.getcwd()] if order["is_file"] else [os.getcwd()]  # noqa: PTH109, PTH120 (slow import)
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    try:
        value = _call(_load(name, code), order["args"], order.get("offered", {}))
        return _finish(value)
    except SystemExit as request:
        return _exit(request, failure)
    except runner.Unsuitable as error:
        return runner.fail(failure, str(error), name="InvalidResult")
    except BaseException as error:  # noqa: BLE001, RUF100 (whatever the step raised is its outcome)
        return _report(error, failure)


def _load(name: str, code: str) -> types.ModuleType:
    module = types.ModuleType("flexcore_step")
    module.__file__ = name
    sys.modules[module.__name__] = module
    exec(compile(code, name, "exec"), module.__dict__)  # noqa: S102 (running the step's code is the purpose)
    return module


def _call(module: types.ModuleType, args: dict[str, Any], offered: dict[str, str]) -> object:
    function = getattr(module, "main", None)
    if not callable(function):
        raise AttributeError("the script defines no function `main`; its return value would be the result")
    value = function(**args, **_wanted(function, offered))
    if hasattr(value, "__await__"):
        import asyncio  # only for steps that are async

        async def wait() -> object:
            return await value

        return asyncio.run(wait())
    return value


def _wanted(function: Any, offered: dict[str, str]) -> dict[str, str]:
    """Choose what the function asks for by name: the paths of outputs are given only to who wants them."""
    if not offered:
        return {}
    import inspect  # only for steps with outputs

    names = inspect.signature(function).parameters
    return {name: path for name, path in offered.items() if name in names}


def _finish(value: object) -> int:
    if value is None and os.path.exists(os.environ[runner.RESULT]):  # noqa: PTH110 (slow import)
        return 0  # the step wrote its result by itself
    return runner.succeed(runner.encode(value))


def _exit(request: SystemExit, failure: str) -> int:
    if request.code is None or request.code == 0:
        return _finish(None)
    if isinstance(request.code, int):
        return request.code
    print(request.code, file=sys.stderr)  # noqa: T201 (what Python itself does)
    return runner.fail(failure, str(request.code), name="SystemExit")


def _report(error: BaseException, failure: str) -> int:
    """Show the author's frames only: ours say nothing to anybody."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    traceback.print_exception(type(error), error, frames)
    error_class = "oom" if isinstance(error, MemoryError) else "user"
    message = str(error) or ("out of memory" if error_class == "oom" else type(error).__name__)
    return runner.fail(failure, message, name=type(error).__name__, error_class=error_class)
