"""Everything that depends on which event loop runs, and nothing else of it anywhere."""
