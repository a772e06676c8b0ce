"""What the agent can be told to do: one file a job."""
