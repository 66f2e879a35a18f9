"""The pure decisions of the commit protocol keep the promises *once* and *newest* of the README."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.pipeline.protocol import (
    IndexedRun,
    IndexEntry,
    ReceiptConflict,
    decide_after_refused_commit,
    index_key,
    is_done,
    runs_of_unknown_order,
    updated_entry,
)
from flows.pipeline.receipt import Receipt, Source, Status
from tests.unit.flows.pipeline.receipts import receipt_of, upload


def written(sequencer: str | None, last_modified: str) -> IndexedRun:
    """Return the index's record of an object version with this sequencer and time."""
    run = IndexedRun.of(receipt_of(upload()))
    return run.model_copy(update={"sequencer": sequencer, "last_modified": last_modified})


def test_an_upload_without_a_receipt_is_not_done() -> None:
    assert not is_done(None, attempt=0)


@pytest.mark.parametrize("published", [True, False])
def test_an_upload_with_a_receipt_is_done_whatever_the_outcome(published: bool) -> None:
    assert is_done(receipt_of(upload(), published=published), attempt=0)


def test_a_forced_rerun_is_not_done_until_its_own_attempt_has_a_receipt() -> None:
    assert not is_done(receipt_of(upload()), attempt=1)
    assert is_done(receipt_of(upload(attempt=1)), attempt=1)
    assert is_done(receipt_of(upload(attempt=2)), attempt=1)


def test_finding_the_same_result_after_a_lost_response_is_success() -> None:
    ours = receipt_of(upload())
    assert decide_after_refused_commit(ours, receipt_of(upload(), created_at="later")).created_at == "later"


def test_a_different_result_that_was_committed_first_is_a_conflict() -> None:
    with pytest.raises(ReceiptConflict):
        decide_after_refused_commit(receipt_of(upload()), receipt_of(upload(), published=False))


def test_a_later_attempt_overrides_an_earlier_one() -> None:
    later = receipt_of(upload(attempt=1), published=False)
    assert decide_after_refused_commit(receipt_of(upload()), later) is later


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("0055AED6DCD90281E5", "0055AED6DCD90281E6"),
        ("0055AED6DCD90281E5", "0055AED6DCD90281E501"),  # the shorter sequencer is padded on the right
        ("0A", "0b"),
    ],
)
def test_the_sequencer_orders_versions(older: str, newer: str) -> None:
    assert written(older, "2026-02-02").age(written(newer, "2026-01-01")) == -1


def test_without_a_sequencer_on_both_sides_last_modified_decides() -> None:
    assert written("FF", "2026-01-01T00:00:00Z").age(written(None, "2026-01-02T00:00:00Z")) == -1


def without_event(version: int) -> Receipt:
    """Return the receipt of a version whose run was started manually. Such a receipt has no sequencer."""
    return receipt_of(replace(upload(version), sequencer=None))


def source_of(receipt: Receipt, last_modified: str) -> Source:
    return receipt.source.model_copy(update={"last_modified": last_modified})


def test_an_events_time_and_last_modified_are_compared_by_the_second() -> None:
    assert written("FF", "2026-01-01T00:00:00.900Z").age(written(None, "2026-01-01T00:00:00.000000Z")) == 0


@pytest.mark.parametrize("older_first", [True, False])
def test_s3s_list_decides_how_new_a_multipart_upload_is(older_first: bool) -> None:
    """LastModified of a multipart upload is when it began, so the version that it replaces may have a later time."""
    versions = [receipt_of(upload(1)), without_event(2)]
    versions[1] = versions[1].model_copy(
        update={"source": source_of(versions[1], last_modified="2025-12-31T00:00:00Z")}
    )
    assert runs_of_unknown_order(updated_entry(None, versions[0], replace=True), versions[1]) == {
        upload(1).run_id,
        upload(2).run_id,
    }
    entry = None
    for receipt in versions if older_first else reversed(versions):
        entry = updated_entry(entry, receipt, replace=True, newest_first=[upload(2).run_id, upload(1).run_id])
    assert entry is not None
    assert entry.current is not None
    assert entry.current.run_id == entry.latest.run_id == upload(2).run_id


def test_a_newer_version_that_was_deleted_since_is_still_the_newer_one() -> None:
    newer = without_event(2)
    newer = newer.model_copy(update={"source": source_of(newer, last_modified="2026-01-02T00:00:00Z")})
    entry = updated_entry(
        updated_entry(None, newer, replace=True), receipt_of(upload(1)), replace=True, newest_first=[upload(1).run_id]
    )
    assert entry.current is not None
    assert entry.current.run_id == newer.run_id


def test_only_s3_knows_which_version_of_the_same_second_is_newer_when_one_has_no_event() -> None:
    entry = updated_entry(None, receipt_of(upload(1)), replace=True)
    assert runs_of_unknown_order(entry, without_event(2)) == {upload(1).run_id, upload(2).run_id}
    assert runs_of_unknown_order(entry, receipt_of(upload(2))) == set(), "both have a sequencer"
    assert runs_of_unknown_order(entry, without_event(1)) == set(), "the same version"
    assert runs_of_unknown_order(None, without_event(2)) == set()


