"""What a rehearsal tells: the time of its stages, its record, the terminal, Prefect."""
