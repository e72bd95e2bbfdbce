"""Stores, artifacts and their manifests, locks, and what a storage refuses."""
