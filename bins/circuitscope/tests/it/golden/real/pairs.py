"""Writes `ioi.jsonl` and `greater_than.jsonl`: 20 matched pairs each, with explicit answers.

    python bins/circuitscope/tests/it/golden/real/pairs.py

They are committed, so that a change of the program's own generators changes no golden.

- Indirect object (Wang et al. 2022): the negative names a third person where the positive repeats one. The
  answer is the person who is named once.
- Greater than (Hanna et al. 2023), for tokenizers that write years digit by digit: the decade's digit is asked.
  Right are the digits above the year's own, wrong those below it; its own digit may go either way and counts for
  neither. The negative's decade is 0.
"""

import json
import pathlib
import random

HERE = pathlib.Path(__file__).parent
NAMES = "Mary John Tom James David Sarah Michael Robert Anna Laura Peter Paul Mark Kate Alice Emma".split()
FIRST = [
    "When {a} and {b} went to the {place}, {c} gave a {thing} to",
    "Then, {a} and {b} had a long day at the {place}. Afterwards {c} handed a {thing} to",
    "{a} and {b} were working at the {place}, and {c} decided to give a {thing} to",
]
PLACES, THINGS = "store garden school office hospital station".split(), "drink book ring basket computer".split()
NOUNS = "war trial journey project siege voyage strike famine dispute programme".split()


def main() -> None:
    draw = random.Random(20)
    ioi = []
    for at in range(20):
        a, b, other = draw.sample(NAMES, 3)
        place, thing = draw.choice(PLACES), draw.choice(THINGS)
        giver = [b, a][at % 2]
        receiver = a if giver == b else b
        text = FIRST[at % len(FIRST)]
        prompt = lambda c: text.format(a=a, b=b, c=c, place=place, thing=thing)
        ioi.append({
            "positive": prompt(giver), "negative": prompt(other),
            "answers": [f" {receiver}"], "wrong_answers": [f" {giver}"],
        })
    years = []
    for at in range(20):
        noun, century, decade, year = NOUNS[at % len(NOUNS)], draw.choice([15, 16, 17, 18]), 2 + at % 6, draw.randrange(2, 9)
        prompt = lambda decade: f"The {noun} lasted from the year {century}{decade}{year} to the year {century}"
        years.append({
            "positive": prompt(decade), "negative": prompt(0),
            "answers": [str(digit) for digit in range(decade + 1, 10)],
            "wrong_answers": [str(digit) for digit in range(decade)],
        })
    for name, pairs in [("ioi", ioi), ("greater_than", years)]:
        lines = [json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs]
        (HERE / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
