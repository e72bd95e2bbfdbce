"""The embedded demo corpus: German-English sentence pairs written by a small synchronous grammar.

`words` holds the lemmas, `grammar` builds phrases and clauses of them, `sentences` draws sentences of every kind, and
`corpus` collects them; imports run in the other direction only.
"""

from bertkd_ray.corpus.demo.corpus import MOST_PAIRS, demo_corpus

__all__ = ["MOST_PAIRS", "demo_corpus"]
