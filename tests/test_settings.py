"""The settings: read from the environment, and a bad one is named."""

import json
from pathlib import Path

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
    "coverage": "model",
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
    "reports_per_hour": "50",
    "fetch_private": '["10.1.0.0/16"]',
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
        ("public_url", "moderation.example.org"),
        ("oidc_issuer", "https:///login"),
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


NUMBERS = [n for n, f in Settings.model_fields.items() if f.annotation in {int, float, int | None}]


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1" + "0" * 22])
@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_has_bounds_on_both_sides(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"FILTER_SERVICE_{name.upper()}", value)
    with pytest.raises(InvalidSettings, match=name.upper()):
        Settings.load(_env_file=None)


@pytest.mark.parametrize("name", ["oidc_issuer", "oidc_client_id"])
def test_half_a_provider_is_none_and_said(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"FILTER_SERVICE_{name.upper()}", GOOD[name])
    with pytest.raises(InvalidSettings, match="go together"):
        Settings.load(_env_file=None)


MISSPELT = {
    "MODLE": "MODEL",
    "DATADIR": "DATA_DIR",
    "BATCHSIZE": "BATCH_SIZE",
    "FOUR_EYE": "FOUR_EYES",
    "PORT": "WEB_PORT",
}


@pytest.mark.parametrize(("wrong", "right"), MISSPELT.items())
def test_a_setting_that_nobody_knows_is_refused_with_the_nearest(
    wrong: str, right: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"FILTER_SERVICE_{wrong}", "8000")
    sentence = f"no setting FILTER_SERVICE_{wrong}; the nearest is FILTER_SERVICE_{right}"
    with pytest.raises(InvalidSettings, match=f"{sentence}\\."):
        Settings.load(_env_file=None)


def test_a_file_of_variables_is_read_as_strictly(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("POSTGRES_PASSWORD=1\nfilter_service_modle=x\n")
    with pytest.raises(InvalidSettings, match=r"no setting FILTER_SERVICE_MODLE;"):
        Settings.load(_env_file=tmp_path / ".env")


def test_a_keyword_is_read_as_strictly() -> None:
    with pytest.raises(InvalidSettings, match=r"no setting FILTER_SERVICE_MODLE;"):
        Settings.load(modle="bundled")


def test_what_kubernetes_says_of_a_service_of_our_name_is_no_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = {
        "SERVICE_HOST": "10.0.0.11",
        "SERVICE_PORT": "8000",
        "SERVICE_PORT_HTTP": "8000",
        "PORT": "tcp://10.0.0.11:8000",
        "PORT_8000_TCP": "tcp://10.0.0.11:8000",
        "PORT_8000_TCP_PROTO": "tcp",
        "PORT_8000_TCP_PORT": "8000",
        "PORT_8000_TCP_ADDR": "10.0.0.11",
    }
    for name, value in said.items():
        monkeypatch.setenv(f"FILTER_SERVICE_{name}", value)
    assert Settings.load(_env_file=None) == Settings(_env_file=None)


def test_a_host_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FILTER_SERVICE_FETCH_HOSTS", '["http://example.org/path"]')
    with pytest.raises(InvalidSettings, match="FETCH_HOSTS holds 'http:"):
        Settings.load()


def test_pillow_itself_opens_nothing_above_the_limit() -> None:
    from PIL import Image

    assert Image.MAX_IMAGE_PIXELS is None or PILLOWS_LIMIT == 2 * Image.MAX_IMAGE_PIXELS
