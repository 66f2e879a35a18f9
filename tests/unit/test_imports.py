"""There are no import cycles, not even with imports inside functions or only for the type checker."""

from __future__ import annotations

import grimp

_PACKAGES = ("flows", "blocks", "lambda_trigger", "deployment", "tests")


def import_cycles(graph: grimp.ImportGraph) -> list[str]:
    """Return the imports that close a cycle: those whose imported module imports the importer, even indirectly."""
    pairs = ((importer, imported) for importer in graph.modules for imported in _imports(graph, importer))
    return sorted(
        f"{importer} -> {' -> '.join(chain)}"
        for importer, imported in pairs
        if (chain := graph.find_shortest_chain(imported, importer))
    )


def _imports(graph: grimp.ImportGraph, importer: str) -> set[str]:
    return graph.find_modules_directly_imported_by(importer)


def test_no_module_imports_itself_indirectly() -> None:
    graph = grimp.build_graph(*_PACKAGES, cache_dir=None)
    assert len(graph.modules) > 200
    assert import_cycles(graph) == []


def test_a_cycle_is_found() -> None:
    graph = grimp.ImportGraph()
    for importer, imported in (("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")):
        graph.add_import(importer=importer, imported=imported)
    assert import_cycles(graph) == ["a -> b -> c -> a", "b -> c -> a -> b", "c -> a -> b -> c"]
