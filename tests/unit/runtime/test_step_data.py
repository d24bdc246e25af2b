"""Data between runtimes, on our side: references become links, what was stored becomes references."""

import asyncio
import http.server
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flexcore.model.errors import RuntimeUnavailable, StoreUnavailable
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.values import Ref, digest
from flexcore.runtime.flexcore_far import transfer
from flexcore.runtime.flexcore_far.results import Unprepared
from flexcore.runtime.interface import Failed, Succeeded
from flexcore.runtime.plugin import Link, Offer
from flexcore.runtime.portable.data import DataLinks, Stored, as_json, step_data, with_references
from flexcore.runtime.portable.parameters import DataInput, DataOutput, PythonParameters
from flexcore.runtime.portable.storing import store_outputs
from flexcore.store.artifacts import LocalArtifacts
from flexcore.testing.factories import attempt_id

HOUR = timedelta(hours=1)
ID = attempt_id("train")


def parameters(**changes: Any) -> PythonParameters:
    return PythonParameters.model_validate({"script": "def main(**a): pass", **changes})


def reading(reference: Any, **changes: Any) -> PythonParameters:
    return parameters(inputs={"model": {"from": reference, **changes}})


@dataclass
class Unreachable:
    """A store behind a network that is down."""

    store: str = "s3"
    asked: list[str] = field(default_factory=list)

    async def put(self, data: bytes, *, format: str = "json") -> Ref:
        raise StoreUnavailable("down")

    async def get(self, ref: Ref) -> bytes:
        raise StoreUnavailable("down")

    async def link(self, ref: Ref, valid: timedelta) -> Link:
        raise StoreUnavailable("down")

    async def offer(self, name: str, valid: timedelta) -> Offer:
        raise StoreUnavailable("down")


@dataclass
class Elsewhere(Unreachable):
    """A store whose offers are URLs."""

    url: str = ""

    async def offer(self, name: str, valid: timedelta) -> Offer:
        return Offer("artifact:made-1", Link(f"{self.url}/put?signature=hidden", {"X-Told": "yes"}))


async def test_a_reference_becomes_a_link_and_an_output_a_place(tmp_path: Path) -> None:
    store = LocalArtifacts(tmp_path)
    ref = await store.put(b"weights", format="joblib")

    data = await step_data(
        parameters(
            inputs={"model": {"from": as_json(ref, ID), "format": "joblib"}},
            outputs={"scores": {"path": "scores.csv", "format": "csv"}},
        ),
        store,
        attempt_id("score"),
    )

    assert isinstance(data, DataLinks)
    given = data.inputs["model"]
    assert (given.format, given.bytes, given.checksum) == ("joblib", 7, digest(b"weights"))
    assert given.link.url == store.path(ref).as_uri()
    assert data.outputs["scores"].path == "scores.csv"
    assert data.outputs["scores"].offer.uri.startswith("artifact:made-")


async def test_the_places_of_an_attempt_are_the_same_when_asked_again(tmp_path: Path) -> None:
    store, step = LocalArtifacts(tmp_path), parameters(outputs={"model": {"path": "m", "format": "joblib"}})

    first, again = await step_data(step, store, ID), await step_data(step, store, ID)
    other = await step_data(step, store, attempt_id("train", number=2))

    assert first == again
    assert first != other


@pytest.mark.parametrize("uri", [f"artifact:sha256-{'0' * 64}", "artifact:../x", "s3://bucket/x", "ftp://x", "/etc/x"])
async def test_what_cannot_be_fetched_is_a_wrong_input_named(tmp_path: Path, uri: str) -> None:
    failure = await step_data(reading({"uri": uri, "format": "csv"}), LocalArtifacts(tmp_path), ID)

    assert isinstance(failure, Failure)
    assert failure.error_class is ErrorClass.INPUT
    assert "input 'model' cannot be had" in failure.message
    assert uri in failure.message


async def test_data_anywhere_else_is_linked_as_it_is(tmp_path: Path) -> None:
    reference = {"uri": "https://example.org/a.csv", "format": "csv"}

    data = await step_data(reading(reference), LocalArtifacts(tmp_path), ID)

    assert isinstance(data, DataLinks)
    assert data.inputs["model"].link == Link("https://example.org/a.csv")


async def test_a_store_that_cannot_be_reached_leaves_the_outcome_open(tmp_path: Path) -> None:
    reference = {"uri": f"artifact:sha256-{'0' * 64}", "format": "csv"}
    for step in (reading(reference), parameters(outputs={"x": {"path": "x", "format": "csv"}})):
        with pytest.raises(RuntimeUnavailable, match="down"):
            await step_data(step, Unreachable(), ID)


