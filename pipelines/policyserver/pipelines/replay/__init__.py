"""Runs that can be repeated: what a run leaves in its folder, and its replay. Imports `pipelines/` but its demo; pyarrow in a file."""
