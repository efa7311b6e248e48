"""How all that a caller sees is asked for, made the same in every run, and compared; `tests.recording` uses it."""
