"""What a call that failed says, by the texts that gRPC was seen to give."""

import grpc
import grpc.aio
import pytest
from flexcore_remote.failed_calls import failed_call

SEEN = {
    "connection attempt timed out before receiving SETTINGS frame": "takes connections and says nothing",
    "Failed parsing HTTP/2 (Expected SETTINGS frame as the first frame, got frame type 79)": "no FlexCore runtime",
    "Failed to connect to remote host: connect: Connection refused (111)": "nobody listens there",
    "DNS resolution failed for no-such-host.invalid:1": "its name cannot be found",
}


@pytest.mark.parametrize(("details", "meaning"), SEEN.items())
def test_every_text_of_grpc_becomes_a_sentence_of_ours(details: str, meaning: str) -> None:
    nothing = grpc.aio.Metadata()
    whole = f"failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: {details}"
    error = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, whole)

    said = failed_call("far:1", error)

    assert meaning in said.message
    assert said.hint
