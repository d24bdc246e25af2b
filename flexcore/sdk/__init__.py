"""For programs that use FlexCore: the task decorator and the client of a server."""
