from datetime import timedelta
from pathlib import Path

import pytest

from flexcore.model.errors import InvalidSettings
from flexcore.settings import Settings, load, render_defaults

ROOT = Path(__file__).parents[2]


def loaded(folder: Path, text: str = "", **environ: str) -> Settings:
    if text:
        (folder / "flexcore.yaml").write_text(text)
    return load(folder, environ=environ).settings


def refusal(folder: Path, text: str = "", **environ: str) -> str:
    with pytest.raises(InvalidSettings) as refused:
        loaded(folder, text, **environ)
    return f"{refused.value} ({refused.value.hint})"


def test_without_anything_there_are_two_runtimes_and_a_store_in_the_folder(tmp_path: Path) -> None:
    settings = loaded(tmp_path)

    assert settings.store.url == f"sqlite:///{tmp_path}/.flexcore/flexcore.db"
    assert {name: each.priority for name, each in settings.runtimes.items()} == {"local": 0, "meltano": 1, "ray": 2}


def test_the_committed_defaults_are_fresh() -> None:
    assert (ROOT / "config" / "flexcore.yaml").read_text() == render_defaults()


def test_the_committed_defaults_change_nothing(tmp_path: Path) -> None:
    assert loaded(tmp_path, render_defaults()) == loaded(tmp_path)


def test_there_are_at_most_eighty_keys(tmp_path: Path) -> None:
    assert len(load(tmp_path, environ={}).origins) <= 80


def test_the_environment_wins_over_the_file_and_flags_over_both(tmp_path: Path) -> None:
    text = "logs: {level: info}\nserver: {http: '127.0.0.1:1', grpc: '127.0.0.1:1'}\n"
    (tmp_path / "flexcore.yaml").write_text(text)
    environ = {"FLEXCORE_SERVER__HTTP": "127.0.0.1:2", "FLEXCORE_SERVER__GRPC": "127.0.0.1:2"}

    found = load(tmp_path, environ=environ, flags={"server.grpc": "127.0.0.1:3"})

    assert found.settings.logs.level == "info"
    assert found.settings.server.http == "127.0.0.1:2"
    assert found.settings.server.grpc == "127.0.0.1:3"
    sources = [found.origins[key].source for key in ("logs.level", "server.http", "server.grpc", "limits.depth")]
    assert sources == [f"{tmp_path}/flexcore.yaml:1", "environment FLEXCORE_SERVER__HTTP", "flag", "default"]


def test_units_are_read(tmp_path: Path) -> None:
    settings = loaded(tmp_path, "limits: {inline_bytes: 1MiB}\npolicy: {grace: 1m30s}\n")

    assert settings.limits.inline_bytes == 1024 * 1024
    assert settings.policy.grace == timedelta(seconds=90)


def test_limits_by_tag_and_by_runtime_are_read_from_the_file_and_the_environment(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path, "limits: {tags: {gpu: 2, big: 1}}\nruntimes: {local: {concurrency: 4, tags: [gpu, eu]}}\n"
    )
    environ = {"FLEXCORE_LIMITS__TAGS": '{"gpu": 3}', "FLEXCORE_RUNTIMES__LOCAL__TAGS": "eu, gpu"}
    by_environment = load(tmp_path, environ=environ).settings

    assert dict(settings.limits.tags) == {"gpu": 2, "big": 1}
    assert settings.runtimes["local"].concurrency == 4
    assert settings.runtimes["local"].tags == {"gpu", "eu"}
    assert settings.runtimes["local"].options == {}
    assert dict(by_environment.limits.tags) == {"gpu": 3}
    assert by_environment.runtimes["local"].tags == {"gpu", "eu"}


def test_tags_are_names(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match=r"runtimes\.local\.tags"):
        loaded(tmp_path, "runtimes: {local: {tags: [1]}}\n")


@pytest.mark.parametrize("tags", ["{gpu: 0}", "3", "{gpu: many}"])
def test_a_limit_by_tag_is_a_whole_number(tmp_path: Path, tags: str) -> None:
    with pytest.raises(InvalidSettings, match=r"limits\.tags"):
        loaded(tmp_path, f"limits: {{tags: {tags}}}\n")


def test_the_priority_of_a_runtime_is_that_of_its_type_unless_it_is_set(tmp_path: Path) -> None:
    text = """runtimes:
  cloud: {type: kubernetes}
  lab: {type: ray, address: 'http://x'}
  second: {type: local}
  first: {type: ray, address: 'http://y', priority: 1}
  own: {type: acme}
"""

    found = loaded(tmp_path, text).runtimes

    priorities = {name: found[name].priority for name in ("cloud", "lab", "second", "first", "own")}
    assert priorities == {"cloud": 3, "lab": 2, "second": 0, "first": 1, "own": 100}
    assert {name: each.type for name, each in found.items()}["lab"] == "ray"


