"""The codec room: audio to codes and back, and the store between stages."""
