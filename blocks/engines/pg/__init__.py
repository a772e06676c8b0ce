"""The parts of the PostgreSQL engine: psql, the survey, the configuration, the checks."""
