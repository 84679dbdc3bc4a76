"""The exporters: what they say about the figures, in whose words, and whether the real receivers understand it."""
