"""Many runs planned in a file, each in its own run directory."""
