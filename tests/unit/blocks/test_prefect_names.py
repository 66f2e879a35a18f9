"""Stacks that share a Prefect server use different names for everything that they create on it."""

from __future__ import annotations

from itertools import combinations

from blocks.prefect_names import PrefectNames

# Names that contain each other, or words that Sluice itself uses in names.
STACKS = ("sluice", "sluice-sluice", "trial", "sluice-trial", "a", "a-aws", "aws", "aws-aws", "local", "a-local", "b-a")


def names_of(stack: str) -> set[str]:
    names = PrefectNames(stack)
    # Objects of different types have separate namespaces, so each name is prefixed with its type.
    return {
        f"settings {names.settings_block}",
        *(f"block {name}" for name in (names.credentials_block, names.notify_block)),
        *(f"pool {names.pool(kind)}" for kind in ("local", "ecs")),
        *(f"deployment {names.deployment(flow)}" for flow in ("process-upload", "reconcile")),
        *(f"limit {names.limit(dataset)}" for dataset in ("orders", "aws")),
    }


def test_no_two_stacks_have_a_name_in_common() -> None:
    for one, other in combinations(STACKS, 2):
        assert not names_of(one) & names_of(other), (one, other)


def test_a_stack_owns_only_its_own_automations_and_limits() -> None:
    for one in STACKS:
        for other in STACKS:
            automation, limit = f"Sluice: a run crashed ({other})", PrefectNames(other).limit("orders")
            assert PrefectNames(one).has_automation(automation) is (one == other)
            assert limit.startswith(PrefectNames(one).limit("")) is (one == other)


def test_the_names_of_a_stack_called_sluice_contain_sluice_once() -> None:
    names = PrefectNames("sluice")
    assert (names.credentials_block, names.pool("ecs"), names.limit("orders")) == (
        "sluice-aws",
        "sluice-ecs",
        "sluice:orders",
    )
