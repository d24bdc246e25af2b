"""Meltano as a runtime: Singer pipelines, dbt and any other Meltano command, run by subprocess under the shim."""
