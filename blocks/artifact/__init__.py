"""A backup set: the format, the streams, the manifest. Runs on database hosts; imports no Prefect."""
