"""Artifacts in an object store that speaks S3: the same names and the same promises as in a local folder.

The objects of an installation are below its own name, so several stores may share a bucket and none collects what is
another's. The layout is that of the local folder: what was there can be copied over by any tool.

Looking at an object's age and removing it are two requests; a lock in the store's folder keeps everybody of this
installation from storing the same content between them. Credentials are neither logged nor part of any message.
"""

import asyncio
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flexcore.model.errors import InvalidInput, InvalidSettings, NotFound, StoreUnavailable
from flexcore.model.values import Ref, reference
from flexcore.runtime.plugin import Link, Offer
from flexcore.store.artifacts import check, offered, own_name, shelf
from flexcore.store.locks import exclusive, shared

_BYTES = ("Content-Type", "application/octet-stream")  # else some clients say that it is a form
_LOCK_SECONDS = 30.0
_REMOVED_AT_ONCE = 20
_NO_SIGNATURE_LASTS_LONGER = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Place:
    """Where the objects are. Without `access_key` the credentials are those of the environment or the machine.

    `url` is `s3://bucket` or `s3://bucket/prefix`; `endpoint` that of a server other than Amazon's.
    """

    url: str
    endpoint: str = ""
    region: str = ""
    access_key: str = ""
    secret_key: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme != "s3" or not parts.hostname or parts.query or "@" in parts.netloc:
            raise InvalidSettings(f"artifacts cannot be kept at {parts.scheme}://…", hint="artifacts.url: s3://bucket")
        if bool(self.access_key) != bool(self.secret_key):
            raise InvalidSettings("artifacts.access_key and artifacts.secret_key go together", hint="give both or none")

    @property
    def root(self) -> str:
        """Give bucket and prefix, without slashes around."""
        return self.url.removeprefix("s3://").strip("/")


