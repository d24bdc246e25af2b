"""Fields of JSON log lines, from the program that wrote them to who reads the API."""

from pathlib import Path

from e2e.embedded import plane

from flexcore.api.v1 import execution_pb2
from flexcore.common.documents import document_of, fill

LOGS = """
name: logs
steps:
  - id: work
    type: python
    with:
      script: |
        import json, logging, sys

        class AsJson(logging.Formatter):
            def format(self, record):
                fields = {"message": record.getMessage(), "levelname": record.levelname, "asctime": self.formatTime(record)}
                return json.dumps({**fields, **getattr(record, "extra", {})})

        def main():
            to_stderr = logging.StreamHandler(sys.stderr)
            to_stderr.setFormatter(AsJson())
            logging.basicConfig(level="INFO", handlers=[to_stderr])
            logging.info("reading", extra={"extra": {"rows": 3, "share": 0.5}})
            print("plain", file=sys.stderr)
            line = json.dumps({"level": "error", "msg": "slow", "é": [1, None]})
            for part in (line[:9], line[9:20], line[20:]):
                sys.stderr.write(part)
                sys.stderr.flush()
"""


async def test_the_lines_of_any_step_keep_their_fields_also_over_the_wire(tmp_path: Path) -> None:
    async with plane(tmp_path) as here:
        document = await here.execute(LOGS)
        page = await here.installation.control_plane.logs(document["id"], "work")

    lines = [line for piece in page.pieces for line in piece.get("lines", ())]
    messages = [execution_pb2.LogPiece() for _ in page.pieces]
    for message, piece in zip(messages, page.pieces, strict=True):
        fill(message, piece)
    assert document["status"] == "succeeded", document["error"]
    assert [(each["level"], each["message"], each["fields"]) for each in lines] == [
        ("info", "reading", {"rows": 3, "share": 0.5}),
        ("error", "slow", {"é": [1, None]}),
    ]
    assert lines[0]["time"]
    assert "plain\n" in "".join(piece["text"] for piece in page.pieces)
    assert tuple(map(document_of, messages)) == page.pieces
