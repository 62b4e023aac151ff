"""References inside a JSON document."""

from __future__ import annotations


def unresolved_references(document: dict[str, object]) -> set[str]:
    """The `$ref`s of a document that point at nothing in it."""
    missing: set[str] = set()

    def visit(node: object) -> None:
        if isinstance(node, dict):
            reference = node.get("$ref")
            if isinstance(reference, str) and not _resolves(document, reference):
                missing.add(reference)
            for child in node.values():
                visit(child)
        elif isinstance(node, list):
            for child in node:
                visit(child)

    visit(document)
    return missing


def _resolves(document: object, reference: str) -> bool:
    for key in reference.removeprefix("#/").split("/"):
        if not isinstance(document, dict) or key not in document:
            return False
        document = document[key]
    return True
