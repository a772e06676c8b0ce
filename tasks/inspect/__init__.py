"""What preflight and verify look at."""
