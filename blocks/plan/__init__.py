"""Plans: what is rehearsed."""
