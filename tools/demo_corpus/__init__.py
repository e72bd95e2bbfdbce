"""The generator of the embedded demo corpus, a small synchronous grammar of German and English.

`words` holds the lemmas, `grammar` builds phrases and clauses of them, `sentences` draws sentences of every kind, and
`corpus` collects them; imports run in the other direction only.
"""

from tools.demo_corpus.corpus import MOST_PAIRS, demo_corpus

__all__ = ["MOST_PAIRS", "demo_corpus"]
