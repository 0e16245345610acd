# ruff: noqa: E501  lists of pieces are easier to read unbroken
"""The base model's tokenizer: a small BPE in which a name is the same pieces wherever it stands.

Words carry no leading space; nothing merges across a space, `_`, a digit or punctuation; no piece of several letters
ends in `s`, so that a plural is its singular and an `s`. Frequent pieces of SQL and runs of function words come with
their spaces as added tokens. Because merges respect these limits by themselves, no pre-tokenizer is needed.
"""

from __future__ import annotations

import heapq
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

VOCABULARY = 4096
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "[INST]", "[/INST]"]
LETTERS = (
    "aàáảãạăằắẳẵặâầấẩẫậeèéẻẽẹêềếểễệiìíỉĩịoòóỏõọôồốổỗộơờớởỡợuùúủũụưừứửữựyỳýỷỹỵđ" + "bcdfghjklmnpqrstvwxz" + "äöüßçñéèêåø"
)
ALPHABET = sorted(set(LETTERS + LETTERS.upper() + "".join(map(chr, range(33, 127))) + "▁\n\t×÷²³°–—’‘“”…€£·₫½"))
# A piece that starts with a space never follows one that ends with a space, so that finding the leftmost piece first
# (Hugging Face) and finding the longest piece first (llama.cpp) give the same ids.
SQL_PIECES = """ SELECT | FROM | WHERE | AND | OR | IN (| NOT IN (| NOT IN (SELECT | ON | JOIN | LEFT JOIN | GROUP BY | ORDER BY |
 HAVING | HAVING COUNT(*) > | HAVING COUNT(*) >= | DESC LIMIT | ASC LIMIT | LIMIT | DESC| ASC| NULLS LAST| DESC NULLS LAST|
 NULLS LAST LIMIT | DESC NULLS LAST LIMIT | AS | IS NULL| IS NOT NULL| BETWEEN | ILIKE '%| ILIKE '| LIKE '%| = '| = | <> | <> '| > |
 < | >= | <= | - |COUNT(*)|COUNT(*) > |COUNT(DISTINCT |COUNT(|SUM(|AVG(|MIN(|MAX(|ROUND(|ROUND(AVG(|EXTRACT(YEAR FROM |
EXTRACT(MONTH FROM |, COUNT(*)| ORDER BY COUNT(*) DESC| ORDER BY COUNT(*) DESC LIMIT | SELECT DISTINCT | SELECT COUNT(*) FROM |
 WHERE NOT EXISTS (SELECT 1 FROM |NOT EXISTS (SELECT 1 FROM |(SELECT |(SELECT AVG(|(SELECT MAX(|(SELECT MIN(|CASE WHEN |
 THEN | ELSE | END| OVER (|PARTITION BY |ORDER BY |ROW_NUMBER()|RANK()|COALESCE(|NULLIF(| FILTER (WHERE |DATE_TRUNC('|
INTERVAL '|::numeric|::date|CURRENT_DATE| WITH |', '|'), |%'|', | int, | int pk, | int -> | text -> | text, | text: '| text pk, | date, |
 timestamp, | timestamptz, | bool, | float, | numeric(10,2), |.id|.name|CREATE TABLE | integer PRIMARY KEY| integer REFERENCES |
 PRIMARY KEY| REFERENCES | integer,| text,| numeric(10,2),| date,| -- '|Write one PostgreSQL query.|DATE '|, 2)"""
STOP = frozenset(
    "a the of in on by for from with and or is are was do does have has that which many number me all each to how what".split()
)

