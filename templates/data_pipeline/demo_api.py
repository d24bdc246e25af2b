"""The demonstration API: 240 generated orders in pages, on a free port of the loopback interface.

It runs as long as the step `api`: until `stop` asks it to, or nobody has asked for anything for a minute. Its address
is in a file named by the execution, where `address` finds it; started again after a crash, it takes the same port.
"""

import json
import random
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import flexcore

ORDERS = 240
PAGE_SIZE = 60
FAILING_PAGE = 2
FAILURES = 2  # how often that page answers 503 before it comes
IDLE_SECONDS = 60
FOLDER = Path(__file__).parent / "output"


@flexcore.task
def serve(name, bad_rows):
    """Answer until told to stop."""
    place = _place(name)
    port = int(place.read_text().rpartition(":")[2]) if place.exists() else 0
    with Api(("127.0.0.1", port), Answer) as server:
        server.orders = generated(bad_rows)
        place.parent.mkdir(exist_ok=True)
        unfinished = place.with_suffix(".new")
        unfinished.write_text(f"http://127.0.0.1:{server.server_port}")
        unfinished.rename(place)
        while not server.stopped:
            server.handle_request()
    place.unlink(missing_ok=True)
    return {"requests": server.requests, "refused": server.refused}


@flexcore.task
def address(name, given):
    """Give the address of the API: the one given, or that of the demonstration as soon as it listens."""
    deadline = time.monotonic() + 30
    while not given and not _place(name).exists():
        if time.monotonic() > deadline:
            raise TimeoutError("the demonstration API did not start; see the logs of the step `api`")
        time.sleep(0.02)
    return given.rstrip("/") or _place(name).read_text()


@flexcore.task
def stop(name):
    """End the demonstration API, if it runs."""
    if _place(name).exists():
        urllib.request.urlopen(f"{_place(name).read_text()}/stop", data=b"", timeout=10).close()


def generated(bad_rows):
    """Make the same orders every time; the first `bad_rows` of a shuffled order break one rule each."""
    chance = random.Random(20260101)
    orders = [
        {
            "id": number,
            "ordered_at": f"2026-01-{chance.randint(1, 31):02}T{chance.randint(0, 23):02}:00:00Z",
            "country": chance.choice(["DE", "FR", "NL", "PL"]),
            "amount": round(chance.uniform(5, 250), 2),
        }
        for number in range(1, ORDERS + 1)
    ]
    spoilt = ({"amount": -1.0}, {"country": "??"}, {"ordered_at": "yesterday"})
    for place, index in enumerate(chance.sample(range(ORDERS), bad_rows)):
        orders[index] |= spoilt[place % len(spoilt)]
    return orders


def _place(name):
    return FOLDER / f"api-{name}.address"


class Api(HTTPServer):
    """One request at a time; gives up after an idle minute, so that nothing is left if nobody stops it."""

    timeout = IDLE_SECONDS
    stopped = False
    requests = refused = 0

    def handle_timeout(self):
        self.stopped = True


class Answer(BaseHTTPRequestHandler):
    """`GET /orders?page=N` and `POST /stop`."""

    timeout = 10

    def do_GET(self):
        self.server.requests += 1
        page = int(parse_qs(urlsplit(self.path).query).get("page", ["1"])[0])
        if page == FAILING_PAGE and self.server.refused < FAILURES:
            self.server.refused += 1
            self._send(503, {"error": "busy, try again"})
            return
        begin = (page - 1) * PAGE_SIZE
        orders = self.server.orders[begin : begin + PAGE_SIZE]
        self._send(200, {"page": page, "pages": -(-ORDERS // PAGE_SIZE), "orders": orders})

    def do_POST(self):
        self.server.stopped = True
        self._send(200, {})

    def _send(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
