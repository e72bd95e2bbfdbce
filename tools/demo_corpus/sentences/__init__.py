"""The kinds of sentence of the demo grammar, each a function from a generator to a pair. Rests on `grammar`."""
