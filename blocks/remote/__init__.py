"""The orchestrator's side of the agent: install it on a host, run jobs, answer what they ask."""
