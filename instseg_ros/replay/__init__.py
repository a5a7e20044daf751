"""The parts of `instseg replay`: a recorded bag through the pipeline, in this process or through topics, and what it came to."""
