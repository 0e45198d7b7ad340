"""What the site shows of the code: generators of Markdown, and the part of Sphinx's build that runs them."""
