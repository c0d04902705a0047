"""Record what oscillates: the recorder, recordings in a file, and the tables drawn from them."""
