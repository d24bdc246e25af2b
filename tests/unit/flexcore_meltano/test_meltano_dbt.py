"""dbt's account of a run, recorded from a real one, and what a later attempt leaves out."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flexcore_meltano.dbt import TARGET, Accounts, models_of, with_failed_models

from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.ids import AttemptId, ExecutionId, StepPath

RECORDED = Path(__file__).parent / "recorded" / "dbt_run_results.json"
FIRST = AttemptId(ExecutionId("exe_1"), StepPath("fan[3].build"), 1)
SECOND = replace(FIRST, number=2)


@pytest.fixture
def accounts(tmp_path: Path) -> Accounts:
    return Accounts(tmp_path / "state", "ins_test", lambda: datetime.now(UTC))


def ran(work: Path, *statuses: tuple[str, str]) -> Path:
    """A work folder in which dbt ran these nodes, or those of the recorded run."""
    (work / TARGET).mkdir(parents=True, exist_ok=True)
    results = [{"unique_id": f"model.p.{name}", "status": status, "execution_time": 1.0} for name, status in statuses]
    text = json.dumps({"results": results}) if statuses else RECORDED.read_text()
    (work / TARGET / "run_results.json").write_text(text)
    return work


def test_every_node_is_told_with_its_status(tmp_path: Path) -> None:
    models = {each["name"]: each for each in models_of(ran(tmp_path))}

    assert {name: (each["kind"], each["status"]) for name, each in models.items()} == {
        "orders": ("model", "success"),
        "not_null_orders_order_id": ("test", "pass"),
        "unique_orders_order_id": ("test", "pass"),
        "by_customer": ("model", "error"),
        "unique_by_customer_customer": ("test", "skipped"),
        "best": ("model", "skipped"),
    }
    assert models["orders"]["rows"] is None
    assert "Invalid Input Error: not yet" in str(models["by_customer"]["message"])


def test_rows_are_those_that_the_database_counts(tmp_path: Path) -> None:
    work = ran(tmp_path, ("a", "success"))
    account = {"results": [{"unique_id": "model.p.a", "status": "success", "adapter_response": {"rows_affected": 4}}]}
    (work / TARGET / "run_results.json").write_text(json.dumps(account))

    assert [each["rows"] for each in models_of(work)] == [4]


def test_models_that_failed_stand_first_in_the_message(tmp_path: Path) -> None:
    failure = with_failed_models(Failure(message="exit 1", error_class=ErrorClass.USER, name="x"), ran(tmp_path))

    assert failure.name == "dbt error"
    assert failure.message.startswith("by_customer: error: Runtime Error")


def test_a_retry_lists_what_was_done_before_as_reused(accounts: Accounts, tmp_path: Path) -> None:
    accounts.keep(FIRST, ran(tmp_path / "1", ("a", "success"), ("b", "error"), ("c", "skipped")))
    accounts.take(SECOND, tmp_path / "2")
    accounts.keep(SECOND, ran(tmp_path / "2", ("b", "success"), ("c", "error")))
    third = replace(FIRST, number=3)

    before = accounts.take(third, tmp_path / "3")

    assert before is not None
    assert (before / "run_results.json").exists()
    models = models_of(ran(tmp_path / "3", ("c", "success")))
    assert [(each["name"], each["status"]) for each in models] == [("a", "reused"), ("b", "reused"), ("c", "success")]


def test_there_is_nothing_to_go_on_from_without_a_failed_account(accounts: Accounts, tmp_path: Path) -> None:
    nothing = accounts.take(SECOND, tmp_path / "a")
    accounts.keep(FIRST, tmp_path / "killed")
    killed = accounts.take(SECOND, tmp_path / "b")
    accounts.keep(FIRST, ran(tmp_path / "sound", ("a", "success")))
    sound = accounts.take(SECOND, tmp_path / "c")

    assert (nothing, killed, sound) == (None, None, None)


def test_the_first_attempt_and_other_steps_go_on_from_nothing(accounts: Accounts, tmp_path: Path) -> None:
    accounts.keep(FIRST, ran(tmp_path / "1"))

    assert accounts.take(FIRST, tmp_path / "a") is None
    assert accounts.take(replace(SECOND, path=StepPath("other")), tmp_path / "b") is None


def test_an_attempt_that_was_killed_leaves_the_account_before_it(accounts: Accounts, tmp_path: Path) -> None:
    accounts.keep(FIRST, ran(tmp_path / "1"))
    accounts.keep(SECOND, tmp_path / "killed")

    assert accounts.take(replace(FIRST, number=3), tmp_path / "3") is not None


def test_accounts_go_with_success_and_with_their_execution(accounts: Accounts, tmp_path: Path) -> None:
    accounts.keep(FIRST, ran(tmp_path / "1"))
    accounts.forget(SECOND)
    after_success = list((tmp_path / "state").iterdir())
    accounts.keep(FIRST, ran(tmp_path / "1"))
    accounts.forget_execution(FIRST.execution)

    assert after_success == []
    assert list((tmp_path / "state").iterdir()) == []


def test_what_is_left_of_executions_that_failed_long_ago_is_swept(accounts: Accounts, tmp_path: Path) -> None:
    accounts.keep(FIRST, ran(tmp_path / "1"))
    later = Accounts(tmp_path / "state", "ins_test", lambda: datetime.now(UTC) + timedelta(days=31))

    later.keep(replace(FIRST, execution=ExecutionId("exe_2")), ran(tmp_path / "2"))

    assert [each.name for each in (tmp_path / "state").iterdir()] == ["exe_2"]
