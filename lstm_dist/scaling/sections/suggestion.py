"""The part that all suggested commands share."""

WORKERS = "--workers 1,2,4"
