"""Whether a store takes what a rehearsal writes: tried with one small object, as hosts write it."""

from blocks.agent.failure import JobFailed
from blocks.agent.transfer.http import Web
from blocks.errors import FarsideError, PermanentError, TransientError
from blocks.evidence.catalogue import FindingId
from blocks.stores.store import AccessDenied, ObjectStore

_BODY = memoryview(b"farside tries whether it may write here\n")


class StoreNotWritable(PermanentError):
    """The store refuses a request that storing a backup set needs."""

    finding = FindingId.STORE_NOT_WRITABLE


def try_writing(store: ObjectStore, key: str) -> None:
    """Store and remove an object: small, then in parts, each through a presigned URL.

    Raises what the store does, StoreNotWritable with what was refused, and TransientError where the
    store is not reached.
    """
    web = Web(store.ca_pem)
    doing = "put object"
    try:
        web.put(lambda _: store.presign_put(key), _BODY, key)
        doing = "create multipart upload"
        upload = store.create_upload(key)
        try:
            doing = "upload part"
            etag = web.put(lambda _: store.presign_part(key, upload, 1), _BODY, key)
            doing = "complete multipart upload"
            store.complete_upload(key, upload, [etag])
        except BaseException:
            store.abort_upload(key, upload)
            raise
        doing = "delete object"
        store.remove([key])
    except JobFailed as error:
        where = {"operation": doing, "domain": store.domain}
        if error.transient:
            raise TransientError(error.message, **where) from error
        if error.code == "url-expired":  # a fresh one is refused for its credentials
            raise AccessDenied(error.message, hint=error.hint, **where) from error
        raise StoreNotWritable(error.message, hint=error.hint, **where) from error
    except FarsideError as error:
        if error.finding or isinstance(error, TransientError):
            raise
        raise StoreNotWritable(error.message, operation=doing, domain=store.domain) from error