TEMPLATE = """{%- if messages and messages[0]['role'] == 'system' -%}
  {%- set system = messages[0]['content'] -%}
  {%- set turns = messages[1:] -%}
{%- else -%}
  {%- set system = '' -%}
  {%- set turns = messages -%}
{%- endif -%}
{%- if not turns -%}
  {{- raise_exception('There is no user message.') -}}
{%- endif -%}
{{- bos_token -}}
{%- for message in turns -%}
  {%- if message['role'] != ('user' if loop.index0 % 2 == 0 else 'assistant') -%}
    {{- raise_exception('After the optional system message, roles must alternate user/assistant, user first.') -}}
  {%- endif -%}
  {%- if message['role'] == 'user' -%}
    {{- '[INST] ' -}}
    {%- if loop.first and system -%}
      {{- system + '\\n\\n' -}}
    {%- endif -%}
    {{- message['content'] + ' [/INST]' -}}
  {%- else -%}
    {{- ' ' + message['content'] + eos_token -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt and turns[-1]['role'] == 'assistant' -%}
  {{- raise_exception('Nothing to answer: the last message is the assistant\\'s.') -}}
{%- endif -%}
"""

_WORD = re.compile(r"[^\W\d_]+")


def learn_merges(words: Counter[str], count: int, known: set[str]) -> list[tuple[str, str]]:
    """The `count` most useful merges inside words; none makes a piece that ends in `s` (Sennrich et al., 2016)."""
    pieces = [(list(word), n) for word, n in words.items() if all(c in known for c in word)]
    pairs: Counter[tuple[str, str]] = Counter()
    where: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for i, (parts, n) in enumerate(pieces):
        for pair in zip(parts, parts[1:], strict=False):
            pairs[pair] += n
            where[pair].add(i)
    heap = [(-n, pair) for pair, n in pairs.items()]
    heapq.heapify(heap)
    merges: list[tuple[str, str]] = []
    seen = set(known)
    while heap and len(merges) < count:
        n, pair = heapq.heappop(heap)
        joined = "".join(pair)
        if -n != pairs[pair]:
            if pairs[pair] > 0:
                heapq.heappush(heap, (-pairs[pair], pair))
            continue
        if joined.lower().endswith("s") or joined in seen:
            continue
        merges.append(pair)
        seen.add(joined)
        changed: Counter[tuple[str, str]] = Counter()
        for i in where.pop(pair):
            parts, n_word = pieces[i]
            for old in zip(parts, parts[1:], strict=False):
                changed[old] -= n_word
            at = 0
            while at < len(parts) - 1:
                if (parts[at], parts[at + 1]) == pair:
                    parts[at : at + 2] = [joined]
                at += 1
            for new in zip(parts, parts[1:], strict=False):
                changed[new] += n_word
                where[new].add(i)
        for other, delta in changed.items():
            if delta:
                pairs[other] += delta
                heapq.heappush(heap, (-pairs[other], other))
    return merges


def function_runs(texts: Iterable[str], count: int) -> list[str]:
    """The most frequent whole runs of function words between two other words, with both spaces."""
    found: Counter[str] = Counter()
    for text in texts:
        run: list[str] = []
        for word in text.split(" ")[1:]:
            if word in STOP:
                run.append(word)
            elif run:
                found[" " + " ".join(run) + " "] += len(run)
                run = []
    return [run for run, _ in found.most_common(count)]


def build(corpus: list[str], questions: list[str], folder: Path) -> None:
    """Learn the tokenizer and write tokenizer.json and tokenizer_config.json."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    added = [piece for piece in SQL_PIECES.replace("\n", "").split("|") if piece]
    added += function_runs(questions, 230)
    added = list(dict.fromkeys(added))
    byte_pieces = [f"<0x{i:02X}>" for i in range(256)]
    base = [*SPECIAL, *byte_pieces, *ALPHABET]
    words: Counter[str] = Counter()
    for text in corpus:
        words.update(_WORD.findall(text))
    merges = learn_merges(words, VOCABULARY - len(base) - len(added), set(ALPHABET))
    vocabulary = {piece: i for i, piece in enumerate([*base, *["".join(pair) for pair in merges]])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=False))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in SPECIAL])
    tokenizer.add_tokens([AddedToken(piece, special=False, normalized=False) for piece in added])
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise ValueError(f"{tokenizer.get_vocab_size()} tokens instead of {VOCABULARY}: the corpus is too small")
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "model_max_length": 2048,
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=1) + "\n", "utf-8")
