"""What is learned of times: known laws are found again, outliers and time-outs mislead little, drift is followed."""

import math
import random
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.analyzer.learned_cases import line, seen

from flexcore.analyzer.belief import position
from flexcore.analyzer.distributions import chance_above, student_p90
from flexcore.analyzer.predict import Model
from flexcore.model.execution import Phase
from flexcore.model.observation import Observation
from flexcore.model.placement import Evidence


def median(model: Model, runtime: str, size: int | None = None, signature: str = "w/s") -> float:
    belief = model.outlook(signature, "python", runtime).belief
    return math.exp(belief.intercept + belief.slope * (0.0 if size is None else position(size)))


@pytest.mark.parametrize("slope", [0.0, 0.3, 0.8, 1.2])
@pytest.mark.parametrize("intercept", [-2.0, 3.0])
def test_a_known_law_is_found_again(intercept: float, slope: float) -> None:
    draw = random.Random(1)
    sizes = [int(10 ** draw.uniform(6, 11)) for _ in range(60)]
    times = [line(each, intercept, slope) * draw.lognormvariate(0, 0.1) for each in sizes]
    model = Model().observed(seen("ray", time, each) for time, each in zip(times, sizes, strict=True))

    for size in (10**7, 10**9, 10**11):
        assert math.log(median(model, "ray", size)) == pytest.approx(math.log(line(size, intercept, slope)), abs=0.12)


def test_with_fewer_than_three_sizes_the_slope_is_that_of_the_family() -> None:
    model = Model().observed([seen("ray", 10, 10**8), seen("ray", 1000, 10**10)] * 10)

    assert model.outlook("w/s", "python", "ray").belief.slope == pytest.approx(0.3)


@pytest.mark.parametrize(("law", "bound"), [(-1.0, 0.0), (3.0, 1.5)])
def test_a_slope_stays_within_its_bounds(law: float, bound: float) -> None:
    sizes = [10**n for n in range(6, 12)] * 5
    model = Model().observed(seen("ray", line(each, 2, law), each) for each in sizes)

    assert model.outlook("w/s", "python", "ray").belief.slope == bound


def test_a_runtime_that_a_step_never_tried_is_predicted_by_steps_that_ran_on_both() -> None:
    both = [seen(name, seconds, signature=f"w/{n}") for n in range(6) for name, seconds in (("ray", 10), ("local", 30))]
    model = Model().observed([*both * 4, *[seen("ray", 200)] * 8])

    outlook = model.outlook("w/s", "python", "local")

    assert outlook.evidence is Evidence.FAMILY and outlook.n == 0
    assert 400 < median(model, "local") < 700  # three times as long as on ray


def test_where_long_steps_go_a_runtime_does_not_look_slow() -> None:
    long = [seen("ray", 1000, signature=f"w/long{n}") for n in range(5)] * 5
    short = [seen("local", 1, signature=f"w/short{n}") for n in range(5)] * 5
    model = Model().observed([*long, *short])

    assert 0.5 < median(model, "ray", signature="w/short1") < 2
    assert 500 < median(model, "local", signature="w/long1") < 2000


def test_what_never_ran_is_less_certain_than_what_did() -> None:
    model = Model().observed([seen("ray", 10)] * 20)
    own, elsewhere, other = (
        model.outlook(signature, "python", runtime).belief
        for signature, runtime in (("w/s", "ray"), ("w/s", "local"), ("w/other", "local"))
    )

    assert own.mean_variance(0.0) < elsewhere.mean_variance(0.0) < other.mean_variance(0.0)


def test_drift_is_followed() -> None:
    draw = random.Random(2)
    model = Model().observed(seen("ray", 10 * draw.lognormvariate(0, 0.1)) for _ in range(200))
    model = model.observed(seen("ray", 30 * draw.lognormvariate(0, 0.1)) for _ in range(30))

    assert median(model, "ray") == pytest.approx(30, rel=0.15)


def test_one_outlier_moves_little() -> None:
    draw = random.Random(3)
    model = Model().observed(seen("ray", 10 * draw.lognormvariate(0, 0.1)) for _ in range(20))
    after = model.observed([seen("ray", 10_000)])

    assert median(after, "ray") == pytest.approx(median(model, "ray"), rel=0.1)


def test_a_time_out_says_that_it_takes_longer() -> None:
    model = Model().observed([seen("ray", 60, outcome="timeout", start=None)] * 4)
    known = Model().observed([seen("ray", 300)] * 10)

    assert median(model, "ray") > 30
    assert median(known.observed([seen("ray", 60, outcome="timeout")]), "ray") == pytest.approx(300, rel=0.05)


def test_failures_change_the_chance_of_failing_and_no_time() -> None:
    before = Model().observed([seen("ray", 10)] * 10)
    after = before.observed([seen("ray", 0.01, outcome="lost", start=None)] * 10)

    assert median(after, "ray") == median(before, "ray")
    assert after.outlook("w/s", "python", "ray").p_fail > 4 * before.outlook("w/s", "python", "ray").p_fail


