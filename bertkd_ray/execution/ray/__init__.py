"""Execution under Ray: sessions, maps and trainings."""
