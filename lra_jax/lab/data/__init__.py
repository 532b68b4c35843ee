"""Recorded data: files to tasks."""
