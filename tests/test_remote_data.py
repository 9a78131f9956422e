"""Data behind a URI: on a server that speaks S3's protocol, and in a file system."""

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from fer_search.data.faces import EMOTIONS
from fer_search.data.fer2013 import load_faces
from fer_search.data.fer2013_csv import write_csv
from fer_search.data.synthetic import synthesize
from fer_search.errors import InvalidInput


@pytest.fixture(scope="module")
def s3():
    """A client of a server's bucket `faces`, and the options that lead a URI to that server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="name",
        aws_secret_access_key="secret",
    )
    client.create_bucket(Bucket="faces")
    yield client, f"?endpoint_override={host}:{port}&scheme=http"
    server.stop()


@pytest.fixture
def credentials(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "name")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "fer2013.csv"
    write_csv(synthesize(60, seed=1), path)
    return path


def test_a_csv_in_a_bucket_holds_the_faces_that_the_file_holds(s3, credentials, csv, tmp_path):
    client, options = s3
    client.upload_file(str(csv), "faces", "some/fer2013.csv")
    found = load_faces(f"s3://faces/some/fer2013.csv{options}", cache_dir=tmp_path / "cache")
    assert found.fingerprint() == load_faces(csv, cache_dir=tmp_path / "other").fingerprint()


def test_another_file_under_the_same_uri_is_not_taken_for_the_one_before(s3, credentials, csv, tmp_path):
    client, options = s3
    uri = f"s3://faces/changing.csv{options}"
    client.upload_file(str(csv), "faces", "changing.csv")
    before = load_faces(uri, cache_dir=tmp_path / "cache").fingerprint()
    write_csv(synthesize(60, seed=2), csv)
    client.upload_file(str(csv), "faces", "changing.csv")
    after = load_faces(uri, cache_dir=tmp_path / "cache").fingerprint()
    assert before != after == load_faces(csv, cache_dir=tmp_path / "other").fingerprint()


def test_a_folder_of_images_behind_a_uri_is_read_as_a_folder_here(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for emotion in EMOTIONS:
            folder = tmp_path / "copy" / split / emotion
            folder.mkdir(parents=True)
            Image.fromarray(rng.integers(0, 256, (48, 48), dtype=np.uint8)).save(folder / "a.png")
    here = load_faces(tmp_path / "copy", cache_dir=tmp_path / "one")
    there = load_faces(f"file://{tmp_path}/copy", cache_dir=tmp_path / "two")
    assert there.fingerprint() == here.fingerprint()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://faces/nothing.csv{options}", "must be a csv or parquet file, or a directory of images"),
        ("s3://key:secret@faces/fer2013.csv{options}", "must hold no credentials"),
        ("s3://faces/fer2013.csv{options}&secret_key=secret", "must hold no credentials"),
        ("ftp://faces/fer2013.csv", "must be readable"),
        ("file://{tmp}/none.csv", "must be a csv or parquet file"),
    ],
)
def test_what_cannot_be_read_is_said_and_no_secret_is_repeated(s3, credentials, tmp_path, uri, message):
    with pytest.raises(InvalidInput, match=message) as error:
        load_faces(uri.format(options=s3[1], tmp=tmp_path), cache_dir=tmp_path)
    assert "secret@" not in str(error.value)
    assert "=secret" not in str(error.value)
