"""What docs/quality.md claims: the committed numbers say it, and a smaller run says it again."""

import json

import pytest

from benchmarks.quality import DOCUMENT, RESULT, claims, main, measure, table
from benchmarks.quality_controls import ControlSettings
from benchmarks.quality_signal import SignalSettings


def test_the_document_shows_what_was_measured_and_all_of_it_holds():
    found = json.loads(RESULT.read_text())
    assert table(found) in DOCUMENT.read_text()
    assert [claim.text for claim in claims(found) if not claim.holds] == []
    assert main(["--check"]) == 0


def test_a_claim_that_its_numbers_do_not_bear_out_is_shown_and_fails():
    found = json.loads(RESULT.read_text())
    found["signal"]["difference"] = -0.02
    found["controls"]["without_cue"]["average_precision"] = 0.9
    found["controls"]["with_cue"]["rise_95"] = [-0.01, 0.2]
    found["controls"]["muted"]["same_scores"] = False
    assert not any(claim.holds for claim in claims(found))
    assert table(found).count("**no**") == 4


@pytest.mark.slow
def test_a_smaller_run_bears_out_every_claim(tmp_path):
    signal = SignalSettings(dim=512, train=4, validation=4, global_batch=2048, lr=1e-3)
    controls = ControlSettings(train=12, validation=3, test=20, seconds=60)
    found = measure(tmp_path, signal, controls)
    assert [claim.text for claim in claims(found) if not claim.holds] == [], table(found)
