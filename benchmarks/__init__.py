"""How fast every stage is, against the plain way to do the same and against the machine's own limit."""
