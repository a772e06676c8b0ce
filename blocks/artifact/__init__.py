"""A backup set: format, streams, manifest. Runs on database hosts too; imports no Prefect."""
