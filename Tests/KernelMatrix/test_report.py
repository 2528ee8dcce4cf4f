"""Tests of the matrix's reports. Run by Scripts/check/matrix-reports.sh."""

import contextlib
import io
import json
import sys
import tempfile
import unittest
import xml.etree.ElementTree as xml
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "Scripts/matrix"))
import before_after  # noqa: E402
import report  # noqa: E402
import table  # noqa: E402


class Report(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.results = Path(temporary.name) / "6.1"
        self.expected = Path(temporary.name) / "expected/6.1.json"
        self.results.mkdir()
        self.put("release", "6.1.0-56\n")
        self.put("seconds", "7\n")
        for who in report.WHO:
            self.put(f"{who}.death", "")
        self.guest("root", ("copy", "anon", "pass", None), ("copy", "shmem", "pass", None), ("api", None, "pass", None))
        self.guest("user", ("copy", "anon", "skip", "6.1.0-56 has no x"))
        self.put("unit.xml", """<testsuites><testsuite>
            <testcase classname="Tests.Kernel.Copy" name="one()" time="0.1"/>
            <testcase classname="Tests.Kernel.Copy" name="two(a: b:)" time="0.1"><skipped>no swap</skipped></testcase>
            </testsuite></testsuites>""")

    def put(self, name, text):
        (self.results / name).write_text(text)

    def guest(self, who, *results):
        keys = ("case", "memory", "outcome", "reason")
        rows = [dict(zip(keys, result), seconds=0.5, detail=None) for result in results]
        self.put(f"{who}.json", json.dumps({"results": rows}))

    def check(self, accept=False):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            code = report.check(self.results, "6.1", self.expected, accept)
        return code, output.getvalue()

    def test_what_passes_alone_has_not_failed(self):
        self.check(accept=True)
        self.guest("root", ("copy", "anon", "fail", "late"), ("copy", "shmem", "fail", "late"), ("api", None, "pass", None))
        found = report.failures(self.results, "6.1", "root", self.expected)
        self.assertEqual(found, [("copy", "anon"), ("copy", "shmem")])
        (self.results / "again").mkdir()
        self.put("again/root.death", "")
        self.guest("again/root", ("copy", "anon", "pass", None), ("copy", "shmem", "fail", "late"))
        code, output = self.check()
        self.assertEqual((code, output.count("then passed alone"), output.count("->")), (1, 1, 1), output)

    def test_a_part_of_a_run_leaves_the_rest_as_it_was(self):
        self.check(accept=True)
        self.put("filtered", "")
        self.put("parts", "root user\n")
        (self.results / "unit.xml").unlink()
        self.guest("root", ("copy", "shmem", "skip", "no room"), ("move", "anon", "pass", None))
        self.guest("user")
        code, output = self.check()
        self.assertEqual((code, output.count("->")), (1, 2), output)
        self.check(accept=True)
        expected, _ = report.load_expected(self.expected)
        self.assertEqual(expected["root"]["copy", "anon"].text, "pass")
        self.assertEqual(expected["root"]["copy", "shmem"].text, "skip: no room")
        self.assertEqual(expected["root"]["move", "anon"].text, "pass")
        self.assertEqual(len(expected["unit"]), 2)

    def test_parts_that_did_not_run_keep_what_is_expected(self):
        self.check(accept=True)
        self.put("parts", "root\n")
        for name in ("user.json", "unit.xml"):
            (self.results / name).unlink()
        self.guest("root", ("copy", "anon", "pass", None))
        code, output = self.check()
        self.assertEqual((code, output.count("->")), (1, 2), output)
        self.check(accept=True)
        expected, _ = report.load_expected(self.expected)
        self.assertEqual([len(expected[who]) for who in report.WHO], [1, 1, 2])

    def test_a_bug_without_series_is_one_of_every_series(self):
        self.expected.parent.parent.joinpath("known-bugs.json").write_text(
            json.dumps([{"what": "it leaks", "cases": ["copy"]}]))
        self.guest("root", ("copy", "anon", "fail", "4 pages"))
        self.check(accept=True)
        self.assertEqual(report.load_expected(self.expected)[0]["root"]["copy", "anon"].text, "bug: it leaks")

    def test_a_bug_that_shows_sometimes_is_expected_every_time(self):
        bugs = self.expected.parent.parent / "known-bugs.json"
        bugs.parent.mkdir(exist_ok=True)
        bugs.write_text(json.dumps([{"what": "a race", "cases": ["copy"], "sometimes": True}]))
        self.guest("root", ("copy", "anon", "fail", "4 pages"), ("copy", "shmem", "pass", None))
        self.check(accept=True)
        expected = report.load_expected(self.expected)[0]
        self.assertEqual([expected["root"]["copy", memory].text for memory in ("anon", "shmem")], ["bug: a race"] * 2)
        self.assertEqual(expected["user"]["copy", "anon"].outcome, "skip")
        self.guest("root", ("copy", "anon", "pass", None), ("copy", "shmem", "fail", "4 pages"))
        code, output = self.check()
        self.assertEqual(code, 0, output)

    def test_a_pair_of_kernels_must_differ(self):
        bad, good = {"failed": ["copy/anon"], "passed": 1, "why": "4 pages"}, {"failed": [], "passed": 2, "why": ""}
        self.assertEqual(before_after.verdict(bad, good), "")
        self.assertIn("nothing fails", before_after.verdict(good, good))
        self.assertIn("copy/anon: 4 pages", before_after.verdict(bad, bad))
        self.assertIn("nothing passes", before_after.verdict(bad, {"failed": [], "passed": 0, "why": ""}))

    def test_notes_between_the_lines_of_a_report_are_not_part_of_it(self):
        lines = ['{"features":[],', '"results": [uffd-selftest: this host could not be measured', "thread 1 (exe)",
                 '{"case":"copy","outcome":"pass"},', '{"case":"move","outcome":"fail"}']
        end = '],"interrupted":null,"planned":2'
        found = before_after.results_of("\r\n".join([*lines, end, "}"]))
        self.assertEqual([result["case"] for result in found], ["copy", "move"])
        with self.assertRaises(ValueError):
            before_after.results_of("\n".join(lines))

    def test_an_oops_is_told_without_its_address(self):
        detail = "at: Copy.swift:1\nkernel: BUG: unable to handle page fault for address: ffff8880"
        result = {"reason": "it ended", "detail": detail}
        self.assertEqual(before_after.reason(result), "BUG: unable to handle page fault")
        self.assertEqual(before_after.reason({"reason": "x" * 200, "detail": None}), "x" * 159 + "…")

    def test_accepted_outcomes_are_expected(self):
        self.assertEqual(self.check()[0], 1, "nothing was accepted yet")
        self.assertEqual(self.check(accept=True)[0], 0)
        self.assertEqual(self.check()[0], 0)
        kept = json.loads(self.expected.read_text())
        self.assertEqual(kept["root"], {"pass": {"copy": "anon shmem", "api": "-"}})
        self.assertEqual(kept["unit"], {"pass": {"Kernel.Copy": "one()"}, "skip: no swap": {"Kernel.Copy": "two(a:b:)"}})
        self.assertEqual(kept["user"], {"skip: this kernel has no x": {"copy": "anon"}})

    def test_every_change_is_told(self):
        self.check(accept=True)
        self.guest("root", ("copy", "anon", "skip", "no swap"), ("new", "anon", "pass", None), ("api", None, "pass", None))
        code, output = self.check()
        self.assertEqual(code, 1)
        self.assertIn("root: copy on anon: pass -> skip: no swap\n", output)
        self.assertIn("root: copy on shmem: pass -> nothing\n", output)
        self.assertIn("root: new on anon: nothing -> pass\n", output)
        self.assertNotIn("api", output)

    def test_a_changed_reason_is_a_change(self):
        self.check(accept=True)
        self.guest("user", ("copy", "anon", "skip", "another"))
        self.assertIn("user: copy on anon: skip: this kernel has no x -> skip: another", self.check()[1])

    def test_chance_is_no_change(self):
        self.check(accept=True)
        self.guest("root", ("copy", "anon", "skip", "this time nothing was swapped"), ("copy", "shmem", "pass", None),
                   ("api", None, "pass", None))
        code, output = self.check()
        self.assertEqual(code, 0)
        self.assertIn("root 1 not this time, 2 pass", output)

    def test_failures_are_never_accepted(self):
        self.guest("root", ("copy", "anon", "fail", "wrong byte"))
        code, output = self.check(accept=True)
        self.assertEqual(code, 1)
        self.assertIn("root: copy on anon: nothing -> fail: wrong byte", output)
        self.assertFalse(self.expected.exists())

    def test_a_known_bug_is_expected_where_it_is(self):
        bugs = self.expected.parent.parent / "known-bugs.json"
        bugs.write_text(json.dumps([{"what": "a lost byte", "cases": ["copy"], "series": ["6.1"]}]))
        self.guest("root", ("copy", "anon", "fail", "wrong byte"), ("api", None, "pass", None))
        self.assertEqual(self.check(accept=True)[0], 0)
        self.assertEqual(json.loads(self.expected.read_text())["root"]["bug: a lost byte"], {"copy": "anon"})
        self.assertEqual(self.check()[0], 0)
        page = "\n".join(table.markdown(table.load_all(self.expected.parent)))
        self.assertIn("| `copy` | ✗ 1/1 |", page)
        self.guest("root", ("copy", "anon", "pass", None), ("api", None, "pass", None))
        self.assertIn("root: copy on anon: bug: a lost byte -> pass", self.check()[1])
        bugs.write_text(json.dumps([{"what": "a lost byte", "cases": ["copy"], "series": ["6.2"]}]))
        self.guest("root", ("copy", "anon", "fail", "wrong byte"), ("api", None, "pass", None))
        self.assertEqual(self.check(accept=True)[0], 1)

    def test_another_machine_has_outcomes_of_its_own(self):
        bugs = self.expected.parent.parent / "known-bugs.json"
        bugs.write_text(json.dumps([{"what": "a lost byte", "cases": ["copy"], "series": ["6.1"]}]))
        self.guest("root", ("copy", "anon", "fail", "wrong byte"), ("api", None, "pass", None))
        for size in ("16k", "4k"):
            path = self.expected.parent / f"arm64-{size}/6.1.json"
            with contextlib.redirect_stdout(io.StringIO()) as output:
                self.assertEqual(report.check(self.results, f"arm64-{size}/6.1", path, True), 0)
            self.assertIn(f"arm64-{size}/6.1 (6.1.0-56)", output.getvalue())
        self.assertEqual(table.load_all(self.expected.parent), {})
        matrix = table.load_arm64(self.expected.parent)
        self.assertEqual(list(matrix), ["6.1, 4k", "6.1, 16k"])
        page = "\n".join(table.markdown(matrix, table.HEAD_ARM64, table.FOOT_ARM64))
        self.assertIn("| `copy` | ✗ 1/1 | ✗ 1/1 |", page)

    def test_a_dead_guest_is_a_result(self):
        self.check(accept=True)
        (self.results / "user.json").unlink()
        self.put("user.death", "Kernel panic - not syncing: x\n")
        code, output = self.check(accept=True)
        self.assertEqual(code, 1)
        self.assertIn("user: no results: Kernel panic - not syncing: x", output)
        suites = {suite.get("name"): suite for suite in xml.parse(self.results / "junit.xml").getroot()}
        self.assertEqual(suites["6.1.user"].get("errors"), "1")
        self.assertEqual((suites["6.1.root"].get("tests"), suites["6.1.root"].get("failures")), ("3", "0"))

    def test_cut_off_results_are_no_results(self):
        self.put("root.json", '{"results": [')
        self.put("root.exit", "137\n")
        self.assertIn("root: no results: exit 137", self.check()[1])

    def test_a_run_that_was_stopped_is_not_accepted(self):
        rows = json.loads((self.results / "root.json").read_text())
        self.put("root.json", json.dumps({**rows, "planned": 4, "interrupted": "SIGTERM"}))
        code, output = self.check(accept=True)
        self.assertEqual(code, 1)
        self.assertIn("root: stopped by SIGTERM after 3 of 4 results\n", output)
        self.assertFalse(self.expected.exists())
        self.assertIn("stopped by SIGTERM", (self.results / "junit.xml").read_text())

    def test_the_page_follows_the_expected_outcomes(self):
        self.check(accept=True)
        page = "\n".join(table.markdown(table.load_all(self.expected.parent)))
        self.assertIn("| COPY, ZEROPAGE, POISON (1) | ✓ |", page)
        self.assertIn("| opening and negotiation (1) | ✓ |", page)
        self.assertIn("| `copy` | ✓ |", page)
        self.assertIn("| this kernel has no x | `copy` | every series |", page)
        self.assertEqual(table.series_key("6.12") > table.series_key("6.9"), True)


if __name__ == "__main__":
    unittest.main()
