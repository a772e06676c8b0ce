"""What is S3's own. What every store does is in `tests/conformance/test_store.py`."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from blocks.errors import FarsideError, PermanentError
from blocks.stores.s3 import S3Store, _kind_of_refusal
from blocks.stores.store import (
    AccessDenied,
    ObjectArchived,
    ObjectMissing,
    StoreRefused,
    StoreUnavailable,
)


class TestErrors:
    def test_credentials_come_from_the_file_alone(
        self, s3_server: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ambient")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ambient")
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("AWS_CA_BUNDLE", "/no/such/file")
        s3_server.store().put("x", b"x")
        with pytest.raises(AccessDenied, match="nobody"):
            s3_server.store(profile="nobody").get("x")

    @pytest.mark.parametrize("field", ["ca_file", "credentials_file"])
    def test_files_that_are_missing(self, s3_server: Any, field: str, tmp_path: Path) -> None:
        with pytest.raises(PermanentError, match=f"{field} .*No such file"):
            s3_server.store(**{field: tmp_path / "nothing"}).get("x")

    @pytest.mark.parametrize(
        ("code", "status", "kind"),
        [
            ("SlowDown", 503, StoreUnavailable),
            ("", 502, StoreUnavailable),
            ("NotImplemented", 501, StoreRefused),
            ("InvalidObjectState", 403, ObjectArchived),
            ("RequestTimeTooSkewed", 403, AccessDenied),
            ("", 403, AccessDenied),
            ("404", 404, ObjectMissing),
            ("EntityTooLarge", 400, StoreRefused),
        ],
    )
    def test_kinds(self, code: str, status: int, kind: type[FarsideError]) -> None:
        assert _kind_of_refusal(code, status)[0] is kind


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9000", "ftp://x", "https://", "https://x/path"])
def test_endpoints_that_are_none(endpoint: str) -> None:
    with pytest.raises(ValidationError, match="endpoint"):
        S3Store(endpoint=endpoint, bucket="b")


def test_endpoint_addresses() -> None:
    assert S3Store(endpoint="https://s3.east", bucket="b").endpoints() == [("s3.east", 443)]
    assert S3Store(bucket="b", region="eu-north-1").endpoints() == [
        ("s3.eu-north-1.amazonaws.com", 443)
    ]
