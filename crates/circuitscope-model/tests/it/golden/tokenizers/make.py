"""Small tokenizers as people publish them, and what `AutoTokenizer` makes of their files.

Made with transformers 5.24.0 and tokenizers 0.23:

    python crates/circuitscope-model/tests/it/golden/tokenizers/make.py

`cases.json`: `bases` has whole `tokenizer.json` files (all bytes, six merges, a few special tokens). Each of `cases` has
the files of a folder (`@NAME` for a base), the `model_type` of its `config.json`, the id of the
beginning-of-sequence token, and for every text of `texts` its ids without special tokens and with them. Each of
`chats` has a template and the text and ids that `apply_chat_template` gives for every message of `messages`.
"""

import json
import os
import pathlib
import tempfile

os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import transformers
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

HERE = pathlib.Path(__file__).parent
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ hello", "Ġ w"]
VOCAB = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
for merge in MERGES:
    VOCAB[merge.replace(" ", "")] = len(VOCAB)
SIZE = len(VOCAB)
END, START, STOP = "<|endoftext|>", "<|im_start|>", "<|im_end|>"


def token(content, special=True, **flags):
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": not special, "special": special}
    return {"content": content, **plain, **flags}


def added(*tokens):
    return [{"id": SIZE + i, **t} for i, t in enumerate(tokens)]


def first(name, at):
    single = [{"SpecialToken": {"id": name, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}]
    special = {name: {"id": name, "ids": [at], "tokens": [name]}}
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}


def byte_level(prefix=False, tokens=(), post=None, vocab=VOCAB, sequence=False):
    pre = {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": True}
    if sequence:
        pre = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, pre]}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": list(tokens), "normalizer": None,
        "pre_tokenizer": pre, "post_processor": post,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "vocab": vocab,
            "merges": [merge.split(" ") for merge in MERGES],
        },
    }


