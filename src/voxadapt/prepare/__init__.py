"""A data folder from loose recordings, sentences, or a corpus in another layout."""
