"""Tests of how the runs of Scripts/check/selftest-soak.sh are compared. Run by Scripts/check/matrix-reports.sh."""

import contextlib
import io
import json
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "Scripts/check"))
import soak  # noqa: E402


class Soak(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.directory = Path(temporary.name)

    def run_of(self, number, outcomes, code=0, planned=2, interrupted=None, reason="x"):
        path = self.directory / f"run-{number:03}"
        results = [{"case": name, "memory": memory, "outcome": outcome, "reason": None if outcome == "pass" else reason}
                   for (name, memory), outcome in zip([("copy", "anon"), ("api", None)], outcomes)]
        path.with_suffix(".json").write_text(
            json.dumps({"results": results, "planned": planned, "interrupted": interrupted}))
        path.with_suffix(".exit").write_text(f"{code}\n")
        path.with_suffix(".seconds").write_text(f"{number}.5\n")

    def compare(self):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            code = soak.compare(self.directory)
        return code, output.getvalue()

    def test_the_same_outcomes(self):
        for number in (1, 2, 3):
            self.run_of(number, ["pass", "skip"], reason=f"reason {number}")
        code, output = self.compare()
        self.assertEqual(code, 0, output)
        self.assertEqual(output, "3 runs of 2 results, seconds per run: 1.5 to 3.5, median 2.5: the same outcomes\n")

    def test_an_outcome_that_differs_is_told_with_its_runs(self):
        for number, outcome in enumerate(["pass", "skip", "pass"], 1):
            self.run_of(number, [outcome, "pass"], reason="this time not")
        code, output = self.compare()
        self.assertEqual(code, 1)
        self.assertIn("copy/anon:\n    pass: runs 001 003, ", output)
        self.assertIn(f"    skip: this time not: runs 002, {self.directory}/run-002.json", output)
        self.assertNotIn("api", output)

    def test_a_failure_in_every_run_is_a_problem(self):
        for number in (1, 2):
            self.run_of(number, ["pass", "fail"], code=1)
        self.assertEqual(self.compare()[0], 1)

    def test_a_run_without_a_verdict_is_a_problem(self):
        wrong = [dict(planned=3), dict(interrupted="SIGTERM"), dict(code=1), dict(code=137)]
        for number, how in enumerate(wrong, 1):
            self.run_of(number, ["pass", "pass"], **how)
        self.run_of(5, ["pass", "pass"])
        (self.directory / "run-005.json").write_text("{")
        self.run_of(6, ["pass", "pass"])
        code, output = self.compare()
        self.assertEqual((code, output.count("no verdict")), (1, 5), output)

    def test_no_run_is_a_problem(self):
        self.assertEqual(self.compare()[0], 1)


if __name__ == "__main__":
    unittest.main()
