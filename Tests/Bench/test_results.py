"""Tests of what reads uffd-bench's reports. Run by Scripts/bench/run.sh --smoke."""

import json
import re
import sys
import tempfile
import unittest
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[2] / "Scripts/bench"))
import findings  # noqa: E402
import results  # noqa: E402


def variant(name, median, *comparisons):
    return {"name": name, "nanoseconds": {"median": median}, "comparisons": list(comparisons), "rounds": [median]}


class Compare(unittest.TestCase):
    def test_the_machine_falls_out(self):
        with tempfile.TemporaryDirectory() as folder:
            # After the change the machine was half as fast, and the typed layer a fifth slower.
            for side, c, swift in (("before", 100, 110), ("after", 200, 264)):
                scenario = {"name": "ioctl/copy/1", "variants": [variant("c", c), variant("swift", swift)]}
                (Path(folder) / f"{side}.1.json").write_text(json.dumps({"scenarios": [scenario]}))
            before, after = (results.against_c(Path(folder), side, 1) for side in ("before", "after"))
        self.assertEqual(list(before), [("ioctl/copy/1", "swift")])
        self.assertIn(" 1.200 ", list(results.compared(before, after))[1])

    def test_what_one_side_lacks_is_left_out(self):
        self.assertEqual(len(list(results.compared({("a", "swift"): [1, 1]}, {("a", "swift"): [1]}))), 1)


class Page(unittest.TestCase):
    time = {"to": "c", "quantity": "time", "median": 1.2, "lower": 1.1, "upper": 1.3, "bound": 1.05, "verdict": "broken"}

    def test_a_broken_promise_is_named(self):
        self.assertEqual(results.comparison(self.time), "x1.20 (1.10 to 1.30) ≤ 1.05, **broken**")

    def test_what_holds_needs_no_word(self):
        self.assertEqual(results.comparison(self.time | {"verdict": "holds"}), "x1.20 (1.10 to 1.30) ≤ 1.05")

    def test_rates_are_said_in_words(self):
        rate = {"to": "c, polling", "quantity": "rate", "median": 2, "lower": 1.9, "upper": 2.1}
        self.assertEqual(results.comparison(rate), "2.00 (1.90 to 2.10) x the faults per second of c, polling")

    def test_a_row(self):
        scenario = {"name": "scan/1", "variants": [variant("c", 5), variant("swift", 1234, self.time), variant("(mmap)", 3)]}
        rows = list(results.table("scan", [scenario]))
        self.assertEqual(rows[2], "| scenario | C | typed layer | for comparison |")
        self.assertEqual(rows[4], "| `1` | 5.0 | 1,234, x1.20 (1.10 to 1.30) ≤ 1.05, **broken** | mmap: 3.0 |")

    def test_memory_follows_the_time(self):
        self.assertEqual(results.cell(variant("c", 1234) | {"residentBytes": 3 << 19}), "1,234, 1.5 MiB")


class Findings(unittest.TestCase):
    page = (Path(__file__).parents[2] / "docs/performance.md").read_text()

    def test_medians_are_read_from_the_tables(self):
        scenario = {"name": "scan/1", "variants": [variant("c", 1234.5), variant("(mmap, populated)", 3)]}
        text = "\n".join(results.table("scan", [scenario]))
        self.assertEqual(findings.medians(text, results.TITLES, results.TWINS), {"scan/1": {"c": 1234, "mmap, populated": 3}})

    def test_percentiles_are_read_from_the_tables(self):
        latency = {"p50": 1000, "p99": 2000, "p999": 3500}
        scenario = {"name": "fault/copy/poll", "variants": [variant("c", 5) | {"latency": latency}, variant("pager", 6)]}
        text = "\n".join(results.table("fault", [scenario]))
        self.assertEqual(findings.tails(text), {"fault/copy/poll": [(1.0, 2.0, 3.5)]})

    def test_a_figure_that_is_not_that_of_the_tables_is_noticed(self):
        self.assertEqual(findings.with_findings(self.page, results.TITLES, results.TWINS), self.page)
        wrong = re.sub(r"`COPY` [0-9.]+", "`COPY` 99", self.page, count=1)
        self.assertNotEqual(wrong, self.page)
        self.assertEqual(findings.with_findings(wrong, results.TITLES, results.TWINS), self.page)

    def test_broken_promises_are_read_from_the_tables(self):
        times = [Page.time | {"bound": None}, Page.time | {"to": "c, polling"}]
        rate = {"to": "c, polling", "quantity": "rate", "median": 2, "lower": 1.9, "upper": 2.1, "bound": 3, "verdict": "broken"}
        pager = variant("pager", 5, *times, Page.time | {"verdict": "holds"}, rate)
        rest = [variant("a", 3), variant("b", 3, Page.time), variant("swift", 4, Page.time | {"verdict": "cannot tell"})]
        text = "\n".join(results.table("fault", [{"name": "fault/copy", "variants": [variant("c", 5), pager, *rest]}]))
        self.assertEqual(list(findings.broken(text, results.TITLES)), [
            "| `fault/copy` | pager | 1.20 (1.10 to 1.30) of c, polling | ≤ 1.05 |",
            "| `fault/copy` | pager | 2.00 (1.90 to 2.10) x the faults per second of c, polling | ≥ 3.00 |",
            "| `fault/copy` | b | 1.20 (1.10 to 1.30) of C | ≤ 1.05 |"])

    def test_a_broken_promise_that_the_page_does_not_name_is_noticed(self):
        wrong = re.sub(r"(?m)^\| `.*\| ≤ [0-9.]+ \|\n", "", self.page, count=1)
        self.assertNotEqual(wrong, self.page)
        self.assertEqual(findings.with_findings(wrong, results.TITLES, results.TWINS), self.page)


if __name__ == "__main__":
    unittest.main()
