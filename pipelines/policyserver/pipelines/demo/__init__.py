"""The demo: a server of its own, a terminal view, a page, and the pipeline between them. Imports all of `pipelines/`."""
