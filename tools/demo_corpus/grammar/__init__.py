"""Phrases and clauses of the demo grammar: drawn at random, spelled out in German and in English. Rests on `words`."""
