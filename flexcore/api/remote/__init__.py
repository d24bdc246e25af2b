"""The other end of the `remote` runtime: serves one runtime of this machine to control planes elsewhere."""