class S3Artifacts:
    """Implements `flexcore.runtime.plugin.ArtifactStore`. `folder` has the lock; connects on first use."""

    def __init__(self, place: S3Place, installation: str, folder: Path) -> None:
        self._place = place
        self._root = f"{place.root}/{installation}"
        self._lock = folder / ".lock"
        self._connected: Any = None  # s3fs has no types

    @property
    def store(self) -> str:
        """Say what a link needs: a way to the object store."""
        return "s3"

    async def put(self, data: bytes, *, format: str = "json") -> Ref:
        """Store bytes durably and name them by their content. Raises StoreUnavailable."""
        return await asyncio.to_thread(self._put, data, format)

    async def get(self, ref: Ref) -> bytes:
        """Read bytes back. Raises NotFound, InvalidInput (not one of ours), InternalError (damaged)."""
        return await asyncio.to_thread(self._get, ref)

    async def link(self, ref: Ref, valid: timedelta) -> Link:
        """Make a URL that reads. Raises NotFound, InvalidInput (not one of ours), StoreUnavailable."""
        return await asyncio.to_thread(self._link, ref, valid)

    async def offer(self, name: str, valid: timedelta) -> Offer:
        """Make a URL that writes, up to 5 GB. Raises StoreUnavailable."""
        uri = offered(name)
        link = await asyncio.to_thread(self._signed, uri, "put_object", valid)
        return Offer(uri, replace(link, headers=dict([_BYTES])))

    async def keep(self, refs: Iterable[Ref]) -> None:
        """Make content count as just stored, because it is about to be referred to again.

        Raises NotFound when some of it has been collected; what is not in this store is nobody's to keep.
        """
        ours = [ref for ref in refs if own_name(ref)]
        if ours:
            await asyncio.to_thread(self._keep, ours)

    async def old(self, before: datetime) -> Mapping[str, int]:
        """Name what was last stored before, by the clock of the object store, each with its size in bytes."""
        return await asyncio.to_thread(self._old, before)

    async def remove(self, names: Sequence[str], before: datetime) -> Mapping[str, int]:
        """Remove objects unless they have been stored again meanwhile; name those that went, with their sizes."""
        removed: dict[str, int] = {}
        for start in range(0, len(names), _REMOVED_AT_ONCE):
            removed |= await asyncio.to_thread(self._remove, names[start : start + _REMOVED_AT_ONCE], before)
        return removed

    def _path(self, ref: Ref) -> str:
        name = own_name(ref)
        if name is None:
            raise InvalidInput(f"{ref.uri!r} is not an artifact of this store", hint="artifact:sha256-<64 hex digits>")
        return self._object(name)

    def _object(self, name: str) -> str:
        return f"{self._root}/{shelf(name)}/{name}"

    def _put(self, data: bytes, format: str) -> Ref:
        ref = replace(reference(data), format=format)
        path = self._path(ref)
        with shared(self._lock), self._in_our_words(f"an artifact of {len(data)} bytes cannot be stored"):
            try:
                if self._head(path)["ContentLength"] == len(data):
                    self._touch(path)
                    return ref
            except FileNotFoundError:
                pass
            self._files.pipe_file(path, data)
        return ref

    def _get(self, ref: Ref) -> bytes:
        path = self._path(ref)
        with self._in_our_words(f"{ref.uri} cannot be read"), _found(ref):
            data: bytes = self._files.cat_file(path)
        check(ref, data)
        return data

    def _link(self, ref: Ref, valid: timedelta) -> Link:
        path = self._path(ref)
        with self._in_our_words(f"{ref.uri} cannot be linked"), _found(ref):
            self._head(path)
        return self._signed(ref.uri, "get_object", valid)

    def _signed(self, uri: str, method: str, valid: timedelta) -> Link:
        path = self._path(Ref(uri=uri, bytes=0))
        seconds = min(valid, _NO_SIGNATURE_LASTS_LONGER) // timedelta(seconds=1)
        with self._in_our_words("no link can be signed"):
            return Link(self._files.url(path, seconds, client_method=method))

    def _keep(self, refs: Sequence[Ref]) -> None:
        with shared(self._lock):
            for ref in refs:
                with self._in_our_words(f"{ref.uri} cannot be kept"), _found(ref):
                    self._touch(self._path(ref))

    def _old(self, before: datetime) -> Mapping[str, int]:
        with self._in_our_words("what is stored cannot be listed"):
            found = self._files.find(self._root, detail=True)
        return {posixpath.basename(path): each["size"] for path, each in found.items() if each["LastModified"] < before}

    def _remove(self, names: Sequence[str], before: datetime) -> Mapping[str, int]:
        removed: dict[str, int] = {}
        with exclusive(self._lock, _LOCK_SECONDS):
            for name in names:
                path = self._object(name)
                with self._in_our_words(f"{name} cannot be removed"):
                    try:
                        found = self._head(path)
                    except FileNotFoundError:
                        continue
                    if found["LastModified"] < before:
                        self._ask("delete_object", path)
                        removed[name] = found["ContentLength"]
        return removed

    def _touch(self, path: str) -> None:
        """Make an object young: S3 has no other way than to copy it onto itself."""
        self._ask("copy_object", path, CopySource=path, MetadataDirective="REPLACE")

    def _head(self, path: str) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = self._ask("head_object", path)
        return answer

    def _ask(self, method: str, path: str, **more: Any) -> Any:
        bucket, _, key = path.partition("/")
        return self._files.call_s3(method, Bucket=bucket, Key=key, **more)

    @property
    def _files(self) -> Any:
        if self._connected is None:
            self._connected = _connect(self._place)
        return self._connected

    @contextmanager
    def _in_our_words(self, what: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            # A reader has made its own of a name that is not there; what is left is a bucket that is not.
            hint = "make the bucket, or correct artifacts.url"
            raise StoreUnavailable(f"{what}: {self._place.url} is not there", hint=hint) from error
        except _foreign_errors() as error:
            hint = "check artifacts.url, artifacts.endpoint and the credentials; nothing is lost, work waits"
            why = f"{type(error).__name__} at {self._place.url}: {error}"
            raise StoreUnavailable(f"{what}: {why}", hint=hint) from error


@contextmanager
def _found(ref: Ref) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error.__cause__):
            raise
        raise NotFound(f"the store has no {ref.uri}", hint="it may have been collected") from error


def _foreign_errors() -> tuple[type[Exception], ...]:
    """Name what comes from the way to the object store, not from us. Asked when something was raised, never before."""
    try:
        import botocore.exceptions as theirs  # type: ignore[import-untyped]  # comes with s3fs, and is as slow
    except ImportError:
        return (OSError,)
    return OSError, theirs.BotoCoreError, theirs.ClientError


def _connect(place: S3Place) -> Any:
    try:
        import s3fs  # type: ignore[import-untyped]  # half a second, and only who keeps artifacts in S3 has it
    except ImportError as error:
        hint = "pip install 'flexcore[s3]'"
        raise StoreUnavailable("artifacts are to be kept in S3, and s3fs is not installed", hint=hint) from error
    config = {
        "signature_version": "s3v4",
        "connect_timeout": 5,
        "read_timeout": 60,
        "retries": {"max_attempts": 2},
        # Others than Amazon know neither names of hosts for buckets nor the newer checksums.
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
        "s3": {"addressing_style": "path" if place.endpoint else "auto"},
    }
    return s3fs.S3FileSystem(
        key=place.access_key or None,
        secret=place.secret_key or None,
        endpoint_url=place.endpoint or None,
        client_kwargs={"region_name": place.region} if place.region else {},
        config_kwargs=config,
        skip_instance_cache=True,
        use_listings_cache=False,
    )
