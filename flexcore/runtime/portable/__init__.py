"""Steps that run the same anywhere: their parameters, the program that runs them far away, and how it tells the end."""
