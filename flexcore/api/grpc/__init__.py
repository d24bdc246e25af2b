"""The gRPC entrance: servicers that translate, and nothing else."""
