"""The live page: a small web server that shows an embedded store while it grows."""
