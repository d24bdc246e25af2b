"""Data between steps, through the engine and real processes, on both kinds of artifact store."""

import asyncio
import re
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from e2e.embedded import Plane, plane, step_of

from flexcore.bootstrap import now
from flexcore.control.verify import verify_executions
from flexcore.model.changes import StepDispatched
from flexcore.model.requests import RetryRequest
from flexcore.model.values import Ref, digest
from flexcore.runtime.plugin import Link
from flexcore.store.retention import Gone
from flexcore.store.sqlite_retention import SqliteRetention
from flexcore.testing.object_store import KEYS, REGION, ObjectStore, object_store

LATER = now() + timedelta(days=365)

PIPE = """
name: pipe
inputs: {properties: {reads: {default: csv}, fails: {default: false}}}
steps:
  - id: make
    type: python
    with:
      outputs: {table: {path: deep/table.csv, format: csv}}
      script: |
        import os
        def main(table):
            os.makedirs(os.path.dirname(table), exist_ok=True)
            with open(table, "w") as file:
                file.write("n\\n1\\n2\\n")
            return {"sum": 3, "large": "x" * 2000}  # the result itself becomes an artifact
  - id: turn
    type: bash
    with:
      inputs: {table: {from: "${{ results.make.table }}", format: "${{ input.reads }}"}}
      outputs: {lines: {path: lines.jsonl, format: jsonl}}
      script: |
        tail -n +2 "$INPUT_TABLE" | sed 's/.*/{"n": &}/' > "$OUTPUT_LINES"
        echo '{"from": "'"$(head -1 "$INPUT_TABLE")"'"}'
  - id: add
    type: python
    with:
      inputs: {lines: {from: "${{ results.turn.lines }}", format: jsonl}}
      args: {fails: "${{ input.fails }}"}
      script: |
        import json, pathlib
        def main(lines, fails):
            if fails and not pathlib.Path(fails).exists():
                raise ValueError("not yet")
            return sum(json.loads(line)["n"] for line in open(lines))
output: ${{ results.add }}
"""

TABLE = b"n\n1\n2\n"


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    with object_store() as running:
        yield running


@asynccontextmanager
async def opened(folder: Path, server: ObjectStore | None) -> AsyncIterator[Plane]:
    if server is not None:
        key, secret = KEYS
        (folder / "flexcore.yaml").write_text(
            f"artifacts: {{url: 's3://{server.bucket}/{folder.name}', endpoint: '{server.endpoint}',"
            f" region: {REGION}, access_key: {key}, secret_key: {secret}}}"
        )
    async with plane(folder, inline_bytes=1024) as here:
        assert here.installation.store.artifacts.store == ("file" if server is None else "s3")
        yield here


@pytest.fixture(params=["folder", "s3"])
async def here(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Plane]:
    server = request.getfixturevalue("server") if request.param == "s3" else None
    async with opened(tmp_path, server) as opened_plane:
        yield opened_plane


def reference(value: Any) -> Ref:
    return Ref(uri=value["uri"], bytes=value["bytes"], format=value["format"], checksum=value["checksum"])


async def test_files_go_from_step_to_step_as_references(here: Plane) -> None:
    document = await here.execute(PIPE)

    assert document["output"] == 3
    made = step_of(document, "make")["result"]
    assert made["sum"] == 3
    assert made["table"] | {"uri": ""} == {
        "uri": "",
        "format": "csv",
        "bytes": len(TABLE),
        "checksum": digest(TABLE),
        "step": "make",
    }
    turned = step_of(document, "turn")["result"]
    assert (turned["from"], turned["lines"]["format"]) == ("n", "jsonl")
    store = here.installation.store
    assert await store.artifacts.get(reference(made["table"])) == TABLE
    assert await verify_executions(store.reader, store.artifacts) == (1, [])


async def test_a_wrong_format_fails_before_anything_is_dispatched(here: Plane) -> None:
    document = await here.execute(PIPE, {"reads": "parquet"})

    error = document["error"]
    assert (error["step"], error["class"]) == ("turn", "input")
    assert re.search(r"reads the format 'parquet', and the data is 'csv', as step 'make' made it", error["message"])
    history = await here.installation.store.reader.history(document["id"])
    dispatched = [each.change.path for each in history.items if isinstance(each.change, StepDispatched)]
    assert dispatched == ["make"]


async def test_what_is_no_reference_is_said_to_be_none_by_whoever_reads_it(here: Plane) -> None:
    document = await here.execute(
        "name: reads\nsteps: [{id: read, type: python, with: {inputs: {a: {from: '${{ input.a }}', format: csv}},"
        " script: 'def main(a): return open(a).read()'}}]",
        {"a": {"uri": "s3://bucket/a.csv"}},
    )

    assert document["error"]["class"] == "input"
    assert "`from` is no reference: it has no `uri` and `format`" in document["error"]["message"]


async def test_data_that_is_not_what_the_reference_says_is_never_read(here: Plane) -> None:
    store = here.installation.store
    ref = await store.artifacts.put(b"other")
    wrong = {"uri": ref.uri, "format": "csv", "bytes": 5, "checksum": digest(TABLE)}

    document = await here.execute(
        "name: reads\nsteps: [{id: read, type: python, with: {inputs: {a: {from: '${{ input.a }}'}},"
        " script: 'def main(a): return open(a).read()'}}]",
        {"a": wrong},
    )

    assert document["error"]["step"] == "read"
    assert re.search(r"'a' is not what was referred to: sha256-\w+ instead of sha256-", document["error"]["message"])


async def test_a_retry_keeps_the_data_that_it_took_over(here: Plane, tmp_path: Path) -> None:
    flag = tmp_path / "now"
    first = await here.execute(PIPE, {"fails": str(flag)})
    flag.touch()
    store = here.installation.store
    again = await here.installation.control_plane.retry(RetryRequest(id=first["id"]))
    second = await here.finish(again.id)
    taken_over = step_of(second, "make")["result"]["table"]
    assert (first["status"], second["output"], step_of(second, "make")["cached"]) == ("failed", 3, True)

    _, gone = await store.retention.executions(LATER, keep_last=1, dry_run=False)  # the retry is newer, and stays

    assert gone == {first["id"]}
    assert await collected(here) == set()
    assert await store.artifacts.get(reference(taken_over)) == TABLE
    assert await verify_executions(store.reader, store.artifacts) == (1, [])


async def test_what_an_attempt_left_that_nobody_refers_to_is_collected(here: Plane) -> None:
    offer = await here.installation.store.artifacts.offer("exe_gone/make#1:table", timedelta(hours=1))
    assert (await here.execute(PIPE))["output"] == 3

    await asyncio.to_thread(written, offer.link, b"left behind")

    assert await collected(here) == {offer.uri.removeprefix("artifact:")}


def written(link: Link, data: bytes) -> None:
    if link.url.startswith("file:"):
        Path(link.url.removeprefix("file://")).write_bytes(data)
    else:
        request = urllib.request.Request(link.url, data=data, headers=dict(link.headers), method="PUT")
        urllib.request.urlopen(request).close()


async def collected(here: Plane) -> set[str]:
    """Collect as in a year, when everything is old; name what went."""
    store = here.installation.store
    retention = replace(cast(SqliteRetention, store.retention), now=lambda: LATER)
    before = set(await store.artifacts.old(LATER))
    await retention.artifacts(LATER, Gone(), dry_run=False)
    return before - set(await store.artifacts.old(LATER))
