"""The messages: documented throughout, and the committed code is what they generate."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from google.protobuf import descriptor_pool

from flexcore.api.grpc.methods import METHODS, SERVICES

ROOT = Path(__file__).parents[3]


def test_the_generated_code_is_what_the_messages_say() -> None:
    ran = subprocess.run([sys.executable, ROOT / ".ci/generate", "--check"], capture_output=True, text=True)

    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_messages_pass_the_linter() -> None:
    buf = shutil.which("buf", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert buf is not None

    ran = subprocess.run([buf, "lint"], cwd=ROOT / "proto", capture_output=True, text=True)

    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_changing_call_can_name_its_request() -> None:
    pool = descriptor_pool.Default()
    ours = [each for each in SERVICES if each.startswith("flexcore.")]
    methods = [method for service in ours for method in pool.FindServiceByName(service).methods]
    naming = {each.name for each in methods if "request_id" in each.input_type.fields_by_name}
    changing = ("write", "start", "control")

    assert naming == {
        name.rpartition("/")[2] for name, permission in METHODS.items() if permission.value.endswith(changing)
    }
