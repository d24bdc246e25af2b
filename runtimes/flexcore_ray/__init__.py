"""Runs steps as jobs of a Ray cluster, over its Jobs REST API."""
