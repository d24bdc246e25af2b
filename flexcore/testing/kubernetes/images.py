"""The images of containers: there, slow to come, not to be had, or not even named rightly. None is ever fetched."""

from collections.abc import Callable

from flexcore.testing.kubernetes.events import Events
from flexcore.testing.kubernetes.pace import Pace
from flexcore.testing.kubernetes.pod_status import Slot
from flexcore.testing.kubernetes.resources import Item
from flexcore.testing.kubernetes.surroundings import is_image_name, is_present, is_pulled_slowly

PULL_S = 40.0  # of a large image
SYNC_S = 12.0  # how often a node looks again at a pod that cannot go on
_UNPARSED = "Failed to apply default image tag"


class Images:
    """The images of one pod. `report` is called when what a container waits for has changed."""

    def __init__(self, events: Events, pace: Pace, pod: Item, report: Callable[[], None]) -> None:
        self._events = events
        self._pace = pace
        self._pod = pod
        self._report = report

    async def pull(self, slot: Slot) -> None:
        """Come back when the image of a container is there, which may be never."""
        image, at = slot.spec["image"], slot.field_path
        if not is_image_name(image):
            why = f'{_UNPARSED} "{image}": couldn\'t parse image name "{image}": invalid reference format'
            await self._wait_for_ever(slot, "InvalidImageName", why, "InspectFailed", why)
        is_here = is_present(image) and not is_pulled_slowly(image)
        if not is_here and slot.spec["imagePullPolicy"] == "Never":
            why = f'Container image "{image}" is not present with pull policy of Never'
            await self._wait_for_ever(slot, "ErrImageNeverPull", why, "ErrImageNeverPull", why)
        if not is_present(image):
            await self._fail_to_pull(slot)
        if is_pulled_slowly(image):
            await self._pull_slowly(slot)
            return
        message = f'Container image "{image}" already present on machine and can be accessed by the pod'
        self._events.normal(self._pod, "Pulled", message, container=at)

    async def _wait_for_ever(self, slot: Slot, reason: str, message: str, event: str, text: str) -> None:
        if slot.wait_for(reason, message):
            self._report()
        while True:
            self._events.warning(self._pod, event, text, container=slot.field_path)
            self._events.warning(self._pod, "Failed", f"Error: {reason}", container=slot.field_path)
            await self._pace.rest(SYNC_S)

    async def _pull_slowly(self, slot: Slot) -> None:
        image, at, took_s = slot.spec["image"], slot.field_path, self._pace.scaled(PULL_S)
        self._events.normal(self._pod, "Pulling", f'Pulling image "{image}"', container=at)
        await self._pace.rest(PULL_S)
        message = f'Successfully pulled image "{image}" in {took_s:g}s ({took_s:g}s including waiting).'
        self._events.normal(self._pod, "Pulled", message, container=at)

    async def _fail_to_pull(self, slot: Slot) -> None:
        image, at = slot.spec["image"], slot.field_path
        registry, _, rest = image.partition("/")
        why = (
            f'failed to pull and unpack image "{image}": failed to resolve image: failed to do request: '
            f'Head "https://{registry}/v2/{rest.replace(":", "/manifests/")}": '
            f"dial tcp {registry}: connect: connection refused"
        )
        while True:
            self._events.normal(self._pod, "Pulling", f'Pulling image "{image}"', container=at)
            self._events.warning(self._pod, "Failed", f'Failed to pull image "{image}": {why}', container=at)
            self._events.warning(self._pod, "Failed", "Error: ErrImagePull", container=at)
            slot.wait_for("ErrImagePull", why)
            self._report()
            await self._pace.rest(15)
            backing_off = f'Back-off pulling image "{image}"'
            self._events.normal(self._pod, "BackOff", backing_off, container=at)
            self._events.warning(self._pod, "Failed", "Error: ImagePullBackOff", container=at)
            slot.wait_for("ImagePullBackOff", f"{backing_off}: ErrImagePull: {why}")
            self._report()
            await self._pace.rest(15)
