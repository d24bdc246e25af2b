"""The way to the API server: the official client's transport and credentials, with plain JSON objects.

The client's models are not used: they refuse and forget fields that a newer cluster has. Everything here blocks in
threads of its own. It must never retry what creates; silence and 5xx are RuntimeUnavailable, what the server says no
to is `Refused`.
"""

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

from flexcore.model.errors import RuntimeUnavailable
from flexcore_kubernetes.config import KubernetesConfig

Object: TypeAlias = dict[str, Any]
"""An object as the API has it."""

_CONNECT_S, _READ_S = 5.0, 30.0
_THREADS = 8
_BLOCK_BYTES = 64 << 10
_WAITING_BLOCKS = 16
_HINT = "check with `kubectl get jobs` and the same kubeconfig, context and namespace; nothing is lost meanwhile"


class Refused(Exception):
    """The API server understood and said no. `reason` is the machine's word: AlreadyExists, Forbidden, NotFound, …"""

    def __init__(self, status: int, reason: str, message: str, details: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.details = details


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request. `path` begins with a slash; `query` holds what is not None."""

    method: str
    path: str
    query: Mapping[str, str | int | None] | None = None
    body: Any = None
    content_type: str = "application/json"
    timeout_s: float = _READ_S


class Cluster:
    """A connection, made on first use and shared by everything of one instance."""

    def __init__(self, name: str, config: KubernetesConfig) -> None:
        self.name = name
        self.namespace = config.namespace
        self._config = config
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="flexcore-kubernetes")
        self._client: Any = None  # an ApiClient; its package is imported on first use
        self._making = threading.Lock()

    async def get(self, path: str, **query: str | int | None) -> Object:
        """Read one object or a list."""
        return await self.send(Call(method="GET", path=path, query=query))

    async def find(self, path: str) -> Object | None:
        """Read one object; None when it does not exist."""
        try:
            return await self.get(path)
        except Refused as refusal:
            if refusal.status == 404:
                return None
            raise

    async def send(self, call: Call) -> Object:
        """Send one request and give the object in the answer.

        Raises Refused, and RuntimeUnavailable when nobody knows whether it was done.
        """
        loop = asyncio.get_running_loop()
        raw = await loop.run_in_executor(self._threads, self._whole, call)
        try:
            found = json.loads(raw) if raw else {}
        except ValueError as error:
            raise self._unavailable(f"the answer to {call.method} {call.path} is not JSON") from error
        return found if isinstance(found, dict) else {}

    async def stream(self, call: Call) -> AsyncGenerator[bytes, None]:
        """Read an answer piece by piece as it comes. `timeout_s` is for silence. Closing it ends the request.

        Raises Refused, and RuntimeUnavailable when the connection breaks.
        """
        reader = _Reader(self, call, asyncio.get_running_loop())
        reader.start()
        try:
            while (block := await reader.next()) is not None:
                yield block
        finally:
            reader.stop()

    def close(self) -> None:
        """Let go of idle connections and threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def open(self, call: Call) -> Any:
        """Begin a request in this thread and give the raw response, for which the server said yes."""
        response = self._first(call)
        if response.status == 401:  # the token may have been replaced: read it again, once
            response.close()
            with self._making:
                self._client = None
            response = self._request(call)
        if response.status < 400:
            return response
        try:
            raw = response.read()
        except Exception as error:
            raise self._broken(error) from error
        finally:
            response.close()
        raise self._refusal(call, response.status, raw)

    def _first(self, call: Call) -> Any:
        """Send it; what only reads once more at once, for a connection kept open may have been closed meanwhile."""
        import urllib3.exceptions  # comes with the client

        try:
            return self._request(call)
        except RuntimeUnavailable as error:
            if call.method != "GET" or not isinstance(error.__cause__, urllib3.exceptions.ProtocolError):
                raise
        return self._request(call)

    def _whole(self, call: Call) -> bytes:
        response = self.open(call)
        try:
            data: bytes = response.read()
        except Exception as error:
            raise self._broken(error) from error
        else:
            response.release_conn()
            return data

    def _request(self, call: Call) -> Any:
        client = self._connected()
        query = [(key, value) for key, value in (call.query or {}).items() if value is not None]
        headers = {"Accept": "application/json", "Content-Type": call.content_type}
        try:
            request = client.param_serialize(
                call.method,
                call.path,
                query_params=query,
                header_params=headers,
                body=call.body,
                auth_settings=["BearerToken"],
            )
            answer = client.call_api(*request, _request_timeout=(_CONNECT_S, call.timeout_s))
        except Exception as error:
            raise self._broken(error) from error
        return answer.response

    def _connected(self) -> Any:
        with self._making:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> Any:
        import yaml  # comes with the client
        from kubernetes import client, config  # slow, and not installed everywhere

        loaders: Any = config  # without types
        settings = client.Configuration()
        try:
            if self._config.in_cluster:
                loaders.load_incluster_config(client_configuration=settings)
            else:
                loaders.load_kube_config(
                    config_file=self._config.kubeconfig,
                    context=self._config.context,
                    client_configuration=settings,
                    persist_config=False,
                )
        except yaml.YAMLError as error:  # its text quotes the file, which holds credentials
            message = f"runtime '{self.name}' has no way to its cluster: its kubeconfig is not YAML"
            raise RuntimeUnavailable(message, hint="`kubectl config view` with the same file says where") from error
        except (config.ConfigException, OSError, ValueError, TypeError) as error:
            message = f"runtime '{self.name}' has no way to its cluster: {error}"
            raise RuntimeUnavailable(message, hint="set kubeconfig, context or in_cluster in its settings") from error
        settings.retries = False  # what creates is never sent twice; whoever asks decides about the rest
        settings.keep_alive = True
        settings.connection_pool_maxsize = 4 * _THREADS
        return client.ApiClient(configuration=settings)

    def _broken(self, error: Exception) -> Exception:
        """Translate what the transport raised. Bugs of ours stay what they are."""
        import urllib3.exceptions  # comes with the client
        from kubernetes.client.exceptions import ApiException  # slow, and not installed everywhere

        if isinstance(error, (urllib3.exceptions.HTTPError, ApiException, OSError)):
            return self._unavailable(_plain(error))
        return error

    def _unavailable(self, why: str) -> RuntimeUnavailable:
        return RuntimeUnavailable(f"runtime '{self.name}' is not available: {why}", hint=_HINT)

    def _refusal(self, call: Call, status: int, raw: bytes) -> Exception:
        try:
            answer = json.loads(raw)
        except ValueError:
            answer = {}
        if not isinstance(answer, dict):
            answer = {}
        message = str(answer.get("message") or raw[:300].decode(errors="replace") or f"status {status}")
        if status == 401:
            hint = "renew the credentials in the kubeconfig; they are read again at the next try"
            return RuntimeUnavailable(f"runtime '{self.name}' does not let us in: {message}", hint=hint)
        if status == 429 or (status >= 500 and not call.path.endswith("/log")):
            return self._unavailable(f"status {status}: {message}")
        return Refused(status, str(answer.get("reason") or ""), message, answer.get("details") or {})


class _Reader:
    """One streamed answer: a thread that reads, at most some blocks ahead of who takes them."""

    def __init__(self, cluster: Cluster, call: Call, loop: asyncio.AbstractEventLoop) -> None:
        self._cluster = cluster
        self._call = call
        self._loop = loop
        self._blocks: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self._room = threading.Semaphore(_WAITING_BLOCKS)
        self._stopped = threading.Event()
        self._response: Any = None

    def start(self) -> None:
        """Begin to read. A thread of its own, and not of a pool: it may wait for hours, and the process may end."""
        threading.Thread(target=self._read, name="flexcore-kubernetes-stream", daemon=True).start()

    async def next(self) -> bytes | None:
        """Give the next block, None at the end. Raises what went wrong."""
        item = await self._blocks.get()
        self._room.release()
        if isinstance(item, Exception):
            raise item
        return item

    def stop(self) -> None:
        """End the request, whatever the thread waits for."""
        self._stopped.set()
        self._room.release()
        if self._response is not None:
            _interrupt(self._response)

    def _read(self) -> None:
        try:
            self._response = self._cluster.open(self._call)
            if self._stopped.is_set():
                return
            while not self._stopped.is_set() and (block := self._block()):
                self._give(block)
            self._give(None)
        except Exception as error:  # the shell of the thread: whoever reads gets it
            self._give(error)
        finally:
            if self._response is not None:
                self._response.close()

    def _block(self) -> bytes:
        try:
            block: bytes = self._response.read1(_BLOCK_BYTES)
        except Exception as error:
            raise self._cluster._broken(error) from error
        return block

    def _give(self, item: bytes | Exception | None) -> None:
        if not self._stopped.is_set():  # once it is, nobody makes room any more
            self._room.acquire()
        if self._stopped.is_set():
            return
        try:
            self._loop.call_soon_threadsafe(self._blocks.put_nowait, item)
        except RuntimeError:  # the loop is closed: nobody is there any more
            self._stopped.set()


def _interrupt(response: Any) -> None:
    shutdown: Callable[[], None] = response.shutdown
    try:
        shutdown()
    except (ValueError, RuntimeError, OSError):  # it has ended by itself
        return


def _plain(error: Exception) -> str:
    cause: BaseException = error
    while (below := cause.__cause__ or cause.__context__) is not None:
        cause = below
    return f"{type(cause).__name__}: {cause}"[:300]
