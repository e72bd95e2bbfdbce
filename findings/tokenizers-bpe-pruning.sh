#!/usr/bin/env bash
# A subword vocabulary cut to the pieces that a text uses still cuts that text the same way for WordPiece and Unigram, not
# for BPE (tokenizers 0.23.1): BPE reaches a piece through pieces that no text ever shows, and without these it cannot.
#
# Seen: of the same lines, none is segmented differently after pruning WordPiece or Unigram, and some are after BPE; with
# the merges that were applied on the way kept too, none is.
# Who is concerned: whoever prunes a multilingual model's vocabulary to the languages at hand.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check tokenizers==0.23.1
cat > "$place/prune.py" <<'PYTHON'
import json

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

WORDS = "the of and to in is that for it as was with be by on not he this are or his from at which but have an had they you"
STEMS = [a + b for a in ("un", "re", "over", "under", "inter", "trans", "sub", "dis") for b in ("act", "form", "port", "press", "late", "view")]
TRAIN = [f"{w} {s}ing {s}ed {s} {w}" for w in WORDS.split() for s in STEMS]
TEXT = [f"{s}ing {w} {t}ed" for s, w, t in zip(STEMS, WORDS.split() * 2, reversed(STEMS))]


def trained(model, trainer):
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.train_from_iterator(TRAIN, trainer)
    return tokenizer


def pieces(tokenizer):
    return [tokenizer.encode(line).tokens for line in TEXT]


def rebuilt(tokenizer, change):
    tree = json.loads(tokenizer.to_str())
    change(tree["model"])
    return Tokenizer.from_str(json.dumps(tree))


def differing(tokenizer, change):
    return sum(a != b for a, b in zip(pieces(tokenizer), pieces(rebuilt(tokenizer, change))))


def used(tokenizer):
    return {piece for line in pieces(tokenizer) for piece in line}


def renumbered(names):
    return {name: number for number, name in enumerate(sorted(names))}


wordpiece = trained(models.WordPiece(unk_token="[UNK]"), trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]"], show_progress=False))
unigram = trained(models.Unigram(), trainers.UnigramTrainer(vocab_size=400, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False))
bpe = trained(models.BPE(unk_token="<unk>"), trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>"], show_progress=False))


def prune_wordpiece(model):
    model["vocab"] = renumbered(used(wordpiece) | {"[UNK]"})


def prune_unigram(model):
    kept = used(unigram) | {"<unk>"}
    model["vocab"] = [item for item in model["vocab"] if item[0] in kept]
    model["unk_id"] = [item[0] for item in model["vocab"]].index("<unk>")


def prune_bpe(model, kept=None):
    kept = (used(bpe) if kept is None else kept) | {"<unk>"}
    model["merges"] = [m for m in model["merges"] if {m[0], m[1], m[0] + m[1]} <= kept]
    model["vocab"] = renumbered(kept)


def with_intermediate_pieces(model):
    kept, merges = used(bpe), {a + b: (a, b) for a, b in model["merges"]}
    todo = list(kept)
    while todo:
        parts = merges.get(todo.pop(), ())
        todo += [part for part in parts if part not in kept]
        kept |= set(parts)
    prune_bpe(model, kept)


for name, tokenizer, change in (
    ("WordPiece", wordpiece, prune_wordpiece),
    ("Unigram", unigram, prune_unigram),
    ("BPE", bpe, prune_bpe),
    ("BPE with intermediate pieces", bpe, with_intermediate_pieces),
):
    count = differing(tokenizer, change)
    print(f"{name}: {'none' if count == 0 else 'some'} of {len(TEXT)} lines differ")
PYTHON
"$place/venv/bin/python" "$place/prune.py" > "$place/seen"
cat "$place/seen"
diff "$place/seen" - <<'EXPECTED'
WordPiece: none of 48 lines differ
Unigram: none of 48 lines differ
BPE: some of 48 lines differ
BPE with intermediate pieces: none of 48 lines differ
EXPECTED
