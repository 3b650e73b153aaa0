"""The model room: loading, special ids, sequence layout, forward pass, freezing, checkpoints."""
