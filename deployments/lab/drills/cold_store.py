"""An S3 service with storage classes, which the lab's own has not: AWS's, as moto plays it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from deployments.lab.drills.ground import Ground


@contextmanager
def cold_store(ground: Ground) -> Iterator[None]:
    """West's store replaced by one in which the newest set's data lies in GLACIER."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # which prints every request
    host, store = ground.west.store[0], ground.document["recovery"]["store"]
    server = ThreadedMotoServer(ip_address=host, port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name=store["region"],
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
        del store["ca_file"]
        yield
    finally:
        server.stop()
