#!/usr/bin/env python3
"""Prints the folder of a stage's output from the JSON of `genius run --json`.

    genius run PIPELINE --json | output.py STAGE OUTPUT
"""

import json
import sys

stage, output = sys.argv[1:]
text = sys.stdin.read().strip()
if not text:
    sys.exit("output.py: the run printed no JSON; its error stands above")
report = json.loads(text.splitlines()[-1])
found = next((s for s in report["stages"] if s["stage"] == stage), None)
if found is None or output not in found["outputs"]:
    sys.exit(f"output.py: the run has no output `{output}` of stage `{stage}`")
print(found["outputs"][output])
