"""Any store that speaks S3 over TLS."""

import contextlib
import hashlib
import shlex
import threading
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr, field_validator
from typing_extensions import override

from blocks.agent.transfer.http import content_md5
from blocks.block import url_port
from blocks.errors import FarsideError, PermanentError
from blocks.evidence.catalogue import FindingId
from blocks.stores.store import (
    PUT_SECONDS,
    URL_SECONDS,
    AccessDenied,
    LoginLine,
    ObjectArchived,
    ObjectInfo,
    ObjectMissing,
    ObjectStore,
    OwnFile,
    StoreRefused,
    StoreUnavailable,
    StoreUntrusted,
    Upload,
)

DOCUMENT_BYTES = 2**28
"""What is read of an object at most: the manifest of some 30 TB."""
_KEYS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
_BATCH = 1000
"""Objects that S3 removes with one request."""


class S3Store(ObjectStore):
    """A bucket of an S3 service, or a prefix in one."""

    _block_type_name: ClassVar[str | None] = "farside S3 store"
    _block_type_slug: ClassVar[str | None] = "farside-s3-store"
    _description: ClassVar[str | None] = "A bucket of an S3 service."

    kind: Literal["s3"] = Field(default="s3", description="s3: a service that speaks S3 over TLS.")
    endpoint: str | None = Field(
        default=None,
        description="URL of the service, as in https://10.1.0.9:9000. Without it, AWS in the "
        "region below.",
        pattern=r"^https://",
    )
    bucket: str = Field(
        description="Name of the bucket. It must exist: farside makes none.", min_length=1
    )
    region: str = Field(
        default="us-east-1",
        description="Region of the bucket; services other than AWS mostly take any. Default: "
        "us-east-1.",
        min_length=1,
    )
    prefix: str = Field(
        default="",
        description="Folder in the bucket, as in farside, outside of which nothing is touched. "
        "Without it, the whole bucket.",
    )
    ca_file: Path | None = Field(
        default=None,
        description="PEM file on the orchestrator with the authority that signed the service's "
        "certificate. Without it, the system's authorities are trusted.",
    )
    credentials_file: Path | None = Field(
        default=None,
        description="AWS shared credentials file on the orchestrator; nothing else is then asked "
        "for credentials. Without it, boto3 searches as it does (environment, ~/.aws, instance).",
    )
    profile: str = Field(
        default="default",
        description="Section of the credentials file. Default: default.",
    )

    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)
    _client: Any = PrivateAttr(default=None)
    _access_key: str = PrivateAttr(default="")

    @field_validator("endpoint")
    @classmethod
    def _is_service(cls, value: str | None) -> str | None:
        parts = urlsplit(value or "https://aws")
        if not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
            raise ValueError("expected https://HOST[:PORT]")
        url_port(value or "https://aws")
        return value.rstrip("/") if value else value

    @field_validator("prefix")
    @classmethod
    def _is_folder(cls, value: str) -> str:
        return f"{value.strip('/')}/" if value.strip("/") else ""

    def put(self, key: str, data: bytes) -> None:
        """See ObjectStore."""
        with self._call("put", key) as client:
            # A bucket with Object Lock takes nothing without a checksum.
            client.put_object(**self._at(key), Body=data, ContentMD5=content_md5(data))

    def get(self, key: str) -> bytes:
        """See ObjectStore."""
        with self._call("get", key) as client:
            found = client.get_object(**self._at(key))
            body: bytes = found["Body"].read(DOCUMENT_BYTES + 1)
        if len(body) > DOCUMENT_BYTES:
            raise StoreRefused(
                f"{key}: larger than {DOCUMENT_BYTES:,} bytes, which no document is",
                operation="get",
                domain=self.domain,
                hint="find out who wrote it to the store",
            )
        return body

    def head(self, key: str) -> ObjectInfo | None:
        """See ObjectStore."""
        try:
            with self._call("head", key) as client:
                found = client.head_object(**self._at(key))
        except ObjectMissing:
            return None
        return ObjectInfo(key, found["ContentLength"], found["LastModified"], _storage_class(found))

    def now(self) -> datetime:
        """See ObjectStore."""
        with self._call("head", "") as client:
            return _told_time(client.head_bucket(Bucket=self.bucket))

    def age(self, key: str) -> float | None:
        """See ObjectStore."""
        try:
            with self._call("head", key) as client:
                found = client.head_object(**self._at(key))
        except ObjectMissing:
            return None
        age: float = (_told_time(found) - found["LastModified"]).total_seconds()
        return age

    def objects(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See ObjectStore."""
        with self._call("list", prefix) as client:
            pages = client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.prefix + prefix
            )
            for page in pages:
                for entry in page.get("Contents", ()):
                    yield ObjectInfo(
                        self._own(entry["Key"]),
                        entry["Size"],
                        entry["LastModified"],
                        _storage_class(entry),
                    )

    def remove(self, keys: Iterable[str]) -> None:
        """See ObjectStore."""
        wanted = iter(keys)
        while batch := list(islice(wanted, _BATCH)):
            try:
                left = self._remove_batch(batch)
            except StoreRefused:
                left = batch  # not every S3 service has the call that removes many
            for key in left:
                with contextlib.suppress(ObjectMissing), self._call("remove", key) as client:
                    client.delete_object(**self._at(key))

    def _remove_batch(self, keys: Sequence[str]) -> list[str]:
        """Remove many at once; those that the service has not removed, for whatever reason."""
        if len(keys) == 1:
            return list(keys)
        objects = [{"Key": self.prefix + key} for key in keys]
        with self._call("remove", keys[0]) as client:
            answer = client.delete_objects(
                Bucket=self.bucket, Delete={"Objects": objects, "Quiet": True}
            )
        return [self._own(error["Key"]) for error in answer.get("Errors", ())]

    def create_upload(self, key: str) -> str:
        """See ObjectStore."""
        with self._call("create upload", key) as client:
            upload_id: str = client.create_multipart_upload(**self._at(key))["UploadId"]
            return upload_id

    def complete_upload(self, key: str, upload_id: str, etags: Sequence[str]) -> None:
        """See ObjectStore."""
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        with self._call("complete upload", key) as client:
            client.complete_multipart_upload(
                **self._at(key), UploadId=upload_id, MultipartUpload={"Parts": parts}
            )

    def abort_upload(self, key: str, upload_id: str) -> None:
        """See ObjectStore."""
        with contextlib.suppress(ObjectMissing), self._call("abort upload", key) as client:
            client.abort_multipart_upload(**self._at(key), UploadId=upload_id)

    def uploads(self, prefix: str = "") -> list[Upload]:
        """See ObjectStore."""
        try:
            with self._call("list uploads", prefix) as client:
                pages = client.get_paginator("list_multipart_uploads").paginate(
                    Bucket=self.bucket, Prefix=self.prefix + prefix
                )
                return [
                    Upload(self._own(entry["Key"]), entry["UploadId"], entry["Initiated"])
                    for page in pages
                    for entry in page.get("Uploads", ())
                ]
        except (StoreRefused, ObjectMissing):
            return []

    def presign_get(self, key: str, expires: int = URL_SECONDS) -> str:
        """See ObjectStore."""
        return self._presign("get_object", key, expires)

    def presign_put(self, key: str, expires: int = PUT_SECONDS) -> str:
        """See ObjectStore."""
        return self._presign("put_object", key, expires)

    def presign_part(
        self, key: str, upload_id: str, part_number: int, expires: int = PUT_SECONDS
    ) -> str:
        """See ObjectStore."""
        return self._presign(
            "upload_part", key, expires, UploadId=upload_id, PartNumber=part_number
        )

    @property
    def ca_pem(self) -> str | None:
        """See ObjectStore. Raises PermanentError when the file cannot be read."""
        if self.ca_file is None:
            return None
        try:
            pem = self.ca_file.read_text()
        except OSError as error:
            raise self._unreadable("ca_file", self.ca_file, error) from error
        if not pem.strip():
            raise self._unreadable("ca_file", self.ca_file, OSError(0, "it is empty"))
        return pem

    def endpoints(self) -> list[tuple[str, int]]:
        """See ObjectStore."""
        url = urlsplit(self.endpoint or f"https://s3.{self.region}.amazonaws.com")
        return [(url.hostname or "", url.port or 443)]

    @property
    @override
    def short_name(self) -> str:
        return self.bucket

    @property
    @override
    def address_field(self) -> str:
        return "endpoint" if self.endpoint else "region"

    @override
    def fetch_commands(self, folder: str) -> tuple[str, ...]:
        base = f"{self.endpoint or f'https://s3.{self.region}.amazonaws.com'}/{self.bucket}"
        trust = ' --cacert "$STORE_CA"' if self.ca_pem else ""
        return (
            '# STORE_LOGIN: a file of one line:  user = "ACCESS_KEY_ID:SECRET_ACCESS_KEY"',
            ': "${STORE_LOGIN:?}"',
            *(
                [f'STORE_CA=$(mktemp); printf %s {shlex.quote(self.ca_pem)} > "$STORE_CA"']
                if self.ca_pem
                else []
            ),
            'fetch() { for key in "$@"; do curl -gfsS --config "$STORE_LOGIN"'
            f" --aws-sigv4 {shlex.quote(f'aws:amz:{self.region}:s3')}{trust}"
            f' {shlex.quote(f"{base}/{self.prefix}{folder}")}"$key" || return; done; }}',
        )

    @override
    def own_files(self) -> Iterator[OwnFile]:
        if self.ca_file:
            yield OwnFile("ca_file", self.ca_file, FindingId.CA_IN_SOURCE)
        if self.credentials_file:
            finding = FindingId.CREDENTIAL_FROM_SOURCE
            yield OwnFile("credentials_file", self.credentials_file, finding)

    @override
    def login_lines(self) -> Iterator[LoginLine]:
        if (file := self.credentials_file) is None:
            return
        try:
            lines = file.expanduser().read_text("utf-8", "replace").splitlines()
        except OSError:
            return
        for number, line in enumerate(lines, 1):
            name, _, value = line.partition("=")
            if name.strip() not in _KEYS:
                told = value if name.strip() == "credential_process" else line
                yield LoginLine(file, number, told.strip())

    def close(self) -> None:
        """See ObjectStore."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _presign(self, method: str, key: str, expires: int, **more: object) -> str:
        with self._call("presign", key) as client:
            url: str = client.generate_presigned_url(
                method, Params={**self._at(key), **more}, ExpiresIn=expires
            )
            return url

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.prefix + key}

    def _own(self, key: str) -> str:
        return key.removeprefix(self.prefix)

    @contextlib.contextmanager
    def _call(self, operation: str, key: str) -> Iterator[Any]:
        """The client; what it raises comes out as one of our errors."""
        from botocore.exceptions import BotoCoreError, ClientError

        name = f"s3://{self.bucket}/{self.prefix}{key}"
        self.note("object", name)
        try:
            yield self._connected()
        except ClientError as error:
            raise self._refusal(error.response, f"{operation} {name}") from error
        except BotoCoreError as error:
            raise self._breakdown(error, f"{operation} {name}") from error

    def _connected(self) -> Any:
        self.note_address(*self.endpoints()[0])
        if (ca_pem := self.ca_pem) is not None:
            digest = hashlib.sha256(ca_pem.encode()).hexdigest()[:16]
            self.note("certificate", f"CA file {digest}", str(self.ca_file))
        with self._lock:
            if self._client is None:
                self._client, self._access_key = self._connect()
        origin = f"{self.credentials_file or 'found by boto3'}, profile {self.profile}"
        self.note("credential", f"S3 access key {self._access_key}", origin)
        return self._client

    def credentials(self) -> set[str]:
        """See DomainPart; none where they cannot be read."""
        try:
            client, access_key = self._connect()
        except PermanentError:
            return set()
        client.close()
        return {f"S3 access key {access_key}"}

    def _connect(self) -> tuple[Any, str]:
        """A client, and the id of the access key that it uses."""
        import botocore.session
        from botocore.config import Config

        for field, path in (("ca_file", self.ca_file), ("credentials_file", self.credentials_file)):
            try:
                if path is not None:
                    path.open("rb").close()
            except OSError as error:
                raise self._unreadable(field, path, error) from error
        session = botocore.session.Session(profile=self._profile_to_ask_for())
        session.register_component("data_loader", _service_models())
        if self.credentials_file is not None:
            # Nothing of the account that farside runs under: no environment, no ~/.aws.
            session.set_config_variable("credentials_file", str(self.credentials_file))
            session.set_config_variable("config_file", str(self.credentials_file))
        own = self.endpoint is not None
        client = session.create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=self.region,
            verify=str(self.ca_file) if self.ca_file else True,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path" if own else "auto"},
                # A service of one's own is not behind the proxy to the outside world.
                proxies={} if own else None,
                retries={"mode": "standard", "max_attempts": 4},
                connect_timeout=10,
                read_timeout=60,
                max_pool_connections=16,
                # Checksums in trailers would be part of a presigned URL's signature.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
        credentials = session.get_credentials()
        return client, credentials.access_key if credentials else "none"

    def _profile_to_ask_for(self) -> str | None:
        named = self.credentials_file is not None or self.profile != "default"
        return self.profile if named else None

    def _unreadable(self, field: str, path: Path | None, error: OSError) -> PermanentError:
        kind = StoreUntrusted if field == "ca_file" else AccessDenied
        return kind(
            f"{field} {path}: {error.strerror}",
            operation="connect",
            domain=self.domain,
            hint=f"correct {field} of the store in the plan",
        )

    def _refusal(self, response: Any, operation: str) -> FarsideError:
        code = str(response.get("Error", {}).get("Code", ""))
        status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        kind, hint = _kind_of_refusal(code, status)
        silent = "it is not there" if kind is ObjectMissing else "no reason given"
        said = str(response.get("Error", {}).get("Message", "")) or silent
        return kind(
            f"{said} ({code or status})", operation=operation, domain=self.domain, hint=hint
        )

    def _breakdown(self, error: Exception, operation: str) -> FarsideError:
        from botocore import exceptions as boto

        where = {"operation": operation, "domain": self.domain}
        if isinstance(error, boto.SSLError):
            hint = "set ca_file to the authority of the store's certificate, and compare its name"
            return StoreUntrusted(str(error), hint=hint, **where)
        if isinstance(
            error, boto.ConnectionError | boto.HTTPClientError | boto.IncompleteReadError
        ):
            hint = "is the store up, and reachable from here?"
            return StoreUnavailable(str(error), hint=hint, **where)
        if isinstance(
            error, boto.NoCredentialsError | boto.PartialCredentialsError | boto.ProfileNotFound
        ):
            hint = "look at credentials_file and profile of the store in the plan"
            return AccessDenied(str(error), hint=hint, **where)
        return StoreRefused(str(error), **where)


