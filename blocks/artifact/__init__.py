"""The backup format: age, objects, manifest, signatures; no I/O. Runs on database hosts, too."""
