"""Tests of workflows: played by the real engine with mocked tasks in virtual time (`flexcore workflow test`)."""
