"""What every store has to do with observations, as named checks in the manner of `store_suite`."""

from dataclasses import replace
from datetime import timedelta

from flexcore.model.errors import IllegalTransition
from flexcore.model.execution import Phase
from flexcore.model.observation import Observation
from flexcore.testing.store_samples import START, Story, now
from flexcore.testing.store_suite import Check, Place, opened, refused

_KEPT = 50_000


def observation(signature: str = "etl/load", run_s: float = 1.5) -> Observation:
    """Make an observation of a step that went well."""
    return Observation(
        signature=signature,
        family="python",
        runtime="local",
        runtime_kind="local",
        outcome="succeeded",
        at=START,
        input_bytes=10**9,
        seconds={Phase.RUN: run_s},
    )


async def observations_come_with_their_transition(place: Place) -> None:
    story = Story()
    async with opened(place) as store, opened(place) as other:
        await store.journal.commit(story.begin())
        await store.journal.commit(story.dispatch())
        before = await other.observations.after(0, 10)
        await store.journal.commit(replace(story.succeed(), observations=(observation(),)))
        found = await other.observations.after(before.last, 10)

        assert (list(before.observations), list(found.observations)) == ([], [observation()])
        assert list((await other.observations.after(found.last, 10)).observations) == []


async def a_refused_transition_teaches_nothing(place: Place) -> None:
    story = Story()
    async with opened(place) as store:
        await store.journal.commit(story.begin())
        again = replace(story.dispatch(), observations=(observation("etl/again"),))
        await store.journal.commit(replace(again, observations=(observation("etl/good"),)))
        await refused(IllegalTransition, store.journal.commit(again))

        assert [each.signature for each in (await store.observations.after(0, 10)).observations] == ["etl/good"]


async def of_many_observations_the_newest_are_given_in_their_order(place: Place) -> None:
    story = Story()
    async with opened(place) as store:
        several = tuple(observation(f"etl/s{number}") for number in range(5))
        await store.journal.commit(replace(story.begin(), observations=several))
        found = await store.observations.after(0, 2)

        assert [each.signature for each in found.observations] == ["etl/s3", "etl/s4"]


async def observations_outlive_their_execution(place: Place) -> None:
    story = Story(at=now() - timedelta(days=9))
    async with opened(place) as store:
        await store.journal.commit(replace(story.begin(), observations=(observation(),)))
        await store.journal.commit(story.finish())
        await store.reader.delete(story.id)

        assert list((await store.observations.after(0, 10)).observations) == [observation()]


async def what_another_version_wrote_is_passed_over(place: Place) -> None:
    async with opened(place) as store:
        await store.journal.commit(replace(Story().begin(), observations=(observation(),)))
        place.run_sql('INSERT INTO observations (body) VALUES (\'{"unheard": "of"}\')')
        await store.journal.commit(replace(Story().begin(), observations=(observation("etl/next"),)))
        found = await store.observations.after(0, 10)

        assert [each.signature for each in found.observations] == ["etl/load", "etl/next"]


async def observations_do_not_grow_without_end(place: Place) -> None:
    async with opened(place) as store:
        place.run_sql(
            "WITH RECURSIVE many (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM many WHERE n < 52999) "
            "INSERT INTO observations (id, body) SELECT n, '{}' FROM many"
        )
        several = (observation("etl/last"), observation("etl/next"))
        await store.journal.commit(replace(Story().begin(), observations=several))
        ((count,),) = place.run_sql("SELECT count(*) FROM observations")

        assert count == _KEPT + 1
        assert [each.signature for each in (await store.observations.after(52_990, 99)).observations][-1] == "etl/next"


CHECKS: tuple[Check, ...] = (
    observations_come_with_their_transition,
    a_refused_transition_teaches_nothing,
    of_many_observations_the_newest_are_given_in_their_order,
    observations_outlive_their_execution,
    what_another_version_wrote_is_passed_over,
    observations_do_not_grow_without_end,
)
