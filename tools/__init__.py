"""What writes files of the package; not part of it."""
