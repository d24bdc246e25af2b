"""The interface of runtimes as messages of `flexcore.runtime.v1`, and back: the same for both ends of the wire.

Pure translation: nothing here opens a connection, keeps state or decides. What a newer peer says and this version does
not know (a feature, a kind of step in a list) is left out; what cannot be read at all raises InvalidRequest.
"""
