"""What work in a cluster goes through: logs that rotate, nodes that fall silent, pods side by side, data. [stand-in]"""

import asyncio
import random
import tempfile
import zipfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.embedded import plane, step_of
from e2e.kubernetes_site import (
    IMAGE,
    PATIENCE_S,
    container,
    events_of,
    failure,
    is_out_of_sight,
    job,
    logged,
    outcome,
    pod_of,
    running_pod_of,
    runtime,
    until_log,
    until_pod,
    until_there,
)

from flexcore.model.errors import RuntimeUnavailable
from flexcore.model.failure import ErrorClass
from flexcore.model.requests import Bundle, StartRequest
from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import (
    AttemptScope,
    ExecutionRequest,
    LogChunk,
    LogStream,
    Runtime,
    Submitted,
    Succeeded,
)
from flexcore.testing.factories import attempt_id, execution_request
from flexcore.testing.kubernetes.containers import why_not_boxed
from flexcore.testing.kubernetes.standin import StandIn
from flexcore.testing.object_store import KEYS, REGION, ObjectStore, object_store

pytestmark = pytest.mark.skipif(bool(why_not_boxed()), reason=why_not_boxed())

ROTATED_AT = 1 << 20
WAIT = "until [ -e /gates/{0} ]; do sleep 0.05; done"
BEFORE = b"begun\n" + b"".join(b"%06d before the restart\n" % number for number in range(70_000))  # rotated once


@pytest.fixture
async def cluster() -> AsyncIterator[StandIn]:
    async with StandIn(scale=0.05, rotate_bytes=ROTATED_AT) as started:
        yield started


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store() as running:
        yield running


def gated(gates: Path, between: str) -> ExecutionRequest:
    """Ask for work that says so when it begins, is let write `BEFORE`, then something else, and then end.

    Who begins to read only when a log has been rotated does not get what was before.
    """
    before = 'awk "BEGIN { for (n = 0; n < 70000; n++) printf \\"%06d before the restart\\n\\", n }"'
    return at_gates(
        gates, "echo begun", WAIT.format("read"), before, WAIT.format("go"), between, WAIT.format("end"), "echo the end"
    )


def at_gates(gates: Path, *commands: str) -> ExecutionRequest:
    """Ask for commands that see a folder of this machine as /gates."""
    script = "; ".join(commands)
    work = {"name": "main", "image": IMAGE, "command": ["sh", "-c", script.replace("$", "$$")]}
    work["volumeMounts"] = [{"name": "gates", "mountPath": "/gates"}]
    volume = {"name": "gates", "hostPath": {"path": str(gates)}}
    return job({"containers": [work], "volumes": [volume]})


async def read_before(here: Runtime, request: ExecutionRequest, gates: Path) -> tuple[bytes, ExecutionRequest]:
    """Read what gated work writes at first, let go, and give it with the request of the next one who reads."""
    read, events = b"", here.execute(request)
    async with asyncio.timeout(PATIENCE_S):
        async for event in events:
            if isinstance(event, Submitted):
                request = replace(request, handle=event.handle)
            if isinstance(event, LogChunk):
                read += event.data
                (gates / "read").touch()
            if len(read) >= len(BEFORE):
                break
    await events.aclose()
    return read, replace(request, log_offsets={LogStream.STDOUT: len(read)})


async def test_a_log_that_was_rotated_goes_on_after_a_restart_where_it_was(cluster: StandIn, tmp_path: Path) -> None:
    request = gated(tmp_path, "echo after it")
    read, request = await read_before(runtime(cluster, tmp_path / "state"), request, tmp_path)
    for gate in ("go", "end"):
        (tmp_path / gate).touch()

    events = await events_of(runtime(cluster, tmp_path / "state"), request)

    assert read == BEFORE
    assert logged(events) == b"after it\nthe end\n"
    first = next(event for event in events if isinstance(event, LogChunk))
    assert first.offset == len(BEFORE)


