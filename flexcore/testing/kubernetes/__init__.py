"""A stand-in for a Kubernetes cluster: an API server over real HTTP, controllers, a node that runs pods.

For tests only. What it does was recorded from a real cluster; where it is simpler than one it says less, never more.
`StandIn` in `standin` starts it; `python -m flexcore.testing.kubernetes` does so from a shell.
"""
