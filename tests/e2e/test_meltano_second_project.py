"""A Meltano project that was not made for FlexCore: other plugins, a mapper, jobs, environments, dbt. Run unchanged."""

import asyncio
import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from e2e.meltano_site import GRACE, MeltanoSite

from flexcore.model.failure import ErrorClass
from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import AttemptScope, ExecutionScope, LogChunk, LogStream, Survey

PROJECT = Path(__file__).parents[1] / "projects" / "second"
DBT = {"command": "build"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> MeltanoSite:
    found = MeltanoSite(tmp_path_factory.mktemp("second"))
    shutil.copytree(PROJECT, found.project, ignore=shutil.ignore_patterns(".meltano", "out", "*.duckdb"))
    return found


@pytest.fixture(scope="module")
def everything(site: MeltanoSite) -> Any:
    """Both taps into both targets, the customers' names mapped away from the orders. The first run installs."""
    request = site.request(
        StepKind.SINGER,
        taps=["tap-jsonl", "tap-customers"],
        targets=["target-csv", "target-jsonl"],
        mappings={"tap-jsonl": "without-customers"},
        config={
            "target-csv": {"output_path": "$FLEXCORE_OUTPUT"},
            "target-jsonl": {"destination_path": "$FLEXCORE_OUTPUT"},
        },
    )
    return asyncio.run(site.output(request))


def test_every_tap_goes_into_every_target_through_its_mapper(site: MeltanoSite, everything: Any) -> None:
    output = site.folder / "output"
    with (output / "orders.csv").open(encoding="utf-8", newline="") as file:
        orders = list(csv.DictReader(file))
    customers = [json.loads(line) for line in (output / "customers.jsonl").read_text(encoding="utf-8").splitlines()]

    assert [(each["tap"], each["target"], each["name"], each["rows"]) for each in everything["streams"]] == [
        ("tap-jsonl", "target-csv", "orders", 300),
        ("tap-jsonl", "target-jsonl", "orders", 300),
        ("tap-customers", "target-csv", "customers", 7),
        ("tap-customers", "target-jsonl", "customers", 7),
    ]
    assert everything["rows"] == 614
    assert len(orders) == 300
    assert "customer" not in orders[0]
    assert [each["name"] for each in customers] == [f"Customer {number}" for number in range(7)]


def test_every_plugin_and_stream_tells_what_it_did(everything: Any) -> None:
    plugins, streams = everything["plugins"], everything["streams"]

    assert {name: (each["type"], each["status"], each["exit_code"]) for name, each in plugins.items()} == {
        "tap-jsonl": ("extractors", "succeeded", 0),
        "meltano-map-transformer": ("mappers", "succeeded", 0),
        "target-csv": ("loaders", "succeeded", 0),
        "target-jsonl": ("loaders", "succeeded", 0),
        "tap-customers": ("extractors", "succeeded", 0),
    }
    assert (plugins["tap-jsonl"]["rows"], plugins["target-csv"]["rows"]) == (600, 307)
    assert plugins["target-jsonl"]["rows"] is None  # it does not count
    assert all(each["seconds"] > 0 for each in plugins.values())
    assert all(each["bookmark_before"] is None and each["seconds"] > 0 for each in streams)
    assert set(everything["state_after"]) == {
        f"dev:{tap}-to-{target}" for tap in ("tap-jsonl", "tap-customers") for target in ("target-csv", "target-jsonl")
    }


async def test_a_state_id_in_full_is_used_as_it_is(site: MeltanoSite, everything: Any) -> None:
    parameters = {"tap": "tap-customers", "target": "target-csv", "state": {"id": "shared-with-others"}}

    first = await site.output(site.request(StepKind.SINGER, **parameters))
    again = await site.output(site.request(StepKind.SINGER, **parameters))

    assert (first["rows"], first["state_before"]) == (7, None)
    assert again["incremental"]
    assert again["state_before"] == first["state_after"]
    assert first["streams"][0]["target"] == "target-csv"


async def test_a_job_runs_as_it_is_with_jsonl_logs_and_bookmarks_of_its_environment(
    site: MeltanoSite, everything: Any
) -> None:
    request = site.request(
        StepKind.MELTANO, env={"MELTANO_ENVIRONMENT": "nightly"}, args=["run", "orders-to-files"], install="never"
    )

    events = await site.events(request)

    log = b"".join(each.data for each in events if isinstance(each, LogChunk) and each.stream is LogStream.STDERR)
    lines = [json.loads(line) for line in log.decode().splitlines()]
    said = [each for each in lines if each.get("string_id") == "target-csv"]
    assert {each["stdio"] for each in said} == {"stderr"}
    assert all({"level", "event", "timestamp"} <= set(each) for each in said)
    assert (site.project / "out" / "nightly_orders.csv").exists()
    locks = {each.name.partition("-to-")[0] for each in (site.project / ".meltano" / "flexcore").iterdir()}
    assert "nightly_tap-jsonl" in locks


async def test_dbt_retries_only_what_failed_or_was_skipped(site: MeltanoSite, everything: Any) -> None:
    first = site.request(StepKind.DBT, env={"SECOND_BROKEN": "yes"}, **DBT)
    second = replace(first, id=replace(first.id, number=2))
    third = replace(first, id=replace(first.id, number=3), env={})

    failure = await site.failure(first)
    await site.runtime.cleanup(AttemptScope(id=first.id, grace=GRACE))
    still = await site.failure(second)
    models = {each["name"]: each for each in (await site.output(third))["models"]}

    assert (failure.error_class, failure.name) == (ErrorClass.USER, "dbt error")
    assert failure.message.startswith("by_customer: error: ")
    assert still.name == "dbt error"
    assert {name: each["status"] for name, each in models.items()} == {
        "orders": "reused",
        "not_null_orders_order_id": "reused",
        "unique_orders_order_id": "reused",
        "by_customer": "success",
        "unique_by_customer_customer": "pass",
        "best": "success",
    }
    assert models["orders"]["seconds"] > 0
    assert models["orders"]["rows"] is None  # DuckDB does not count
    assert list((site.state / "dbt").iterdir()) == []


async def test_what_a_failed_dbt_step_left_goes_with_its_execution(site: MeltanoSite, everything: Any) -> None:
    request = site.request(StepKind.DBT, env={"SECOND_BROKEN": "yes"}, command="run", select="orders+")
    await site.failure(request)
    left = await site.runtime.cleanup(Survey(site.installation))

    await site.runtime.cleanup(ExecutionScope(execution=request.id.execution, grace=GRACE))

    assert left.executions == {request.id.execution}
    assert list((site.state / "dbt").iterdir()) == []
