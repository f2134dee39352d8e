"""Rendering for people: pictures, charts, numbers and templates."""
