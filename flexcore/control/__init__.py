"""What the control plane's facade forwards to: definitions, launching, reading, planning, the runtimes' state."""
