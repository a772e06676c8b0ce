"""Object stores: a domain's own, where its backup sets lie."""

from blocks.stores.s3 import S3Store

AnyStore = S3Store
"""Any kind of store, told apart by `kind`."""
