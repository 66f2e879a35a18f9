"""Tests that `sluice up` finds the outcomes that have been recorded in Prefect since it last looked."""

from blocks.settings import PipelineSettings
from deployment.commands.up import Outcomes
from flows.composition import assemble
from flows.observability.recorder import Recorder
from tests.prefect_server import PrefectServer
from tests.unit.flows.pipeline.receipts import receipt_of, upload

_SETTINGS = PipelineSettings(stack="sluice", landing_bucket="landing", published_bucket="published", queue_url="queue")


def test_each_outcome_is_reported_once_and_earlier_ones_are_not(server: PrefectServer) -> None:
    recorder, shown = Recorder(assemble(_SETTINGS)), list[str]()
    before, *uploads = (upload(number) for number in range(90_000, 90_003))
    earlier = Outcomes(server.url)
    recorder.record([receipt_of(before)])
    server.eventually(lambda: before.run_id in earlier.news())
    outcomes = Outcomes(server.url)
    for one in uploads:
        recorder.record([receipt_of(one)])

    def all_are_shown() -> bool:
        shown.extend(outcomes.news())
        return len(shown) >= len(uploads)

    server.eventually(all_are_shown)
    assert sorted(shown) == sorted(one.run_id for one in uploads)
    assert outcomes.news() == []