def test_a_runtime_is_added_and_its_options_are_passed_on(tmp_path: Path) -> None:
    text = "runtimes:\n  ray: {address: 'http://x', auth: {token: t}}\n  local: {enabled: false}\n  bare: {}\n"

    settings = loaded(tmp_path, text, FLEXCORE_RUNTIMES__LOCAL__SLOTS="4", FLEXCORE_RUNTIMES__RAY__AUTH__USER="u")

    assert settings.runtimes["ray"].type == "ray"
    assert settings.runtimes["ray"].priority == 2
    assert settings.runtimes["ray"].options == {"address": "http://x", "auth": {"token": "t", "user": "u"}}
    assert settings.runtimes["local"].options == {"slots": 4}
    assert not settings.runtimes["local"].enabled
    assert settings.runtimes["bare"].type == "bare"


def test_variables_are_filled_in(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path,
        "runtimes: {meltano: {projects: {a: '${BASE}/a', b: '$${BASE}'}}}\nlimits: {depth: '${DEPTH}'}",
        BASE="/x",
        DEPTH="3",
    )

    assert settings.runtimes["meltano"].options == {"projects": {"a": "/x/a", "b": "${BASE}"}}
    assert settings.limits.depth == 3


def test_an_unset_variable_is_named(tmp_path: Path) -> None:
    message = refusal(tmp_path, "store:\n  url: ${NOT_THERE}\n")

    assert "NOT_THERE" in message
    assert "flexcore.yaml:2: store.url" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("limits: {dept: 3}", ["limits.dept", "depth"]),
        ("limit: {depth: 3}", ["limit.depth", "limits"]),
        ("limits: 3", ["limits is a section"]),
        ("limits: {depth: many}", ["limits.depth", "many"]),
        ("limits: {depth: 0}", ["at least 1"]),
        ("limits: {depth: 1.5}", ["whole number"]),
        ("logs: {level: loud}", ["debug, info"]),
        ("policy: {grace: soon}", ["policy.grace", "soon"]),
        ("runtimes: {local: {enabled: maybe}}", ["runtimes.local.enabled"]),
        ("store: {url: a, url: b}", ["url"]),
        ("- a list", ["mapping"]),
        ("a: [", ["flexcore.yaml:"]),
    ],
)
def test_what_is_wrong_is_refused_by_name(tmp_path: Path, text: str, words: list[str]) -> None:
    message = refusal(tmp_path, text)

    assert [word for word in words if word not in message] == []


def test_an_unknown_variable_is_named(tmp_path: Path) -> None:
    assert "FLEXCORE_STORE__URI" in refusal(tmp_path, FLEXCORE_STORE__URI="x")


def test_a_variable_with_one_underscore_gets_a_hint(tmp_path: Path) -> None:
    assert "FLEXCORE_STORE__URL" in refusal(tmp_path, FLEXCORE_STORE_URL="x")


def test_other_variables_of_ours_are_no_settings(tmp_path: Path) -> None:
    loaded(tmp_path, FLEXCORE_SECRET_A__B="x", FLEXCORE_SERVER="x", FLEXCORE_RESULT="x", FLEXCORE_TOKEN="x")


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    assert "nowhere.yaml" in refusal(tmp_path, FLEXCORE_CONFIG="nowhere.yaml")


def test_the_home_folder_has_settings_too(tmp_path: Path) -> None:
    home = tmp_path / "elsewhere"
    home.mkdir()
    (home / "flexcore.yaml").write_text("limits: {depth: 2}")

    settings = loaded(tmp_path, FLEXCORE_HOME=str(home))

    assert settings.home == home
    assert settings.limits.depth == 2


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    runtimes = "runtimes: {ray: {api_token: tttt, url: '${U}'}}"
    text = f"server: {{token: abcdefgh}}\nstore: {{url: 'postgresql://u:hunter2@h/d'}}\n{runtimes}"
    (tmp_path / "flexcore.yaml").write_text(text)

    shown = {key: each.value for key, each in load(tmp_path, environ={"U": "hidden"}).origins.items()}

    assert shown["server.token"] == "***"
    assert shown["store.url"] == "postgresql://u:***@h/d"
    assert shown["runtimes.ray.api_token"] == "***"
    assert shown["runtimes.ray.url"] == "${U}"


def test_a_filled_in_value_is_not_quoted_in_an_error(tmp_path: Path) -> None:
    assert "hunter22" not in refusal(tmp_path, "limits: {depth: '${U}'}", U="hunter22")
