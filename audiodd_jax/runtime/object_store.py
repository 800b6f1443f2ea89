"""Objects in S3 and Google Cloud Storage: whole, by version, and with retries.

fsspec's s3fs and gcsfs find the credentials and the endpoint, and keep connections. The
requests are made here, since they carry preconditions: an object is replaced only if it
has the version that the writer knows.
"""

import asyncio
import contextlib
import datetime
import email.utils
import functools
import importlib.util
import json
import logging
import os
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

from audiodd_jax.errors import UserError

_log = logging.getLogger(__name__)

# The package behind each scheme; the extra has the scheme's name, except for gs.
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}
# Attempts of a request, and seconds before the second one; each next wait is twice as
# long.
TRIES, BACKOFF = 6, 0.5
# Seconds without an answer after which a request is tried again.
PATIENCE = 60.0
# Objects are read in parts of so many bytes.
_BLOCK = 64 << 20
_PRECONDITION, _MISSING = 412, 404
_DENIED = (401, 403)
_SEVERAL_WRITERS = 409  # S3: another write of the object is in progress
_BUSY = (408, _SEVERAL_WRITERS, 425, 429)
# S3 answers 400 to credentials that have expired.
_BAD_CREDENTIALS = ("ExpiredToken", "InvalidToken", "TokenRefreshRequired")


class Changed(Exception):  # noqa: N818 (it tells what happened)
    """Another writer has replaced, created or removed the object."""


class Found(NamedTuple):
    """An object in a listing: bytes, version, and time of writing since 1970."""

    size: int
    version: str
    modified: float


class Content(NamedTuple):
    """The bytes of an object, with its version and time of writing since 1970."""

    data: bytes
    version: str
    modified: float


class _S3:
    """The requests of S3; versions are ETags."""

    def __init__(self, bucket: str):
        import s3fs

        # One attempt here, since ``_tried`` repeats requests.
        limits = {"connect_timeout": PATIENCE, "read_timeout": PATIENCE}
        client = {"retries": {"total_max_attempts": 1}, **limits}
        self._files = s3fs.S3FileSystem(
            config_kwargs=client, skip_instance_cache=True, use_listings_cache=False
        )
        self.loop, self._bucket = self._files.loop, bucket

    async def _request(self, name: str, **arguments: Any) -> dict[str, Any]:
        await self._files.set_session()
        client = await self._files.get_s3(self._bucket)
        return await getattr(client, name)(Bucket=self._bucket, **arguments)

    async def page(self, prefix: str, token: str) -> tuple[dict[str, Found], str]:
        more = {"ContinuationToken": token} if token else {}
        answer = await self._request("list_objects_v2", Prefix=prefix, **more)
        found = {
            row["Key"]: Found(row["Size"], row["ETag"], row["LastModified"].timestamp())
            for row in answer.get("Contents", ())
        }
        return found, answer.get("NextContinuationToken", "")

    async def read(self, key: str, version: str, start: int, size: int) -> Content:
        arguments = {"IfMatch": version} if version else {}
        if size:
            arguments["Range"] = f"bytes={start}-{start + size - 1}"
        answer = await self._request("get_object", Key=key, **arguments)
        async with answer["Body"] as body:
            data = await body.read()
        if len(data) != answer["ContentLength"]:
            raise ConnectionError("the answer is incomplete")
        return Content(data, answer["ETag"], answer["LastModified"].timestamp())

    async def write(self, key: str, data: bytes, version: str | None) -> str:
        condition = {"IfMatch": version} if version else {"IfNoneMatch": "*"}
        if version is None:
            condition = {}
        answer = await self._request("put_object", Key=key, Body=data, **condition)
        return answer["ETag"]

    async def remove(self, key: str) -> None:
        await self._request("delete_object", Key=key)


