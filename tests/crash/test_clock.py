"""The machine's clock is set while work is under way: by an hour, forwards and back."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from e2e.embedded import plane, step_of

from flexcore import bootstrap
from flexcore.control.verify import verify_executions
from flexcore.testing import auditor

WORKFLOW = """
name: steps
steps:
  - id: one
    type: bash
    with:
      script: 'touch "$MARKED/begun"; while [ ! -e "$MARKED/go" ]; do sleep 0.02; done'
      env: {MARKED: "FOLDER"}
  - {id: pause, type: wait, with: {for: 100ms}}
  - {id: again, type: bash, retry: {attempts: 2, delay: 100ms}, with: {script: '[ "$FLEXCORE_ATTEMPT" = 2 ]'}}
"""


@pytest.mark.parametrize("jump", [timedelta(hours=1), timedelta(hours=-1)])
async def test_a_clock_that_is_set_while_a_step_runs_breaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: timedelta
) -> None:
    offset, true_now = timedelta(0), bootstrap.now

    def now() -> datetime:
        # The clock is set at the moment when the step has begun.
        nonlocal offset
        if not offset and (tmp_path / "begun").exists():
            offset = jump
            (tmp_path / "go").touch()
        return true_now() + offset

    monkeypatch.setattr(bootstrap, "now", now)
    async with plane(tmp_path) as here:
        document = await here.execute(WORKFLOW.replace("FOLDER", str(tmp_path)))
        _, faults = await verify_executions(here.installation.store.reader)

    assert document["status"] == "succeeded", document["error"]
    assert step_of(document, "again")["attempt"] == 2
    assert document["duration_s"] >= 0
    assert all(step["duration_s"] >= 0 for step in document["steps"])
    assert faults == []
    assert list(auditor.store_problems(auditor.executions(tmp_path / ".flexcore" / "flexcore.db"))) == []
