"""Sections of the scaling report, one file each: paragraphs, tables, pictures and what was not measured."""