class _GoogleCloud:
    """The requests of Google Cloud Storage; versions are generations."""

    def __init__(self, bucket: str):
        import aiohttp
        import gcsfs

        # Its errors are raised too.
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL + 1)
        emulator = os.environ.get("STORAGE_EMULATOR_HOST")
        self._files = gcsfs.GCSFileSystem(
            token="anon" if emulator else None,
            requests_timeout=aiohttp.ClientTimeout(
                sock_connect=PATIENCE, sock_read=PATIENCE
            ),
            skip_instance_cache=True,
            use_listings_cache=False,
        )
        self.loop, self._root = self._files.loop, self._files._location
        self._objects = f"b/{quote(bucket, safe='')}/o"

    async def _request(
        self, method: str, path: str, key: str | None = None, **arguments: Any
    ) -> tuple[Any, bytes]:
        url = f"{self._root}/{path}/{self._objects}"
        url += "" if key is None else f"/{quote(key, safe='')}"
        # Without gcsfs's own retries, which take a minute.
        once = type(self._files)._request.__wrapped__
        _, headers, _, data = await once(self._files, method, url, **arguments)
        return headers, data

    async def page(self, prefix: str, token: str) -> tuple[dict[str, Found], str]:
        more = {"pageToken": token} if token else {}
        fields = "nextPageToken,items(name,size,generation,updated)"
        _, data = await self._request(
            "GET", "storage/v1", prefix=prefix, fields=fields, **more
        )
        answer, found = json.loads(data), {}
        for row in answer.get("items", ()):
            modified = datetime.datetime.fromisoformat(row["updated"]).timestamp()
            size = int(row.get("size", 0))
            found[row["name"]] = Found(size, str(row["generation"]), modified)
        return found, answer.get("nextPageToken", "")

    async def read(self, key: str, version: str, start: int, size: int) -> Content:
        condition = {"ifGenerationMatch": version} if version else {}
        span = {"Range": f"bytes={start}-{start + size - 1}"} if size else {}
        headers, data = await self._request(
            "GET", "download/storage/v1", key, alt="media", headers=span, **condition
        )
        modified = headers.get("Last-Modified")
        when = email.utils.parsedate_to_datetime(modified) if modified else None
        time_of_writing = when.timestamp() if when else time.time()
        return Content(data, headers.get("x-goog-generation", ""), time_of_writing)

    async def write(self, key: str, data: bytes, version: str | None) -> str:
        condition = {} if version is None else {"ifGenerationMatch": version or "0"}
        # In parts, of which the first could hold metadata: emulators take no empty
        # upload otherwise.
        mark = uuid.uuid4().hex
        kinds = b"application/json", b"application/octet-stream"
        parts = [
            b"--%s\nContent-Type: %s\n\n%s\n" % (mark.encode(), kind, part)
            for kind, part in zip(kinds, (b"{}", data), strict=True)
        ]
        _, answer = await self._request(
            *("POST", "upload/storage/v1"),
            uploadType="multipart",
            name=key,
            data=b"".join([*parts, b"--%s--" % mark.encode()]),
            headers={"Content-Type": f'multipart/related; boundary="{mark}"'},
            **condition,
        )
        return str(json.loads(answer)["generation"])

    async def remove(self, key: str) -> None:
        await self._request("DELETE", "storage/v1", key)


