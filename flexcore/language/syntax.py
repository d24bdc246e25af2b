"""JavaScript as text: one expression parsed by a real parser, and where and why it does not parse."""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

LONGEST = 16_384  # characters of one expression


@dataclass(frozen=True, slots=True)
class SyntaxFault:
    """Why a text is not one expression, and the character of it (from 0) where that shows."""

    message: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Parsed:
    """An expression's tree. Offsets in the tree are in bytes of a text with one more character in front."""

    root: "Node"
    source: bytes

    def offset(self, node: "Node") -> int:
        """Find the character of the source (from 0) at which a node starts."""
        return len(self.source[: max(0, node.start_byte - 1)].decode("utf-8", "ignore"))


def parse(source: str) -> Parsed | SyntaxFault:
    """Parse a single expression. In parentheses, so that `{a: 1}` is an object and `;` is an error."""
    if len(source) > LONGEST:
        return SyntaxFault(f"the expression is longer than {LONGEST} characters")
    try:
        code = source.encode()
    except UnicodeEncodeError as error:
        return SyntaxFault("the expression is not valid text", error.start)
    if b"\0" in code:
        return SyntaxFault("the expression holds a null character", source.index("\0"))
    program = _parser().parse(b"(" + code + b"\n)").root_node
    parsed = Parsed(program, code)
    if program.has_error:
        return _fault(parsed, _first_error(program), source)
    statement = program.named_children[0] if program.named_child_count == 1 else program
    wrapped = statement.named_children[0] if statement.named_child_count == 1 else statement
    if wrapped.type != "parenthesized_expression" or wrapped.end_byte != len(code) + 3:
        return SyntaxFault("this is not one expression: a parenthesis is closed that was not opened")
    inner = [each for each in wrapped.named_children if each.type not in ("comment", "html_comment")]
    if len(inner) != 1:
        return SyntaxFault("this is not one expression")
    return Parsed(inner[0], code)


@cache  # building it costs more than a thousand parses, and importing it is left to those who need it
def _parser() -> "Parser":
    import tree_sitter  # heavy, and most workflows need none of it
    import tree_sitter_javascript

    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_javascript.language()))


def _first_error(program: "Node") -> "Node":
    """Find the first place that does not fit: in what the parser had to skip, the token that made it."""
    node = program
    while (faulty := next((each for each in node.children if each.has_error or each.is_missing), None)) is not None:
        node = faulty
    while node.child_count:
        node = node.children[-1]
    return node


def _fault(parsed: Parsed, node: "Node", source: str) -> SyntaxFault:
    offset = min(parsed.offset(node), len(source))
    if node.is_missing and node.type != "identifier":
        return SyntaxFault(f"the expression does not parse: {node.type} is missing", offset)
    found = (node.text or b"").decode("utf-8", "replace").splitlines()
    if node.is_missing or offset >= len(source.rstrip()):
        return SyntaxFault("the expression does not parse: it ends too early", offset)
    shown = found[0][:20] if found else source[offset : offset + 20]
    return SyntaxFault(f"the expression does not parse at '{shown}'", offset)
