"""A package index on this machine, with wheels made on the spot, that can be told to answer late: for tests."""

import io
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class PackageIndex:
    """Wheels by file name. `asked` tells which paths were; while `open` is not set, nothing is answered."""

    def __init__(self, address: str, cache: Path) -> None:
        self.url = f"{address}/simple/"
        self.cache = cache
        self.wheels: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.open = threading.Event()
        self.open.set()

    @property
    def env(self) -> Mapping[str, str]:
        """What a step tells the installer, so that it looks here and nowhere else."""
        return {"UV_DEFAULT_INDEX": self.url, "UV_CACHE_DIR": str(self.cache), "UV_HTTP_TIMEOUT": "60"}

    def add(self, name: str, version: str = "1.0", requires: str = "", body: str = "") -> None:
        """Put a package there: one module, with a program of the same name."""
        info = f"{name}-{version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        files = {
            f"{name}.py": body or f"VERSION = {version!r}\ndef main(): print({name!r}, VERSION)\n",
            f"{info}/METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
        }
        files[f"{info}/RECORD"] = "".join(f"{each},,\n" for each in [*files, f"{info}/RECORD"])
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as wheel:
            for path, text in files.items():
                wheel.writestr(path, text)
        self.wheels[f"{name}-{version}-py3-none-any.whl"] = content.getvalue()

    def answer(self, path: str) -> bytes | None:
        """Give what stands at a path."""
        self.open.wait(60)
        if path.startswith("/simple/"):
            name = path.strip("/").split("/")[1]
            found = [each for each in self.wheels if each.split("-")[0] == name]
            return "".join(f'<a href="/files/{each}">{each}</a>\n' for each in found).encode() if found else None
        return self.wheels.get(path.rpartition("/")[2])


@contextmanager
def package_index(cache: Path) -> Iterator[PackageIndex]:
    """Serve an index, on a free port, until the end of the block."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index.asked.append(self.path)
            content = self.do_HEAD()
            with suppress(BrokenPipeError):  # whoever asked may have been killed
                self.wfile.write(content)

        def do_HEAD(self) -> bytes:
            content = index.answer(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Type", "text/html" if self.path.startswith("/simple/") else "application/zip")
            self.send_header("Content-Length", str(len(content or b"")))
            with suppress(BrokenPipeError):
                self.end_headers()
            return content or b""

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    index = PackageIndex(f"http://127.0.0.1:{server.server_address[1]}", cache)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield index
    finally:
        index.open.set()
        server.shutdown()
        server.server_close()
