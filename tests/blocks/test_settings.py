"""What the environment sets is checked before anything is started."""

import pytest

from blocks import settings

NAMES = (
    "FARSIDE_LEASE_SECONDS",
    "FARSIDE_TEARDOWN_SECONDS",
    "FARSIDE_CONNECT_SECONDS",
    "FARSIDE_LAB_LOAD",
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf", "1e999", "5 s"])
def test_what_is_no_positive_number_is_named(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(
        settings.BadSetting, match=f"{name} must be a number of .* above zero, not '{text}'"
    ):
        settings.check()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", ["", "6", "0.5"])
def test_what_is_one_is_taken(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, text)
    settings.check()
