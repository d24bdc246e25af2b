"""What can be said of an instance of the Ray runtime and of a `ray` step, and what is refused with a way out."""

import pytest
from flexcore_ray.config import RayConfig, RayParameters, dashboard_of
from pydantic import ValidationError


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("http://head:8265", "http://head:8265"),
        ("head:8265", "http://head:8265"),
        ("head", "http://head:8265"),
        ("http://head", "http://head:8265"),
        ("https://ray.example.org/cluster/", "https://ray.example.org/cluster"),
        ("ray://head", "http://head:8265"),
        ("ray://head:10001", "http://head:8265"),
        ("http://[::1]:8265", "http://[::1]:8265"),
    ],
)
def test_an_address_becomes_that_of_the_dashboard(given: str, expected: str) -> None:
    assert dashboard_of(given) == expected


@pytest.mark.parametrize(
    "given", ["ray://head:7000", "grpc://head:1", "http://", "http://me:word@head", "http://head:x"]
)
def test_what_is_no_dashboard_is_refused_with_an_example(given: str) -> None:
    with pytest.raises(ValueError, match="http://head:8265"):
        dashboard_of(given)


@pytest.mark.parametrize(
    "given",
    [
        {"address": "http://head:8265", "cluster": "local"},
        {"cluster": "remote"},
        {"cluster": "local", "token": "t"},
        {"address": "http://head:8265", "token": "t", "token_file": "f"},
        {"address": "http://head:8265", "scaling": "up"},
    ],
)
def test_an_instance_has_one_place_and_one_token(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RayConfig.model_validate(given)


def test_without_an_address_the_cluster_is_one_of_this_machine() -> None:
    assert RayConfig.model_validate({"cpus": 2}).cluster == "local"
    assert RayConfig.model_validate({"address": "head"}).cluster is None


def test_a_cluster_on_this_machine_sees_its_files_and_another_only_if_it_is_said() -> None:
    told = {"address": "http://head:8265", "shares_files": True}

    seen = [RayConfig.model_validate(each).sees_files for each in ({"cluster": "local"}, {"address": "head"}, told)]

    assert seen == [True, False, True]


def test_a_token_is_not_in_what_is_printed() -> None:
    config = RayConfig.model_validate({"address": "http://head:8265", "token": "s3cr3t"})

    assert "s3cr3t" not in repr(config)


@pytest.mark.parametrize("key", ["working_dir", "py_modules", "config"])
def test_a_ray_step_leaves_room_for_the_program(key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        RayParameters.model_validate({"entrypoint": "true", "runtime_env": {key: "x"}})


def test_variables_of_a_ray_step_are_texts() -> None:
    with pytest.raises(ValidationError, match="env_vars"):
        RayParameters.model_validate({"entrypoint": "true", "runtime_env": {"env_vars": {"A": 1}}})
