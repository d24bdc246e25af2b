"""Text in, Workflow out. Nothing here runs anything, opens a file or keeps state; `native.parse` is the way in."""
