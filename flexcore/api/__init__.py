"""The entrances of a server: gRPC and HTTP. Both translate, make one call of the control plane, translate back."""
