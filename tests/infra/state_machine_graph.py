"""Checks the graph, the timeouts, the retries and the loops of a state machine's definition. cfn-lint accepts a Next
that names a missing state."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Definition = Mapping[str, Any]
State = Mapping[str, Any]

_TERMINAL = ("Succeed", "Fail")
_INCREMENT = re.compile(r"\{% \$states\.input\.(?P<name>\w+) \+ 1 %\}")
_RETRY_FIELDS = {"IntervalSeconds": None, "BackoffRate": None, "MaxDelaySeconds": None, "JitterStrategy": "FULL"}


@dataclass(frozen=True)
class Edge:
    """A transition from one state to another.

    Attributes:
        counted: the fields of the input that increase by one when this transition is taken.
    """

    source: str
    target: str
    counted: frozenset[str]


def problems_of(definition: Definition) -> list[str]:
    """Return the problems of a definition as sentences, including problems in the states inside a Map."""
    states: Mapping[str, State] = definition["States"]
    kinds = {state["Type"] for state in states.values()}
    missing = [f"there is no {kind} state" for kind in _TERMINAL if kind not in kinds]
    return missing + _problems_of_graph(definition)


def _problems_of_graph(definition: Definition) -> list[str]:
    states: Mapping[str, State] = definition["States"]
    edges = [edge for name, state in states.items() for edge in _edges(name, state)]
    inside = [state["ItemProcessor"] for state in states.values() if state["Type"] == "Map"]
    return [
        *_targets_that_do_not_exist(definition, edges),
        *_unreachable(definition, edges),
        *_without_an_end(states, edges),
        *(problem for name, state in states.items() for problem in _careless(name, state)),
        *_unbounded_loops(states, edges),
        *(problem for one in inside for problem in _problems_of_graph(one)),
        *(f"{name!r} fails an item, which stops the others" for one in inside for name in _failing(one)),
    ]


def _failing(inside: Definition) -> list[str]:
    """Return the Fail states inside a Map. If one item fails, Step Functions stops all others."""
    return [name for name, state in inside["States"].items() if state["Type"] == "Fail"]


def placeholders_in(text: str) -> set[str]:
    """Return the names of the ${Placeholders} in a definition."""
    return set(re.findall(r"\$\{(\w+)\}", text))


# --- the graph ---------------------------------------------------------------------------------------------


def _edges(name: str, state: State) -> Iterator[Edge]:
    assigned = _increments(state)
    if "Next" in state:
        yield Edge(name, state["Next"], assigned)
    for rule in state.get("Choices", []):
        yield Edge(name, rule["Next"], _increments(rule))
    if "Default" in state:
        yield Edge(name, state["Default"], assigned)
    for catcher in state.get("Catch", []):
        yield Edge(name, catcher["Next"], _increments(catcher))


def _increments(where: Mapping[str, Any]) -> frozenset[str]:
    found = set()
    for name, value in where.get("Output", {}).items():
        match = _INCREMENT.fullmatch(value) if isinstance(value, str) else None
        if match and match["name"] == name:
            found.add(name)
    return frozenset(found)


def _reach(start: Collection[str], edges: Collection[Edge]) -> set[str]:
    reached, fresh = set(start), list(start)
    while fresh:
        here = fresh.pop()
        ahead = {edge.target for edge in edges if edge.source == here} - reached
        reached |= ahead
        fresh += ahead
    return reached


def _targets_that_do_not_exist(definition: Definition, edges: Collection[Edge]) -> Iterator[str]:
    states = definition["States"]
    if definition.get("StartAt") not in states:
        yield f"StartAt names {definition.get('StartAt')!r}, which does not exist"
    yield from (
        f"{edge.source!r} leads to {edge.target!r}, which does not exist" for edge in edges if edge.target not in states
    )


def _unreachable(definition: Definition, edges: Collection[Edge]) -> Iterator[str]:
    lost = set(definition["States"]) - _reach([definition["StartAt"]], edges)
    yield from (f"{name!r} is never reached" for name in sorted(lost))


def _without_an_end(states: Mapping[str, State], edges: Collection[Edge]) -> Iterator[str]:
    for name, state in states.items():
        ends = [reached for reached in _reach([name], edges) if _ends(states.get(reached, {}))]
        if not ends:
            yield f"from {name!r} no end is reached"
        if state["Type"] in _TERMINAL and any(edge.source == name for edge in edges):
            yield f"{name!r} is an end and leads on"


def _ends(state: State) -> bool:
    return state.get("Type") in _TERMINAL or state.get("End") is True


# --- timeouts, retries and errors ---------------------------------------------------------------------------


def _careless(name: str, state: State) -> Iterator[str]:
    if state["Type"] == "Task":
        yield from _careless_task(name, state)
    elif state["Type"] == "Choice" and "Default" not in state:
        yield f"{name!r} is a choice without a default"
    elif state["Type"] == "Fail" and not (state.get("Error") and state.get("Cause")):
        yield f"{name!r} fails without saying an error and a cause"


def _careless_task(name: str, state: State) -> Iterator[str]:
    if "TimeoutSeconds" not in state:
        yield f"{name!r} has no timeout: without one a task may run for a year"
    retriers = [retrier for retrier in state.get("Retry", []) if retrier.get("MaxAttempts", 3) > 0]
    if not retriers:
        yield f"{name!r} has no retry"
    for retrier in retriers:
        for field, wanted in _RETRY_FIELDS.items():
            if field not in retrier or wanted not in (None, retrier[field]):
                yield f"{name!r} retries {retrier['ErrorEquals']} without {field}{f' {wanted}' if wanted else ''}"
    catchers = state.get("Catch", [])
    if not catchers or catchers[-1]["ErrorEquals"] != ["States.ALL"]:
        yield f"{name!r} does not catch every error"


# --- loops --------------------------------------------------------------------------------------------------


def _unbounded_loops(states: Mapping[str, State], edges: Collection[Edge]) -> Iterator[str]:
    for loop in _loops(states, edges):
        if any(_ends_by_the_clock(states[name]) for name in loop):
            continue
        inside = [edge for edge in edges if edge.source in loop and edge.target in loop]
        if not any(_bounds(counter, states, loop, inside) for counter in _counters(inside)):
            yield f"nothing bounds the loop of {', '.join(sorted(loop))}"


def _ends_by_the_clock(state: State) -> bool:
    """Return whether a Choice state has exactly one rule that holds only before some time (`$millis() < …`), and that
    rule leads to a state with "Wait" in its name."""
    waiting = [
        rule for rule in state.get("Choices", []) if re.search(r"\$millis\(\) < \(\$\w+", str(rule["Condition"]))
    ]
    return len(waiting) == 1 and "Wait" in waiting[0]["Next"]


def _loops(states: Mapping[str, State], edges: Collection[Edge]) -> list[set[str]]:
    """Return the loops as sets of states. From each state in a set, every state in the set can be reached."""
    ahead = {name: _reach([edge.target for edge in edges if edge.source == name], edges) for name in states}
    loops: list[set[str]] = []
    for name in states:
        if name in ahead[name] and not any(name in loop for loop in loops):
            loops.append({other for other in ahead[name] if name in ahead.get(other, set())})
    return loops


def _counters(edges: Collection[Edge]) -> set[str]:
    return {counter for edge in edges for counter in edge.counted}


def _bounds(counter: str, states: Mapping[str, State], loop: set[str], inside: Collection[Edge]) -> bool:
    """Return whether a counter bounds a loop: every cycle must increase it, and must pass a choice that leaves the loop
    once the counter has reached its limit."""
    uncounted = [edge for edge in inside if counter not in edge.counted]
    guards = {name for name in loop if _guards(counter, states[name], loop)}
    unguarded = [edge for edge in inside if edge.source not in guards]
    return not _has_cycle(loop, uncounted) and not _has_cycle(loop, unguarded)


def _guards(counter: str, state: State, loop: set[str]) -> bool:
    """Return whether a state is a choice with a rule that leaves the loop once the counter has reached its limit, and
    no earlier rule stays in the loop."""
    for rule in state.get("Choices", []):
        if rule["Next"] in loop:
            return False
        if re.match(rf"\{{% \$states\.input\.{counter} >= [^<>$]*\$?[^<>$]* %\}}$", str(rule["Condition"])):
            return True
    return False


def _has_cycle(nodes: Collection[str], edges: Collection[Edge]) -> bool:
    return any(name in _reach([edge.target for edge in edges if edge.source == name], edges) for name in nodes)