@pytest.mark.parametrize("older_first", [True, False])
@pytest.mark.parametrize(
    "listed",
    [[2, 1], [2]],  # S3 deletes an old version before a newer one
)
def test_of_versions_in_the_same_second_the_one_that_s3_lists_first_is_current(
    older_first: bool, listed: list[int]
) -> None:
    versions = [receipt_of(upload(1)), without_event(2)]
    entry = None
    for receipt in versions if older_first else reversed(versions):
        newest_first = [upload(version).run_id for version in listed]
        entry = updated_entry(entry, receipt, replace=True, newest_first=newest_first)
    assert entry is not None
    assert entry.current is not None
    assert entry.current.run_id == entry.latest.run_id == upload(2).run_id
    assert entry.retired == tuple(output.key for output in versions[0].outputs)


def apply(receipts: list[Receipt], *, replace: bool = True) -> tuple[IndexEntry, set[str]]:
    """Update an index entry with all receipts in order; return it and the keys of all outputs that were replaced."""
    entry: IndexEntry | None = None
    retired: set[str] = set()
    for receipt in receipts:
        entry = updated_entry(entry, receipt, replace=replace)
        retired |= set(entry.retired)
    assert entry is not None
    return entry, retired


versions = st.dictionaries(st.integers(1, 6), st.booleans(), min_size=1)


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[dict[int, bool], list[Receipt]]:
    """Generate version → whether it was published, and the receipts of all versions, each twice and in any order."""
    outcome = draw(versions)
    receipts = {version: receipt_of(upload(version), published=published) for version, published in outcome.items()}
    order = draw(st.permutations(sorted(receipts) * 2))
    return outcome, [receipts[version] for version in order]


@given(deliveries())
def test_the_newest_published_version_is_current_in_any_order_of_arrival(
    case: tuple[dict[int, bool], list[Receipt]],
) -> None:
    outcome, receipts = case
    entry, retired = apply(receipts)
    newest = max((version for version, published in outcome.items() if published), default=None)
    assert (entry.current.run_id if entry.current else None) == (upload(newest).run_id if newest else None)
    assert entry.latest.run_id == upload(max(outcome)).run_id
    kept = set(entry.current.data_keys) if entry.current else set()
    everything = {output.key for receipt in receipts for output in receipt.outputs}
    assert retired >= everything - kept, "every older output is retired"
    assert not set(entry.retired) & kept, "what is current is never up for deletion"


@given(deliveries())
def test_updating_the_entry_again_changes_nothing(case: tuple[dict[int, bool], list[Receipt]]) -> None:
    _, receipts = case
    entry, _ = apply(receipts)
    assert updated_entry(entry, receipts[-1], replace=True).model_copy(update={"retired": ()}) == entry.model_copy(
        update={"retired": ()}
    )


@given(deliveries())
def test_appending_retires_nothing(case: tuple[dict[int, bool], list[Receipt]]) -> None:
    _, retired = apply(case[1], replace=False)
    assert retired == set()


@given(deliveries())
def test_appending_lists_every_run_that_was_published_in_any_order(case: tuple[dict[int, bool], list[Receipt]]) -> None:
    outcome, receipts = case
    entry, _ = apply(receipts, replace=False)
    assert entry.appended == tuple(
        sorted(upload(version).run_id for version, published in outcome.items() if published)
    )


def test_a_rejected_reupload_leaves_the_last_good_output_in_place() -> None:
    entry, retired = apply([receipt_of(upload(1)), receipt_of(upload(2), published=False)])
    assert entry.current is not None
    assert entry.current.run_id == upload(1).run_id
    assert entry.latest.status is Status.REJECTED
    assert retired == set()


def test_a_forced_rerun_retires_its_own_earlier_attempt() -> None:
    first, again = receipt_of(upload(1)), receipt_of(upload(1, attempt=1))
    entry, retired = apply([first, again])
    assert entry.current is not None
    assert entry.current.attempt == 1
    assert retired == {first.outputs[0].key}


def test_a_forced_rerun_that_rejects_the_file_withdraws_what_it_published() -> None:
    first = receipt_of(upload(1))
    entry, retired = apply([first, receipt_of(upload(1, attempt=1), published=False)])
    assert entry.current is None
    assert retired == {first.outputs[0].key}


@given(dataset=st.from_regex(r"[a-z][a-z0-9_-]{0,20}", fullmatch=True), key=st.text(max_size=50))
def test_no_source_key_can_escape_the_folder_of_the_index(dataset: str, key: str) -> None:
    path = index_key(dataset, "landing", key)
    assert path.startswith(f"index/{dataset}/")
    assert path.count("/") == 2