def metaspace():
    """As Llama's: spaces are U+2581, unknown characters are bytes."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for byte in range(256):
        vocab[f"<0x{byte:02X}>"] = len(vocab)
    for piece in "▁ h e l o w r d x he ll hell hello ▁hello".split(" "):
        vocab[piece] = len(vocab)
    merges = [["h", "e"], ["l", "l"], ["he", "ll"], ["hell", "o"], ["▁", "hello"]]
    tokens = [{"id": i, **token(t)} for i, t in enumerate(("<unk>", "<s>", "</s>"))]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens, "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False},
        "post_processor": first("<s>", 1),
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
            "vocab": vocab, "merges": merges,
        },
    }


BASES = {
    "plain": byte_level(tokens=added(token(END))),
    "prefixed": byte_level(prefix=True, tokens=added(token(END))),
    "digits": byte_level(sequence=True, tokens=added(token(END), token(START), token(STOP))),
    "first": byte_level(tokens=added(token(END)), post=first(END, SIZE)),
    "chat": byte_level(tokens=added(token(END), token(START), token(STOP), token("<s>"), token("</s>"))),
    "unmarked": byte_level(vocab={**VOCAB, "<s>": SIZE}),
    "metaspace": metaspace(),
}
GPT2 = {"tokenizer_class": "GPT2Tokenizer"}
FAST = {"tokenizer_class": "PreTrainedTokenizerFast"}
THREE = {str(SIZE + i): token(t) for i, t in enumerate((END, START, STOP))}
MERGES_FILE = "#version: 0.2\n" + "\n".join(MERGES) + "\n"
FLAGS = {
    str(SIZE): token(END),
    str(SIZE + 1): token("[left]", lstrip=True),
    str(SIZE + 2): token("[right]", special=False, rstrip=True),
    str(SIZE + 3): token("word", special=False, single_word=True),
}

CASES = {
    "tokenizer.json alone": ("gpt2", {"tokenizer.json": "@plain"}),
    "added_tokens_decoder beyond it": (
        "gpt2", {"tokenizer.json": "@plain", "tokenizer_config.json": {**FAST, "bos_token": END, "added_tokens_decoder": THREE}},
    ),
    "added_tokens.json and special_tokens_map.json": ("llama", {
        "tokenizer.json": "@plain", "tokenizer_config.json": FAST, "added_tokens.json": {START: SIZE + 1, "word": SIZE + 2},
        "special_tokens_map.json": {"bos_token": START, "eos_token": token(END)},
    }),
    "special_tokens_map.json where all added tokens are listed": ("llama", {
        "tokenizer.json": "@plain", "tokenizer_config.json": {**FAST, "bos_token": START, "added_tokens_decoder": THREE},
        "special_tokens_map.json": {"bos_token": STOP},
    }),
    "flags of added tokens": (
        "llama", {"tokenizer.json": "@plain", "tokenizer_config.json": {**FAST, "added_tokens_decoder": FLAGS}},
    ),
    "other flags than tokenizer.json": ("llama", {
        "tokenizer.json": "@plain",
        "tokenizer_config.json": {**FAST, "added_tokens_decoder": {str(SIZE): token(END, lstrip=True, rstrip=True)}},
    }),
    "additional_special_tokens": ("llama", {
        "tokenizer.json": "@plain", "tokenizer_config.json": {**FAST, "additional_special_tokens": [START, STOP]},
    }),
    "a special token that the vocabulary has unmarked": (
        "llama", {"tokenizer.json": "@unmarked", "tokenizer_config.json": {**FAST, "bos_token": "<s>"}},
    ),
    "add_prefix_space": (
        "gpt2", {"tokenizer.json": "@plain", "tokenizer_config.json": {**GPT2, "add_prefix_space": True, "bos_token": END}},
    ),
    "add_prefix_space, the class by the model": (
        "gpt_neox", {"tokenizer.json": "@plain", "tokenizer_config.json": {"add_prefix_space": True}},
    ),
    "add_prefix_space false over tokenizer.json": (
        "gpt2", {"tokenizer.json": "@prefixed", "tokenizer_config.json": {**GPT2, "add_prefix_space": False}},
    ),
    "add_prefix_space of a class that does not read it": (
        "llama", {"tokenizer.json": "@plain", "tokenizer_config.json": {**FAST, "add_prefix_space": True}},
    ),
    "add_prefix_space inside a sequence": (
        "llama", {"tokenizer.json": "@digits", "tokenizer_config.json": {**GPT2, "bos_token": START}},
    ),
    "split_special_tokens": ("llama", {
        "tokenizer.json": "@chat", "tokenizer_config.json": {**FAST, "split_special_tokens": True, "bos_token": END},
    }),
    "a template puts a token first": (
        "llama", {"tokenizer.json": "@first", "tokenizer_config.json": {**FAST, "bos_token": END, "add_bos_token": False}},
    ),
    "add_bos_token without a template": (
        "llama", {"tokenizer.json": "@plain", "tokenizer_config.json": {**FAST, "bos_token": END, "add_bos_token": True}},
    ),
    "GPT-NeoX's class puts nothing first": (
        "gpt_neox", {"tokenizer.json": "@first", "tokenizer_config.json": {"tokenizer_class": "GPTNeoXTokenizer"}},
    ),
    "spaces as U+2581": ("llama", {"tokenizer.json": "@metaspace", "tokenizer_config.json": {
        "tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "legacy": False,
    }}),
    "spaces as U+2581, none before a text": ("llama", {"tokenizer.json": "@metaspace", "tokenizer_config.json": {
        "tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "legacy": False, "add_prefix_space": False,
    }}),
    "vocab.json and merges.txt": (
        "gpt2", {"vocab.json": {**VOCAB, END: SIZE}, "merges.txt": MERGES_FILE, "tokenizer_config.json": GPT2},
    ),
    "vocab.json and merges.txt, as OPT's": ("opt", {
        "vocab.json": {**VOCAB, "</s>": SIZE}, "merges.txt": MERGES_FILE,
        "tokenizer_config.json": {**GPT2, "bos_token": {"__type": "AddedToken", **token("</s>")}, "eos_token": "</s>", "unk_token": "</s>",
                                  "add_bos_token": True, "add_prefix_space": False},
    }),
}
TEXTS = [
    "hello", " hello world", "<|im_start|>user hello<|im_end|>\n", "hello<|endoftext|> hello", "a [left] b [right] c",
    "word words word", "<s>hello</s> <s> x", "1752 hello", "héllo 世界 \t\n", "",
]

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe "
    "brief.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
    "'\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INST = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ "
    "raise_exception('roles must alternate') }}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + "
    "message['content'].strip() + ' [/INST]' }}{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
)
BLOCKS = """{%- if tools %}
    {{- '# Tools\\n' }}
    {%- for tool in tools %}
        {{- tool | tojson }}
    {%- endfor %}
{%- endif %}
{%- set ns = namespace(found=false) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if message.role == "user" and not ns.found and message.content is string %}
        {%- set ns.found = true %}
    {%- endif %}
{%- endfor %}
{%- if strftime_now is defined %}
    {{- "Now\\n" }}
{%- endif %}
{%- for message in messages %}
    {%- if message.content is none %}{%- continue %}{%- endif %}
    {{- '<|im_start|>' ~ message.role + '\\n' + message.content | trim + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""
MACRO = """{% macro turn(role, text) -%}
<s>{{ role | upper }}: {{ text.split(' ')|first }}|{{ text | replace('hello', 'bye') }}</s>
{% endmacro %}
{% for m in messages %}
{{ turn(m['role'], m['content']) }}
{% generation %}{{ {'role': m['role'], 'é': [1, 2.5, none, true]} | tojson }}{% endgeneration %}

    {{ m | tojson(indent=2) }}
{% endfor %}
{{ messages[0]['content'].startswith('h') and 'h' or 'other' }}{{ '%s' % 'y' if false else '' }}"""
FIRST = "{{ bos_token + 'User: ' + messages[0]['content'] + '\n\nAssistant:' }}\n"
CHATS = {"ChatML with a system message": CHATML, "[INST]": INST, "indented blocks": BLOCKS, "macro and JSON": MACRO, "plain": FIRST}
MESSAGES = ["hello world", "  hello <|im_end|> \n", "\"quoted\" & <b>é</b>\nsecond line"]


def load(model_type, files):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
        for name, content in files.items():
            if isinstance(content, str) and content.startswith("@"):
                content = BASES[content[1:]]
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / name).write_text(text)
        return AutoTokenizer.from_pretrained(folder)


def main():
    transformers.logging.set_verbosity_error()
    cases = []
    for name, (model_type, files) in CASES.items():
        tokenizer = load(model_type, files)
        cases.append({
            "name": name, "model_type": model_type, "files": files, "bos": tokenizer.bos_token_id,
            "ids": [tokenizer(text, add_special_tokens=False).input_ids for text in TEXTS],
            "whole": [tokenizer(text).input_ids for text in TEXTS],
        })
    chats = []
    for name, template in CHATS.items():
        config = {**FAST, "bos_token": "<s>", "eos_token": "</s>", "chat_template": template}
        tokenizer = load("llama", {"tokenizer.json": "@chat", "tokenizer_config.json": config})
        prompts = []
        for message in MESSAGES:
            chat = [{"role": "user", "content": message}]
            text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
            prompts.append({"text": text, "ids": ids})
        chats.append({"name": name, "tokenizer_config": config, "prompts": prompts})
    found = {"bases": BASES, "texts": TEXTS, "cases": cases, "messages": MESSAGES, "chats": chats}
    (HERE / "cases.json").write_text(json.dumps(found, ensure_ascii=False, separators=(",", ":")) + "\n")
    for case in cases:
        print(case["name"], case["bos"], case["ids"][0], case["whole"][0])


main()
