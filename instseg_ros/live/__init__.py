"""Real nodes as processes, a stage that hears and records what they publish, and what can be read from the record."""
