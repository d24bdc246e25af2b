"""The workloads, each on an installation that is open already: steps are `function` calls that do nothing.

Every step is durable with synchronous=FULL before the next one starts; nothing is left out for the benchmark.
"""

import asyncio
import gc
import resource
import time
from pathlib import Path

from flexcore.bootstrap import Installation
from flexcore.model.requests import Bundle, StartRequest

HERE = Path(__file__).parent


def chain(steps: int) -> str:
    """Write a workflow of steps in sequence."""
    lines = [
        f'  - {{id: s{index}, type: function, with: {{name: "tasks:nothing", args: {{n: {index}}}}}}}'
        for index in range(steps)
    ]
    return "\n".join([f"name: chain_{steps}", "steps:", *lines, ""])


def fan(width: int) -> str:
    """Write a workflow of parallel steps and a join."""
    return f"""\
name: fan_{width}
inputs: {{type: object, properties: {{items: {{type: array}}}}}}
steps:
  - id: each
    type: foreach
    items: ${{{{ input.items }}}}
    parallelism: {width}
    steps:
      - {{id: work, type: function, with: {{name: "tasks:nothing", args: {{n: "${{{{ iter.value }}}}"}}}}}}
  - {{id: join, type: function, with: {{name: "tasks:nothing"}}}}
"""


async def deploy(installation: Installation, text: str) -> str:
    """Store a workflow; give its name."""
    files = {"tasks.py": (HERE / "tasks.py").read_bytes()}
    bundle = Bundle(text=text, file_name="workflow.yaml", files=files)
    return str((await installation.control_plane.deploy(bundle))["name"])


async def execute(installation: Installation, name: str, value: object = None) -> None:
    """Start an execution and wait for its result."""
    started = await installation.control_plane.start(StartRequest(workflow=name, input=value))  # type: ignore[arg-type]  # JSON
    state = await installation.engine.wait(started.id)
    if state is not None and state.header.status.value != "succeeded":
        raise RuntimeError(f"{name}: {state.header.failure}")


async def latencies(installation: Installation, name: str, count: int) -> list[float]:
    """Measure start call to result, one after the other, in seconds."""
    found = []
    for _ in range(count):
        begun = time.perf_counter()
        await execute(installation, name)
        found.append(time.perf_counter() - begun)
    return found


async def throughput(installation: Installation, name: str, executions: int, at_a_time: int) -> float:
    """Measure many executions, some at a time; give seconds for all."""
    gate = asyncio.Semaphore(at_a_time)

    async def one() -> None:
        async with gate:
            await execute(installation, name)

    gc.collect()
    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(executions):
            group.create_task(one())
    return time.perf_counter() - begun


async def fan_out(installation: Installation, name: str, width: int) -> float:
    """Measure one execution with many parallel steps; give seconds."""
    begun = time.perf_counter()
    await execute(installation, name, {"items": list(range(width))})
    return time.perf_counter() - begun


def memory_bytes() -> int:
    """Give the peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
