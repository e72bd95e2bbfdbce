"""The pipeline: its stages, a session of them, studies and their scheduler."""
