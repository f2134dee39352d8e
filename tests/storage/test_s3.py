"""Buckets of S3, as s3fs reads and writes them, against moto's server on loopback."""

import hashlib
import logging
from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from filter_service.errors import ImageTooLarge, StorageUnavailable, UnreadableImage
from filter_service.intake.download import get
from filter_service.storage import Storage

DATA = b"some picture"
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(scope="module", autouse=True)
def bucket() -> Iterator[None]:
    """A server with one bucket, to which the usual variables of AWS lead."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "an-id")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client("s3")
        client.create_bucket(Bucket="bucket")
        client.put_object(Bucket="bucket", Key="a key (ä).jpg", Body=DATA)
        client.close()
        yield
        S3FileSystem.clear_instance_cache()
    server.stop()


def test_an_image_is_kept_read_and_deleted() -> None:
    store = Storage("s3://bucket/images")
    assert not store.has(DIGEST)
    store.put(DIGEST, DATA)
    assert store.has(DIGEST) and store.get(DIGEST) == DATA
    store.delete(DIGEST)
    store.delete(DIGEST)
    assert not store.has(DIGEST)


def test_an_image_that_is_not_there_is_told_from_a_store_that_is_not() -> None:
    store = Storage("s3://bucket/filled")
    store.put(DIGEST, DATA)
    with pytest.raises(UnreadableImage, match="submit it again"):
        store.get("0" * 64)
    with pytest.raises(StorageUnavailable, match="s3://nosuch"):
        Storage("s3://nosuch/images").get(DIGEST)


def test_a_damaged_image_is_told() -> None:
    store = Storage("s3://bucket/images")
    store.put(DIGEST, b"another picture")
    with pytest.raises(UnreadableImage, match="damaged"):
        store.get(DIGEST)


def test_a_reference_is_read() -> None:
    assert get("s3://bucket/a key (ä).jpg", ["s3://bucket"], 30, 1_000) == DATA


def test_a_reference_over_the_limit_is_refused() -> None:
    with pytest.raises(ImageTooLarge):
        get("s3://bucket/a key (ä).jpg", ["s3://bucket"], 30, len(DATA) - 1)


def test_a_reference_to_nothing_is_no_image() -> None:
    with pytest.raises(UnreadableImage, match="is not there"):
        get("s3://bucket/none.jpg", ["s3://bucket"], 30, 1_000)
