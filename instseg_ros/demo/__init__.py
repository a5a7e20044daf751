"""The parts of `instseg demo`: real nodes as processes, what they publish as a bag, and what can be said of it."""
