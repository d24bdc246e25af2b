"""What is learned loses its say where its choices turn out worse than the rules', and gets it back."""

import random
from dataclasses import replace
from datetime import timedelta

import pytest
from unit.analyzer.learned_cases import STEP, able, seen

from flexcore.analyzer.place import place
from flexcore.analyzer.predict import Model
from flexcore.analyzer.trust import ENOUGH_CHOICES, REST, Trust
from flexcore.model.observation import Observation

MANY = ENOUGH_CHOICES + 5  # those behind fade
KNOWN = [seen(name, run) for _ in range(9) for name, run in (("meltano", 100.0), ("ray", 10.0))]


def choice(score: float, rule_score: float, **other: object) -> Observation:
    return seen("ray", score, score=score, rule_score=rule_score, **other)  # type: ignore[arg-type]  # a shorthand


def test_choices_that_come_out_worse_than_the_rules_give_the_family_back_to_the_rules() -> None:
    good = Model().observed([*KNOWN, *[choice(10, 100)] * MANY])
    bad = Model().observed([*KNOWN, *[choice(10, 8)] * MANY])

    assert (place(STEP, able(good)).source, good.resting) == ("learned", ())
    placement = place(STEP, able(bad))
    assert (placement.chosen, placement.source, bad.resting) == ("meltano", "rule", ("python",))
    assert placement.warnings == ("the rules decide for python steps for now: what was learned chose worse lately",)
    assert placement.verdicts[0].prediction is not None  # it is still shown
    assert place(replace(STEP, family="bash", signature="w/other"), able(bad)).warnings == ()


def test_under_a_deadline_the_rules_choose_among_what_makes_it_while_learning_rests() -> None:
    model = Model().observed([*KNOWN, *[choice(10, 8)] * MANY])
    placement = place(replace(STEP, deadline=timedelta(seconds=50)), able(model, ("meltano", "ray")))

    assert (placement.chosen, placement.source) == ("ray", "only-feasible")
    assert "50 s are left" in (placement.fallback_reason or "")


def test_after_its_rest_learning_begins_with_a_clean_sheet() -> None:
    model = Model()
    while not model.resting:
        model = model.observed([choice(10, 8)])
    nearly = model.observed([seen("meltano", 8)] * (REST - 1))
    after = nearly.observed([seen("meltano", 8)])

    assert (nearly.resting, after.resting) == (("python",), ())
    assert after.memory.family("python").trust == Trust()


def test_one_great_mishap_is_not_held_against_it() -> None:
    model = Model().observed([*[choice(10, 10)] * 100, choice(10_000, 10)])

    assert model.resting == ()


@pytest.mark.parametrize(("ratio", "rests"), [(0.8, 0.0), (1.0, 0.05), (1.5, 1.0)])
def test_noise_alone_seldom_costs_it_its_say(ratio: float, rests: float) -> None:
    """The noise is a factor of 1.35; a lognormal of mean `ratio`."""
    draw = random.Random(7)
    ended = 0
    for _ in range(40):
        trust = Trust()
        for _ in range(400):
            trust = trust.with_(10 * ratio * draw.lognormvariate(-0.045, 0.3), 10)
            ended += trust.resting > 0
            if trust.resting:
                break

    assert ended / 40 == rests or ended / 40 <= rests < 1