@pytest.mark.parametrize("remembers", [True, False])
async def test_what_a_node_put_away_while_nobody_read_is_told_to_be_missing(
    cluster: StandIn, tmp_path: Path, remembers: bool
) -> None:
    request = gated(tmp_path, 'awk "BEGIN { for (n = 0; n < 100000; n++) print \\"nobody reads this\\" }"')
    read, request = await read_before(runtime(cluster, tmp_path / "state"), request, tmp_path)
    (tmp_path / "go").touch()
    await until_log(cluster, await pod_of(cluster, request), lambda log: b"before the restart" not in log)
    (tmp_path / "end").touch()

    events = await events_of(runtime(cluster, tmp_path / ("state" if remembers else "elsewhere")), request)

    assert b"may be missing here" in logged(events)
    assert (b"the end\n" in logged(events)) or not remembers
    offsets = [event.offset for event in events if isinstance(event, LogChunk)]
    assert offsets[0] == len(read)


async def test_places_in_logs_are_forgotten_with_the_attempt(cluster: StandIn, tmp_path: Path) -> None:
    here, request = runtime(cluster, tmp_path), container("echo something")
    await events_of(here, request)
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]

    await here.cleanup(AttemptScope(id=request.id))

    assert len(kept) == 1
    assert not kept[0].exists()


