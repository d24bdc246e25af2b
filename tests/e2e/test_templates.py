"""Every template as its users meet it: one command in an empty folder, for real; and its own tests, mocked.

Those that install plugins or packages take tens of seconds, the others seconds.
"""

import json
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest
from e2e.cli_session import Session

from flexcore.testing.command import Done
from flexcore.testing.runtime_ray import end_cluster_of

LIBRARY = Path(__file__).parents[2] / "templates"
NAMES = sorted(path.parent.name for path in LIBRARY.glob("*/workflow.yaml"))
_PATIENCE_SECONDS = 240.0  # for installations on a busy machine
_BOX = ["unshare", "-n" if os.geteuid() == 0 else "-rn", "true"]
_RAY = 'runtimes: {ray: {type: ray, cluster: local, boxed: true, idle_timeout: 60s, installer: {UV_OFFLINE: "1"}}}'


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """Give a folder without Ray, which would be started for machine learning, and is tried in a test of its own."""
    (tmp_path / "empty").mkdir()
    return Session(tmp_path / "empty", {"FLEXCORE_RUNTIMES__RAY__ENABLED": "false"})


def execute(session: Session, name: str, *arguments: str) -> Done:
    """Run a template to its end; nothing of it may go on afterwards."""
    running = session.start("workflow", "execute", name, *arguments, "--output", "json")
    done = running.ended(_PATIENCE_SECONDS)
    assert processes_in(session.folder) == [], done
    return done


def succeeded(session: Session, name: str, *arguments: str) -> Any:
    done = execute(session, name, *arguments)
    assert done.code == 0, done
    return done.document


def steps(document: Any) -> dict[str, Any]:
    """The steps by the last part of their path, where it is the only one of that name."""
    return {each["path"].rpartition(".")[2]: each for each in document["steps"]}


