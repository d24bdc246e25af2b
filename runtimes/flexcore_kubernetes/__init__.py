"""Runs steps as Jobs of a Kubernetes cluster."""