async def test_an_ending_in_a_log_that_cannot_be_read_is_waited_for(
    cluster: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flexcore_kubernetes.following._LOG_PATIENCE_S", 1.0)
    token = await cluster.account("blind", ["get pods/log"])
    blind = runtime(cluster, tmp_path, kubeconfig=str(cluster.kubeconfig_for(token)), preflight=False)
    script = "def main():\n    return 'x' * 10000"  # more than a termination message takes
    request = execution_request({"script": script}, kind=StepKind.PYTHON)

    with pytest.raises(RuntimeUnavailable, match="its log cannot be read"):
        await events_of(blind, request)
    events = await events_of(runtime(cluster, tmp_path), request)

    assert outcome(events) == Succeeded("x" * 10000)
    assert len(await cluster.began()) == 1


async def test_a_silent_node_is_waited_for_and_what_ended_meanwhile_counts(cluster: StandIn, tmp_path: Path) -> None:
    said = ("echo while it was away", "echo 5 > $FLEXCORE_RESULT", "touch /gates/done")
    request = at_gates(tmp_path, WAIT.format("go"), *said)
    reading = asyncio.create_task(events_of(runtime(cluster, tmp_path / "state"), request))
    pod = await running_pod_of(cluster, request)

    await cluster.lose_node()
    (tmp_path / "go").touch()
    await until_pod(cluster, pod, is_out_of_sight)
    await until_there(tmp_path / "done")  # unseen
    still_reads = not reading.done()
    await cluster.find_node()
    events = await reading

    assert still_reads
    assert outcome(events) == Succeeded(5)
    assert logged(events) == b"while it was away\n"
    assert len(await cluster.began()) == 1


async def test_a_pod_given_up_with_its_node_is_lost_and_never_runs_twice(cluster: StandIn, tmp_path: Path) -> None:
    await cluster.add_node("other")
    request = container("sleep 60")
    reading = asyncio.create_task(events_of(runtime(cluster, tmp_path), request))
    pod = await running_pod_of(cluster, request)

    await cluster.lose_node(evicts=True)
    await until_pod(cluster, pod, lambda seen: "deletionTimestamp" in seen["metadata"])
    still_reads, begun = not reading.done(), len(await cluster.began())
    await cluster.find_node()
    error_class, message = failure(await reading)

    assert still_reads and begun == 1
    assert error_class is ErrorClass.LOST
    assert "its node went away" in message
    assert len(await cluster.began()) == 1


async def test_pods_side_by_side_have_their_logs_and_the_one_that_failed_tells_why(
    cluster: StandIn, tmp_path: Path
) -> None:
    def pod(script: str) -> dict[str, Any]:
        return {"containers": [{"name": "main", "image": IMAGE, "command": ["sh", "-c", script]}]}

    shape = {"completions": 2, "parallelism": 2}
    fine = job(pod("sleep 0.3; echo side by side; echo '[1]' > $FLEXCORE_RESULT"), "fine", **shape)
    once = "mkdir /gates/taken 2> /dev/null && exit 0; sleep 0.5; echo this one is broken; exit 3"
    broken_pod = pod(once)
    broken_pod["containers"][0]["volumeMounts"] = [{"name": "gates", "mountPath": "/gates"}]
    (tmp_path / "gates").mkdir()
    broken_pod["volumes"] = [{"name": "gates", "hostPath": {"path": str(tmp_path / "gates")}}]
    here = runtime(cluster, tmp_path / "state")

    ran, failed = await asyncio.gather(events_of(here, fine), events_of(here, job(broken_pod, "broken", **shape)))

    assert outcome(ran) == Succeeded([1])
    assert logged(ran) == b"side by side\n" * 2
    assert failure(failed) == (ErrorClass.USER, "ended with exit code 3")
    assert logged(failed) == b"this one is broken\n"


@pytest.fixture
def wheels() -> Iterator[Path]:
    """Make a folder that pods see: their /tmp is their own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder)


async def test_packages_are_installed_in_the_pod(cluster: StandIn, tmp_path: Path, wheels: Path) -> None:
    with zipfile.ZipFile(wheels / "answering-1.0-py3-none-any.whl", "w") as wheel:
        folder = "answering-1.0.dist-info"
        wheel.writestr("answering.py", "def answer(): return 42\n")
        wheel.writestr(f"{folder}/METADATA", "Metadata-Version: 2.1\nName: answering\nVersion: 1.0\n")
        wheel.writestr(
            f"{folder}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{folder}/RECORD", "")
    here = runtime(cluster, tmp_path / "state", wheels=str(wheels))
    script = "import answering\ndef main():\n    return answering.answer()"

    right = {"script": script, "packages": ["answering==1.0"]}
    wrong = {"script": script, "packages": ["answering==2.0"]}
    installed, failed = await asyncio.gather(
        events_of(here, execution_request(right, kind=StepKind.PYTHON, id=attempt_id("right"))),
        events_of(here, execution_request(wrong, kind=StepKind.PYTHON, id=attempt_id("wrong"))),
    )

    assert outcome(installed) == Succeeded(42)
    assert "cannot install the packages" in failure(failed)[1]


FAR = """
name: far
steps:
  - id: here
    type: python
    runtime: local
    with:
      outputs: {numbers: {path: numbers.csv, format: csv}}
      script: |
        def main(numbers):
            with open(numbers, "w") as file:
                file.write("1\\n2\\n3\\n")
  - id: there
    type: python
    runtime: cloud
    with:
      file: there.py
      files: [weights.bin]
      inputs: {numbers: {from: "${{ results.here.numbers }}", format: csv}}
      outputs: {total: {path: total.json, format: json}}
  - id: back
    type: bash
    runtime: local
    with:
      inputs: {total: {from: "${{ results.there.total }}", format: json}}
      script: cat "$INPUT_TOTAL"
output: {total: "${{ results.back }}", weights: "${{ results.there.weights }}"}
"""
THERE = """
import pathlib
def main(numbers, total):
    pathlib.Path(total).write_text(str(sum(map(int, pathlib.Path(numbers).read_text().split()))))
    return {"weights": len(pathlib.Path("weights.bin").read_bytes())}
"""


async def test_data_and_large_files_reach_the_pod_through_an_object_store(
    cluster: StandIn, store: ObjectStore, tmp_path: Path
) -> None:
    key, secret = KEYS
    settings = {
        "artifacts": {
            "url": f"s3://{store.bucket}/far",
            "endpoint": store.endpoint,
            "region": REGION,
            "access_key": key,
            "secret_key": secret,
        },
        "runtimes": {
            "local": {"type": "local"},
            "cloud": {"type": "kubernetes", "kubeconfig": str(cluster.kubeconfig), "security": "none"},
        },
    }
    (tmp_path / "flexcore.yaml").write_text(yaml.safe_dump(settings))
    files = {"there.py": THERE.encode(), "weights.bin": random.Random(2).randbytes(3 << 20)}

    async with plane(tmp_path) as here, asyncio.timeout(PATIENCE_S * 2):
        bundle = Bundle(text=FAR, file_name="far.yaml", files=files, origin=str(tmp_path))
        deployed = await here.installation.control_plane.deploy(bundle)
        started = await here.installation.control_plane.start(StartRequest(workflow=str(deployed["name"])))
        document = await here.finish(started.id)

    assert document["status"] == "succeeded", document["error"]
    assert document["output"] == {"total": 6, "weights": 3 << 20}
    assert step_of(document, "there")["result"]["total"]["format"] == "json"
    assert len(await cluster.began()) == 1
