"""What is created for an attempt: names, labels, secrets out of sight, limits, a user's Job kept as it is."""

import base64
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flexcore_kubernetes import identity, steps
from flexcore_kubernetes.config import ContainerParameters, KubernetesConfig, KubernetesParameters
from flexcore_kubernetes.manifests import Place, Work, escaped, own_work
from hypothesis import given
from hypothesis import strategies as st

from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.ids import AttemptId, ExecutionId, StepPath
from flexcore.model.workflow import Requirements, StepKind
from flexcore.runtime.interface import ExecutionRequest
from flexcore.runtime.portable.data import DataLinks
from flexcore.runtime.portable.parameters import PythonParameters
from flexcore.testing.factories import execution_request

SECRET = "s3cr3t-of-the-test"


def place(request: ExecutionRequest | None = None, time_left: timedelta | None = None, **config: Any) -> Place:
    return Place(
        config=KubernetesConfig.model_validate(config),
        installation="ours",
        request=request or execution_request(kind=StepKind.CONTAINER),
        time_left=time_left,
    )


def container(given: dict[str, Any], request: ExecutionRequest | None = None, **config: Any) -> Work:
    made = steps.container_work(place(request, **config), ContainerParameters.model_validate(given))
    assert isinstance(made, Work)
    return made


def pod_of(work: Work) -> dict[str, Any]:
    found: dict[str, Any] = work.job["spec"]["template"]["spec"]
    return found


@given(st.text(max_size=200), st.text(max_size=300), st.integers(1, 10**9))
def test_labels_are_legal_and_the_attempt_is_read_back(installation: str, path: str, number: int) -> None:
    id = AttemptId(ExecutionId("exe_1"), StepPath(path), number)
    request = execution_request(kind=StepKind.BASH, id=id)
    item = {
        "metadata": {"labels": identity.labels(installation, request), "annotations": identity.annotations(request)}
    }

    assert all(identity.label_value(value) == value for value in item["metadata"]["labels"].values())
    assert identity.attempt_of(item) == id
    assert identity.is_ours(item, installation, request)
    assert not identity.is_ours(item, installation + "x", request)


def test_dollars_reach_the_container_as_they_were_written() -> None:
    work = container({"image": "i", "command": ["sh", "-c", "kill -9 $$; echo $(HOME)"]})

    assert pod_of(work)["containers"][0]["command"][2] == "kill -9 $$$$; echo $$(HOME)"
    assert escaped("plain") == "plain"


def test_secrets_are_in_the_secret_alone() -> None:
    request = execution_request(kind=StepKind.CONTAINER, secrets=(SECRET,), env={"TOKEN": SECRET})

    work = container({"image": "i", "args": [f"--password={SECRET}", "$x"], "env": {"KEY": SECRET}}, request)

    assert SECRET not in json.dumps(work.job)
    assert pod_of(work)["containers"][0]["args"] == ["$(FLEXCORE_ARG_0)", "$$x"]
    assert work.secret is not None
    values = {base64.b64decode(each).decode() for each in work.secret["data"].values()}
    assert values == {SECRET, f"--password={SECRET}"}


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        (StepKind.CONTAINER, {"image": f"registry/{SECRET}:1"}),
        (StepKind.KUBERNETES, {"job": {"spec": {"template": {"spec": {"containers": [{"name": SECRET}]}}}}}),
    ],
)
def test_secrets_where_all_can_read_them_are_refused(kind: StepKind, parameters: dict[str, Any]) -> None:
    here = place(execution_request(kind=kind, secrets=(SECRET,)))

    made: Work | Failure
    if kind is StepKind.CONTAINER:
        made = steps.container_work(here, ContainerParameters.model_validate(parameters))
    else:
        made = steps.own_work(here, KubernetesParameters.model_validate(parameters))

    assert isinstance(made, Failure)
    assert (made.error_class, made.name) == (ErrorClass.INPUT, "SecretShown")
    assert SECRET not in made.message


def test_requirements_become_requests_and_limits() -> None:
    needs = Requirements(cpu=1.5, memory=1 << 30, gpu=1, disk=5)
    request = execution_request(kind=StepKind.CONTAINER, requirements=needs)

    found = pod_of(container({"image": "i"}, request))["containers"][0]["resources"]

    assert found["requests"] == {"cpu": "1500m", "memory": str(1 << 30), "ephemeral-storage": "5"}
    assert found["limits"] == {"memory": str(1 << 30), "ephemeral-storage": "5", "nvidia.com/gpu": "1"}


def test_the_time_limit_is_on_the_pod_so_that_its_log_stays() -> None:
    here = place(time_left=timedelta(seconds=4.2), start_timeout=60)

    made = steps.container_work(here, ContainerParameters(image="i"))

    assert isinstance(made, Work)
    assert pod_of(made)["activeDeadlineSeconds"] == 60 + 5  # nodes count from before they pull images
    latest_end_of_pod = 60 + pod_of(made)["activeDeadlineSeconds"]
    assert made.job["spec"]["activeDeadlineSeconds"] > latest_end_of_pod


