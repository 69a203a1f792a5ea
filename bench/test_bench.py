"""Tests of what bench/compare is made of, without a server or a peer."""

import glob
import importlib.machinery
import importlib.util
import os
import pathlib
import sys
import tempfile
import unittest

import harness
import table

HERE = pathlib.Path(__file__).resolve().parent
loader = importlib.machinery.SourceFileLoader("compare", str(HERE / "compare"))
compare = importlib.util.module_from_spec(importlib.util.spec_from_loader("compare", loader))
loader.exec_module(compare)

START = '{"message_type": "start", "engine": "e"}'
SUMMARY = '{"message_type": "summary", "seconds": 2, "pages": 4, "failed": 0, "regions": 9}'


def measurement(seconds, regions=100, pages=10):
    return {"seconds": seconds, "pages": pages, "failed": 0, "regions": regions, "cpu": 1, "others": 0}


class Measure(unittest.TestCase):
    def test_tells_what_the_candidate_tells(self):
        found = harness.measure(["sh", "-c", f"echo '{START}'; echo '{SUMMARY}'; cat"], 60)
        self.assertEqual((found["engine"], found["pages"], found["exit_code"]), ("e", 4, 0))

    def test_counts_children_too(self):
        burn = "import time\nwhile time.process_time() < 0.3: pass"
        child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
        tell = "print({!r}, flush=True)\n"
        for stays, body in (
            (True, [tell.format(START), burn, tell.format(SUMMARY), "import sys; sys.stdin.read()"]),
            (True, [tell.format(START), child, tell.format(SUMMARY), "import sys; sys.stdin.read()"]),
            (False, [tell.format(START), tell.format(SUMMARY), child]),
        ):
            found = harness.measure([sys.executable, "-c", "\n".join(body)], 60, stays=stays)
            self.assertGreaterEqual(found["cpu"], 0.2)

    def test_says_why_a_candidate_failed(self):
        with self.assertRaisesRegex(harness.Failure, "exit code 3: no such thing"):
            harness.measure(["sh", "-c", "echo no such thing >&2; exit 3"], 60)
        with self.assertRaisesRegex(harness.Failure, "exit code 0: it says nothing"):
            harness.measure(["sh", "-c", f"echo '{START}'"], 60)

    def test_gives_up_and_leaves_nothing(self):
        left = "/dev/shm/" + harness.region()
        with self.assertRaisesRegex(harness.Failure, "not done after"):
            harness.measure(["sh", "-c", f"echo x > {left}; echo '{START}'; sleep 600 & sleep 600"], 0.3)
        self.assertEqual(glob.glob(left), [])


class Sweep(unittest.TestCase):
    def test_takes_only_what_nobody_owns(self):
        orphan, living = (f"/dev/shm/{harness.PREFIX}{pid}-pages" for pid in (2**22 + 1, 1))
        try:
            for path in (orphan, living):
                pathlib.Path(path).touch()
            harness.sweep()
            self.assertEqual([os.path.exists(path) for path in (orphan, living)], [False, True])
        finally:
            os.unlink(living)


class Figures(unittest.TestCase):
    rounds = {
        "quire": [measurement(1), measurement(2), measurement(1)],
        "slow": [measurement(3), measurement(4), measurement(9)],
        "fails once": [None, measurement(2), measurement(3)],
        "fails": [None, None, None],
    }

    def test_ratio_is_of_the_same_round(self):
        found = table.figures(self.rounds)
        self.assertAlmostEqual(found["slow"]["ratio"], 3)
        self.assertAlmostEqual(found["slow"]["ms_per_page"], 400)
        self.assertAlmostEqual(found["fails once"]["ratio"], 2)
        self.assertNotIn("fails", found)

    def test_tables_have_a_row_for_each(self):
        found = table.figures(self.rounds)
        for text in (table.pipeline(found), table.rendering(found)):
            lines = text.split("\n")
            self.assertEqual(len(lines), 2 + len(found))
            self.assertEqual(len({line.count("|") for line in lines}), 1)

    def test_pages_of_all_rounds_make_the_quartiles(self):
        rounds = {"quire": [measurement(1) | {"each_ms": each} for each in ([1, 2, 3, 4, 5], [6, 7, 8, 9, 100])]}
        pages = table.figures(rounds)["quire"]["page_ms"]
        self.assertEqual((pages["p25"], pages["p50"], pages["p75"]), (2.75, 5.5, 8.25))
        self.assertGreater(pages["p95"], 9)
        self.assertIn("| 2.75 / 5.50 / 8.25 /", table.rendering(table.figures(rounds)))

    def test_other_work_is_noticed(self):
        for change, says in (
            ({"regions": 94}, "they did not do the same"),
            ({"pages": 9}, "did 9 pages, quire 10"),
            ({}, None),
        ):
            found = table.figures({"quire": [measurement(1)], "other": [measurement(1, **change)]})
            complaints = []
            compare.check(found, complaints)
            self.assertEqual(len(complaints), 1 if says else 0)
            if says:
                self.assertIn(says, complaints[0])


class Turns(unittest.TestCase):
    def test_order_rotates_and_a_failure_is_told(self):
        order, complaints = [], []

        def candidate(name):
            def run():
                order.append(name)
                if name == "b":
                    raise harness.Failure("broken")
                return measurement(1)

            return run

        found = compare.take_turns({name: candidate(name) for name in "abc"}, 2, complaints)
        self.assertEqual("".join(order), "abcbca")
        self.assertEqual([m is None for m in found["b"]], [True, True])
        self.assertEqual(complaints, ["b, round 1: broken", "b, round 2: broken"])


class Results(unittest.TestCase):
    def test_names_in_any_case(self):
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder)
            (out / "below").mkdir()
            for number, name in enumerate(["a.pdf.json", "below/B.PDF.json", "below/c.Pdf.json"]):
                (out / name).write_text(str(number))
            (out / "summary.json").write_text("9")
            self.assertEqual(sorted(compare.results(out)), [0, 1, 2])


class Write(unittest.TestCase):
    def test_replaces_between_the_marks(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "README.md"
            path.write_text(f"a\n{compare.BEGIN}\nold\n{compare.END}\nb\n")
            self.assertEqual("new\n".join(compare.around(path)), f"a\n{compare.BEGIN}\nnew\n{compare.END}\nb\n")
            path.write_text("no marks")
            with self.assertRaisesRegex(harness.Failure, "README.md has no lines"):
                compare.around(path)


if __name__ == "__main__":
    compare.say = lambda text: None
    unittest.main()