def test_a_wrong_format_is_refused_with_both_formats_and_who_made_it() -> None:
    reference = {"uri": "artifact:sha256-1", "format": "csv", "bytes": 1, "step": "extract"}

    with pytest.raises(ValueError, match=r"reads the format 'parquet', and the data is 'csv', as step 'extract' made"):
        DataInput.model_validate({"from": reference, "format": "parquet"})


async def test_what_was_stored_is_referred_to_in_the_result(tmp_path: Path) -> None:
    step = parameters(outputs={"model": {"path": "m.joblib", "format": "joblib"}})
    data = await step_data(step, LocalArtifacts(tmp_path), ID)
    assert isinstance(data, DataLinks)
    stored = {"model": Stored(bytes=7, checksum=digest(b"weights")), "stray": Stored(bytes=1, checksum="")}

    for output, rest in ((None, {}), ({"accuracy": 0.9}, {"accuracy": 0.9})):
        outcome, refs = with_references(Succeeded(output), data, stored, ID)

        reference = {
            "uri": data.outputs["model"].offer.uri,
            "format": "joblib",
            "bytes": 7,
            "checksum": digest(b"weights"),
            "step": "train",
        }
        assert outcome == Succeeded({**rest, "model": reference})
        assert [ref.uri for ref in refs] == [reference["uri"]]


@pytest.mark.parametrize(
    ("output", "stored", "message"),
    [
        (None, {}, r"no file for its output model \(m\.joblib\)"),
        ([1], {"model": Stored(bytes=1, checksum="")}, "has to be an object to take model"),
    ],
)
async def test_a_result_without_its_outputs_is_a_failure(
    tmp_path: Path, output: Any, stored: dict[str, Stored], message: str
) -> None:
    data = await step_data(
        parameters(outputs={"model": {"path": "m.joblib", "format": "joblib"}}), LocalArtifacts(tmp_path), ID
    )
    assert isinstance(data, DataLinks)

    outcome, refs = with_references(Succeeded(output), data, stored, ID)

    assert isinstance(outcome, Failed)
    assert outcome.failure.error_class is ErrorClass.USER
    assert refs == ()
    assert re.search(message, outcome.failure.message)


async def test_files_on_this_machine_are_stored_whole_or_not_at_all(tmp_path: Path) -> None:
    store = LocalArtifacts(tmp_path / "store")
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "flights.jsonl").write_bytes(b'{"n": 1}\n{"n": 2}\n{"n": 3}')
    outputs = {"flights": DataOutput(path="output/flights.jsonl", format="jsonl")}

    outcome, (ref,) = await store_outputs(Succeeded({"rows": 3}), outputs, tmp_path, store, ID)
    again = await store_outputs(Succeeded({"rows": 3}), outputs, tmp_path, store, ID)

    assert outcome == Succeeded({"rows": 3, "flights": as_json(ref, ID)})
    assert (ref.rows, ref.bytes, ref.format) == (3, 26, "jsonl")
    assert await store.get(ref) == b'{"n": 1}\n{"n": 2}\n{"n": 3}'
    assert again == (outcome, (ref,))
    assert not list(tmp_path.rglob(".new-*"))


@pytest.mark.parametrize("form", ["jsonl", "ndjson", "csv"])
async def test_rows_are_counted_alike_on_both_sides(tmp_path: Path, form: str) -> None:
    file, place = tmp_path / f"a.{form}", tmp_path / "there"
    file.write_bytes(b'{"n": 1}\n{"n": 2}')
    outputs = {"a": DataOutput(path=file.name, format=form)}
    (tmp_path / "store").mkdir()

    far = transfer.store("a", file, {"url": place.as_uri(), "headers": {}}, form, lambda: None)
    _, (ref,) = await store_outputs(Succeeded(None), outputs, tmp_path, LocalArtifacts(tmp_path / "store"), ID)

    assert place.read_bytes() == file.read_bytes()
    assert (far["bytes"], far["checksum"], far["rows"]) == (ref.bytes, ref.checksum, ref.rows)
    assert ref.rows == (None if form == "csv" else 2)


async def test_a_file_that_is_not_there_fails_and_names_it(tmp_path: Path) -> None:
    outputs = {"flights": DataOutput(path="output/flights.jsonl", format="jsonl")}

    outcome, _ = await store_outputs(Succeeded({}), outputs, tmp_path, LocalArtifacts(tmp_path / "store"), ID)

    assert isinstance(outcome, Failed)
    assert "flights (output/flights.jsonl)" in outcome.failure.message


