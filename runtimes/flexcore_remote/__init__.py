"""Runs steps on runtimes that live in another process, over gRPC."""
