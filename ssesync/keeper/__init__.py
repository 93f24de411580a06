"""The keeper: passing detached clients to another process, a sibling worker or one that outlives the workers."""
