"""When and where: Prefect deployments, and the lab."""
