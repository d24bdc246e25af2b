"""Files between steps here and at a server far away, by an object store that both sides reach; functions too."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from e2e.embedded import Plane, plane
from e2e.remote_site import SERVED, served, write_token

from flexcore.testing.object_store import KEYS, REGION, object_store

PIPE = """
name: pipe
steps:
  - id: make
    type: python
    runtime: far
    with:
      outputs: {table: {path: table.csv, format: csv}}
      script: |
        def main(table):
            with open(table, "w") as file:
                file.write("n\\n1\\n2\\n")
            return {"large": "x" * 2000}
  - id: turn
    type: bash
    runtime: local
    with:
      inputs: {table: {from: "${{ results.make.table }}", format: csv}}
      outputs: {lines: {path: lines.jsonl, format: jsonl}}
      script: tail -n +2 "$INPUT_TABLE" | sed 's/.*/{"n":&}/' > "$OUTPUT_LINES"; echo '{}'
  - id: add
    type: python
    runtime: far
    with:
      inputs: {lines: {from: "${{ results.turn.lines }}", format: jsonl}}
      script: |
        import json
        def main(lines):
            return sum(json.loads(line)["n"] for line in open(lines))
output: {sum: "${{ results.add }}", uri: "${{ results.make.table.uri }}"}
"""
FUNCTION = """
name: calls
steps:
  - {id: call, type: function, runtime: far, with: {name: 'tasks:double', args: {n: 4}}}
output: ${{ results.call }}
"""


@pytest.fixture
async def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Plane]:
    key, secret = KEYS
    folder = tmp_path / "here"
    folder.mkdir()
    with object_store() as server:
        shared = (
            f"artifacts: {{url: 's3://{server.bucket}/both', endpoint: '{server.endpoint}', region: {REGION},"
            f" access_key: {key}, secret_key: {secret}}}\n"
        )
        with served(tmp_path / "there", settings=SERVED + shared) as there:
            far = f'  far: {{type: remote, address: "{there.address}", token_file: token}}\n'
            (folder / "flexcore.yaml").write_text(SERVED + far + shared)
            write_token(folder)
            monkeypatch.chdir(folder)
            async with plane(folder, inline_bytes=1024) as opened:
                yield opened


async def test_data_goes_to_a_server_and_back_by_references(here: Plane) -> None:
    document = await here.execute(PIPE)

    assert document["status"] == "succeeded", document["error"]
    assert document["output"]["sum"] == 3
    assert document["output"]["uri"].startswith("artifact:")
    assert (await here.execute(FUNCTION))["output"] == 8
