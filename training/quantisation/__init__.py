"""From float to int8: ranges of activations by calibration or by training, and the graph that holds them."""
