"""Starts a stand-in cluster, and makes things go wrong in it."""

import asyncio
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from flexcore.testing.kubernetes.cluster import Shape, arguments

_PATIENCE_S = 30.0


class StandIn:
    """A cluster of processes of this machine, while the context lasts; it belongs to no event loop.

    ```python
    async with StandIn(scale=0.05) as cluster:  # or, where nothing awaits: with StandIn() as cluster
        config.load_kube_config(str(cluster.kubeconfig))
    ```
    """

    def __init__(self, *, scale: float = 0.05, port: int = 0, **shape: Any) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="flexcore-standin-"))
        self._socket = self._folder / "socket"
        self._port = port
        self.token = secrets.token_urlsafe(24)
        self._shape = Shape(folder=str(self._folder), socket=str(self._socket), token=self.token, scale=scale, **shape)
        self._cluster: subprocess.Popen[bytes] | None = None
        self._front: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._cluster = subprocess.Popen([sys.executable, *arguments(self._shape)], stdin=subprocess.PIPE)
        try:
            self._await_cluster(self._cluster)
            self._start_front()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self._front, self._cluster):
            if process is not None and process.poll() is None:
                process.terminate()
                process.send_signal(signal.SIGCONT)  # a frozen one would not hear
                process.wait()
            for pipe in () if process is None else (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.__exit__)

    @property
    def url(self) -> str:
        """Where the API server is; the same after it was started anew."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig file of an account that may do everything."""
        return self.kubeconfig_for(self.token)

    def kubeconfig_for(self, token: str, *, namespace: str = "default") -> Path:
        """Write a kubeconfig file for a token."""
        path = self._folder / f"kubeconfig-{abs(hash((token, namespace)))}"
        named = {"name": "standin"}
        context = {"cluster": "standin", "user": "standin", "namespace": namespace}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{**named, "cluster": {"server": self.url}}],
            "users": [{**named, "user": {"token": token}}],
            "contexts": [{**named, "context": context}],
            "current-context": "standin",
        }
        path.write_text(yaml.safe_dump(content))
        path.chmod(0o600)
        return path

    async def start_api(self) -> None:
        """Start the API server anew at the same place; it knows no version of before."""
        await self._control("POST", "restarted")
        await asyncio.to_thread(self._start_front)

    async def kill_api(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Kill the API server, and nothing else."""
        assert self._front is not None
        self._front.send_signal(number)
        await asyncio.to_thread(self._front.wait)

    def freeze_api(self) -> None:
        """Let the API server fall silent: connections stay, and nothing comes."""
        assert self._front is not None
        self._front.send_signal(signal.SIGSTOP)

    def thaw_api(self) -> None:
        """Let it go on where it was."""
        assert self._front is not None
        self._front.send_signal(signal.SIGCONT)

    async def account(self, user: str, denied: Iterable[str]) -> str:
        """Make an account that may not do some things (`create jobs.batch`, `* *`); gives its token."""
        token = secrets.token_urlsafe(24)
        await self._control("PUT", f"accounts/{token}", {"user": user, "denied": list(denied)})
        return token

    async def fail(self, verb: str, resource: str, code: int, *, times: int = 1) -> None:
        """Have the next such requests (`create`, `jobs.batch`) refused with a status."""
        await self._control("POST", "faults", {"verb": verb, "resource": resource, "code": code, "times": times})

    async def lose_answer(self, verb: str, resource: str, *, times: int = 1) -> None:
        """Have the next such requests done, and their answers lost with the connection."""
        fault = {"verb": verb, "resource": resource, "times": times, "is_answer_lost": True}
        await self._control("POST", "faults", fault)

    async def close_watches(self) -> None:
        """End all watches, cleanly."""
        await self._control("POST", "watches/close")

    async def lose_node(self, name: str = "vm", *, evicts: bool = False) -> None:
        """Let a node fall silent; its containers go on. With `evicts` its pods are given up, with others in view."""
        await self._control("POST", f"nodes/{name}/{'give-up' if evicts else 'lose'}")

    async def find_node(self, name: str = "vm") -> None:
        """Let a node speak again."""
        await self._control("POST", f"nodes/{name}/find")

    async def add_node(self, name: str) -> None:
        """Bring up one more."""
        await self._control("POST", f"nodes/{name}/add")

    async def evict(self, namespace: str, pod: str, message: str = "The node was low on resource: memory.") -> None:
        """End a pod for lack of something on its node; it stays as Failed, Evicted."""
        await self._control("POST", f"pods/{namespace}/{pod}/evict", {"message": message})

    async def lose_pod(self, namespace: str, pod: str) -> None:
        """Let a pod vanish without a word."""
        await self._control("POST", f"pods/{namespace}/{pod}/lose")

    async def began(self) -> list[dict[str, Any]]:
        """Give the metadata of every pod that was ever put on a node: the count of what was really started."""
        found: list[dict[str, Any]] = await self._control("GET", "began")
        return found

    async def _control(self, method: str, path: str, body: Any = None) -> Any:
        transport = httpx.AsyncHTTPTransport(uds=str(self._socket))
        async with httpx.AsyncClient(transport=transport, timeout=_PATIENCE_S) as client:
            answer = await client.request(method, f"http://standin/standin/{path}", json=body)
        answer.raise_for_status()
        return answer.json()

    def _start_front(self) -> None:
        for pipe in () if self._front is None else (self._front.stdin, self._front.stdout):
            if pipe is not None:
                pipe.close()
        program = Path(__file__).with_name("front.py")
        command = [sys.executable, "-I", "-S", str(program), str(self._port), str(self._socket)]
        self._front = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._front.stdout is not None
        self._port = int(self._front.stdout.readline())

    def _await_cluster(self, cluster: "subprocess.Popen[bytes]") -> None:
        end = time.monotonic() + _PATIENCE_S
        while time.monotonic() < end and cluster.poll() is None:
            try:
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.connect(str(self._socket))
            except OSError:
                time.sleep(0.01)
            else:
                return
        raise RuntimeError("the stand-in cluster did not start; what it wrote to standard error says why")
