"""Object stores: S3 and what speaks its language, and Google Cloud Storage. Opened once, tried once, named in errors.

A store is found by the standard variables of its own tools, never by what a URI says beside bucket and path, for URIs
are written into runs and reports:

    AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL    another store than Amazon's, e.g. http://127.0.0.1:9000 of MinIO
    AWS_REGION, AWS_DEFAULT_REGION           else the bucket is asked
    AWS_ACCESS_KEY_ID and so on              or a profile, or the role of the machine: the whole chain of the AWS SDK
    GOOGLE_APPLICATION_CREDENTIALS           or the machine's service account
    CLOUD_STORAGE_EMULATOR_ENDPOINT          another store than Google's, without credentials

A store that does not answer is given up within :data:`PATIENCE_S`; the SDK alone would try for minutes.
"""

import datetime
import functools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from pyarrow import fs

from detector_core.errors import BadConfig, StorageUnavailable

PATIENCE_S = 20
"""At most this long does it take to say that a store does not answer."""
CONNECT_S, ANSWER_S = 3.0, 5.0
ATTEMPTS_AT_FIRST, ATTEMPTS = 2, 8
"""At the start an error is the user's and must be told at once; later it is more often the store's, and passes."""
DETAIL = 160
"""Characters of what a client says; Google's goes on for lines."""
_SETTINGS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE",
             "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "CLOUD_STORAGE_EMULATOR_ENDPOINT")  # fmt: skip
_OF_PYARROW = re.compile(r"\?(?:.*&)?(endpoint_override|scheme|region|anonymous|allow_bucket_creation|retry_[a-z_]+)=")
_CREDENTIALS = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY|INVALID_CLIENT_TOKEN|EXPIRED|SIGNATURE|UNRECOGNIZED_CLIENT|HTTP status 40[13]"
    # A question by HEAD is answered without a reason: 400 is how S3 says there that a session token has expired.
    r"|HTTP status 400\) during Head|InvalidToken|ExpiredToken|OAuth2|credential|UNAUTHENTICATED|PERMISSION_DENIED",
    re.IGNORECASE,
)
_UNREACHABLE = re.compile(r"NETWORK_CONNECTION|curlCode|UNAVAILABLE|DEADLINE|timed? ?out|EasyPerform", re.IGNORECASE)
_NO_BUCKET = re.compile(r"NO_SUCH_BUCKET|Bucket '.*' not found|NoSuchBucket|bucket does not exist", re.IGNORECASE)
_FROM_STORE = re.compile(r"AWS Error|google::cloud|Bucket '.*' not found")


def locate(uri: str) -> tuple[fs.FileSystem, str]:
    """The filesystem of an ``s3://`` or ``gs://`` URI and the path in it, taken as it is: no percent-encoding.

    Raises:
        BadConfig: a URI without a bucket, or with credentials or settings in it.
        StorageUnavailable: the store does not answer, refuses, or has no such bucket.
    """
    scheme, _, path = uri.partition("://")
    bucket = path.partition("/")[0]
    if not bucket or "@" in bucket or _OF_PYARROW.search(path):
        raise BadConfig(
            f"{re.sub('//.*@', '//...@', uri)}: write {scheme}://BUCKET/PATH; credentials and the endpoint go into "
            f"the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL)"
        )
    return _opened(scheme, bucket, tuple(os.environ.get(name) for name in _SETTINGS)), path


@contextmanager
def named(uri: str) -> Iterator[None]:
    """Turns what a store's client says of an error into one line that names the URI and what to do."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageUnavailable(explain(str(error), uri)) from None


def is_store_error(error: OSError) -> bool:
    """Whether an error comes from an object store."""
    return bool(_FROM_STORE.search(str(error)))


def explain(found: str, uri: str = "the object store") -> str:
    """An error of a store's client in one line."""
    scheme, _, path = uri.partition("://")
    where, renew = _ADVICE.get(scheme, _ADVICE["s3"])
    detail = (found.strip() or "no reason given").splitlines()[0]
    detail = re.sub(r"^.*?(AWS Error )|\(Request ID: .*?\)|curlCode: \d+, |Details: ", r"\1", detail).strip()[:DETAIL]
    if _NO_BUCKET.search(found):
        return f"{uri}: there is no bucket {path.partition('/')[0]}: make it, or correct the name"
    if _CREDENTIALS.search(found):
        return f"{uri} refuses these credentials: missing, wrong, expired or not allowed ({detail}); {renew}"
    if _UNREACHABLE.search(found):
        return f"{uri} does not answer at {_endpoint(scheme) or 'its public address'} ({detail}): check {where}"
    return f"{uri}: {detail}"


_ADVICE = {
    "s3": (
        "the network and AWS_ENDPOINT_URL",
        "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for temporary ones, AWS_SESSION_TOKEN, on every node",
    ),
    "gs": ("the network", "set GOOGLE_APPLICATION_CREDENTIALS, or give the machines a service account"),
}
"""What to check where a store does not answer, and how to renew credentials."""
SCHEMES = tuple(_ADVICE)


def _endpoint(scheme: str) -> str:
    if scheme == "gs":
        return os.environ.get("CLOUD_STORAGE_EMULATOR_ENDPOINT", "")
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


@functools.lru_cache(maxsize=64)
def _opened(scheme: str, bucket: str, _settings: tuple[str | None, ...]) -> fs.FileSystem:
    """A filesystem whose bucket was seen to be there; the settings are part of the key, an error is not kept."""
    uri = f"{scheme}://{bucket}"
    with named(uri):
        first, later = _gcs() if scheme == "gs" else _s3(bucket)
        if first.get_file_info(bucket).type == fs.FileType.NotFound:
            raise StorageUnavailable(explain(f"Bucket '{bucket}' not found", uri))
    return later


def _s3(bucket: str) -> tuple[fs.FileSystem, fs.FileSystem]:
    url = _endpoint("s3")
    parts = urlsplit(url if "://" in url else f"https://{url}")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    found = {
        "region": region or ("us-east-1" if url else fs.resolve_s3_region(bucket)),
        "connect_timeout": CONNECT_S,
        # A small object is then put in one request.
        "allow_delayed_open": True,
        **({"endpoint_override": parts.netloc, "scheme": parts.scheme} if url else {}),
    }
    return (
        fs.S3FileSystem(request_timeout=ANSWER_S, retry_strategy=_attempts(ATTEMPTS_AT_FIRST), **found),
        fs.S3FileSystem(request_timeout=6 * ANSWER_S, retry_strategy=_attempts(ATTEMPTS), **found),
    )


def _attempts(number: int) -> fs.AwsStandardS3RetryStrategy:
    return fs.AwsStandardS3RetryStrategy(max_attempts=number)


def _gcs() -> tuple[fs.FileSystem, fs.FileSystem]:
    url = _endpoint("gs")
    parts = urlsplit(url if "://" in url else f"http://{url}")
    found = {"endpoint_override": parts.netloc, "scheme": parts.scheme, "anonymous": True} if url else {}
    limits = (datetime.timedelta(seconds=seconds) for seconds in (ANSWER_S, 12 * ANSWER_S))
    first, later = (fs.GcsFileSystem(retry_time_limit=limit, **found) for limit in limits)
    return first, later
