"""An S3 service with storage classes, which the lab's own has not: AWS's, as moto plays it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from deployments.lab.credentials import certificate_files
from deployments.lab.drills.ground import Ground

PORT = 9643


@contextmanager
def cold_store(ground: Ground) -> Iterator[None]:
    """West's store replaced by one in which the newest set's data lies in GLACIER."""
    import boto3

    store = ground.document["recovery"]["store"]
    host, _ = ground.west.store
    certificate, key = certificate_files(ground.places, ground.west)
    listen = (f"--host={host}", f"--port={PORT}", f"--ssl-cert={certificate}", f"--ssl-key={key}")
    argv = (sys.executable, "-m", "moto.server", *listen)
    with ground.stranger(ground.west.domain.store.name, (host, PORT), argv):
        endpoint = f"https://{host}:{PORT}"
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name=store["region"],
            verify=store["ca_file"],
            aws_access_key_id="any",
            aws_secret_access_key="any",
        )
        client.create_bucket(Bucket=store["bucket"])
        prefix = f"sets/{ground.name}/{ground.newest()}/"
        for info in ground.store("west").objects(prefix):
            kind = "GLACIER" if info.key.endswith(ground.live.base) else "STANDARD"
            body = ground.store("west").get(info.key)
            client.put_object(Bucket=store["bucket"], Key=info.key, Body=body, StorageClass=kind)
        store["endpoint"] = endpoint
        yield
