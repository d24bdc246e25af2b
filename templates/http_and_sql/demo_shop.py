"""The demonstration shop: products, exchange rates and a place for reports, on a free port of the loopback interface.

It runs as long as the step `shop`: until `stop` asks it to, or nobody has asked for anything for a minute. Its address
is in a file named by the execution, where `address` finds it; started again after a crash, it takes the same port.
"""

import json
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import flexcore

IDLE_SECONDS = 60
FOLDER = Path(__file__).parent / "output"
IN_EUR = {"EUR": 1.0, "PLN": 0.235, "USD": 0.92}
PRODUCTS = [
    {"sku": "A-100", "name": "Desk lamp", "currency": "EUR", "price": 39.9, "quantity": 48},
    {"sku": "A-200", "name": "Bookshelf", "currency": "PLN", "price": 349.0, "quantity": 12},
    {"sku": "B-110", "name": "Office chair", "currency": "EUR", "price": 189.0, "quantity": 25},
    {"sku": "B-120", "name": "Footrest", "currency": "USD", "price": 34.5, "quantity": 3},
    {"sku": "C-300", "name": "Standing desk", "currency": "USD", "price": 429.0, "quantity": 9},
    {"sku": "C-310", "name": "Cable tray", "currency": "PLN", "price": 59.0, "quantity": 0},
]


@flexcore.task
def serve(name):
    """Answer until told to stop."""
    place = _place(name)
    port = int(place.read_text().rpartition(":")[2]) if place.exists() else 0
    with Shop(("127.0.0.1", port), Answer) as server:
        place.parent.mkdir(exist_ok=True)
        unfinished = place.with_suffix(".new")
        unfinished.write_text(f"http://127.0.0.1:{server.server_port}")
        unfinished.rename(place)
        while not server.stopped:
            server.handle_request()
    place.unlink(missing_ok=True)
    return {"reports": server.reports}


@flexcore.task
def address(name, given):
    """Give the address of the shop: the one given, or that of the demonstration as soon as it listens."""
    deadline = time.monotonic() + 30
    while not given and not _place(name).exists():
        if time.monotonic() > deadline:
            raise TimeoutError("the demonstration shop did not open; see the logs of the step `shop`")
        time.sleep(0.02)
    return given.rstrip("/") or _place(name).read_text()


@flexcore.task
def stop(name):
    """Close the demonstration shop, if it is open."""
    if _place(name).exists():
        urllib.request.urlopen(f"{_place(name).read_text()}/stop", data=b"", timeout=10).close()


def _place(name):
    return FOLDER / f"shop-{name}.address"


class Shop(HTTPServer):
    """One request at a time; gives up after an idle minute, so that nothing is left if nobody closes it."""

    timeout = IDLE_SECONDS
    stopped = False
    reports = 0

    def handle_timeout(self):
        self.stopped = True


class Answer(BaseHTTPRequestHandler):
    """`GET /products`, `GET /rates?to=EUR`, `POST /reports` and `POST /stop`."""

    timeout = 10

    def do_GET(self):
        url = urlsplit(self.path)
        to = parse_qs(url.query).get("to", ["EUR"])[0]
        if url.path == "/products":
            self._send(200, PRODUCTS)
        elif url.path == "/rates" and to in IN_EUR:
            self._send(200, {"to": to, "rates": {name: round(rate / IN_EUR[to], 6) for name, rate in IN_EUR.items()}})
        else:
            self._send(404, {"error": f"there is no {self.path}"})

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/stop":
            self.server.stopped = True
            self._send(200, {})
        else:
            self.server.reports += 1
            self._send(201, {"location": f"{self.path}/{self.server.reports}"})

    def _send(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
