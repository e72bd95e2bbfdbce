"""Stores, artifacts and their manifests, locks, and errors of the storage."""
