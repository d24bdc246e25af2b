"""Every artifact store keeps the same promises, in a folder and behind an object store's API."""

import asyncio
import os
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flexcore.model.errors import InternalError, InvalidInput, InvalidSettings, NotFound, StoreUnavailable
from flexcore.model.values import Ref, digest
from flexcore.runtime.plugin import Link
from flexcore.store.artifacts import LocalArtifacts, own_name
from flexcore.store.artifacts_s3 import S3Artifacts, S3Place
from flexcore.testing.object_store import KEYS, REGION, ObjectStore, object_store

HOUR = timedelta(hours=1)
GONE = Ref(uri=f"artifact:sha256-{'0' * 64}", bytes=1)


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    with object_store() as running:
        yield running


def place(endpoint: str, *, prefix: str = "x", bucket: str = "flexcore-test") -> S3Place:
    key, secret = KEYS
    return S3Place(url=f"s3://{bucket}/{prefix}", endpoint=endpoint, region=REGION, access_key=key, secret_key=secret)


@dataclass(frozen=True)
class Subject:
    """A store, and what its contents do not do by themselves: go bad, and grow old."""

    store: LocalArtifacts | S3Artifacts
    folder: Path

    async def aged(self, ref: Ref) -> datetime:
        """Make content old; give a moment after it was stored, and before now."""
        if isinstance(self.store, LocalArtifacts):
            now = datetime.now(UTC)
            os.utime(self.store.path(ref), ((now - HOUR).timestamp(),) * 2)
            return now - HOUR / 2
        while True:  # an object store tells times in whole seconds
            now = datetime.now(UTC).replace(microsecond=0)
            if own_name(ref) in await self.store.old(now):
                return now
            await asyncio.sleep(0.05)

    async def damage(self, ref: Ref) -> None:
        if isinstance(self.store, LocalArtifacts):
            self.store.path(ref).write_bytes(b"other")
        else:
            self.store._files.pipe_file(self.store._path(ref), b"other")


@pytest.fixture(params=["folder", "s3"])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    if request.param == "folder":
        return Subject(LocalArtifacts(tmp_path), tmp_path)
    running = request.getfixturevalue("server")
    return Subject(S3Artifacts(place(running.endpoint, prefix=tmp_path.name), "fxi_one", tmp_path), tmp_path)


async def fetched(link: Link) -> bytes:
    def read() -> bytes:
        with urllib.request.urlopen(urllib.request.Request(link.url, headers=dict(link.headers))) as answer:
            content: bytes = answer.read()
            return content

    return await asyncio.to_thread(read)


async def written(link: Link, data: bytes) -> None:
    def write() -> None:
        if link.url.startswith("file:"):
            Path(link.url.removeprefix("file://")).write_bytes(data)
            return
        request = urllib.request.Request(link.url, data=data, headers=dict(link.headers), method="PUT")
        with urllib.request.urlopen(request):
            pass

    await asyncio.to_thread(write)


async def test_content_is_named_by_its_digest_and_read_back(subject: Subject) -> None:
    data = os.urandom(300_000)

    ref = await subject.store.put(data, format="parquet")

    assert ref == Ref(uri=f"artifact:{digest(data)}", bytes=300_000, format="parquet", checksum=digest(data))
    assert await subject.store.put(data, format="parquet") == ref
    assert await subject.store.get(ref) == data
    assert await subject.store.get(await subject.store.put(b"")) == b""


async def test_what_is_not_there_or_not_ours_is_refused(subject: Subject) -> None:
    for ask in (subject.store.get(GONE), subject.store.link(GONE, HOUR), subject.store.keep([GONE])):
        with pytest.raises(NotFound, match="the store has no"):
            await ask
    for uri in ("artifact:../../flexcore.db", "artifact:made-../x", "file:///etc/passwd", f"{GONE.uri}/.."):
        with pytest.raises(InvalidInput):
            await subject.store.get(Ref(uri=uri, bytes=1))
        with pytest.raises(InvalidInput):
            await subject.store.link(Ref(uri=uri, bytes=1), HOUR)
        await subject.store.keep([Ref(uri=uri, bytes=1)])


