"""Runs the week through the rules of a policy and prints what became of it. See docs/duplicates.md."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from proxy.policy_watch import load_directory

from .judge import Judge
from .table import Results, by_kind, by_story, markdown
from .week import week
from .wording import EVERYDAY, HELD_OUT

CAUGHT_AIM = 0.95
REFUSED_WRONGLY_AIM = 0.001


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.busywork", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of everything that is drawn by chance (default 1)")
    parser.add_argument("--held-out", action="store_true", help="prompts that no rule was ever tried on")
    parser.add_argument("--policies", type=Path, default=Path("policies"), help="directory (default policies)")
    given = parser.parse_args()
    found = load_directory(given.policies, {**os.environ})
    if found.policy is None or found.faults:
        print(*[fault.message for fault in found.faults], sep="\n", file=sys.stderr)
        return 2
    begun_s = time.process_time()
    judge, results = Judge(found.policy), Results()
    for made in week(given.seed, HELD_OUT if given.held_out else EVERYDAY):
        results.add(made, judge.judge(made))
    results.end(judge.repeats)
    calls = sum(each.all_calls for each in results.truths.values())
    print(f"seed {given.seed}, {'held-out' if given.held_out else 'everyday'} wording: {calls:,} calls", end=", ")
    print(f"{time.process_time() - begun_s:.0f} s of CPU\n")
    print(markdown(by_kind(results)), markdown(by_story(results)), sep="\n\n", end="\n\n")
    print(f"Of the money of games beyond first copies {results.caught_share:.1%} is caught (aim: 95 % or more).")
    print(f"Of honest calls {results.wrong_share:.3%} are refused (aim: less than 0.1 %).")
    return 0 if results.caught_share >= CAUGHT_AIM and results.wrong_share < REFUSED_WRONGLY_AIM else 1


if __name__ == "__main__":
    sys.exit(main())
