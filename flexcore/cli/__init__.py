"""The command line: parse, one call of the control plane, render. Decides nothing that an API caller would miss."""
