"""The stages of a language: a Base model learns to read and speak it."""
