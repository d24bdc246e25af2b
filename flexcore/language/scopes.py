"""JavaScript's scopes: which names an expression uses but does not declare itself.

Works on tree-sitter's tree, without recursion, so that deep nesting is the parser's business alone. It knows what a
name needs to be found (parameters, patterns, `var` above blocks, `let` within them), not when it may be used.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Node

FUNCTIONS = frozenset(
    {
        "arrow_function",
        "function_expression",
        "function_declaration",
        "generator_function",
        "generator_function_declaration",
        "method_definition",
    }
)
_OWN_BLOCK = frozenset({"statement_block", "for_statement", "for_in_statement", "switch_body", "catch_clause"})
_LEXICAL = frozenset({"lexical_declaration", "function_declaration", "generator_function_declaration"})

Names = frozenset[str]


def free_names(root: "Node") -> "Iterator[Node]":
    """Give every identifier that refers to something outside of the expression, in the order written."""
    todo: list[tuple[Node, Names]] = [(root, frozenset())]
    while todo:
        node, known = todo.pop()
        kind = node.type
        if kind in ("identifier", "shorthand_property_identifier", "shorthand_property_identifier_pattern"):
            if text(node) not in known:
                yield node
            continue
        if kind in FUNCTIONS:
            known |= _of_function(node)
        elif kind in _OWN_BLOCK:
            known |= _of_block(node)
        todo.extend((child, known) for child in reversed(node.named_children))


def text(node: "Node") -> str:
    """Give a node's source."""
    return (node.text or b"").decode()


def _of_function(node: "Node") -> Names:
    names = set() if node.type == "arrow_function" else {"arguments"}
    for field in ("name", "parameter", "parameters"):
        child = node.child_by_field_name(field)
        if child is not None and child.type not in ("property_identifier", "computed_property_name"):
            names |= _bound(child)
    body = node.child_by_field_name("body")
    if body is not None:
        names |= _hoisted(body)
    return frozenset(names)


def _hoisted(body: "Node") -> set[str]:
    """Collect what `var` declares anywhere in a function, inner functions left out."""
    names: set[str] = set()
    todo = [body]
    while todo:
        node = todo.pop()
        if node.type in FUNCTIONS:
            continue
        if node.type == "variable_declaration":
            names |= _declared(node)
        elif node.type == "for_in_statement" and _word(node, "kind") == "var":
            names |= _loop_variable(node)
        todo.extend(node.named_children)
    return names


def _of_block(node: "Node") -> Names:
    names: set[str] = set()
    if node.type == "catch_clause":
        parameter = node.child_by_field_name("parameter")
        return frozenset(_bound(parameter)) if parameter is not None else frozenset()
    if node.type == "for_in_statement":
        return frozenset(_loop_variable(node)) if _word(node, "kind") else frozenset()
    for child in _statements(node):
        if child.type == "lexical_declaration":
            names |= _declared(child)
        elif child.type in _LEXICAL and (name := child.child_by_field_name("name")) is not None:
            names.add(text(name))
    return frozenset(names)


def _statements(node: "Node") -> "Iterator[Node]":
    for child in node.named_children:
        if child.type in ("switch_case", "switch_default"):
            yield from child.named_children
        else:
            yield child


def _loop_variable(node: "Node") -> set[str]:
    left = node.child_by_field_name("left")
    return _bound(left) if left is not None else set()


def _declared(declaration: "Node") -> set[str]:
    names: set[str] = set()
    for child in declaration.named_children:
        if child.type == "variable_declarator" and (name := child.child_by_field_name("name")) is not None:
            names |= _bound(name)
    return names


def _bound(pattern: "Node") -> set[str]:
    """Collect the names that a pattern binds; defaults and computed keys only read."""
    names: set[str] = set()
    todo = [pattern]
    while todo:
        node = todo.pop()
        match node.type:
            case "identifier" | "shorthand_property_identifier_pattern":
                names.add(text(node))
            case "assignment_pattern" | "object_assignment_pattern":
                todo.extend(node.children_by_field_name("left"))
            case "pair_pattern":
                todo.extend(node.children_by_field_name("value"))
            case "formal_parameters" | "object_pattern" | "array_pattern" | "rest_pattern":
                todo.extend(node.named_children)
    return names


def _word(node: "Node", field: str) -> str:
    child = node.child_by_field_name(field)
    return text(child) if child is not None else ""
