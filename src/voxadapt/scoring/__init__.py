"""Score rows of clips: errors, similarity, flags, and the statistics over them."""
