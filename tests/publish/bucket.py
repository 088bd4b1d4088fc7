"""A server that speaks S3, on this machine, and a look at it that is not safeswap's."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST",
    "AWS_SECRET_ACCESS_KEY": "SECRETsecretSECRETsecret0123456789abcdef",
    "AWS_DEFAULT_REGION": "us-east-1",
}


class Bucket:
    """moto's server with one bucket, asked by boto3.

    Attributes:
        sent: (method, path, bytes) of what was asked of it, in order.
        before: called with method, path and query before each answer; a number is answered in
            place of it, as a status.
    """

    def __init__(self) -> None:
        import boto3
        from botocore.config import Config
        from moto.s3 import models
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        # Parts of a test are small. The models hold a copy of the setting, taken when they were
        # first imported, which another module's server may have done.
        vars(models)["S3_UPLOAD_PART_MIN_SIZE"] = 1
        self.sent: list[tuple[str, str, int]] = []
        self.before: Any = None
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        inner = DomainDispatcherApplication(create_backend_app)

        def app(environ: Any, start: Any) -> Any:
            method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
            query = environ.get("QUERY_STRING", "")
            self.sent.append((method, f"{path}?{query}", int(environ.get("CONTENT_LENGTH") or 0)))
            status = self.before and self.before(method, path, query)
            if status:
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                code = {403: "AccessDenied", 503: "SlowDown"}.get(status, "InternalError")
                start(f"{status} {code}", [("Content-Type", "application/xml")])
                return [f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()]
            return inner(environ, start)

        self.server = make_server("127.0.0.1", 0, app, threaded=True)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.s3 = boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            region_name="us-east-1",
            config=Config(connect_timeout=5, read_timeout=20, retries={"max_attempts": 1}),
        )
        self.s3.create_bucket(Bucket="models")

    def files(self, prefix: str = "") -> dict[str, bytes]:
        """Key → bytes of what a reader sees."""
        found = self.s3.list_objects_v2(Bucket="models", Prefix=prefix).get("Contents", [])
        return {
            one["Key"]: self.s3.get_object(Bucket="models", Key=one["Key"])["Body"].read()
            for one in found
        }

    def uploads(self) -> list[str]:
        """The keys of uploads that are not completed."""
        found = self.s3.list_multipart_uploads(Bucket="models").get("Uploads", [])
        return sorted(one["Key"] for one in found)

    def parts_sent(self) -> list[str]:
        """The parts that were sent so far: key, upload and number of each."""
        return [path for method, path, _ in self.sent if method == "PUT" and "partNumber" in path]

    def parts_held(self) -> set[str]:
        """The parts of uploads that are not completed, named as `parts_sent` does."""
        found = set()
        for one in self.s3.list_multipart_uploads(Bucket="models").get("Uploads", []):
            key, upload = one["Key"], one["UploadId"]
            parts = self.s3.list_parts(Bucket="models", Key=key, UploadId=upload).get("Parts", [])
            address = f"/models/{key}?uploadId={upload}&partNumber="
            found |= {f"{address}{part['PartNumber']}" for part in parts}
        return found

    def shown(self) -> list[str]:
        """The keys in the order in which their uploads were completed."""
        done = [path for method, path, _ in self.sent if method == "POST" and "uploadId=" in path]
        return [path.split("?")[0].removeprefix("/models/") for path in done]

    def clear(self) -> None:
        """Empty it."""
        self.before = None
        for one in self.s3.list_multipart_uploads(Bucket="models").get("Uploads", []):
            self.s3.abort_multipart_upload(
                Bucket="models", Key=one["Key"], UploadId=one["UploadId"]
            )
        for key in self.files():
            self.s3.delete_object(Bucket="models", Key=key)
        self.sent.clear()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def served() -> Iterator[Bucket]:
    """A bucket for the time of the block."""
    bucket = Bucket()
    try:
        yield bucket
    finally:
        bucket.stop()


def use(patch: pytest.MonkeyPatch, bucket: Bucket) -> None:
    """What a user's environment says of it."""
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": bucket.url}.items():
        patch.setenv(name, value)