def test_too_long_arguments_are_refused_for_linux_would_not_start_them() -> None:
    made = steps.container_work(place(), ContainerParameters(image="i", args=["x" * (128 << 10)]))

    assert isinstance(made, Failure)
    assert made.error_class is ErrorClass.INPUT


def test_a_users_job_keeps_what_it_says() -> None:
    manifest = {
        "metadata": {"labels": {"team": "data"}},
        "spec": {
            "backoffLimit": 3,
            "ttlSecondsAfterFinished": 0,
            "template": {
                "metadata": {"labels": {"app": "x"}},
                "spec": {"containers": [{"name": "x", "image": "i", "env": [{"name": "A", "value": "mine"}]}]},
            },
        },
    }
    here = place(execution_request(kind=StepKind.KUBERNETES))

    work = own_work(here, manifest, {"A": "theirs", "B": "b"})

    spec = work.job["spec"]
    assert work.job["metadata"]["name"] == here.name
    assert work.job["metadata"]["labels"].items() >= {"team": "data", identity.NAME: here.name}.items()
    assert spec["template"]["metadata"]["labels"].items() >= {"app": "x", identity.NAME: here.name}.items()
    assert spec["backoffLimit"] == 3
    assert spec["ttlSecondsAfterFinished"] == 86400
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    variables = {each["name"]: each for each in spec["template"]["spec"]["containers"][0]["env"]}
    assert variables["A"] == {"name": "A", "value": "mine"}
    assert {"B", "FLEXCORE_RESULT"} <= variables.keys()


@pytest.mark.parametrize(
    "job",
    [
        {},
        {"kind": "Pod", "spec": {}},
        {"spec": {"template": {"spec": {"containers": []}}}},
        {"metadata": {"namespace": "other"}, "spec": {"template": {"spec": {"containers": [{}]}}}},
        {"spec": {"suspend": True, "template": {"spec": {"containers": [{}]}}}},
        {"spec": {"selector": {"a": "b"}, "template": {"spec": {"containers": [{}]}}}},
    ],
)
def test_a_job_that_cannot_be_followed_is_refused(job: dict[str, Any]) -> None:
    made = steps.own_work(place(execution_request(kind=StepKind.KUBERNETES)), KubernetesParameters(job=job))

    assert isinstance(made, Failure)
    assert made.name == "InvalidManifest"


def test_a_portable_step_is_packed_the_same_every_time_and_holds_no_secret(tmp_path: Path) -> None:
    (tmp_path / "more.py").write_text("x = 1\n")
    parameters = PythonParameters(script="import more\ndef main(a): return a", args={"a": SECRET}, files=["more.py"])
    request = execution_request(kind=StepKind.PYTHON, folder=tmp_path, secrets=(SECRET,))

    packed = [steps.packed(place(request), parameters, DataLinks()) for _ in range(2)]

    assert packed[0] == packed[1]
    assert isinstance(packed[0], steps.Packed)
    work = steps.portable_work(place(request), packed[0], None)
    assert SECRET not in json.dumps([work.job, work.config_map])
    assert pod_of(work)["securityContext"]["runAsNonRoot"] is True
    assert next(each for each in pod_of(work)["volumes"] if "secret" in each)["secret"]["defaultMode"] == 0o400


def test_files_are_unpacked_by_no_filter_but_ours(tmp_path: Path) -> None:
    """Without one, some versions of Python warn into the step's log, and others change what is unpacked."""
    others = "import tarfile; tarfile.TarFile.extraction_filter = staticmethod(lambda member, path: print(member))\n"
    request = execution_request({"script": "def main(): return 1"}, kind=StepKind.PYTHON, folder=tmp_path)
    there = place(request)
    packed = steps.packed(there, PythonParameters.model_validate(request.parameters), DataLinks())
    assert isinstance(packed, steps.Packed)
    container = pod_of(steps.portable_work(there, packed, None))["containers"][0]
    (tmp_path / "files").write_bytes(packed.files)
    program = container["command"][2].replace("$$", "$").replace("/flexcore/files", str(tmp_path))

    ran = subprocess.run(
        [sys.executable, "-c", others + program, "true"], cwd=tmp_path, capture_output=True, check=False
    )

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
    assert all((tmp_path / name).read_bytes() == content for name, content in packed.program.files.items())


@pytest.mark.parametrize(("security", "mode"), [("restricted", 0o400), ("baseline", 0o444), ("none", 0o444)])
def test_the_order_can_be_read_by_whoever_the_image_runs_as(security: str, mode: int, tmp_path: Path) -> None:
    request = execution_request({"script": "def main(): return 1"}, kind=StepKind.PYTHON, folder=tmp_path)
    there = place(request, security=security)
    packed = steps.packed(there, PythonParameters.model_validate(request.parameters), DataLinks())
    assert isinstance(packed, steps.Packed)

    pod = pod_of(steps.portable_work(there, packed, None))

    assert pod["volumes"][0]["secret"]["defaultMode"] == mode
    assert ("fsGroup" in pod.get("securityContext", {})) is (mode == 0o400)
