#!/usr/bin/env python3
"""Writes pipelines/data/arithmetic.jsonl: the project's own small benchmark.

Sums, differences and products of small numbers and one-step word problems, in
a fixed order (a linear congruential generator, so that any Python gives the
same file). Every block of eight items holds two of each form, so that a
`limit` keeps the mixture.
"""

import json
from pathlib import Path

STATE = 20250408


def below(n):
    global STATE
    STATE = (STATE * 6364136223846793005 + 1442695040888963407) % 2**64
    return (STATE >> 33) % n


NAMES = ["Ana", "Ben", "Chi", "Dov", "Eli", "Fay", "Gus", "Hua"]
THINGS = ["apples", "books", "coins", "stamps", "pens", "shells"]


def item(form):
    if form == 0:
        a, b = 2 + below(18), 2 + below(18)
        return f"What is {a} + {b}?", a + b
    if form == 1:
        a, b = 8 + below(22), 1 + below(8)
        return f"What is {a} - {b}?", a - b
    if form == 2:
        a, b = 2 + below(9), 2 + below(9)
        return f"What is {a} times {b}?", a * b
    a, b = 3 + below(12), 1 + below(9)
    name, thing = NAMES[below(8)], THINGS[below(6)]
    return f"{name} has {a} {thing} and gets {b} more. How many {thing} does {name} have now?", a + b


def main():
    seen, lines = set(), []
    while len(lines) < 128:
        question, answer = item(len(lines) % 4)
        if question in seen:
            continue
        seen.add(question)
        lines.append(json.dumps({"id": f"arith-{len(lines):03d}", "question": question, "answer": str(answer)}))
    path = Path(__file__).resolve().parent.parent / "pipelines" / "data" / "arithmetic.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


main()
