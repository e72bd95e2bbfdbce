"""The words of the demo grammar: tables of lemmas, and the inflection of one word alone. Nothing here is random."""