def processes_in(folder: Path) -> list[str]:
    """Name the processes that work in a folder, or were started from it."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            command = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            where = str((place / "cwd").readlink())
        except OSError:
            continue  # it has gone meanwhile
        if str(folder) in command or where.startswith(str(folder)):
            found.append(command)
    return found


def test_the_library_has_what_its_page_says() -> None:
    page = (LIBRARY.parent / "docs" / "templates.md").read_text()

    assert [name for name in NAMES if f"templates/{name}/README.md" not in page] == []
    for name in NAMES:
        names = {path.name for path in (LIBRARY / name).iterdir()}
        assert {"README.md", "template.yaml", "test.yaml", "workflow.yaml"} <= names


def test_the_tests_of_every_template_pass(session: Session) -> None:
    done = session.json("workflow", "test", *NAMES)

    assert done["failed"] == 0
    assert {Path(each["file"]).parent.name for each in done["tests"]} == set(NAMES)


def test_data_pipeline_gets_over_two_failures_and_reports_bad_rows(session: Session) -> None:
    document = succeeded(session, "data_pipeline")

    assert document["output"]["bad_rows"] == 3
    assert document["output"]["in_table"] == 237
    assert {each["attempt"] for each in document["steps"] if each["path"].endswith("pages[1].fetch")} == {3}
    output = session.folder / "data_pipeline" / "output"
    bad = [json.loads(line) for line in (output / "bad_rows.jsonl").read_text().splitlines()]
    assert [each["problems"] for each in bad if each["row"]["country"] == "??"] == [["unknown country ??"]]
    assert sorted(path.name for path in output.iterdir()) == ["bad_rows.jsonl", "notifications.jsonl", "orders.db"]


def test_data_pipeline_loads_nothing_invalid_and_still_notifies(session: Session) -> None:
    done = execute(session, "data_pipeline", "-p", "bad_rows=50")

    assert done.code == 1
    assert "50 of 240 rows are bad" in done.document["error"]["message"]
    assert steps(done.document)["load"]["status"] == "skipped"
    output = session.folder / "data_pipeline" / "output"
    assert not (output / "orders.db").exists()
    (notification,) = (output / "notifications.jsonl").read_text().splitlines()
    assert json.loads(notification)["succeeded"] is False
    assert "50 of 240 rows are bad" in json.loads(notification)["text"]


def test_http_and_sql_takes_either_branch(session: Session) -> None:
    first = succeeded(session, "http_and_sql")
    second = succeeded(session, "http_and_sql", "-p", "large_stock=90000", "-p", "publish=false")

    assert first["output"]["published"] == "/reports/1"
    assert first["output"]["report"]["listed"] == "dearest"
    assert [each["sku"] for each in second["output"]["report"]["list"]] == ["C-310", "B-120"]
    assert steps(second)["publish"]["status"] == "skipped"
    with sqlite3.connect(session.folder / "http_and_sql" / "stock.db") as database:
        assert database.execute("select count(*) from products").fetchone() == (6,)


def test_parallel_backfill_retries_the_failed_days_only(session: Session) -> None:
    done = execute(session, "parallel_backfill", "-p", 'late_days=["2026-01-04", "2026-01-07"]')
    again = session.json("workflow", "retry", done.document["id"])

    assert done.code == 1
    assert "2 of 10 days failed (2026-01-04: " in done.document["error"]["message"]
    assert again["output"]["days"] == 10
    ran = [each["path"] for each in again["steps"] if each["type"] == "python" and not each["cached"]]
    days = [path for path in ran if path.endswith("load_day")]
    assert days == ["backfill.try.each[3].load_day", "backfill.try.each[6].load_day"]


def test_dbt_transformation_builds_tests_and_shows(session: Session) -> None:
    output = succeeded(session, "dbt_transformation")["output"]

    assert sorted(each.partition(":")[0] for each in output["models"]) == [
        "customer_totals",
        "daily_revenue",
        "staged_customers",
        "staged_orders",
    ]
    assert output["tests_passed"] == 10
    assert output["best_customers"][0]["name"] == "Dora Cole"


def test_postgres_replication_moves_only_what_changed(session: Session) -> None:
    first = succeeded(session, "postgres_replication")["output"]
    second = succeeded(session, "postgres_replication", "-p", "changes=10")["output"]

    assert (first["moved_rows"], first["rows"], first["incremental"]) == (1000, 1000, False)
    # 10 changed, 10 new, and the one that the bookmark names
    assert (second["moved_rows"], second["rows"], second["incremental"]) == (21, 1010, True)


def test_ml_training_keeps_the_better_of_two_models(session: Session) -> None:
    document = succeeded(session, "ml_training")

    best, other = sorted(document["output"]["scores"], key=lambda each: -each["accuracy"])
    assert best["accuracy"] >= other["accuracy"] > 0.9
    assert document["output"]["kind"] == best["kind"]
    model = document["output"]["model"]
    assert (model["format"], model["step"][:9]) == ("joblib", "train[0].")
    assert best["rows"] == other["rows"] == 171


def test_hybrid_pipeline_trains_on_what_was_extracted_and_forecasts_what_was_held_out(session: Session) -> None:
    document = succeeded(session, "hybrid_pipeline", "-p", "days=2", "-p", "top=3")

    found = steps(document)
    assert found["extract"]["result"]["flights"]["rows"] == 27004
    assert found["train"]["result"]["held_out"] == ["2013-01-30", "2013-01-31"]
    assert document["output"]["accuracy"]["held_out"] > 0.6  # a coin has 0.5
    assert len(document["output"]["routes"]) == 3
    assert document["output"]["forecast"]["format"] == "html"
    placed = {name: found[name]["runtime"] for name in ("extract", "train", "publish")}
    assert placed == {"extract": "meltano", "train": "local", "publish": "local"}
    explained = session.json("execution", "explain", document["id"], "publish")
    assert "kubernetes is not configured" in explained["placement"]["fallback_reason"]


@pytest.mark.campaign
def test_hybrid_pipeline_comes_to_the_same_on_ray(session: Session) -> None:
    """Ray is in a network of its own: there packages come from the cache that the first run has filled."""
    if shutil.which("unshare") is None or subprocess.run(_BOX, capture_output=True, check=False).returncode:
        pytest.skip("no network namespace can be made")
    # A home of its own, so that nothing is learned from it.
    here = succeeded(Session(session.folder, {**session.environment, "FLEXCORE_HOME": "elsewhere"}), "hybrid_pipeline")
    session.write("flexcore.yaml", _RAY)
    try:
        running = Session(session.folder).start("workflow", "execute", "hybrid_pipeline", "--output", "json")
        there = running.ended(_PATIENCE_SECONDS).document
    finally:
        end_cluster_of(session.folder / ".flexcore" / "runtimes" / "ray")

    placed = {each["path"]: each["runtime"] for each in there["steps"] if each["type"] == "python"}
    assert set(placed.values()) == {"ray"}
    assert len(placed) == 6
    for key in ("accuracy", "routes"):
        assert there["output"][key] == here["output"][key]
    assert there["output"]["forecast"]["checksum"] == here["output"]["forecast"]["checksum"]
    assert there["output"]["forecast"]["uri"] != here["output"]["forecast"]["uri"]
