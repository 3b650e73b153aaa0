"""What every part rests on: parameters, paths, errors, files, provenance, launch, executor."""
