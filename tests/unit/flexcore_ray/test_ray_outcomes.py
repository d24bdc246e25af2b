"""Each way in which Ray says that a job ended, as recorded from a cluster, and what it means."""

import pytest
from flexcore_ray.client import Job
from flexcore_ray.outcomes import TABLE, failure_of

from flexcore.model.failure import ErrorClass

_DIED = (
    "Job supervisor actor died: The actor died unexpectedly before finishing this task.\n\tclass_name: JobSupervisor\n"
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker "
    "unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was "
    "killed by the OOM killer due to high memory usage, (2) ray stop --force was called, or (3) the worker crashed."
)
_NO_MEMORY = (
    "Job supervisor actor died: The actor died because its worker process has died. Worker exit type: "
    "NODE_OUT_OF_MEMORY Worker exit detail: Task was killed due to the node running low on memory."
)
_EXITED = (
    "Job entrypoint command failed with exit code {}, last available logs (truncated to 20,000 chars):\nthe s3cr3t"
)

JOBS = {
    "stopped": (Job(id="j", status="STOPPED", message="Job was intentionally stopped."), ErrorClass.CANCELLED),
    "pip": (
        Job(
            id="j",
            status="FAILED",
            error_type="RUNTIME_ENV_SETUP_FAILURE",
            message="runtime_env setup failed: Failed to install pip packages: no such package",
        ),
        ErrorClass.DEPENDENCY,
    ),
    "environment": (
        Job(
            id="j",
            status="FAILED",
            error_type="RUNTIME_ENV_SETUP_FAILURE",
            message="runtime_env setup failed: Failed to download gcs://_ray_x.zip from the GCS",
        ),
        ErrorClass.DEPENDENCY,
    ),
    "start-timeout": (
        Job(
            id="j",
            status="FAILED",
            error_type="JOB_SUPERVISOR_ACTOR_START_TIMEOUT",
            message="Job supervisor actor failed to start within 900.0 seconds.",
        ),
        ErrorClass.QUOTA,
    ),
    "unschedulable": (
        Job(
            id="j",
            status="FAILED",
            error_type="JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE",
            message="Job supervisor actor could not be scheduled: the node is gone",
        ),
        ErrorClass.QUOTA,
    ),
    "out-of-memory": (
        Job(id="j", status="FAILED", error_type="JOB_SUPERVISOR_ACTOR_DIED", message=_NO_MEMORY),
        ErrorClass.OOM,
    ),
    "supervisor-died": (
        Job(id="j", status="FAILED", error_type="JOB_SUPERVISOR_ACTOR_DIED", message=_DIED),
        ErrorClass.LOST,
    ),
    "supervisor-unknown": (
        Job(id="j", status="FAILED", error_type="JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE", message="Unknown"),
        ErrorClass.LOST,
    ),
    "supervisor-start": (
        Job(
            id="j",
            status="FAILED",
            error_type="JOB_SUPERVISOR_ACTOR_START_FAILURE",
            message="Unexpected error occurred: failed to get job supervisor.",
        ),
        ErrorClass.LOST,
    ),
    "too-late": (Job(id="j", status="FAILED", exit_code=75, message=_EXITED.format(75)), ErrorClass.QUOTA),
    "killed": (Job(id="j", status="FAILED", exit_code=-9, message=_EXITED.format(-9)), ErrorClass.OOM),
    "no-python": (Job(id="j", status="FAILED", exit_code=127, message=_EXITED.format(127)), ErrorClass.DEPENDENCY),
    "command": (Job(id="j", status="FAILED", exit_code=1, message=_EXITED.format(1)), ErrorClass.INTERNAL),
    "supervised": (Job(id="j", status="FAILED", message="something new"), ErrorClass.LOST),
}


def test_every_row_has_an_example() -> None:
    assert [row.name for row in TABLE] == list(JOBS)


@pytest.mark.parametrize("name", JOBS)
def test_an_end_has_its_class(name: str) -> None:
    job, expected = JOBS[name]

    found = failure_of(job, ("s3cr3t",))

    assert (found.error_class, next(row.name for row in TABLE if row.applies(job))) == (expected, name)
    assert "s3cr3t" not in str(found)


def test_a_good_end_without_an_ending_is_lost() -> None:
    assert failure_of(Job(id="j", status="SUCCEEDED", exit_code=0)).error_class is ErrorClass.LOST


def test_secrets_are_taken_out_of_what_ray_says() -> None:
    job = Job(id="j", status="FAILED", error_type="RUNTIME_ENV_SETUP_FAILURE", message="pip: https://s3cr3t@host")

    assert "s3cr3t" not in failure_of(job, ("s3cr3t",)).message