def test_an_error_of_the_users_code_is_not_the_runtimes_failure() -> None:
    model = Model().observed([seen("ray", 1, outcome="user")] * 10)

    assert model.outlook("w/s", "python", "ray").p_fail < 0.05


def test_figures_that_are_none_teach_nothing() -> None:
    runs = [seen("ray", math.nan), seen("ray", 1, start=math.inf), seen("ray", math.inf)]

    assert Model().observed(runs).outlook("w/s", "python", "ray").n == 0


def test_the_chance_of_failing_is_cut_off() -> None:
    model = Model().observed([seen("ray", 1, outcome="lost")] * 500)

    assert model.outlook("w/s", "python", "ray").p_fail == 0.5


def test_warm_and_cold_starts_are_kept_apart() -> None:
    hours = [3600.0 * n for n in range(5)]
    runs = [seen("ray", 1, start=start, after=hour + by) for hour in hours for start, by in ((20.0, 0), (0.2, 60))]
    model = Model().observed(runs)
    outlook = model.outlook("w/s", "python", "ray")

    assert outlook.cold is not None and outlook.warm is not None
    assert outlook.cold.seconds.p50 == pytest.approx(20, rel=0.01)
    assert outlook.warm.seconds.p50 == pytest.approx(0.2, rel=0.01)
    last = runs[-1].at
    assert [model.is_warm("ray", last + timedelta(minutes=each)) for each in (1, 9, 10)] == [True, True, False]
    assert not model.is_warm("local", last)


def test_bandwidth_is_learned_from_what_is_large_enough_to_tell() -> None:
    def moved(size: int, seconds: float) -> Observation:
        run = seen("ray", 1, size, store="s3")
        return run._replace(seconds={**run.seconds, Phase.TRANSFER_IN: seconds})

    slow = Model().observed([moved(10**9, 100.0)] * 5)
    small = slow.observed([moved(1000, 0.05)] * 50)

    assert Model().bandwidth("s3", "ray") == 100e6
    assert small.bandwidth("s3", "ray") == slow.bandwidth("s3", "ray") == pytest.approx(10e6)
    assert small.bandwidth("s3", "local") == 100e6


def test_storing_what_a_step_puts_out_is_part_of_its_work() -> None:
    run = seen("ray", 10)
    model = Model().observed([run._replace(seconds={**run.seconds, Phase.TRANSFER_OUT: 30.0})] * 50)

    assert median(model, "ray") == pytest.approx(40, rel=0.05)


def test_queues_that_last_longer_than_predicted_calibrate_the_prediction() -> None:
    def calibration(waited: float, times: int) -> float:
        run = seen("ray", 1, expected_wait_s=10.0)
        runs = [run._replace(seconds={**run.seconds, Phase.QUEUE: waited})] * times
        return Model().observed(runs).outlook("w/s", "python", "ray").calibration

    assert calibration(20, times=3) == pytest.approx(1.33, rel=0.05)
    assert calibration(1e6, times=500) == pytest.approx(4)


def test_folding_one_by_one_or_at_once_is_the_same_and_leaves_the_old_model() -> None:
    runs = [seen("ray" if n % 3 else "local", 1 + n, 10**6 * (n + 1)) for n in range(40)]
    first = Model().observed(runs[:20])
    kept = repr(first)

    one_by_one = first
    for each in runs[20:]:
        one_by_one = one_by_one.observed([each])

    assert one_by_one == first.observed(runs[20:])
    assert repr(first) == kept


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ray", "local"]),
            st.floats(0, 1e12),
            st.none() | st.integers(0, 10**18),
            st.sampled_from(["succeeded", "timeout", "lost", "user", "oom"]),
        ),
        max_size=60,
    )
)
def test_whatever_is_observed_predictions_are_finite(runs: list[tuple[str, float, int | None, str]]) -> None:
    model = Model().observed(seen(name, run, size, outcome=outcome) for name, run, size, outcome in runs)
    for runtime in ("ray", "local", "kubernetes"):
        belief = model.outlook("w/s", "python", runtime).belief
        assert all(math.isfinite(each) for each in belief)
        assert 0 <= belief.slope <= 1.5
        assert all(belief.mean_variance(position(size)) >= -1e-9 for size in (0, 10**8, 10**18))


@pytest.mark.parametrize(("degrees", "quantile"), [(4, 1.53321), (6, 1.43976), (10, 1.37218), (100, 1.29007)])
def test_the_quantile_of_students_t_is_that_of_the_printed_tables(degrees: float, quantile: float) -> None:
    assert student_p90(degrees) == pytest.approx(quantile, rel=0.002)


def test_the_chance_of_a_lognormal_is_right_at_its_median() -> None:
    mean, variance = 10.0, 25.0
    middle = mean / math.sqrt(1 + variance / mean**2)

    assert chance_above(middle, mean, variance) == pytest.approx(0.5)
    assert chance_above(0, mean, variance) == 1
