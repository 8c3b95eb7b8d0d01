"""Opens S3 (or a compatible store) and Google Cloud Storage, and explains their errors in one line.

The standard environment variables of the stores' own tools say where a store is and who may use it. A URI holds only
bucket and path, because URIs are recorded in runs and reports:

    AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL    a store other than Amazon's, e.g. http://127.0.0.1:9000 for MinIO
    AWS_REGION, AWS_DEFAULT_REGION           default: the bucket's own region
    AWS_ACCESS_KEY_ID, ...                   or a profile or the machine's role: the credential chain of the AWS SDK
    GOOGLE_APPLICATION_CREDENTIALS           or the machine's service account
    CLOUD_STORAGE_EMULATOR_ENDPOINT          a store other than Google's, without credentials

A store that does not answer is given up after at most :data:`MAX_WAIT_S`; the SDK alone would retry for minutes.
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

MAX_WAIT_S = 20
"""Upper bound on the seconds until an error says that a store does not answer."""
CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S = 3.0, 5.0
FIRST_ATTEMPTS, LATER_ATTEMPTS = 2, 8
"""The first access fails quickly, because errors there are usually wrong settings; later ones are usually transient."""
MAX_DETAIL = 160
"""Characters of the client's own message to keep; Google's messages go on for lines."""
_SETTINGS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE",
             "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "CLOUD_STORAGE_EMULATOR_ENDPOINT")  # fmt: skip
_PYARROW_OPTIONS = re.compile(
    r"\?(?:.*&)?(endpoint_override|scheme|region|anonymous|allow_bucket_creation|retry_[a-z_]+)="
)
_BAD_CREDENTIALS = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY|INVALID_CLIENT_TOKEN|EXPIRED|SIGNATURE|UNRECOGNIZED_CLIENT|HTTP status 40[13]"
    # A response to HEAD gives no reason; S3 answers 400 there if a session token has expired.
    r"|HTTP status 400\) during Head|InvalidToken|ExpiredToken|OAuth2|credential|UNAUTHENTICATED|PERMISSION_DENIED",
    re.IGNORECASE,
)
_UNREACHABLE = re.compile(r"NETWORK_CONNECTION|curlCode|UNAVAILABLE|DEADLINE|timed? ?out|EasyPerform", re.IGNORECASE)
_NO_BUCKET = re.compile(r"NO_SUCH_BUCKET|Bucket '.*' not found|NoSuchBucket|bucket does not exist", re.IGNORECASE)
_STORE_ERROR = re.compile(r"AWS Error|google::cloud|Bucket '.*' not found")


def locate(uri: str) -> tuple[fs.FileSystem, str]:
    """The filesystem of an ``s3://`` or ``gs://`` URI, and the path in it, used literally (no percent-decoding).

    Raises:
        BadConfig: the URI has no bucket, or contains credentials or options.
        StorageUnavailable: the store does not answer, denies access, or has no such bucket.
    """
    scheme, _, path = uri.partition("://")
    bucket = path.partition("/")[0]
    if not bucket or "@" in bucket or _PYARROW_OPTIONS.search(path):
        raise BadConfig(
            f"{re.sub('//.*@', '//...@', uri)} must be {scheme}://BUCKET/PATH: set credentials and the endpoint in "
            f"environment variables (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL)"
        )
    return _open(scheme, bucket, tuple(os.environ.get(name) for name in _SETTINGS)), path


@contextmanager
def translate_errors(uri: str) -> Iterator[None]:
    """Turns errors of a store's client into StorageUnavailable with one line that names the URI and what to do."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageUnavailable(explain(str(error), uri)) from None


def is_store_error(error: OSError) -> bool:
    """Whether an error of pyarrow comes from an object store."""
    return bool(_STORE_ERROR.search(str(error)))


def explain(message: str, uri: str = "the object store") -> str:
    """Explains an error message of a store's client in one line."""
    scheme, _, path = uri.partition("://")
    check, credentials = _ADVICE.get(scheme, _ADVICE["s3"])
    detail = (message.strip() or "no reason given").splitlines()[0]
    detail = re.sub(r"^.*?(AWS Error )|\(Request ID: .*?\)|curlCode: \d+, |Details: ", r"\1", detail).strip()[
        :MAX_DETAIL
    ]
    if _NO_BUCKET.search(message):
        return f"{uri}: there is no bucket {path.partition('/')[0]}: create it, or correct the name"
    if _BAD_CREDENTIALS.search(message):
        return f"{uri} denies access: credentials are missing, wrong, expired or insufficient ({detail}); {credentials}"
    if _UNREACHABLE.search(message):
        return f"{uri} does not answer at {_endpoint(scheme) or 'its public address'} ({detail}): check {check}"
    return f"{uri}: {detail}"


_ADVICE = {
    "s3": (
        "the network and AWS_ENDPOINT_URL",
        "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for temporary credentials, AWS_SESSION_TOKEN, on every node",
    ),
    "gs": (
        "the network",
        "set GOOGLE_APPLICATION_CREDENTIALS on every node, or assign a service account to the machines",
    ),
}
"""By scheme: what to check if a store does not answer, and how to set its credentials."""
SCHEMES = tuple(_ADVICE)


def _endpoint(scheme: str) -> str:
    if scheme == "gs":
        return os.environ.get("CLOUD_STORAGE_EMULATOR_ENDPOINT", "")
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


@functools.lru_cache(maxsize=64)
def _open(scheme: str, bucket: str, _settings: tuple[str | None, ...]) -> fs.FileSystem:
    """A filesystem whose bucket exists. The settings are part of the cache key; errors are not cached."""
    uri = f"{scheme}://{bucket}"
    with translate_errors(uri):
        impatient, patient = _gcs() if scheme == "gs" else _s3(bucket)
        if impatient.get_file_info(bucket).type == fs.FileType.NotFound:
            raise StorageUnavailable(explain(f"Bucket '{bucket}' not found", uri))
    return patient


def _s3(bucket: str) -> tuple[fs.FileSystem, fs.FileSystem]:
    """Filesystems for the first access and for all later ones."""
    url = _endpoint("s3")
    parts = urlsplit(url if "://" in url else f"https://{url}")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    options = {
        "region": region or ("us-east-1" if url else fs.resolve_s3_region(bucket)),
        "connect_timeout": CONNECT_TIMEOUT_S,
        "allow_delayed_open": True,  # puts a small object in one request
        **({"endpoint_override": parts.netloc, "scheme": parts.scheme} if url else {}),
    }
    return (
        fs.S3FileSystem(request_timeout=REQUEST_TIMEOUT_S, retry_strategy=_retries(FIRST_ATTEMPTS), **options),
        fs.S3FileSystem(request_timeout=6 * REQUEST_TIMEOUT_S, retry_strategy=_retries(LATER_ATTEMPTS), **options),
    )


def _retries(attempts: int) -> fs.AwsStandardS3RetryStrategy:
    return fs.AwsStandardS3RetryStrategy(max_attempts=attempts)


def _gcs() -> tuple[fs.FileSystem, fs.FileSystem]:
    """Filesystems for the first access and for all later ones."""
    url = _endpoint("gs")
    parts = urlsplit(url if "://" in url else f"http://{url}")
    options = {"endpoint_override": parts.netloc, "scheme": parts.scheme, "anonymous": True} if url else {}
    limits = (datetime.timedelta(seconds=seconds) for seconds in (REQUEST_TIMEOUT_S, 12 * REQUEST_TIMEOUT_S))
    impatient, patient = (fs.GcsFileSystem(retry_time_limit=limit, **options) for limit in limits)
    return impatient, patient