_BUSY = {"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling"}
_MISSING = {"NoSuchKey", "NoSuchUpload", "NotFound", "404"}
_DENIED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}


@cache
def _service_models() -> Any:
    """What botocore reads of a service, megabytes: once for all clients, which do not write it."""
    from botocore.loaders import create_loader

    return create_loader()


def _kind_of_refusal(code: str, status: int) -> tuple[type[FarsideError], str]:
    if code in _BUSY or (status >= 500 and code != "NotImplemented"):
        return StoreUnavailable, "the store says that it cannot now"
    if code == "NoSuchBucket":
        return ObjectMissing, "make the bucket, or correct its name in the plan"
    if code in _MISSING:
        return ObjectMissing, ""
    if code == "InvalidObjectState":
        return ObjectArchived, "restore it from the archive class first, which takes hours"
    if code == "RequestTimeTooSkewed":
        return AccessDenied, "the clocks of this machine and of the store differ: set them"
    if code in _DENIED or status in (401, 403):
        return AccessDenied, "look at the credentials and at what their policy allows"
    return StoreRefused, ""


def _told_time(response: Any) -> datetime:
    told = response["ResponseMetadata"]["HTTPHeaders"].get("date", "")
    return parsedate_to_datetime(told) if told else datetime.now(UTC)


def _storage_class(entry: Any) -> str:
    return str(entry.get("StorageClass") or "STANDARD")
