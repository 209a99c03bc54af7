"""The pipeline, one module a step; `gate` strings them together."""
