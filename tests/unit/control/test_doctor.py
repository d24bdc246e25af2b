"""What `flexcore doctor` advises about runtimes that cannot be used."""

from pathlib import Path

from flexcore.bootstrap import doctor
from flexcore.settings import load

SETTINGS = """
runtimes:
  far: {type: remote, address: "localhost:1", token: x}
  kubernets: {}
  ray: {enabled: false}
  meltano: {enabled: false}
"""


async def test_each_runtime_that_cannot_be_used_has_the_advice_of_its_own_error(tmp_path: Path) -> None:
    (tmp_path / "flexcore.yaml").write_text(SETTINGS)

    found = {each.name: each for each in await doctor(load(tmp_path, environ={}).settings)}

    assert (found["runtime local"].ok, found["runtime local"].hint) == (True, "")
    assert (found["runtime ray"].ok, found["runtime ray"].detail) == (True, "disabled")
    far, misspelt = found["runtime far"], found["runtime kubernets"]
    assert (far.ok, far.hint) == (False, "start it there: flexcore runtime serve NAME --listen ADDR")
    assert (misspelt.ok, "did you mean 'kubernetes'?" in misspelt.hint) == (False, True)
    assert "pip install" not in misspelt.detail + misspelt.hint
