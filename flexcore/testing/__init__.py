"""Shipped for users and third parties: conformance suites, scripted parts, clocks. Nothing in production imports it."""