async def test_damaged_content_is_not_given_out(subject: Subject) -> None:
    ref = await subject.store.put(b"right")

    await subject.damage(ref)

    with pytest.raises(InternalError, match="another checksum"):
        await subject.store.get(ref)


async def test_a_link_reads_without_credentials(subject: Subject) -> None:
    link = await subject.store.link(await subject.store.put(b"for others"), HOUR)

    assert await fetched(link) == b"for others"
    assert KEYS[1] not in link.url


async def test_an_offer_is_written_to_and_then_read_by_its_uri(subject: Subject) -> None:
    offer = await subject.store.offer("exe_1/train#1:model", HOUR)
    with pytest.raises(NotFound):
        await subject.store.get(Ref(uri=offer.uri, bytes=4))

    await written(offer.link, b"made")

    ref = Ref(uri=offer.uri, bytes=4, checksum=digest(b"made"))
    assert await subject.store.get(ref) == b"made"
    assert await fetched(await subject.store.link(ref, HOUR)) == b"made"
    assert (await subject.store.offer("exe_1/train#1:model", HOUR)).uri == offer.uri
    assert (await subject.store.offer("exe_1/train#2:model", HOUR)).uri != offer.uri
    with pytest.raises(InternalError, match="another checksum"):
        await subject.store.get(replace(ref, checksum=digest(b"mode")))


async def test_old_content_is_listed_and_removed_unless_it_became_young_again(subject: Subject) -> None:
    one, two = [await subject.store.put(each) for each in (b"one", b"twos")]
    offer = await subject.store.offer("late", HOUR)
    await written(offer.link, b"late")
    now = datetime.now(UTC)
    names = {own_name(one): 3, own_name(two): 4, offer.uri.removeprefix("artifact:"): 4}

    assert await subject.store.old(now - HOUR) == {}
    assert await subject.store.old(now + HOUR) == names
    assert await subject.store.remove([name for name in names if name], now - HOUR) == {}
    removed = await subject.store.remove([own_name(one) or "", f"sha256-{'0' * 64}"], now + HOUR)

    assert removed == {own_name(one): 3}
    with pytest.raises(NotFound):
        await subject.store.get(one)
    assert await subject.store.get(two) == b"twos"


@pytest.mark.parametrize("again", ["put", "keep"])
async def test_content_stored_or_kept_again_is_young(subject: Subject, again: str) -> None:
    ref = await subject.store.put(b"here")
    between = await subject.aged(ref)

    await (subject.store.put(b"here") if again == "put" else subject.store.keep([ref]))

    assert await subject.store.old(between) == {}
    assert await subject.store.remove([own_name(ref) or ""], between) == {}


async def test_installations_that_share_a_bucket_do_not_see_each_other(server: ObjectStore, tmp_path: Path) -> None:
    mine, theirs = [S3Artifacts(place(server.endpoint, prefix="shared"), name, tmp_path) for name in ("one", "two")]
    ref = await mine.put(b"mine")

    assert await theirs.old(datetime.now(UTC) + HOUR) == {}
    with pytest.raises(NotFound):
        await theirs.get(ref)


async def test_a_bucket_or_a_server_that_is_not_there_is_unavailable(server: ObjectStore, tmp_path: Path) -> None:
    nowhere = S3Artifacts(place("http://127.0.0.1:1"), "one", tmp_path)
    no_bucket = S3Artifacts(place(server.endpoint, bucket="nothing-here"), "one", tmp_path)

    for store, hint in ((nowhere, "artifacts.endpoint"), (no_bucket, "make the bucket")):
        with pytest.raises(StoreUnavailable) as caught:
            await store.put(b"x")
        assert hint in caught.value.hint
        assert KEYS[1] not in str(caught.value)


@pytest.mark.parametrize("url", ["", "https://bucket/x", "s3://", "s3://key:secret@bucket/x", "bucket"])
def test_an_address_that_is_none_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        S3Place(url=url)

    assert "secret" not in str(caught.value)


def test_keys_go_together_and_are_not_shown() -> None:
    with pytest.raises(InvalidSettings, match="go together"):
        S3Place(url="s3://bucket", access_key="name")

    assert "hidden" not in repr(S3Place(url="s3://bucket", access_key="name", secret_key="hidden"))
