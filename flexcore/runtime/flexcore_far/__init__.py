"""Programs that run beside a step's own: the shim, the runners, and all of the program for steps far away.

Standard library only, and nothing newer than Python 3.8 in what meets a user's interpreter (all but the shim's own
`main`). The folder is used under two names: this one by us, `flexcore_far` by a child process that finds it on its
path or got it shipped; so its modules import each other relatively, and nothing else of ours.
"""
