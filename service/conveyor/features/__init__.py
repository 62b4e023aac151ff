"""Text and numbers to arrays and back; numpy, no torch. Serving and training use the same code."""