@contextmanager
def taking(*statuses: int) -> Iterator[tuple[str, list[tuple[str, bytes, str]]]]:
    """Serve on loopback, and answer PUTs so, one after the other, and all others as the last. 0: no answer."""
    left = list(statuses)
    got: list[tuple[str, bytes, str]] = []

    class Taking(http.server.BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, body, self.headers["X-Told"]))
            status = left.pop(0) if len(left) > 1 else left[0]
            if not status:
                self.close_connection = True
                return
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Taking)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", got
    finally:
        server.shutdown()
        server.server_close()


async def test_a_file_goes_to_a_url_with_its_headers(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"n\n1\n")
    with taking(200) as (url, got):
        outcome, (ref,) = await store_outputs(
            Succeeded(None), {"a": DataOutput(path="a.csv", format="csv")}, tmp_path, Elsewhere(url=url), ID
        )

    assert isinstance(outcome, Succeeded)
    assert got == [("/put?signature=hidden", b"n\n1\n", "yes")]
    assert (ref.bytes, ref.rows) == (4, None)


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_url_that_takes_nothing_leaves_the_outcome_open_and_its_signature_untold(
    tmp_path: Path, is_there: bool
) -> None:
    (tmp_path / "a.csv").write_bytes(b"n\n1\n")
    with taking(503) as (url, _):
        store = Elsewhere(url=url if is_there else "http://127.0.0.1:1")
        with pytest.raises(RuntimeUnavailable, match="output 'a' cannot be stored") as caught:
            await asyncio.wait_for(
                store_outputs(Succeeded(None), {"a": DataOutput(path="a.csv", format="csv")}, tmp_path, store, ID), 30
            )

    assert "hidden" not in str(caught.value)
    assert ("the store answered 503" if is_there else "refused") in str(caught.value)


@pytest.mark.parametrize("status", [400, 404, 413])
async def test_a_url_that_will_never_take_it_fails_the_step(tmp_path: Path, status: int) -> None:
    (tmp_path / "a.csv").write_bytes(b"n\n1\n")
    with taking(status) as (url, got):
        outcome, refs = await store_outputs(
            Succeeded(None), {"a": DataOutput(path="a.csv", format="csv")}, tmp_path, Elsewhere(url=url), ID
        )

    assert isinstance(outcome, Failed)
    assert (outcome.failure.name, outcome.failure.error_class) == ("NotTransferred", ErrorClass.DEPENDENCY)
    assert f"the store answered {status}" in outcome.failure.message
    assert (len(got), refs) == (1, ())


async def test_two_who_store_the_same_do_not_meet(tmp_path: Path) -> None:
    store, size = LocalArtifacts(tmp_path / "store"), 8 << 20
    (tmp_path / "a.bin").write_bytes(os.urandom(size))
    outputs = {"a": DataOutput(path="a.bin", format="bytes")}

    both = await asyncio.gather(*(store_outputs(Succeeded(None), outputs, tmp_path, store, ID) for _ in range(4)))

    assert {len(refs) for _, refs in both} == {1}
    assert await store.get(both[0][1][0]) == (tmp_path / "a.bin").read_bytes()
    assert not list(tmp_path.rglob(".new-*"))


def sent(url: str, file: Path) -> Any:
    return transfer.store("a", file, {"url": f"{url}/put", "headers": {"X-Told": "yes"}}, "csv", lambda: None)


def test_an_upload_is_tried_again_while_the_store_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_APART_S", 0.001)
    (tmp_path / "a.csv").write_bytes(b"n\n1\n")
    with taking(503, 0, 500, 502, 503, 200) as (url, got):
        stored = sent(url, tmp_path / "a.csv")

    assert stored["bytes"] == 4
    assert [body for _, body, _ in got] == [b"n\n1\n"] * 6


class SleptTime:
    """A clock that only sleep moves."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_an_upload_is_given_up_after_a_while_or_at_once_when_it_is_forbidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "time", SleptTime())
    (tmp_path / "a.csv").write_bytes(b"n\n1\n")
    with taking(503) as (url, away), pytest.raises(Unprepared, match="answered 503") as given_up:
        sent(url, tmp_path / "a.csv")
    with taking(403) as (url, forbidden), pytest.raises(Unprepared, match="answered 403") as refused:
        sent(url, tmp_path / "a.csv")

    assert len(away) == 17  # after 0.5, 1, 2, 4 and 8 seconds, then every ten, for two minutes
    assert len(forbidden) == 1
    assert (given_up.value.hint, "run out" in refused.value.hint) == ("", True)
