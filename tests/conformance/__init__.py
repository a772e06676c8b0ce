"""One suite for each contract of blocks, run over all that fulfils it."""