class Bucket:
    """A bucket of a store; every request is tried several times.

    Raises:
      UserError: in one sentence: no such bucket, wrong credentials (at once), or a
        store that does not answer (after all attempts). Of every function.
    """

    def __init__(self, scheme: str, name: str):
        self.url = f"{scheme}://{name}"
        check_installed(scheme)
        with self._one_sentence(""):
            self._requests = {"s3": _S3, "gs": _GoogleCloud}[scheme](name)

    def listed(self, prefix: str) -> dict[str, Found]:
        """Returns the objects whose keys begin with ``prefix``."""
        found, token = {}, ""
        while True:
            list_page = functools.partial(self._requests.page, prefix, token)
            with self._needs_bucket():
                page, token = self._tried(list_page, prefix)
            found |= page
            if not token:
                return found

    def read(self, key: str) -> Content:
        """Returns a small object; raises FileNotFoundError if it does not exist."""
        return self._tried(lambda: self._requests.read(key, "", 0, 0), key)

    def download(self, key: str, found: Found, file: Any) -> None:
        """Writes the bytes of an object of a listing to an open file.

        Raises:
          Changed: the object has been replaced since it was listed.
          FileNotFoundError: it has been removed.
        """
        for start in range(0, found.size, _BLOCK):
            size = min(_BLOCK, found.size - start)
            read = functools.partial(
                self._requests.read, key, found.version, start, size
            )
            file.write(self._tried(read, key).data)

    def write(self, key: str, data: bytes, version: str | None = None) -> str:
        """Writes an object, which becomes visible whole; returns its version.

        Args:
          version: that of the object to replace; empty: there must be none; None:
            whatever is there is replaced.

        Raises:
          Changed: the object has another version.
        """
        write = functools.partial(self._requests.write, key, data, version)
        try:
            with self._needs_bucket():
                return self._tried(write, key)
        except Changed:
            # The answer to an earlier attempt may have been lost.
            with contextlib.suppress(FileNotFoundError):
                there = self.read(key)
                if there.data == data:
                    return there.version
            raise

    @contextlib.contextmanager
    def _needs_bucket(self) -> Iterator[None]:
        """Says that there is no bucket where nothing else can be missing."""
        try:
            yield
        except FileNotFoundError as error:
            raise UserError(f"there is no bucket {self.url}") from error

    def remove(self, key: str) -> None:
        """Removes an object, if it exists."""
        with contextlib.suppress(FileNotFoundError):
            self._tried(lambda: self._requests.remove(key), key)

    def _tried(self, request: Callable[[], Awaitable[Any]], key: str) -> Any:
        """Makes a request until it succeeds, fails for good, or all tries are used."""
        from fsspec.asyn import sync

        began = time.monotonic()
        for attempt in range(TRIES):
            try:
                with self._one_sentence(key):
                    return sync(self._requests.loop, request)
            except _Transient as error:
                reason = str(error)
            if attempt + 1 < TRIES:
                level = logging.INFO if attempt == 2 else logging.DEBUG
                _log.log(level, "%s/%s: %s; trying again", self.url, key, reason)
                time.sleep(BACKOFF * 2**attempt * random.uniform(0.5, 1.0))
        seconds = time.monotonic() - began
        raise UserError(
            f"{self.url}/{key} cannot be reached ({reason}; {TRIES} attempts in "
            f"{seconds:.0f} s); finished work is kept, and the same command continues "
            "once the store answers"
        )

    @contextlib.contextmanager
    def _one_sentence(self, key: str) -> Iterator[None]:
        """Turns the libraries' errors into ours."""
        try:
            yield
        except (UserError, Changed):
            raise
        except Exception as error:
            status, name = _status(error), _name(error)
            if status == _PRECONDITION:
                raise Changed(f"{self.url}/{key}") from error
            if status == _MISSING:
                if name == "NoSuchBucket":
                    raise UserError(f"there is no bucket {self.url}") from error
                raise FileNotFoundError(f"{self.url}/{key}") from error
            is_denied = status in _DENIED or name in _BAD_CREDENTIALS
            if is_denied or _lacks_credentials(error):
                raise UserError(
                    f"{self.url} refuses access ({name}): check the credentials and "
                    "their rights to read, list, write and delete there"
                ) from error
            is_refused = 400 <= status < 500 and status not in _BUSY
            if is_refused or isinstance(error, AttributeError | TypeError | NameError):
                raise
            raise _Transient(name) from error


class _Transient(Exception):  # noqa: N818 (it never leaves this module)
    """A request that may succeed when it is tried again."""


def _status(error: Exception) -> int:
    """Returns the HTTP status of an error of s3fs or gcsfs; 0: none."""
    if isinstance(error, FileNotFoundError):
        return _MISSING
    if isinstance(error, FileExistsError):
        return _PRECONDITION
    if isinstance(error, OSError) and str(error).startswith("Forbidden"):
        return 403
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):
        return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code = str(getattr(error, "code", None) or getattr(error, "status", None) or 0)
    return int(code) if code.isdigit() else 0


def _name(error: Exception) -> str:
    """Names an error in a word or two."""
    answer = getattr(error, "response", None)
    if isinstance(answer, dict) and answer.get("Error", {}).get("Code"):
        return str(answer["Error"]["Code"])
    if status := _status(error):
        return f"HTTP status {status}"
    is_slow = isinstance(error, asyncio.TimeoutError) or "Timeout" in str(type(error))
    return "no answer in time" if is_slow else type(error).__name__


def _lacks_credentials(error: Exception) -> bool:
    kinds = [kind.__name__ for kind in type(error).__mro__]
    words = ("CredentialsError", "GoogleAuthError", "ProfileNotFound")
    return any(word in kind for kind in kinds for word in words)


def check_installed(scheme: str) -> None:
    """Checks that the package of a scheme, ``s3`` or ``gs``, is installed."""
    package = _PACKAGES[scheme]
    if not importlib.util.find_spec(package):
        extra = "s3" if scheme == "s3" else "gcs"
        raise UserError(
            f"{scheme}:// needs {package}: pip install 'audiodd_jax[{extra}]'"
        )


@functools.cache
def _bucket(scheme: str, name: str, process: int) -> Bucket:
    return Bucket(scheme, name)


def bucket(scheme: str, name: str) -> Bucket:
    """Returns a bucket; a forked process has connections of its own."""
    return _bucket(scheme, name, os.getpid())
