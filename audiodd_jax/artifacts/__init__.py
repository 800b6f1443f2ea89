"""The files that users take away: coresets and trained networks."""
