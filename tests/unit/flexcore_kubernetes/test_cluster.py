"""The way to the API server: what is let go of ends, and credentials are never quoted."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from flexcore_kubernetes.cluster import Call, Cluster
from flexcore_kubernetes.config import KubernetesConfig

from flexcore.model.errors import RuntimeUnavailable

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: c
clusters: [{{name: c, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
users: [{{name: c, user: {{token: t}}}}]
contexts: [{{name: c, context: {{cluster: c, user: c}}}}]
"""
STREAMS = "flexcore-kubernetes-stream"


@pytest.fixture
def endless() -> Iterator[int]:
    """Serve one answer that has no end."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                try:
                    while True:
                        connection.sendall(b"x" * 65536)
                except OSError:
                    return

        thread = threading.Thread(target=answer)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(10)
        assert not thread.is_alive(), "the connection is still there"


async def test_an_answer_let_go_of_in_the_middle_leaves_no_thread_and_no_connection(
    endless: int, tmp_path: Path
) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(KUBECONFIG.format(port=endless))
    cluster = Cluster("here", KubernetesConfig.model_validate({"kubeconfig": str(path)}))
    blocks = cluster.stream(Call(method="GET", path="/logs"))

    await anext(blocks)
    (reader,) = (thread for thread in threading.enumerate() if thread.name == STREAMS)
    reader.join(0.5)  # it has read ahead as far as it may, and waits for room
    await blocks.aclose()
    reader.join(5)

    assert not reader.is_alive()


def test_a_kubeconfig_that_is_not_yaml_is_told_without_quoting_it(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text("users:\n- user: {token: very-secret\n\t]}")
    cluster = Cluster("here", KubernetesConfig.model_validate({"kubeconfig": str(path)}))

    with pytest.raises(RuntimeUnavailable) as found:
        cluster.open(Call(method="GET", path="/version"))

    assert "is not YAML" in found.value.message
    assert "very-secret" not in str(found.value)
