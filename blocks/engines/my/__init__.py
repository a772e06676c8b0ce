"""The parts of the Galera engine."""
