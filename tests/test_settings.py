"""The settings: read from the environment, and a bad one is named."""

import json

import pytest

from filter_service.errors import InvalidSettings
from filter_service.settings import PILLOWS_LIMIT, Settings

GOOD = {
    "data_dir": "/somewhere",
    "database_url": "postgresql://host/name",
    "broker_url": "redis://host/0",
    "storage_url": "s3://bucket/images",
    "model": "ViT-B-32",
    "pretrained": "laion2b_s34b_b79k",
    "preprocessing": "openai",
    "device": "cuda:1",
    "precision": "bfloat16",
    "batch_size": "32",
    "decode_threads": "4",
    "lease_seconds": "30",
    "sweep_seconds": "5",
    "drain_seconds": "60",
    "max_bytes": "1000",
    "max_pixels": "1000",
    "max_frames": "8",
    "web_host": "::1",
    "web_port": "8080",
    "public_url": "https://moderation.example.org",
    "login_hours": "8",
    "oidc_issuer": "https://login.example.org",
    "oidc_client_id": "filter-service",
    "oidc_client_secret": "secret",
    "review_lease_seconds": "120",
    "undo_seconds": "5",
    "reveal_cap": "200",
    "fetch_hosts": '["cdn.example.org", "*.images.example.org"]',
    "fetch_seconds": "20",
    "upload_files": "100",
    "upload_bytes": "1000000",
    "webhook_seconds": "5",
    "webhook_hours": "24",
    "webhook_private": "True",
    "ledger_key": "/secrets/ledger.key",
    "ledger_name": "moderation.example.org/log",
    "ledger_url": "s3://elsewhere/log",
    "seal_rows": "500",
    "seal_seconds": "5",
    "four_eyes": "True",
}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"FILTER_SERVICE_{name.upper()}", raising=False)


def test_every_setting_has_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(GOOD) == set(Settings.model_fields)
    for name, value in GOOD.items():
        monkeypatch.setenv(f"FILTER_SERVICE_{name.upper()}", value)
    found = Settings.load().model_dump(mode="json")
    given = {name: _as_given(value) for name, value in found.items()}
    assert given == GOOD


def _as_given(value: object) -> str:
    return json.dumps(value) if isinstance(value, list) else str(value).removesuffix(".0")


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in GOOD:
        monkeypatch.setenv(f"FILTER_SERVICE_{name.upper()}", "")
    assert Settings.load(_env_file=None) == Settings(_env_file=None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", "0"),
        ("batch_size", "many"),
        ("precision", "int8"),
        ("sweep_seconds", "0"),
        ("lease_seconds", "-1"),
        ("max_pixels", str(PILLOWS_LIMIT + 1)),
        ("max_frames", "0"),
        ("web_port", "65536"),
        ("undo_seconds", "-1"),
        ("webhook_private", "perhaps"),
    ],
)
def test_a_bad_value_is_named_with_its_variable(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = f"FILTER_SERVICE_{name.upper()}"
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidSettings, match=variable) as caught:
        Settings.load()
    assert value in str(caught.value)


def test_a_host_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FILTER_SERVICE_FETCH_HOSTS", '["http://example.org/path"]')
    with pytest.raises(InvalidSettings, match="FETCH_HOSTS holds 'http:"):
        Settings.load()


def test_pillow_itself_opens_nothing_above_the_limit() -> None:
    from PIL import Image

    assert Image.MAX_IMAGE_PIXELS is None or PILLOWS_LIMIT == 2 * Image.MAX_IMAGE_PIXELS
