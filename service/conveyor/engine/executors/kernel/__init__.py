"""An LSTM kernel of our own, in C."""
