"""The local runtime: this machine's processes and functions behind the four verbs."""

import asyncio
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

from flexcore.model.ids import external_name
from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import (
    AttemptScope,
    Capabilities,
    CleanupReport,
    CleanupScope,
    ExecutionEvent,
    ExecutionRequest,
    ExecutionScope,
    Health,
    HealthStatus,
    Resources,
    Survey,
)
from flexcore.runtime.plugin import RuntimeContext
from flexcore.runtime.state_folder import problem_with
from flexcore_local.attempts import ProcessAttempts
from flexcore_local.config import LocalConfig
from flexcore_local.environments import Environments
from flexcore_local.function_client import FUNCTION
from flexcore_local.functions import FunctionCalls
from flexcore_local.preparation import environments_folder, find_uv

KINDS = frozenset({StepKind.PYTHON, StepKind.BASH, StepKind.HTTP, StepKind.SQL, StepKind.FUNCTION})


class LocalRuntime:
    """Runs steps on this machine."""

    def __init__(self, name: str, config: LocalConfig, context: RuntimeContext) -> None:
        self.name = name
        self._config = config
        self._context = context
        self._slots = config.slots or len(os.sched_getaffinity(0))
        self._processes = ProcessAttempts(config, context, self._slots)
        self._functions = FunctionCalls(config, context)
        self._versions: dict[str, str] = {}

    def execute(self, request: ExecutionRequest) -> AsyncGenerator[ExecutionEvent, None]:
        """Run a step as a process of its own, or a function in the host."""
        if request.kind is StepKind.FUNCTION:
            return self._functions.execute(request)
        return self._processes.execute(request)

    async def health(self) -> HealthStatus:
        """Up where there are /proc and a folder to write to."""
        state, reason = Health.UP, f"{self._slots} processes at a time on {platform.machine()} {sys.platform}"
        problem = await asyncio.to_thread(_problem, self._context.state_folder)
        if problem:
            state, reason = Health.DOWN, problem
        return HealthStatus(
            state=state,
            reason=reason,
            checked_at=self._context.now(),
            start_latency=self._processes.start_latency,
        )

    async def capabilities(self) -> Capabilities:
        """This machine's size, and which parts of a limit are kept how."""
        if not self._versions:
            self._versions = await asyncio.to_thread(_versions)
        return Capabilities(
            step_kinds=KINDS,
            limits=Resources(
                cpu=float(len(os.sched_getaffinity(0))),
                memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
                gpu=0.0,
                slots=self._slots,
            ),
            data_stores=frozenset({"file", "s3"}),
            versions=self._versions,
        )

    async def cleanup(self, scope: CleanupScope) -> CleanupReport:
        """End what is in the scope, wait for it, and remove what it left."""
        match scope:
            case AttemptScope():
                return await self._end_attempt(scope)
            case ExecutionScope():
                await self._functions.end_all(scope.execution, scope.grace)
                return await self._processes.end_all(scope.execution, scope.grace)
            case Survey():
                return await asyncio.to_thread(self._survey, scope.installation)

    async def close(self) -> None:
        """End the function hosts at once instead of with this process. Processes go on."""
        self._functions.close()

    def _survey(self, installation: str) -> CleanupReport:
        """List the attempts. Whoever asks is tidying up: the environments that nobody uses any more go too."""
        Environments(environments_folder(self._context.state_folder)).sweep(
            keep_s=self._config.packages_keep,
            max_bytes=self._config.packages_max_bytes,
            now=self._context.now().timestamp(),
        )
        return self._processes.survey(installation)

    async def _end_attempt(self, scope: AttemptScope) -> CleanupReport:
        if self._functions.has(scope.id):
            await self._functions.end(scope.id, scope.grace)
        elif not self._functions.withdraw(scope.id) and (scope.handle is None or scope.handle.name != FUNCTION):
            return await self._processes.end(scope.id, scope.grace)
        return CleanupReport(gone=frozenset({external_name(self._context.installation, scope.id)}))


def _problem(folder: Path) -> str:
    if not Path("/proc/self/stat").exists():
        return f"the local runtime needs Linux with /proc, and this is {sys.platform}"
    return problem_with(folder)


def _versions() -> dict[str, str]:
    bash = shutil.which("bash")
    shown = (
        subprocess.run([bash, "-c", "echo $BASH_VERSION"], capture_output=True, text=True, check=False)
        if bash
        else None
    )
    return {
        "python": platform.python_version(),
        "bash": shown.stdout.strip() if shown else "not installed",
        "uv": find_uv() or "not installed: steps with packages cannot run",
        "limits": f"memory by a watch over the process tree, every 0.1 s; cpu not limited; {_cgroup()}",
        "functions": "calls end with this process: they are not adopted but lost, and run again",
    }


def _cgroup() -> str:
    root = Path("/sys/fs/cgroup")
    if not (root / "cgroup.controllers").exists():
        return "no cgroup v2 here"
    own = root / Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip().lstrip("/")
    return "cgroup v2 delegated, not used" if os.access(own / "cgroup.procs", os.W_OK) else "cgroup v2 not delegated"
