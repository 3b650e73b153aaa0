"""The ways to adapt a Base: to speakers, or to a language by rows, modules or an adapter."""
